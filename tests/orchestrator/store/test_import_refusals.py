"""Runs that an import leaves: those whose files do not fit together, and folders without a run."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial

import pytest
import torch
import yaml

from ablations.study.plan import expand
from ablations.study.schema import read
from orchestrator.store.folder import Store
from orchestrator.store.import_runs import measure_again
from orchestrator.store.ledger import Ledger
from orchestrator.verbs.import_ import import_
from tests.orchestrator.store.imported_runs import STUDY, imported, nothing, unfinished
from trainer.config import NUMERICS_VERSION, UserError
from trainer.files.run_folder import read_epochs, write_epochs
from trainer.place import Place
from trainer.training.loop import fit

LACKING = object()

PARTS = ("key", "last", "environment", "weights", "best")
"""Of a result, which an import goes by."""


def other_config(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["optim"]["lr"] = 2.0e-3
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def no_config(run):
    (run / "config.yaml").write_text("optim: {lrr: 1}\n")


def an_epoch_less(run):
    write_epochs(run, read_epochs(run)[:1])


def better_than_it_was(run):
    epochs = read_epochs(run)
    write_epochs(run, [*epochs[:-1], {**epochs[-1], "val/miou": 99.0}])


def no_weights(run):
    (run / "last.pt").unlink()


def empty(name):
    return lambda run: (run / name).write_bytes(b"")


def of_another_run(name, **parts):
    return lambda run: torch.save({**torch.load(run / name, weights_only=True), **parts}, run / name)


def changed(**changes):
    def spoil(run):
        result = json.loads((run / "result.json").read_text())
        kept = {name: value for name, value in {**result, **changes}.items() if value is not LACKING}
        (run / "result.json").write_text(json.dumps(kept))

    return spoil


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (unfinished, "not finished: 2 of 2 epochs"),
        (empty("result.json"), "result.json is damaged; `fit` with the same config and --out writes it again"),
        (other_config, "but result.json is of"),
        (no_config, "config.yaml: optim.lrr: unknown key"),
        (an_epoch_less, "epochs.jsonl is not the record"),
        (better_than_it_was, "epochs.jsonl is not the record"),
        (no_weights, "last.pt is missing"),
        (changed(run_id="0" * 12), "result.json says run 000000000000, but its config, data and weights give run"),
        (changed(data={"train": "0" * 12, "val": "0" * 12}), "but its config, data and weights give run"),
        (
            changed(environment={"numerics": 0}),
            f"computed with numerics 0, and this is {NUMERICS_VERSION}; train it again",
        ),
        (changed(data=None), "must name the data that was read"),
        *(
            (changed(**{name: LACKING}), f"its files are not as `fit` writes them: KeyError: '{name}'")
            for name in PARTS
        ),
        (changed(environment=None), "its files are not as `fit` writes them: TypeError"),
        (empty("last.pt"), "last.pt is not a checkpoint that can be read safely"),
        (empty("best.pt"), "best.pt is not a checkpoint that can be read safely"),
        (of_another_run("last.pt", history=[{"epoch": 1.0}]), "last.pt is not the end of the run"),
        (of_another_run("last.pt", run_id="0" * 12), "last.pt is not the end of the run"),
        (of_another_run("last.pt", model={}), "last.pt is not the end of the run"),
        (of_another_run("last.pt", final_weights=""), "last.pt is not the end of the run"),
        (of_another_run("best.pt", epoch=3.0), "best.pt is not the best epoch of the run"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_not_what_it_says_is_left(folder, store, spoil, why):
    spoil(folder / "student alone")
    state, said = imported(folder, store)["student alone"]
    assert state == "left" and why in said
    assert len(Ledger(store.ledger).outcomes()) == 2, "the others are taken in all the same"
    assert len(list(store.runs_dir.iterdir())) == 2


@pytest.mark.slow
def test_a_pupil_of_another_file_is_not_the_run_its_config_names(folder, store, cache):
    """`fit --teacher` takes any weights: here, those of the teacher's best epoch under the name of its last."""
    pupil, config = folder / "taught", expand(read(STUDY, "shared"))[-1].config
    shutil.rmtree(pupil)
    other = folder / "teacher segformer_mini" / "best.pt"
    fit(config, Place(out_dir=pupil, cache_dir=cache, device="cpu", teacher=other), report=nothing)
    state, said = imported(folder, store)["taught"]
    assert state == "left" and "its teacher was another file than last.pt" in said


@pytest.mark.slow
@pytest.mark.parametrize("lie", ["circle", "edited", "foreign"])
def test_a_pupil_whose_teacher_is_not_what_its_files_say_is_left(folder, store, lie):
    path = folder / "taught" / "result.json"
    result = json.loads(path.read_text())
    used = result["weights"]["teacher"]
    used |= {"circle": {"run_id": result["run_id"]}, "edited": {"sha256": "0" * 64}, "foreign": {"run_id": ""}}[lie]
    path.write_text(json.dumps(result))
    state, why = imported(folder, store)["taught"]
    assert state == "left"
    assert why.startswith(
        f"its teacher, run {result['run_id']}, is not" if lie == "circle" else "its teacher was anoth"
    )


def test_a_folder_that_is_not_there_makes_no_store(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        import_(tmp_path / "nowhere", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def forge(run, points, metric="val/miou"):
    """Raise a metric that all files of a run state alike."""
    result = json.loads((run / "result.json").read_text())
    epochs = read_epochs(run)
    for metrics in (result["last"], result["best"], *epochs):
        metrics[metric] = metrics.get(metric, 0.0) + points
    (run / "result.json").write_text(json.dumps(result))
    write_epochs(run, epochs)
    for name in ("last.pt", "best.pt"):
        state = torch.load(run / name)
        for metrics in (state, *state.get("history", ())):
            if "val/miou" in metrics:
                metrics[metric] = metrics.get(metric, 0.0) + points
        torch.save(state, run / name)


@pytest.mark.slow
def test_numbers_that_all_files_state_alike_are_found_out_by_evaluating_again(folder, store, cache, tmp_path):
    measure = partial(measure_again, root=None, cache=cache)
    forge(folder / "student alone", 1.0)
    forge(folder / "taught", 1.0, "val/iou/a class without labels")
    found = imported(folder, store, measure)
    assert {name: state for name, (state, _) in found.items()} == {
        "student alone": "left",
        "teacher segformer_mini": "taken",
        "taught": "left",
    }
    assert re.match(r"last\.pt states val/miou \d+\.\d\d but reaches \d+\.\d\d", found["student alone"][1])
    assert found["taught"][1] == "last.pt states val/iou/a class without labels 1.00 but reaches nan"
    other = Store(tmp_path / "other")
    assert imported(folder / "student alone", other)["student alone"][0] == "taken", "without --verify it is believed"
    assert imported(folder / "student alone", other, measure)["student alone"][0] == "left", "and found out later"


def test_folders_without_a_run_are_refused(tmp_path, store):
    with pytest.raises(UserError, match="no such folder"):
        imported(tmp_path / "nowhere", store)
    with pytest.raises(UserError, match=r"holds no run: there is no config\.yaml"):
        imported(tmp_path, store)
