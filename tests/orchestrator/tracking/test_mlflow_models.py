"""A finished run's students as MLflow models, its data as inputs, its code and hardware as tags: each once."""

import contextlib
import json
import logging
import shutil

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image

from orchestrator.store.folder import Store
from orchestrator.store.ledger import Ledger
from orchestrator.store.run_folder import finished
from orchestrator.tracking.mlflow_server import Server
from orchestrator.tracking.run_record import Record
from orchestrator.tracking.tracker import Tracker
from trainer.config import ModelConfig, override, parse
from trainer.deploy.open import Wanted, open_student
from trainer.deploy.predict import plan, predict
from trainer.files import checkpoint
from trainer.files.run_folder import read_epochs, read_result
from trainer.models import build_model
from trainer.place import Place
from trainer.rng import initialising
from trainer.training.loop import fit

CONFIG = {
    "data": {"name": "scenes", "size": [64, 128], "options": {"train": 8, "val": 4, "size": [64, 128]}},
    "student": {"name": "segformer_tiny"},
    "teacher": {"name": "segformer_mini"},
    "optim": {"lr": 0.1, "epochs": 3, "global_batch": 4, "norm_batch": 4},
    "distill": {"pea": {}},
}
"""A pupil whose best epoch is its second: the learning rate is too high."""
COMMIT = "c0ffee" * 6 + "c0de"
DRIVER = {"git": {"commit": COMMIT, "dirty": True, "diff": "d1ff"}, "packages": {"transkd": "0.1.0", "torch": "0.0.1"}}
FILES = {"last": "last.pt", "best": "best.pt"}
EPOCHS = {"last": 3, "best": 2}
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 70, 150, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache):
    """The folder of a run of three epochs."""
    folder = tmp_path_factory.mktemp("trained")
    with initialising(0, "a test's teacher"):
        teacher = build_model(ModelConfig(name="segformer_mini"), 19)
    checkpoint.save(folder / "teacher.pt", {"model": teacher.state_dict()})
    place = Place(out_dir=folder / "run", cache_dir=cache, device="cpu")
    config = parse(override(CONFIG, {"teacher.checkpoint": str(folder / "teacher.pt")}))
    result = fit(config, place, report=lambda metrics, path: None)
    assert (result["best"]["epoch"], result["last"]["epoch"]) == (2.0, 3.0)
    return folder / "run"


@pytest.fixture(scope="module")
def recorded(trained, begun):
    """recorded(path): a store with that run, which has finished."""

    def make(path):
        store = Store(begun(path))
        result = read_result(trained)
        out = store.run_dir(result["run_id"])
        shutil.copytree(trained, out)
        run = {"run_id": result["run_id"], "key": result["key"], "study": "tiny", "arm": "only", "seed": 0}
        ledger = Ledger(store.ledger)
        ledger.append({"event": "study", "study": "tiny", "text": "", "digest": "d", "environment": DRIVER})
        ledger.append({"event": "started", "config": CONFIG, **run})
        ledger.append_epochs(result["run_id"], read_epochs(out))
        ledger.append({"event": "finished", **run, **finished(out, result["run_id"])})
        return store

    return make


@pytest.fixture
def store(recorded, tmp_path):
    return recorded(tmp_path / "here" / "store")


@pytest.fixture(scope="module")
def sent(recorded, tmp_path_factory):
    """Such a store whose run was sent, to read only."""
    store = recorded(tmp_path_factory.mktemp("sent") / "store")
    send(store)
    return store


@pytest.fixture
def copy(sent, tmp_path):
    """A copy of that store, to work on."""
    shutil.copytree(sent.root, tmp_path / "here" / "store", symlinks=True)
    return Store(tmp_path / "here" / "store")


def send(store):
    """Send the store's run, as a driver or `transkd sync` does; the run in MLflow."""
    tracker = Tracker(Server(store.mlflow_uri, store.artifacts), store.identity)
    for run in Ledger(store.ledger).outcomes().values():
        tracker.mirror(Record("tiny", "only", 0, "arm", run, store.run_dir(run.run_id)))
    return run_of(store)


def run_of(store):
    client = MlflowClient(tracking_uri=store.mlflow_uri)
    (run,) = client.search_runs(
        [client.get_experiment_by_name("transkd/tiny").experiment_id], "tags.`transkd.role` = 'arm'"
    )
    return run


def models_of(store):
    """Name -> model, of all models of the run's experiment."""
    run = run_of(store)
    found = MlflowClient(tracking_uri=store.mlflow_uri).search_logged_models([run.info.experiment_id])
    assert len({model.name for model in found}) == len(found), "each once"
    assert {model.source_run_id for model in found} <= {run.info.run_id}
    assert {str(model.status) for model in found} <= {"READY"}
    return {model.name: model for model in found}


def stored(store):
    """The checkpoints among MLflow's files."""
    return {path.name: path for path in sorted(store.artifacts.rglob("*.pt"))}


def run_folder(store):
    (folder,) = (store.root / "runs").iterdir()
    return folder


@contextlib.contextmanager
def connected(store):
    """MLflow's own functions on a store's database, as a user has them."""
    mlflow.set_tracking_uri(store.mlflow_uri)
    try:
        yield MlflowClient()
    finally:
        mlflow.set_tracking_uri(None)  # also takes it out of the environment


def labels(path, folder):
    """What `predict --ids train` writes for the images."""
    (folder / "images").mkdir(parents=True)
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
    student = open_student(path, Wanted(), "cpu")
    jobs = plan(folder / "images", sorted((folder / "images").iterdir()), folder / "out", ("train_ids",))
    assert [error for _, error in predict(student, jobs, 4)] == [None] * len(IMAGES)
    return np.stack([np.array(Image.open(job.files["train_ids"])) for job in jobs])


@pytest.mark.slow
def test_the_data_are_inputs_with_their_fingerprints(sent, trained):
    fingerprints = read_result(trained)["data"]
    inputs = run_of(sent).inputs.dataset_inputs
    found = {one.tags[0].value: one.dataset for one in inputs}
    assert len(inputs) == 2 and {one.tags[0].key for one in inputs} == {"mlflow.data.context"}
    for context, split in (("training", "train"), ("validation", "val")):
        assert (found[context].name, found[context].digest) == ("scenes", fingerprints[split])
        assert json.loads(found[context].profile)["fingerprint"] == fingerprints[split]


def test_the_code_and_the_hardware_of_the_run_are_tags(sent):
    environment = Ledger(sent.ledger).outcomes().popitem()[1].environment
    tags = run_of(sent).data.tags
    assert tags["mlflow.source.git.commit"] == tags["transkd.commit"] == COMMIT
    assert (tags["transkd.uncommitted"], tags["transkd.version"]) == ("d1ff", "0.1.0")
    assert tags["transkd.torch"] == environment["torch"] != "0.0.1", "of the worker, not of its driver"
    assert environment["processor"] in tags["transkd.hardware"] and tags["transkd.hardware"].startswith("cpu (")
    assert tags["transkd.workers"] == "1"


def test_what_is_not_known_of_code_and_hardware_is_not_made_up(begun, tmp_path):
    store = Store(begun(tmp_path / "bare"))
    Ledger(store.ledger).append({"event": "started", "run_id": "a" * 12, "key": "k", "config": {}})
    tags = send(store).data.tags
    assert tags["transkd.commit"] == tags["transkd.hardware"] == tags["transkd.version"] == ""
    assert "mlflow.source.git.commit" not in tags


def test_both_students_are_models_that_say_which_they_are(sent):
    models, run = models_of(sent), run_of(sent)
    assert {name: (model.params["file"], model.params["epoch"]) for name, model in models.items()} == {
        name: (FILES[name], str(EPOCHS[name])) for name in FILES
    }
    outputs = {(output.model_id, output.step) for output in run.outputs.model_outputs}
    assert outputs == {(model.model_id, EPOCHS[name]) for name, model in models.items()}
    note = run.data.tags["mlflow.note.content"]
    assert all(f"`{name}`: {file}: " in note for name, file in FILES.items())
    for text in (note, *(model.tags["mlflow.note.content"] for model in models.values())):
        assert "the table is of" in text
    assert {model.tags["transkd.run_id"] for model in models.values()} == {run.data.tags["transkd.run_id"]}


def test_a_models_scores_are_those_of_its_epoch_and_the_runs_points_stay(sent, trained):
    epochs = read_epochs(trained)
    for name, model in models_of(sent).items():
        epoch = epochs[EPOCHS[name] - 1]
        assert {metric.key: (metric.step, metric.value) for metric in model.metrics} == {
            metric: (EPOCHS[name], value)
            for metric, value in epoch.items()
            if metric.startswith("val/") and "/iou/" not in metric
        }
        data = read_result(trained)["data"]["val"]
        assert {(metric.dataset_name, metric.dataset_digest) for metric in model.metrics} == {("scenes", data)}
    history = MlflowClient(tracking_uri=sent.mlflow_uri).get_metric_history(run_of(sent).info.run_id, "val/miou")
    assert [(point.step, point.value) for point in history] == [(e["epoch"], e["val/miou"]) for e in epochs]


def test_each_checkpoint_is_stored_once_and_can_be_used_alone(sent, trained):
    files = list(sent.artifacts.rglob("*.pt"))
    assert sorted(path.name for path in files) == sorted(FILES.values())
    for path in files:
        assert open_student(path, Wanted(), "cpu").origin["epoch"] == EPOCHS[path.stem]
    size = (trained / "best.pt").stat().st_size
    assert stored(sent)["last.pt"].stat().st_size < 1.1 * size, "without optimiser and distillers"
    client = MlflowClient(tracking_uri=sent.mlflow_uri)
    named = {file.path for file in client.list_artifacts(run_of(sent).info.run_id)}
    assert named == {"config.yaml", "epochs.jsonl", "result.json", "panel.png", "per_class_iou.json"}


@pytest.mark.slow
def test_models_are_registered_loaded_and_predict_what_the_command_does(copy, trained, tmp_path):
    expected = {name: labels(trained / file, tmp_path / name) for name, file in FILES.items()}
    assert (expected["last"] != expected["best"]).any()
    run = run_of(copy).info.run_id
    for name, model in models_of(copy).items():
        with connected(copy) as client:
            mlflow.register_model(f"models:/{model.model_id}", name)
            client.create_registered_model(f"{name} of a page")  # as the button on the page of a run does
            client.create_model_version(f"{name} of a page", model.artifact_location, run, model_id=model.model_id)
            for place in (model.model_id, f"{name}/1", f"{name} of a page/1"):
                loaded = mlflow.pyfunc.load_model(f"models:/{place}")
                np.testing.assert_array_equal(loaded.predict(IMAGES), expected[name])
            assert mlflow.pyfunc.load_model(f"runs:/{run}/{name}").metadata.metadata["file"] == FILES[name]
        assert loaded.metadata.metadata["classes"][0] == "road" and loaded.metadata.metadata["epoch"] == EPOCHS[name]
        with pytest.raises(MlflowException, match="uint8"):
            loaded.predict(IMAGES.astype(np.float32))


def test_sent_again_nothing_is_added(copy):
    before = models_of(copy), run_of(copy).inputs.to_dictionary(), run_of(copy).outputs.to_dictionary()
    MlflowClient(tracking_uri=copy.mlflow_uri).set_tag(run_of(copy).info.run_id, "transkd.mirrored", "not yet")
    send(copy)
    after = models_of(copy), run_of(copy).inputs.to_dictionary(), run_of(copy).outputs.to_dictionary()
    assert {name: model.model_id for name, model in after[0].items()} == {n: m.model_id for n, m in before[0].items()}
    assert after[1:] == before[1:]


STEPS = ("create_logged_model", "log_model_artifacts", "log_outputs", "finalize_logged_model", "set_logged_model_tags")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "when"),
    [
        pytest.param(step, when, marks=() if (step, when) == ("log_model_artifacts", "after") else pytest.mark.slow)
        for step in STEPS
        for when in ("before", "after")
    ],
)
def test_a_sending_that_was_cut_off_is_completed_and_adds_nothing(store, monkeypatch, step, when):
    request, calls = getattr(MlflowClient, step), []

    def cut_off(self, *words, **named):
        calls.append(step)
        if when == "after" or len(calls) > 1:
            answer = request(self, *words, **named)
        if len(calls) == 1:
            raise ConnectionError("gone")
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, cut_off)
        with pytest.raises(ConnectionError):
            send(store)
    run = send(store)
    models = models_of(store)
    assert sorted(output.model_id for output in run.outputs.model_outputs) == sorted(
        m.model_id for m in models.values()
    )
    assert (set(models), len(list(store.artifacts.rglob("*.pt")))) == ({"last", "best"}, 2)
    with connected(store):
        assert mlflow.pyfunc.load_model(f"models:/{models['last'].model_id}").predict(IMAGES).shape == (5, 70, 150)


@pytest.mark.slow
def test_a_moved_store_still_loads_its_models(copy, tmp_path):
    model = models_of(copy)["last"].model_id
    with connected(copy):
        mlflow.register_model(f"models:/{model}", "streets")
        before = mlflow.pyfunc.load_model("models:/streets/1").predict(IMAGES)
    (tmp_path / "here").rename(tmp_path / "it is there")
    moved = Store(tmp_path / "it is there" / "store")
    send(moved)
    with connected(moved):
        for address in ("models:/streets/1", f"models:/{model}"):
            np.testing.assert_array_equal(mlflow.pyfunc.load_model(address).predict(IMAGES), before)
    assert not (tmp_path / "here").exists()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [".", "tiny/models"])
def test_models_whose_files_were_deleted_are_sent_again(store, lost):
    send(store)
    before = {name: model.model_id for name, model in models_of(store).items()}
    shutil.rmtree(store.artifacts / lost)
    send(store)
    assert {name: model.model_id for name, model in models_of(store).items()} == before
    assert set(stored(store)) == {"last.pt", "best.pt"}


@pytest.mark.slow
def test_a_run_that_was_trained_again_has_its_new_students(copy):
    before, path = models_of(copy), run_folder(copy) / "last.pt"
    checkpoint.save(path, {**checkpoint.load(path), "note": "x" * 1000})
    send(copy)
    after = models_of(copy)
    assert after["last"].model_id != before["last"].model_id and after["best"].model_id == before["best"].model_id


@pytest.mark.slow
@pytest.mark.parametrize("left", [{}, {"best"}, {"last"}])
def test_a_run_without_its_checkpoints_is_sent_as_it_is(store, left):
    for name in FILES.keys() - left:
        (run_folder(store) / FILES[name]).unlink()
    assert send(store).info.status == "FINISHED"
    assert models_of(store).keys() == set(left)


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_read_is_named_and_left_out(store, caplog):
    (run_folder(store) / "last.pt").write_bytes(b"no checkpoint")
    with caplog.at_level(logging.WARNING):
        assert send(store).info.status == "FINISHED"
    assert set(models_of(store)) == {"best"}
    (line,) = (record.getMessage() for record in caplog.records)
    assert "no model 'last'" in line and "last.pt is not a checkpoint" in line


def test_a_description_that_was_written_by_hand_stays(copy):
    client, run = MlflowClient(tracking_uri=copy.mlflow_uri), run_of(copy).info.run_id
    client.set_tag(run, "mlflow.note.content", "mine")
    client.set_tag(run, "transkd.mirrored", "not yet")
    assert send(copy).data.tags["mlflow.note.content"] == "mine"


@pytest.mark.slow
def test_mlflow_says_nothing_of_models(store, driver):
    program = """
        import logging, sys; logging.basicConfig(level=logging.INFO)
        from pathlib import Path
        from orchestrator.store.folder import Store; from orchestrator.store.ledger import Ledger
        from orchestrator.tracking.mlflow_server import Server
        from orchestrator.tracking.run_record import Record; from orchestrator.tracking.tracker import Tracker
        store = Store(Path(sys.argv[1]))
        (run,) = Ledger(store.ledger).outcomes().values()
        assert 'torch' not in sys.modules
        tracker = Tracker(Server(store.mlflow_uri, store.artifacts), store.identity)
        tracker.mirror(Record('tiny', 'only', 0, 'arm', run, store.run_dir(run.run_id)))
    """
    done = driver.script(program, store.root)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert set(models_of(store)) == {"last", "best"}
