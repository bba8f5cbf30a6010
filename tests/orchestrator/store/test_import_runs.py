"""`transkd import`: what the trainer finished anywhere is taken in once, and what is not what it says is left."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from functools import partial

import pytest
import torch
import typer
import yaml
from rich.console import Console

from ablations.study.plan import expand
from ablations.study.schema import read
from cluster.spec import ClusterSpec
from orchestrator.launch import Launch
from orchestrator.runs_left import count_left, to_train
from orchestrator.state.progress import study_status
from orchestrator.store.folder import Store
from orchestrator.store.full_disk import StoreFull
from orchestrator.store.import_runs import measure_again, runs_below, take_in
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import finished
from orchestrator.terminal.plan_listing import show_plan
from orchestrator.verbs.import_ import import_
from trainer.config import NUMERICS_VERSION, UserError
from trainer.files.run_folder import read_epochs, read_result, write_epochs
from trainer.place import Place
from trainer.training.loop import fit

STUDY = """
name: shared
base:
  data: {name: scenes, size: [64, 128], options: {train: 8, val: 4, size: [64, 128]}}
  student: {name: segformer_tiny}
  teacher: {name: segformer_mini, train: {epochs: 1}}
  optim: {lr: 1.0e-3, epochs: 2, global_batch: 4, norm_batch: 4}
  distill: {pea: {}}
variants:
  student alone: {distill: {}}
  taught: {}
"""


LACKING = object()
PARTS = ("key", "last", "environment", "weights", "best")
"""Of a result, which an import goes by."""


def nothing(*_):
    """A report that nobody reads."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache):
    """A folder with the study's three runs, as `fit` leaves them: a teacher, a student alone, and a pupil."""
    folder = tmp_path_factory.mktemp("trained")
    for run in expand(read(STUDY, "shared")):
        teacher = folder / "teacher segformer_mini" / "last.pt" if run.needs else None
        place = Place(out_dir=folder / run.arm, cache_dir=cache, device="cpu", teacher=teacher)
        fit(run.config, place, report=nothing)
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy, to spoil."""
    shutil.copytree(trained, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def store(tmp_path, cached):
    return Store(cached(tmp_path / "store"))


def imported(folder, store, measure=None):
    """Folder's name -> (state, what was said), in the order in which they were looked at."""
    found = take_in(runs_below(folder), store, Ledger(store.ledger), measure)
    return {one.folder.name: (one.state, one.about) for one in found}


@pytest.mark.slow
def test_a_tree_is_taken_in_once_and_the_study_has_nothing_left_to_do(folder, store, trained):
    found = imported(folder, store)
    assert {name: state for name, (state, _) in found.items()} == dict.fromkeys(found, "taken") and len(found) == 3
    runs = {run.imported.rpartition("/")[2]: run for run in Ledger(store.ledger).outcomes().values()}
    for name, run in runs.items():
        assert (run.status, run.attempts) == ("finished", 0)
        assert run.epochs == read_epochs(folder / name) and run.last == run.epochs[-1]
        assert run.environment["device"] == "cpu" and run.data.keys() == {"train", "val"}
        assert {"best.pt", "last.pt", "config.yaml"} <= set(run.artifacts["files"])
        for file in ("best.pt", "last.pt", "config.yaml", "epochs.jsonl", "result.json"):
            assert (store.run_dir(run.run_id) / file).read_bytes() == (folder / name / file).read_bytes()
    assert runs["taught"].weights["teacher"]["sha256"]

    before = store.ledger.read_bytes()
    assert {state for state, _ in imported(folder, store).values()} == {"there"}
    assert store.ledger.read_bytes() == before

    launch = Launch(read(STUDY, "shared"), ClusterSpec(cpus_per_worker=0.5), store, {})
    launch.prepare(nothing)
    assert count_left(launch.state) == 0, "the study reuses what was imported"
    shutil.rmtree(folder)
    assert all((store.root / run.artifacts["folder"] / "best.pt").exists() for run in runs.values())


@pytest.mark.slow
def test_one_folder_is_taken_in_alone_and_a_pupil_only_after_its_teacher(folder, store):
    assert imported(folder / "student alone", store)["student alone"][0] == "taken"
    state, why = imported(folder / "taught", store)["taught"]
    assert state == "left" and "is not in the store; import that run too" in why
    assert imported(folder / "teacher segformer_mini", store)["teacher segformer_mini"][0] == "taken"
    assert imported(folder / "taught", store)["taught"][0] == "taken"


def unfinished(run):
    (run / "result.json").unlink()


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
def test_a_pupil_may_have_any_run_of_the_store_for_a_teacher_and_is_reused_where_a_study_trains_that_one(
    folder, store, cache, tmp_path
):
    """The arms' own learning rate is not the teacher's: in `shared` the base's recipe trains it."""
    own = STUDY + "  fast: {optim.lr: 3.0e-3}\n"
    fast = expand(read(own, "shared"))[-1].config
    last = folder / "teacher segformer_mini" / "last.pt"
    copy = shutil.copy(last, tmp_path / "a copy.pt")
    fit(fast, Place(out_dir=folder / "fast", cache_dir=cache, device="cpu", teacher=copy), report=nothing)
    chained = fast.model_copy(update={"teacher": fast.teacher.model_copy(update={"name": "segformer_tiny"})})
    pupil = folder / "fast" / "last.pt"
    place = Place(out_dir=folder / "a pupil's pupil", cache_dir=cache, device="cpu", teacher=pupil)
    fit(chained, place, report=nothing)
    found = imported(folder, store)
    assert {state for state, _ in found.values()} == {"taken"} and len(found) == 5
    names = list(found)
    assert names.index("teacher segformer_mini") < names.index("fast") < names.index("a pupil's pupil")
    assert count_left(launched(own, store).state) == 0
    other = launched(own.replace("lr: 1.0e-3", "lr: 2.0e-3"), store)
    assert count_left(other.state) == 4, "that base trains another teacher"


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


def test_an_attempt_of_the_stores_own_gives_way_and_a_kill_between_is_mended(folder, store, monkeypatch):
    ledger = Ledger(store.ledger)
    run_id = json.loads((folder / "student alone" / "result.json").read_text())["run_id"]
    ledger.append({"event": "started", "run_id": run_id, "key": "k", "study": "s"})
    store.run_dir(run_id).mkdir(parents=True)
    (store.run_dir(run_id) / "epochs.jsonl").write_text("")

    def die(*_):
        raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr("orchestrator.store.import_runs.record", die)
        with pytest.raises(InterruptedError):
            imported(folder / "student alone", store)
    assert ledger.finished(run_id) is None
    assert imported(folder / "student alone", store)["student alone"][0] == "taken"
    assert len(ledger.finished(run_id).epochs) == 2


def test_a_full_disk_pauses_and_nothing_half_copied_stays(folder, store, monkeypatch):
    run_id = json.loads((folder / "student alone" / "result.json").read_text())["run_id"]
    (store.runs_dir / f".{run_id}.1").mkdir(parents=True)  # left by an import that was killed

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", full)
        with pytest.raises(StoreFull, match=f"No space left on device; the store {store.root} is on"):
            imported(folder / "student alone", store)
    assert list(store.runs_dir.iterdir()) == []
    assert imported(folder / "student alone", store)["student alone"][0] == "taken"
    assert [path.name for path in store.runs_dir.iterdir()] == [run_id]


def test_the_verb_names_every_folder_and_counts(folder, tmp_path, capsys):
    unfinished(folder / "taught")
    for said in ("2 imported, 0 already there, 1 refused", "0 imported, 2 already there, 1 refused"):
        with pytest.raises(typer.Exit) as end:
            import_(folder, tmp_path / "store")
        assert end.value.exit_code == 2, "something was refused"
        *lines, last = capsys.readouterr().out.splitlines()
        assert last == said
        assert f"refused: {folder / 'taught'}: not finished: 2 of 2 epochs" in lines
        assert sum(line.startswith(("imported: ", "already there: ")) for line in lines) == 2


def test_a_run_that_a_driver_trains_is_left_to_it(folder, store):
    run_id = read_result(folder / "student alone")["run_id"]
    claim = store.leases.claim(run_id, "watched")
    state, about = imported(folder / "student alone", store)["student alone"]
    assert state == "left" and about.startswith(f"run {run_id} is trained by study watched, pid {os.getpid()} on ")
    assert not store.run_dir(run_id).exists()
    claim.give_back()
    assert imported(folder / "student alone", store)["student alone"][0] == "taken"


def test_a_run_that_is_trained_while_it_is_looked_at_is_not_replaced(folder, store):
    def measure(candidate):
        """A driver finishes the run while the import measures it."""
        take_in_of_another = take_in([candidate.folder], store, Ledger(store.ledger, "other"))
        assert [one.state for one in take_in_of_another] == ["taken"]
        (store.run_dir(candidate.run_id) / "mark").touch()

    assert imported(folder / "student alone", store, measure)["student alone"][0] == "there"
    (run_id,) = Ledger(store.ledger).outcomes()
    assert (store.run_dir(run_id) / "mark").exists()


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


def launched(text, store):
    """`transkd run` of a study up to where it would start something."""
    launch = Launch(read(text, "shared"), ClusterSpec(cpus_per_worker=0.5), store, {})
    launch.prepare(nothing)
    return launch


def cut_off(path):
    path.write_bytes(path.read_bytes()[:1000])


LOSSES = {
    "deleted": lambda path: path.unlink(),
    "folder moved": lambda path: path.parent.rename(path.parent.with_name("elsewhere")),
    "empty": lambda path: path.write_bytes(b""),
    "cut off": cut_off,
    "dangling link": lambda path: (path.unlink(), path.symlink_to("nowhere.pt")),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}
ANOTHER = STUDY + "  another: {distill.pea.weight: 2.0}\n"


@pytest.mark.slow
@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_a_teacher_whose_checkpoint_is_gone_is_trained_again_where_a_run_needs_it(folder, store, lose, capsys):
    imported(folder, store)
    (teacher,) = launched(STUDY, store).teachers
    lose(store.run_dir(teacher.run_id) / "last.pt")
    assert count_left(launched(STUDY, store).state) == 0, "all runs have finished: nothing needs it"

    launch = launched(ANOTHER, store)
    assert [run.label for run in to_train(launch.state, launch.state.runs)] == [teacher.label, "another seed 0"]
    counts = study_status(launch.state, {}).counts
    assert counts == {"finished": 2, "missing": 2}
    show_plan(launch.state, Console(width=200))
    said = capsys.readouterr().out
    assert "4 runs, 2 reused, 3 epochs to train" in said and f"again: {teacher.label} has finished" in said

    imported(folder / "teacher segformer_mini", store)
    launch = launched(ANOTHER, store)
    left = [run.label for run in to_train(launch.state, launch.state.runs)]
    assert left == ["another seed 0"], "an import brings it back"


@pytest.mark.slow
def test_an_import_brings_back_the_files_of_a_run_and_names_a_teacher_that_lacks_its_own(folder, store):
    imported(folder / "teacher segformer_mini", store)
    imported(folder / "student alone", store)
    for run_id in Ledger(store.ledger).outcomes():
        shutil.rmtree(store.run_dir(run_id))
    state, why = imported(folder / "taught", store)["taught"]
    assert state == "left" and "has lost last.pt in the store; import that run too" in why
    assert {state for state, _ in imported(folder, store).values()} == {"taken"}
    assert all((store.run_dir(run_id) / "best.pt").is_file() for run_id in Ledger(store.ledger).outcomes())
    assert {state for state, _ in imported(folder, store).values()} == {"there"}


def test_a_run_that_trains_again_has_not_finished_until_it_ends(folder, cache):
    """The result of the lost checkpoint must not pass for that of an attempt that is killed."""
    out = folder / "student alone"
    alone = next(run for run in expand(read(STUDY, "shared")) if run.arm == out.name)
    run_id = json.loads((out / "result.json").read_text())["run_id"]
    (out / "last.pt").unlink()

    def die(*_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(alone.config, Place(out_dir=out, cache_dir=cache, device="cpu"), report=die)
    assert (out / "last.pt").is_file() and finished(out, run_id) is None


def test_folders_without_a_run_are_refused(tmp_path, store):
    with pytest.raises(UserError, match="no such folder"):
        imported(tmp_path / "nowhere", store)
    with pytest.raises(UserError, match=r"holds no run: there is no config\.yaml"):
        imported(tmp_path, store)
