"""`run-again.sh` starts a driver again where that helps, and only there. The driver is played by a script."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import cluster

SCRIPT = Path(cluster.__file__).parent / "run-again.sh"

DRIVER = """#!{python}
import os, pathlib, signal, sys
log = pathlib.Path({log!r})
done = log.read_text().splitlines() if log.exists() else []
log.write_text("\\n".join([*done, " ".join(sys.argv[1:])]))
ends = {ends}
end = ends[min(len(done), len(ends) - 1)]
if end < 0:
    os.kill(os.getpid(), -end)
sys.exit(end)
"""


@pytest.fixture
def run(tmp_path):
    """run(exit codes, a signal's number with a minus) -> exit code of the script, its starts of the driver."""

    def call(*ends):
        log = tmp_path / "log"
        (tmp_path / "transkd").write_text(DRIVER.format(python=sys.executable + " -IS", log=str(log), ends=ends))
        (tmp_path / "transkd").chmod(0o755)
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TRANSKD_AGAIN_AFTER_S": "0"}
        done = subprocess.run(
            ["bash", SCRIPT, "demo", "--cluster", "aws"], env=env, capture_output=True, timeout=540, check=False
        )
        return done.returncode, log.read_text().splitlines()

    return call


@pytest.mark.parametrize(
    ("ends", "code", "starts"),
    [
        ((0,), 0, 1),
        ((2,), 2, 1),
        ((3,), 3, 1),
        ((130,), 130, 1),
        ((127,), 127, 1),
        ((-9, -9, 0), 0, 3),
        ((1, -15, 2), 2, 3),
        ((4, 2, 2, 4, 0), 0, 5),
    ],
)
def test_a_driver_that_died_is_started_again_and_one_that_ended_is_not(run, ends, code, starts):
    assert run(*ends) == (code, ["run demo --cluster aws"] * starts)


@pytest.mark.parametrize(("end", "code", "starts"), [(1, 1, 4), pytest.param(-9, 137, 21, marks=pytest.mark.slow)])
def test_it_gives_up(run, end, code, starts):
    assert run(end) == (code, ["run demo --cluster aws"] * starts)


def test_the_page_has_the_exit_codes_that_the_script_acts_on():
    page = (SCRIPT.parents[1] / "docs" / "clusters.md").read_text()
    again = [row for row in page.splitlines() if row.startswith("| ") and row.endswith("| yes |")]
    assert [row.split("|")[1].strip() for row in again] == ["1", "4", "above 130"]
