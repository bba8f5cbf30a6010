# make demo: set up and run the demo study.  make test: set up and pass the tests.  make check: before every commit.  make bench: ratios side by side.  make matrix: the corners of the versions.  make coverage: branches that tests run.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
STUDY  ?= demo
PACKAGES := ablations cluster orchestrator trainer

# Processes of tests have one thread each; one that has done its share takes tests from another. Bytecode is kept
# whatever the surroundings say: tests start Python often.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q --durations=20 --dist worksteal
A_CORE := -n logical --maxprocesses 4
NOTE    = @begun=$$(date +%s); $(MAKE) --no-print-directory $(1) && echo "make $@: $$(( $$(date +%s) - begun )) s"

.PHONY: setup demo bench matrix test tests check static fast coverage lock clean
.DEFAULT_GOAL := help

help:
	@sed -n 1p Makefile

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=/path/to/python3.11 ..."; exit 2; }
	@echo "setting up $(VENV): about 3 minutes and 5 GB, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: setup
	@$(BIN)/transkd run $(STUDY)

bench: setup
	@$(BIN)/python benchmarks/bench.py --write

matrix: setup
	@$(BIN)/python benchmarks/matrix.py --write

test: setup
	$(call NOTE,tests)

# Both groups are run, also where the first fails; only files with tests of the second are read for it. What failed is
# tried once more, alone: on a busy machine Ray or a database may need longer than they themselves allow.
tests:
	@$(PYTEST) $(A_CORE) --cache-clear -m 'not ray'; first=$$?; \
	$(PYTEST) -n 2 -m ray $$(grep -rl --include='*.py' 'mark\.ray' tests); second=$$?; \
	test $$first$$second = 00 || { test $$first -le 1 && test $$second -le 1 && \
	  echo "trying once more, alone, what failed above" && $(PYTEST) -x -m '' --last-failed; }

check: setup
	$(call NOTE,static fast)

static: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint cluster/Dockerfile

fast: setup
	$(PYTEST) $(A_CORE)

coverage: setup
	$(PYTEST) $(A_CORE) --cov --cov-report=term:skip-covered -m 'not ray'

lock: setup
	@{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip list --format=freeze --exclude transkd --exclude pip --exclude setuptools; } > constraints.new
	@mv constraints.new constraints.txt

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
