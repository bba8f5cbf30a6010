"""The probe: made-up data goes through the real steps, sizes are those of real files, and what it cannot do it says."""

import io
import json
import runpy
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from trainer.config import UserError
from trainer.data import DATASETS
from trainer.data.base import Official
from trainer.data.stream import Stream
from trainer.files.run_folder import read_epochs
from trainer.probe import FakeSplit, disk_bytes, measure_times, split_sizes
from trainer.training.loop import fit

PATHS = {"csf": {}, "pea": {}}
FOUND = Official(16, 5, (64, 128))


def written(requests, root=None, limit_s=None, device="cpu"):
    """What the program is asked, as its stdin."""
    place = {"out_dir": "/nowhere", "cache_dir": str(root), "device": device, "threads": 1}
    lines = [{"limit_s": limit_s, "workers": 1, "place": place}]
    lines += [{"id": n, "config": c.model_dump(mode="json"), "root": None} for n, c in requests.items()]
    return "".join(json.dumps(line) + "\n" for line in lines)


def answers_in(text):
    """The program's answers by id."""
    answers = {}
    for line in map(json.loads, text.splitlines()):
        answers.setdefault(line.pop("id"), {}).update(line)
    return answers


@pytest.mark.parametrize("name", sorted(DATASETS.keys() - {"scenes", "folder"}))
def test_the_splits_of_a_data_set_are_known_before_it_is_there(name, tiny, tmp_path):
    found = split_sizes(tiny({}, {"data.name": name, "data.options": {}}), None)
    assert found == DATASETS[name](tmp_path, cache=tmp_path).official


def test_a_users_own_images_are_counted_in_their_folder(tiny, tmp_path):
    options = {"classes": ["a", "b"], "holdout": {"val": 0.25}}
    config = tiny({}, {"data": {"name": "folder", "size": [32, 64], "options": options}})
    with pytest.raises(UserError, match="cannot be counted without them; give --data-root FOLDER"):
        split_sizes(config, None)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for i in range(8):
            Image.new("L", (40, 40), 1).save(tmp_path / kind / f"{i}.png")
    assert split_sizes(config, tmp_path) == Official(6, 2, None)


def test_no_scenes_are_painted_to_count_them(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert split_sizes(tiny(), None)[:3] == (16, 5, (64, 128))
    assert not list(tmp_path.iterdir())


def test_a_folder_is_counted_rather_than_believed(tiny, tmp_path):
    from trainer.data.scenes import write_scenes

    write_scenes(tmp_path, train=3, val=2, seed=0, size=(64, 128))
    config = tiny({}, {"data.name": "cityscapes", "data.options": {}})
    assert split_sizes(config, tmp_path)[:2] == (3, 2)


def test_made_up_pictures_go_through_the_stream(tiny):
    split = FakeSplit(16, (64, 128), (96, 192), 19)
    host = next(Stream(split, tiny(), None, 0, 1).epoch(0))
    assert host.image.shape == (4, 3, 64, 128)
    assert split.native_label(7).shape == (96, 192)
    assert len(np.unique(split.sample(0)[1])) > 5


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"optim.optimiser": "sgd", "optim.ema_decay": 0.9}])
def test_what_a_run_keeps_is_what_its_files_weigh(tiny, place, teacher_weights, changes):
    config, where = tiny(PATHS, {"optim.epochs": 3} | changes), place()
    fit(config, where, report=lambda metrics, checkpoint: None)
    written = sum(path.stat().st_size for path in where.out_dir.glob("*.pt"))
    packed = sum(path.stat().st_size for path in (where.cache_dir / "packed").glob("scenes-*.arrow"))
    found = disk_bytes(config, FOUND)
    assert found["checkpoints"] == pytest.approx(written, rel=0.15)
    assert 0 < found["packed"] <= packed


@pytest.mark.slow
def test_an_epoch_takes_about_what_a_run_took(tiny, place):
    config, where = tiny(PATHS, {"optim.epochs": 4}), place()
    fit(config, where, report=lambda metrics, checkpoint: None)
    took = sorted(epoch["seconds"] for epoch in read_epochs(where.out_dir))[:2]
    found = measure_times(config, where, 1, FOUND)
    assert found["once_s"] > 0
    # The machine may be busy in one of the two; an estimate that is wrong in kind is wrong by more than this.
    assert min(took) / 4 < found["epoch_s"] < 4 * max(took)


@pytest.mark.slow
def test_validation_that_is_rarer_costs_less(tiny, place):
    often, rarely = tiny({}, {"optim.epochs": 8}), tiny({}, {"optim.epochs": 8, "eval.every": 8})
    many = Official(4, 4000, (64, 128))
    assert measure_times(often, place(), 1, many)["epoch_s"] > 3 * measure_times(rarely, place(), 1, many)["epoch_s"]


@pytest.mark.slow
def test_the_evaluation_on_test_is_counted_once(tiny, place):
    without, with_test = tiny({}, {}), tiny({}, {"eval.splits": ["val", "test"]})
    many = Official(4, 5, (64, 128), test=4000)
    assert measure_times(with_test, place(), 1, many)["once_s"] > 3 * measure_times(without, place(), 1, many)["once_s"]


@pytest.mark.slow
def test_the_program_tells_sizes_first_and_times_as_far_as_the_alarm_lets_it(tiny, tmp_path):
    requests = {"small": tiny(), "large": tiny(PATHS, {"data.size": [1024, 2048], "data.options": {}})}
    command = [sys.executable, "-m", "trainer.probe"]
    text = written(requests, tmp_path, limit_s=5.0)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=300)
    answers, code = answers_in(done.stdout), done.returncode
    assert set(answers) == {"small", "large"}
    assert answers["small"]["epoch_s"] > 0
    assert "epoch_s" not in answers["large"]
    assert answers["large"]["packed"] > answers["small"]["packed"] > 0
    assert code < 0, "ended by its alarm"


@pytest.fixture
def ask(monkeypatch, capsys):
    """ask(requests, root, ...) -> the program's answers by id and what it ends with, in this process."""
    monkeypatch.delitem(sys.modules, "trainer.probe")  # it runs as a program, from its first line

    def run(*given, **more):
        monkeypatch.setattr(sys, "stdin", io.StringIO(written(*given, **more)))
        end = None
        try:
            runpy.run_module("trainer.probe", run_name="__main__")
        except SystemExit as error:
            end = error.code
        return answers_in(capsys.readouterr().out), end

    return run


def test_what_cannot_be_built_is_said_in_one_line(ask, tiny, tmp_path):
    answers, error = ask({"odd": tiny({"pea": {"options": {"stage_weights": [1, 2]}}})}, tmp_path)
    assert answers == {}
    assert isinstance(error, str), "Python prints it, and ends with 1"
    assert error.count("\n") == 0
    assert "stage_weights" in error


def test_without_a_gpu_only_sizes_are_told(ask, tiny, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    answers, end = ask({"run": tiny()}, tmp_path, device="cuda")
    assert end is None
    assert set(answers["run"]) == {"checkpoints", "packed"}
