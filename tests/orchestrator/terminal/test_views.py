"""What whoever watches a study sees: lines in a file, a calm block on a terminal."""

import io
import re
import time
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from ablations.study.plan import expand
from ablations.study.schema import load
from orchestrator.state.progress import epochs_of
from orchestrator.state.study_state import StudyState
from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.terminal import log_lines
from orchestrator.terminal.live_view import Live, view
from orchestrator.terminal.log_lines import Lines, StudyProgress
from orchestrator.verbs.status import status

ARMS = ("alone", "A method whose name is rather long for a terminal of eighty columns")
STUDY = {
    "name": "watched",
    "base": {
        "data": {"name": "scenes", "size": [64, 128], "options": {"train": 16, "val": 8, "size": [64, 128]}},
        "student": {"name": "segformer_tiny"},
        "optim": {"epochs": 10, "global_batch": 8},
        "distill": {},
    },
    "variants": {ARMS[0]: {}, ARMS[1]: {"optim.lr": 1.0e-3}},
    "seeds": 2,
}


class Driven:
    """A study whose runs a test moves: the ledger is told first, then the view, as RunCallbacks does."""

    def __init__(self, folder):
        (folder / "watched.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
        self.study, self.store = load(str(folder / "watched.yaml")), Store(folder / "store")
        self.keys = {(run.arm, run.seed): run.key for run in expand(self.study)}
        self.ledger = Ledger(self.store.ledger)
        self.views = []

    def progress(self):
        return StudyProgress(StudyState(self.study, self.ledger))

    def job(self, arm, seed):
        run = SimpleNamespace(arm=arm, seed=seed, role="arm")
        return SimpleNamespace(run_id=f"{arm}{seed}", run=run, label=f"{arm} seed {seed}", epochs=10)

    def start(self, arm, seed):
        job = self.job(arm, seed)
        place = {"study": "watched", "arm": arm, "seed": seed, "role": "arm", "key": self.keys[arm, seed]}
        self.ledger.append({"event": "started", "run_id": job.run_id, **place})
        for each in self.views:
            each.started(job)

    def retry(self, arm, seed, **why):
        self.ledger.append({"event": "retried", "run_id": f"{arm}{seed}", **why})

    def train(self, arm, seed, *epochs, miou=40.0):
        job = self.job(arm, seed)
        for epoch in epochs:
            metrics = {"epoch": epoch, "val/miou": miou + epoch, "loss": 1 / epoch, "seconds": 30.0}
            self.ledger.append({"event": "epoch", "run_id": job.run_id, "metrics": metrics})
            for each in self.views:
                each.epoch(job, metrics)

    def end(self, arm, seed, status, note="", **facts):
        job = self.job(arm, seed)
        facts = {"last": {"val/miou": 50.0}, **facts} if status == "finished" else facts
        self.ledger.append({"event": status, "run_id": job.run_id, "key": self.keys[arm, seed], **facts})
        for each in self.views:
            each.ended(job, status, note)


@pytest.fixture
def driven(tmp_path):
    return Driven(tmp_path)


@pytest.fixture
def lines(driven):
    """lines(): what was said so far, without the time."""
    out = io.StringIO()
    driven.views.append(view(Console(file=out), driven.progress()))
    assert isinstance(driven.views[0], Lines)
    return lambda: [line[9:] for line in out.getvalue().splitlines()]


def test_a_file_gets_a_line_a_change_and_no_codes(driven, lines):
    for seed in (0, 1):
        for arm in ARMS:
            driven.start(arm, seed)
            driven.train(arm, seed, *range(1, 11))
            driven.end(arm, seed, "finished", "mIoU 50.00  300 s")
    assert len(lines()) == 8
    assert lines()[:3] == [
        "        alone seed 0: started",
        "  1/4   alone seed 0: finished  mIoU 50.00  300 s  about 15 min left",
        f"        {ARMS[1]} seed 0: started",
    ]
    assert lines()[-1] == f"  4/4   {ARMS[1]} seed 1: finished  mIoU 50.00  300 s"
    assert not re.search(r"[\x1b\r]", "\n".join(lines()))


def test_a_failure_names_its_cause_and_another_attempt_what_came_before(driven, lines):
    driven.start("alone", 0)
    driven.train("alone", 0, 1)
    driven.retry("alone", 0, cause="lost", reason="its worker died")
    driven.start("alone", 0)
    driven.retry("alone", 0, cause="memory", reason="full", micro_batch=4)
    driven.train("alone", 0, 2, 3)
    driven.end("alone", 0, "failed", cause="nan", reason="loss/ce is not finite at step 7")
    assert [line.strip() for line in lines()[1:]] == [
        "alone seed 0: goes on after epoch 1, again after a lost worker, attempt 3",
        "alone seed 0: again after too little memory, attempt 4, micro-batch 4",
        "1/4   alone seed 0: failed  nan: loss/ce is not finite at step 7  about 15 min left",
    ]


def test_a_study_that_goes_on_is_mentioned_after_a_while(driven, lines, monkeypatch):
    now = SimpleNamespace(s=1000.0)
    clock = SimpleNamespace(monotonic=lambda: now.s, strftime=lambda pattern: "12:00:00")
    driven.start("alone", 0)
    driven.start(ARMS[1], 0)
    monkeypatch.setattr(log_lines, "time", clock)
    driven.views[0]._spoke = now.s
    for epoch in (1, 2, 3):
        now.s += 9
        driven.train("alone", 0, epoch)
        driven.train(ARMS[1], 0, epoch)
    (line,) = lines()[2:]
    assert line == (
        f"        5/40 epochs  alone seed 0 3/10, {ARMS[1]} seed 0 2/10  best val/miou 43.00 (alone seed 0)  "
        "about 9 min left"
    )


def test_runs_that_share_a_process_share_its_time(driven):
    progress = driven.progress()
    for arm in ARMS:
        driven.start(arm, 0)
        driven.train(arm, 0, 1)
        progress.change(driven.job(arm, 0), "running")
    assert progress.left == "about 10 min left", "38 epochs of 30 s, two at once"
    progress.slots, progress._left_until = 1, 0.0
    assert progress.left == "about 19 min left"


def test_a_phase_begins_with_what_stands_already_and_nothing_trains_yet(driven):
    driven.start("alone", 0)
    driven.train("alone", 0, 1)
    driven.start("alone", 1)
    driven.train("alone", 1, *range(1, 11))
    driven.end("alone", 1, "finished", last={})
    with driven.store.leases.study("watched"):
        progress = driven.progress()
    assert progress.running == []
    assert (progress.ended, progress.count("waiting"), progress.count("missing")) == (1, 1, 2)
    assert epochs_of(progress.runs.values()) == (11, 40)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_the_whole_and_each_run_that_trains(driven, width):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, height=30)
    live = view(console, driven.progress())
    assert isinstance(live, Live)
    driven.views.append(live)
    with live:
        driven.start("alone", 0)
        driven.train("alone", 0, *range(1, 11))
        driven.end("alone", 0, "finished", "mIoU 50.00  300 s")
        driven.start("alone", 1)
        driven.end("alone", 1, "failed", cause="nan", reason="loss/ce is not finite at step 7")
        for seed in (0, 1):
            driven.start(ARMS[1], seed)
            driven.train(ARMS[1], seed, 1, 2)
        driven.retry(ARMS[1], 1, cause="lost", reason="died")
        driven.train(ARMS[1], 1, 3)
        live.progress._left_until = 0.0  # a busy machine computes the time left less often
        screen = Console(file=io.StringIO(), width=width)
        screen.print(live.render())
    shown = [line.rstrip() for line in screen.file.getvalue().splitlines()]
    assert all(len(line) <= width for line in shown)
    assert re.fullmatch(r"  A method.*\S seed 0  [━╸╺ ]+ +2/10  val/miou 42\.0  loss 0\.500", shown[1])
    assert re.fullmatch(r"  A method.*\S seed 1  [━╸╺ ]+ +3/10  val/miou 43\.0  loss 0\.333", shown[2])
    assert shown[3].endswith("seed 1: again after a lost worker, attempt 2") or width == 80
    assert shown[-2].endswith("2/4 runs  15/30 epochs  about 4 min left")
    assert shown[-1] == "best val/miou 50.00 (alone seed 0)  1 failed"
    written = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "✓ alone seed 0 mIoU 50.00  300 s" in written
    assert "✗ alone seed 1 nan: loss/ce is not finite at step 7" in written


def test_a_run_that_waits_for_a_verdict_has_no_line_and_is_not_over(driven):
    live = Live(Console(file=io.StringIO(), force_terminal=True, width=80), driven.progress())
    driven.views.append(live)
    driven.start("alone", 0)
    driven.train("alone", 0, 1, 2)
    live.waits(driven.job("alone", 0))
    assert live.progress.running == [] and live.progress.ended == 0
    assert live.progress.count("waiting") == 1


def test_status_says_from_another_shell_what_trains_what_is_best_and_why_runs_failed(driven, tmp_path, capsys):
    def said():
        status(str(tmp_path / "watched.yaml"), store=driven.store.root)
        return capsys.readouterr().out.splitlines()

    with driven.store.leases.study("watched"):
        driven.start("alone", 0)
        assert re.fullmatch(r"watched: 4 runs: 1 running, 3 missing; driver: pid \d+ on .*", said()[0])
        assert said()[1:] == ["  alone seed 0: running at epoch 0/10"]
        driven.train("alone", 0, 1, 2)
        driven.retry("alone", 0, cause="lost", reason="died")
        for arm, seed in (("alone", 1), (ARMS[1], 0)):
            driven.start(arm, seed)
            driven.end(arm, seed, "failed", cause="nan", reason="loss/ce is not finite at step 7")
        assert said()[1:] == [
            "  2/20 epochs  best val/miou 42.00 (alone seed 0)  about 9 min left",
            "  alone seed 0: running at epoch 2/10  val/miou 42.00  again after a lost worker, attempt 2",
            f"  {ARMS[1]} seed 0, alone seed 1: failed: nan: loss/ce is not finite at step 7",
        ]
    assert said()[:2] == [
        "watched: 4 runs: 1 interrupted, 2 failed, 1 missing; driver: none",
        "  2/20 epochs  best val/miou 42.00 (alone seed 0)",
    ]


def test_a_silence_is_broken_by_what_trains_or_what_is_waited_for(driven, lines, monkeypatch):
    """Also within an epoch, and while no run has started: by a thread of its own."""
    monkeypatch.setattr(log_lines, "QUIET_S", 0.02)
    with driven.views[0]:
        _until(lambda: any("waiting for the next of 4 runs to start" in line for line in lines()))
        driven.start("alone", 0)
        _until(lambda: any("0/40 epochs  alone seed 0 0/10" in line for line in lines()))
    said = len(lines())
    time.sleep(0.1)
    assert len(lines()) <= said + 1, "nothing is printed after the phase"


def _until(holds, seconds=240.0):
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_a_terminal_says_what_is_waited_for(driven):
    screen = Console(file=io.StringIO(), width=100)
    screen.print(Live(screen, driven.progress()).render())
    assert "waiting for the next of 4 runs to start" in screen.file.getvalue()


AHEAD = "waiting for 1 GPU: 3 studies ahead use "


def test_a_study_that_waits_for_its_share_says_so_once_and_while_it_is_quiet(driven, lines, monkeypatch):
    driven.start("alone", 0)
    for why in ("", f"{AHEAD}8", f"{AHEAD}7", "", f"{AHEAD}5"):
        driven.views[0].held(why)
    assert lines()[1:] == [f"        {AHEAD}8", f"        {AHEAD}5"]
    monkeypatch.setattr(log_lines, "QUIET_S", 0.0)
    driven.views[0].keep_telling()
    assert lines()[-1] == f"        0/40 epochs  alone seed 0 0/10  {AHEAD}5"


def test_a_terminal_shows_the_wait_for_a_share_beside_what_trains(driven):
    screen = Console(file=io.StringIO(), width=100)
    driven.views.append(Live(screen, driven.progress()))
    driven.start("alone", 0)
    for why in (f"{AHEAD}8", ""):
        driven.views[0].held(why)
        screen.print(driven.views[0].render())
        assert (f"{AHEAD}8" in screen.file.getvalue().splitlines()[-1]) == bool(why)
