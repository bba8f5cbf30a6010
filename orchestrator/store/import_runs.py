"""Import: copy runs that `python -m trainer fit` finished elsewhere into a store, after verifying them."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.store.folder import Store
from orchestrator.store.full_disk import pausing
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import copy_from_folder, finished, keeps_checkpoint
from trainer.config import NUMERICS_VERSION, TrainConfig, UserError, identity, message_of, parse, read_yaml
from trainer.files.checkpoint import load, run_ended_with
from trainer.files.file_digest import file_digest
from trainer.files.run_folder import BEST, LAST, RESULT, has_checkpoint, read_epochs, read_result

TOLERANCE = 0.1
"""Points by which a metric of equal weights may differ between machines."""


@dataclass(frozen=True)
class Found:
    """The result for one folder: `taken` (imported), `there` (already in the store) or `left` (refused), and why."""

    folder: Path
    state: str
    about: str


@dataclass(frozen=True)
class Candidate:
    """A finished run in a folder, its files consistent with each other."""

    folder: Path
    config: TrainConfig
    result: dict[str, Any]
    run_id: str
    teacher: str
    """The id of the run that trained its teacher, "" where it has none."""
    about: str
    """For people: its id and its mIoU on val."""


def take_in(
    folders: list[Path], store: Store, ledger: Ledger, measure: Callable[[Candidate], None] | None = None
) -> Iterator[Found]:
    """Import the runs in `folders`. The caller has the lease of imports.

    Runs that have not finished or whose files are inconsistent are refused, and those for which `measure` raises
    UserError: it is called with each run, also with those that are in the store. Raises StoreFull.
    """
    candidates = []
    for place in folders:
        try:
            candidates.append(read(place))
        except UserError as error:
            yield Found(place, "left", str(error))
    for candidate in _teachers_first(candidates):
        try:
            if measure is not None:
                measure(candidate)
            if _is_there(candidate, store, ledger):
                yield Found(candidate.folder, "there", candidate.about)
                continue
            verify(candidate, store, ledger)
            claim = store.leases.claim(candidate.run_id, "")
            if claim is None:
                who = store.leases.claimant(candidate.run_id)
                raise UserError(f"run {candidate.run_id} is trained by {who}; its result will be there when it ends")
        except UserError as error:
            yield Found(candidate.folder, "left", str(error))
            continue
        try:
            if _is_there(candidate, store, ledger):  # a driver has trained it meanwhile
                yield Found(candidate.folder, "there", candidate.about)
                continue
            with pausing(store.root):
                copy(candidate.folder, store.run_dir(candidate.run_id))
            record(candidate, store, ledger)
        finally:
            claim.give_back()
        yield Found(candidate.folder, "taken", candidate.about)


def _is_there(candidate: Candidate, store: Store, ledger: Ledger) -> bool:
    """Whether the store has the run, finished and with its checkpoint."""
    return ledger.finished(candidate.run_id) is not None and keeps_checkpoint(store, candidate.run_id)


def _teachers_first(candidates: list[Candidate]) -> Iterator[Candidate]:
    """The candidates, each after the run of its teacher: that is looked up in the store."""
    left = candidates
    while left:
        ids = {one.run_id for one in left}
        taught = [one for one in left if one.teacher in ids]
        if len(taught) == len(left):  # forged files, whose teachers go round in a circle
            ids, taught = set(), []
        yield from (one for one in left if one.teacher not in ids)
        left = taught


def runs_below(folder: Path) -> list[Path]:
    """The folders of runs: this one or those below it. Raises UserError where there is none."""
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}")
    found = [path.parent for path in sorted(folder.rglob("config.yaml"))]
    if not found:
        raise UserError(f"{folder} holds no run: there is no config.yaml in it or below; give the --out of a `fit`")
    return found


@contextlib.contextmanager
def _foreign() -> Iterator[None]:
    """Turn errors from files that are not as `fit` writes them into UserError."""
    try:
        yield
    except UserError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"its files are not as `fit` writes them: {type(error).__name__}: {message_of(error)}"
        ) from error


@_foreign()
def read(folder: Path) -> Candidate:
    """The finished run in a folder. Raises UserError where a file is missing or inconsistent with the others."""
    config = parse(read_yaml(folder / "config.yaml"), "config.yaml")
    epochs, result = read_epochs(folder), read_result(folder)
    if result is None and (folder / RESULT).exists():
        raise UserError(f"{RESULT} is damaged; `fit` with the same config and --out writes it again")
    if result is None:
        raise UserError(f"not finished: {len(epochs)} of {config.optim.epochs} epochs")
    if result["key"] != config.key:
        raise UserError(f"config.yaml is config {config.key}, but result.json is of {result['key']}")
    if [epoch["epoch"] for epoch in epochs] != list(range(1, config.optim.epochs + 1)) or epochs[-1] != result["last"]:
        raise UserError("epochs.jsonl is not the record of the run in result.json")
    if lacking := [name for name in (LAST, BEST) if not (folder / name).is_file()]:
        raise UserError(f"{' and '.join(lacking)} is missing")
    run_id = str(result["run_id"])
    teacher = str(result["weights"].get("teacher", {}).get("run_id", ""))
    about = f"run {run_id}, val/miou {result['last']['val/miou']:.2f}"
    return Candidate(folder.absolute(), config, result, run_id, teacher, about)


@_foreign()
def verify(candidate: Candidate, store: Store, ledger: Ledger) -> None:
    """Raise UserError unless the run's id follows from its config, numerics, data and weights, and its checkpoints are
    readable and belong to it."""
    numerics = candidate.result["environment"]["numerics"]
    if numerics != NUMERICS_VERSION:
        raise UserError(f"computed with numerics {numerics}, and this is {NUMERICS_VERSION}; train it again")
    data = candidate.result.get("data")
    if data is None:
        raise UserError("result.json must name the data that was read, but an earlier version wrote it; train it again")
    prints = [data[split] for split in ("train", *candidate.config.eval.splits)]
    found = identity(candidate.config.key, NUMERICS_VERSION, prints, _weights(candidate, store, ledger))
    if found != candidate.run_id:
        raise UserError(f"result.json says run {candidate.run_id}, but its config, data and weights give run {found}")
    last, best = load(candidate.folder / LAST), load(candidate.folder / BEST)
    if run_ended_with(last) != found or len(last["history"]) != candidate.config.optim.epochs:
        raise UserError(f"{LAST} is not the end of the run in result.json")
    if best["epoch"] != candidate.result["best"]["epoch"]:
        raise UserError(f"{BEST} is not the best epoch of the run in result.json")


def measure_again(candidate: Candidate, root: Path | None, cache: Path) -> None:
    """Raise UserError unless the checkpoints reach the metrics that the files state; `root` is of the data set."""
    from trainer.deploy.remeasure import remeasure

    result = candidate.result
    for name, stated in ((LAST, result["last"]), (BEST, result["best"])):
        splits = [split for split in candidate.config.eval.splits if f"{split}/miou" in stated]
        found, fingerprints = remeasure(candidate.folder / name, root, cache, splits)
        for split, fingerprint in fingerprints.items():
            if fingerprint != result["data"][split]:
                raise UserError(
                    f"cannot be verified: its {split} images have fingerprint {result['data'][split]}, those here "
                    f"{fingerprint}; give the folder of its data set"
                )
        for metric in (metric for metric in stated if metric.startswith(("val/", "test/"))):
            reached = found.get(metric, math.nan)
            if not abs(stated[metric] - reached) <= TOLERANCE:
                raise UserError(f"{name} states {metric} {stated[metric]:.2f} but reaches {reached:.2f}")


def copy(source: Path, target: Path) -> None:
    """Copy a run's files into `target`, all or none of them. Leftovers of unfinished attempts are deleted."""
    for left in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(left)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        for file in source.iterdir():
            if file.is_file() and not file.name.startswith("."):
                with file.open("rb") as one, (partial / file.name).open("wb") as other:
                    shutil.copyfileobj(one, other)  # shutil.copy would name the source in the error of a full disk
    except BaseException:
        shutil.rmtree(partial)
        raise
    if target.exists():
        shutil.rmtree(target)
    partial.replace(target)


def record(candidate: Candidate, store: Store, ledger: Ledger) -> None:
    """Record an imported run in the ledger: its epochs and its end."""
    run_id, out = candidate.run_id, store.run_dir(candidate.run_id)
    copy_from_folder(ledger, run_id, out)
    facts = finished(out, run_id) or {}
    asked = {"key": candidate.config.key, "config": candidate.config.model_dump(mode="json")}
    ledger.append({"event": "finished", "run_id": run_id, **asked, **facts, "imported": str(candidate.folder)})


def _weights(candidate: Candidate, store: Store, ledger: Ledger) -> dict[str, str]:
    """The weights that enter a run's id: a sha256, or the id of the run that trained the teacher."""
    config, used = candidate.config, candidate.result["weights"]
    weights = {}
    if config.student.init != "scratch":
        weights["student"] = used["student"]["sha256"]
    if config.teacher is not None:
        if "teacher" not in used:
            raise UserError("its config names a teacher that no path uses; remove `teacher` and train it again")
        by_recipe = config.teacher.train is not None
        sha256 = used["teacher"]["sha256"]
        weights["teacher"] = _teacher(candidate.teacher, sha256, store, ledger) if by_recipe else sha256
    return weights


def _teacher(run_id: str, sha256: str, store: Store, ledger: Ledger) -> str:
    """`run_id`, the run of the store that trained the teacher: any run, whatever the recipe in the student's config.
    Raises UserError where the teacher's file is not that run's last.pt."""
    if not run_id:
        raise UserError(f"its teacher was another file than {LAST} of a finished run; train it with such a file")
    if ledger.finished(run_id) is None:
        raise UserError(f"its teacher, run {run_id}, is not in the store; import that run too")
    store.fetch_run(run_id)
    if not has_checkpoint(store.run_dir(run_id)):
        raise UserError(f"its teacher, run {run_id}, has lost {LAST} in the store; import that run too")
    if file_digest(store.run_dir(run_id) / LAST) != sha256:
        raise UserError(f"its teacher was another file than {LAST} of run {run_id} in the store; train it with that")
    return run_id
