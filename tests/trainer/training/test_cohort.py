"""Runs that train side by side: each has the numbers that it has alone, bit for bit, whatever happens to the others."""

from __future__ import annotations

import errno
import json
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer import rng
from trainer.config import NumericalError, TrainConfig, UserError
from trainer.data.batch import Batch
from trainer.data.stream import Stream
from trainer.distill import DISTILLERS
from trainer.distill.base import Distiller
from trainer.models.base import Channels, SegOutput
from trainer.place import Place
from trainer.training import member, shared
from trainer.training.learner import Learner
from trainer.training.loop import fit, fit_together
from trainer.training.member import Run
from trainer.training.teacher import Teacher

pytestmark = pytest.mark.slow

Make = Callable[..., Any]
Ended = dict[str, Exception | None]

ARMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "alone": ({}, {"teacher": None}),
    "csf and pea": ({"csf": {}, "pea": {}}, {}),
    "logits": ({"kd": {}}, {"optim.lr": 5e-3, "data.class_weights": "auto", "optim.norm_batch": 4}),
    "another network": (
        {"pea_ea": {}, "cwd": {"weight": 2.0}},
        {"student.name": "segformer_mini", "optim.schedule": "reference", "optim.epochs": 3, "eval.every": 2},
    ),
}
STEPS = [{"scale": {"range": [0.5, 1.5]}}, {"crop": {"size": [64, 96]}}, "flip", "photometric", "blur"]
SLIDE = {"inference": "slide", "window": [64, 64], "stride": [64, 32], "flip": True, "scales": [1.0, 1.5]}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fp32": ({}, {}),
    "bf16": ({"optim.precision": "bf16"}, {}),
    "held out, in micro-batches": ({"data.select": 0.25}, {"micro_batch": 2}),
    "steps and windows": (
        {"data.augment": STEPS, **{f"eval.{name}": value for name, value in SLIDE.items()}},
        {},
    ),
}


def arms(tiny: Make, changes: dict[str, Any]) -> dict[str, TrainConfig]:
    found = {}
    for name, (distill, own) in ARMS.items():
        whole = {"optim.norm_batch": 2, **own} | changes
        found[name] = tiny(distill, whole if not changes.get("data.select") else {**whole, "optim.norm_batch": 2})
    return found


def nothing(metrics: dict[str, float], path: Path | None) -> None:
    """A report that nobody reads."""


class Side:
    """Runs cohorts below a folder, and remembers how each member ended."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root, self.cache = root, cache
        self.ended: Ended = {}
        self.epochs: dict[str, list[float]] = {}

    def place(self, name: str, **changes: Any) -> Place:
        return Place(out_dir=self.root / name, cache_dir=self.cache, device="cpu", **changes)

    def run(self, name: str, config: TrainConfig, stop: float | None = None, **place: Any) -> Run:
        def report(metrics: dict[str, float], path: Path | None) -> bool:
            self.epochs.setdefault(name, []).append(metrics["epoch"])
            return metrics["epoch"] == stop

        def ended(error: Exception | None) -> None:
            assert name not in self.ended
            self.ended[name] = error and error.with_traceback(None)  # whose frames hold tensors

        return Run(config, self.place(name, **place), report, ended)

    def train(self, configs: dict[str, TrainConfig], stop: dict[str, float] | None = None, **place: Any) -> Ended:
        self.ended, self.epochs = {}, {}
        fit_together([self.run(name, config, (stop or {}).get(name), **place) for name, config in configs.items()])
        return self.ended


@pytest.fixture
def side(tmp_path: Path, scenes_cache: Path) -> Side:
    return Side(tmp_path, scenes_cache)


@pytest.fixture(scope="module")
def alone(tiny: Make, scenes_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """alone(config, micro_batch=2) -> the folder of the run that trained alone."""
    known: dict[str, Path] = {}

    def train(config: TrainConfig, **place: Any) -> Path:
        name = f"{config.key}{place}"
        if name not in known:
            known[name] = tmp_path_factory.mktemp("alone") / "run"
            fit(config, Place(out_dir=known[name], cache_dir=scenes_cache, device="cpu", **place), report=nothing)
        return known[name]

    return train


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_member_is_the_run_that_trained_alone(
    variant: str, tiny: Make, side: Side, alone: Make, same_run: Make
) -> None:
    changes, place = VARIANTS[variant]
    configs = arms(tiny, changes)
    assert side.train(configs, **place) == dict.fromkeys(configs)
    for name, config in configs.items():
        same_run(side.root / name, alone(config, **place))
        assert side.epochs[name] == list(range(1, config.optim.epochs + 1))
        result = json.loads((side.root / name / "result.json").read_text())
        assert result["environment"]["cohort"] == len(configs)


def test_the_batch_and_the_teachers_output_are_made_once(
    tiny: Make, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three epochs of four steps two have members with paths; one path reads logits, and ends after an epoch."""
    asked: list[frozenset[str]] = []
    made: list[int] = []
    call, assemble = Teacher.__call__, Stream._assemble

    def watched_call(self: Teacher, image: Tensor) -> SegOutput:
        asked.append(self.needs)
        return call(self, image)

    def watched_assemble(self: Stream, *given: Any) -> Any:
        made.append(1)
        return assemble(self, *given)

    monkeypatch.setattr(Teacher, "__call__", watched_call)
    monkeypatch.setattr(Stream, "_assemble", watched_assemble)
    configs = {
        "alone": tiny({}, {"optim.epochs": 3}),
        "pea": tiny({"pea": {}}),
        "csf": tiny({"csf": {}}),
        "kd": tiny({"kd": {}}, {"optim.epochs": 1}),
    }
    assert side.train(configs) == dict.fromkeys(configs)
    assert len(made) == 12
    assert asked == [frozenset({"embeds", "features", "logits"})] * 4 + [frozenset({"embeds", "features"})] * 4


def test_equal_networks_draw_their_masks_once(tiny: Make, side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    uniform = rng.uniform

    def watched(keys: Tensor, salts: Tensor, lanes: Tensor) -> Tensor:
        if not keys.is_meta:  # where the cost is counted
            drawn.append(len(salts))
        return uniform(keys, salts, lanes)

    monkeypatch.setattr(rng, "uniform", watched)
    more = {"optim.epochs": 1}
    configs = {
        "one": tiny({}, more),
        "two": tiny({"pea": {}}, more),
        "weights": tiny({}, {**more, "optim.lr": 2e-3}),
        "rate": tiny({}, {**more, "student.drop_path": 0.3}),
    }
    side.train(configs, micro_batch=2)
    assert len(drawn) == 2 * 2 * 4  # two networks, two micro-batches, four steps


def test_members_share_the_time_of_what_they_share(tiny: Make, side: Side) -> None:
    configs = arms(tiny, {"optim.epochs": 2, "eval.every": 1})
    started = time.monotonic()
    side.train(configs)
    wall = time.monotonic() - started
    results = [json.loads((side.root / name / "result.json").read_text()) for name in configs]
    assert all(result["seconds"] > 0 for result in results)
    assert sum(result["seconds"] for result in results) < wall
    for result in results:  # images a second of the run's part of the time
        assert 16 / result["last"]["images_per_s"] < result["last"]["seconds"]


class Faulty(Distiller):
    """A path that fails, or spoils its loss, in the second step of the second epoch."""

    needs = frozenset({"embeds"})
    fault: Callable[[], float]
    calls: list[int]

    def __init__(self, student: Channels, teacher: Channels) -> None:
        super().__init__(student, teacher)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch, student: SegOutput, teacher: SegOutput) -> Tensor:
        self.calls.append(threading.get_ident())
        return self.scale * (type(self).fault() if len(self.calls) == 6 else 1.0)


def no_memory() -> float:
    torch.empty(1 << 50)
    return 1.0


def raising(error: Exception) -> Callable[[], float]:
    def fail() -> float:
        raise error

    return fail


@pytest.fixture
def faulty(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, TrainConfig]]:
    """faulty(fault) -> the arms, and between them one that fails."""

    def make(fault: Callable[[], float]) -> dict[str, TrainConfig]:
        monkeypatch.setattr(Faulty, "fault", staticmethod(fault), raising=False)
        monkeypatch.setattr(Faulty, "calls", [], raising=False)
        monkeypatch.setitem(DISTILLERS, "faulty", Faulty)
        found = arms(tiny, {})
        return {"alone": found["alone"], "faulty": tiny({"faulty": {}}), "csf and pea": found["csf and pea"]}

    return make


@pytest.mark.parametrize(
    ("fault", "kind", "told"),
    [
        (lambda: float("nan"), NumericalError, "loss/faulty is not finite at step 5"),
        (no_memory, RuntimeError, "can't allocate memory"),
        (raising(ValueError("a mistake of a path")), ValueError, "a mistake of a path"),
    ],
    ids=["nan", "memory", "bug"],
)
def test_a_failure_costs_its_member_alone(
    fault: Callable[[], float],
    kind: type[Exception],
    told: str,
    faulty: Make,
    side: Side,
    alone: Make,
    same_run: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configs = faulty(fault)
    learners: dict[str, weakref.ref[Learner]] = {}
    left: list[int] = []
    start = member.Member.start

    def watched(self: member.Member) -> None:
        start(self)
        assert self.learner is not None
        learners[self.out.name] = weakref.ref(self.learner)

    def ended_beside(metrics: dict[str, float], path: Path | None) -> None:
        left.append(sum(found() is not None for found in learners.values()))

    monkeypatch.setattr(member.Member, "start", watched)
    *runs, last = (side.run(name, config) for name, config in configs.items())
    fit_together([*runs, replace(last, report=ended_beside)])

    error = side.ended.pop("faulty")
    assert isinstance(error, kind) and told in str(error)
    assert side.ended == {"alone": None, "csf and pea": None}
    for name in side.ended:
        same_run(side.root / name, alone(configs[name]))
    assert left == [3, 1]  # the last epoch of the last member is reported when all others have let go of their tensors
    kept = (side.root / "faulty" / "epochs.jsonl").read_text().splitlines()
    assert len(kept) == 1 and not (side.root / "faulty" / "result.json").exists()


def test_after_a_failed_allocation_the_others_go_on_in_another_thread(faulty: Make, side: Side) -> None:
    """oneDNN refuses smaller allocations in the thread of a failed one."""
    configs = faulty(no_memory)
    threads: list[int] = []
    take = member.Member.take

    def watched(self: member.Member, *given: Any) -> None:
        threads.append(threading.get_ident())
        take(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(member.Member, "take", watched)
        side.train(configs)
    here = threading.get_ident()
    # three members in the first epoch and the first step of the second; the second one fails in the step after it
    assert threads[:17] == [here] * 17
    assert len(set(threads[17:])) == 1 and threads[17] != here


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
    ids=["disk", "device"],
)
def test_what_strikes_all_is_raised(error: Exception, faulty: Make, side: Side) -> None:
    with pytest.raises(type(error)) as raised:
        side.train(faulty(raising(error)))
    assert raised.value is error
    assert side.ended == {}


def test_an_error_of_the_stream_is_raised(tiny: Make, side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    assemble = Stream._assemble

    def broken(self: Stream, epoch: int, order: Any, k: int) -> Any:
        if (epoch, k) == (1, 2):
            raise OSError(errno.EIO, "Input/output error")
        return assemble(self, epoch, order, k)

    monkeypatch.setattr(Stream, "_assemble", broken)
    with pytest.raises(OSError, match="Input/output error"):
        side.train({"one": tiny(), "two": tiny({"pea": {}})})
    assert side.ended == {} and side.epochs == {"one": [1], "two": [1]}


def test_mistakes_found_at_set_up_cost_their_member_alone(
    tiny: Make, side: Side, alone: Make, same_run: Make, tmp_path: Path
) -> None:
    fit(tiny({}, {"optim.lr": 7e-3}), side.place("folder"), report=nothing)
    configs = {
        "one": tiny({"pea": {}}),
        "folder": tiny({"csf": {}}),
        "miou": tiny({"csf": {}}, {"teacher.miou": 99.0}),
        "weights": tiny({"csf": {}}, {"student.init": str(tmp_path / "none.pt")}),
        "groups": tiny({}, {"optim.norm_batch": 4}),
        "two": tiny(),
    }
    ended = side.train(configs, micro_batch=2)
    told = {name: str(error) for name, error in ended.items() if error is not None}
    assert all(isinstance(ended[name], UserError) for name in told)
    assert dict.fromkeys(("folder", "miou", "weights", "groups"), True) == {
        "folder": "holds a run of another config" in told.pop("folder"),
        "miou": "states 99.00 mIoU but reaches" in told.pop("miou"),
        "weights": "cannot read the weights" in told.pop("weights"),
        "groups": "micro_batch 2 would split BatchNorm groups" in told.pop("groups"),
    }
    assert not told
    for name in ("one", "two"):
        same_run(side.root / name, alone(configs[name], micro_batch=2))


def test_a_run_whose_id_is_not_the_planned_one_is_not_trained(tiny: Make, side: Side) -> None:
    run, other = side.run("one", tiny()), side.run("two", tiny({"pea": {}}))
    fit_together([replace(run, run_id="0123456789ab"), other])
    told = str(side.ended["one"])
    identity = json.loads((side.root / "two" / "result.json").read_text())["run_id"]
    assert told.startswith("the run was planned as 0123456789ab but is ")
    assert told.endswith("changed while the run waited; run the same command again")
    assert not (side.root / "one").exists()
    assert fit_together([replace(other, run_id=identity, ended=None)])[0] is not None


def test_members_that_are_ahead_wait_for_those_behind(tiny: Make, side: Side, alone: Make, same_run: Make) -> None:
    configs = arms(tiny, {"optim.epochs": 3, "eval.every": 1})
    for name, epochs in (("csf and pea", 2), ("logits", 1), ("another network", 3)):

        def stop(metrics: dict[str, float], path: Path | None, epochs: int = epochs) -> None:
            if metrics["epoch"] == epochs:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            fit(configs[name], side.place(name), report=stop)
    assert side.train(configs) == dict.fromkeys(configs)
    assert side.epochs == {"alone": [1, 2, 3], "csf and pea": [3], "logits": [2, 3]}
    for name, config in configs.items():
        same_run(side.root / name, alone(config))


def test_what_is_finished_is_reported_and_not_done_again(tiny: Make, side: Side, alone: Make, same_run: Make) -> None:
    configs = {"one": tiny(), "two": tiny({"pea": {}})}
    side.train({"one": configs["one"]})
    before = {path: path.stat().st_mtime_ns for path in (side.root / "one").iterdir()}
    assert side.train(configs) == {"one": None, "two": None}
    assert side.epochs == {"one": [2], "two": [1, 2]}
    assert {path: path.stat().st_mtime_ns for path in (side.root / "one").iterdir()} == before
    same_run(side.root / "two", alone(configs["two"]))
    assert json.loads((side.root / "two" / "result.json").read_text())["environment"]["cohort"] == 1


def test_a_report_may_end_a_member_early(tiny: Make, side: Side, alone: Make, same_run: Make) -> None:
    configs = arms(tiny, {})
    assert side.train(configs, stop={"csf and pea": 1, "logits": 2}) == dict.fromkeys(configs)
    assert side.epochs["csf and pea"] == [1]
    assert not (side.root / "csf and pea" / "result.json").exists()
    for name in ("alone", "logits", "another network"):  # after its last epoch a run has finished
        same_run(side.root / name, alone(configs[name]))
    side.train({"csf and pea": configs["csf and pea"]})
    same_run(side.root / "csf and pea", alone(configs["csf and pea"]))


def test_runs_on_other_batches_are_refused(tiny: Make, side: Side) -> None:
    with pytest.raises(UserError, match=r"two cannot train side by side with .*one, for seed is 1 there and 0 in"):
        side.train({"one": tiny(), "two": tiny({}, {"seed": 1})})
    assert not (side.root / "one").exists() and side.ended == {}


def test_the_teacher_is_built_once_and_only_where_it_is_needed(
    tiny: Make, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    build = shared.build_teacher
    monkeypatch.setattr(shared, "build_teacher", lambda *given: built.append(1) or build(*given))
    side.train({"one": tiny(), "two": tiny({}, {"optim.lr": 2e-3})})
    assert built == []
    side.train({"three": tiny({"pea": {}}), "four": tiny({"csf": {}}), "five": tiny()})
    assert built == [1]


KILLED = """
import json, sys
from pathlib import Path
from trainer.config import parse
from trainer.place import Place
from trainer.training.loop import fit_together
from trainer.training.member import Run

configs, root, cache = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
def report(metrics, path):
    print(path.parent.name, metrics["epoch"], flush=True)
fit_together([
    Run(parse(config), Place(out_dir=root / name, cache_dir=cache, device="cpu"), report)
    for name, config in configs.items()
])
"""


def test_killed_at_random_moments(tiny: Make, side: Side, alone: Make, same_run: Make) -> None:
    """SIGKILL after a random time, counted from the first report that a process makes; then once to the end."""
    configs = {
        name: tiny(distill, {**own, "optim.epochs": 4 + (name == "alone")}) for name, (distill, own) in ARMS.items()
    }
    plain = json.dumps({name: config.model_dump(mode="json") for name, config in configs.items()})
    command = [sys.executable, "-c", KILLED, plain, str(side.root), str(side.cache)]
    moments = random.Random(0)
    heard, killed = [], 0
    for attempt in range(8):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if attempt < 7:
            heard.append(process.stdout.readline())
            time.sleep(moments.uniform(0.0, 0.3))
            process.kill()
        rest, errors = process.communicate(timeout=300)
        heard += rest.splitlines(keepends=True)
        assert process.returncode in (0, -signal.SIGKILL), errors
        killed += process.returncode == -signal.SIGKILL
    assert process.returncode == 0 and killed >= 3
    for name, config in configs.items():
        same_run(side.root / name, alone(config))
        told = [float(line.split()[-1]) for line in heard if line.startswith(name) and line.endswith("\n")]
        assert told == sorted(told) and told[-1] == config.optim.epochs
    assert all(path.name != ".lock" for path in side.root.rglob("*"))


WORKERS = """
from pathlib import Path
from trainer.config import parse
from trainer.place import Place
from trainer.training.loop import fit_together
from trainer.training.member import Run

root, told, runs = Path(job["root"]), {}, []
for name, config in job["configs"].items():
    place = Place(out_dir=root / name, cache_dir=Path(job["cache"]), device="cpu")
    ended = lambda error, name=name: told.update({name: repr(error)})
    stop = lambda metrics, path, name=name: name == "stopped" and rank == 1
    runs.append(Run(parse(config), place, stop, ended))
if rank == 1:  # weights that only one machine lacks
    init = runs[-1].config.student.model_copy(update={"init": str(root / "none.pt")})
    runs[-1] = Run(runs[-1].config.model_copy(update={"student": init}), *list(vars(runs[-1]).values())[1:])
fit_together(runs)
(root / f"told {rank}").write_text(json.dumps(told))
"""


def test_two_workers(tiny: Make, in_workers: Make, side: Side, alone: Make) -> None:
    """Each member has its own DDP; a failure is agreed on, whichever worker saw it, and the others go on."""
    configs = arms(tiny, {"optim.epochs": 2, "eval.every": 1, "optim.norm_batch": 2})
    more = {
        "diverging": tiny({"pea": {}}, {"optim.lr": 1e30}),
        "stopped": tiny({"pea": {}}, {"optim.lr": 2e-3}),
        "weights": tiny({}, {"optim.lr": 3e-3}),
    }
    plain = {name: config.model_dump(mode="json") for name, config in (configs | more).items()}
    in_workers(WORKERS, {"configs": plain, "root": str(side.root), "cache": str(side.cache)})
    first, second = (json.loads((side.root / f"told {rank}").read_text()) for rank in (0, 1))
    assert first == second
    assert first.pop("diverging").startswith("NumericalError('loss")
    assert "cannot read the weights" in first.pop("weights")
    assert first == dict.fromkeys([*configs, "stopped"], "None")
    assert not (side.root / "stopped" / "result.json").exists()
    for name, config in configs.items():
        ours, theirs = (
            torch.load(folder / "last.pt", weights_only=True)["model"]
            for folder in (side.root / name, alone(config, micro_batch=2))
        )
        assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())
