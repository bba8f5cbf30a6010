"""export: one ONNX file that computes what the network computes, or no file."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
import torch
from PIL import Image

from trainer.config import DataConfig, ModelConfig, TrainConfig, parse, read_yaml
from trainer.data import PackedSplit, dataset_class, facts_of, open_dataset, pack
from trainer.data.scenes import write_scenes
from trainer.data.synthetic.painter import paint
from trainer.deploy.onnx import write_onnx
from trainer.deploy.open import Student
from trainer.deploy.parity import Parity, compare, in_torch, open_session
from trainer.files import checkpoint, run_folder
from trainer.files.atomic import replacing
from trainer.files.file_digest import file_digest
from trainer.measure.complexity import parameters
from trainer.models import MODELS, build_model
from trainer.place import default_cache
from trainer.rng import initialising
from trainer.verbs.export import require_parity

Make = Callable[..., Any]
SMALLEST = ["segformer_tiny", "segformer_mini", "pvtv2_mini", "lvt_mini"]
"""Networks of less than a million parameters: an export takes seconds, and larger ones are the same graph."""


def logits(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, 5, 20, 50)).astype(np.float32)


def test_equal_logits_agree_and_the_difference_is_the_largest() -> None:
    nearly = logits()
    nearly[1, 2, 3, 4] += 1e-3
    parity = compare([(logits(), logits()), (logits(), nearly)])
    assert parity[:3] == (4, 4000, 4000)
    assert parity.difference == pytest.approx(1e-3, rel=1e-3)
    assert parity.largest == np.abs(logits()).max()
    assert parity.accepted


@pytest.mark.parametrize(("wrong", "accepted"), [(0, True), (2, True), (3, False), (2000, False)])
def test_999_pixels_in_a_thousand_must_agree(wrong: int, accepted: bool) -> None:
    one, other = logits(), logits()
    for at in range(wrong):
        image, row, column = np.unravel_index(at, (2, 20, 50))
        other[image, :, row, column] *= -1
    parity = compare([(one, other)])
    assert parity.agreement == 1 - wrong / 2000
    assert parity.accepted is accepted


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_agrees_with_nothing(value: float) -> None:
    broken = logits()
    broken[:, 0] = value
    for pair in ((logits(), broken), (broken, logits()), (broken, broken)):
        parity = compare([pair])
        assert (parity.agreeing, parity.difference, parity.accepted) == (0, np.inf, False)


def test_no_pixels_are_no_proof() -> None:
    assert not compare([]).accepted


def test_only_an_accepted_file_gets_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "student.onnx"
    out.write_text("the one before")

    def write(text: str, agreeing: int) -> None:
        with replacing(out) as temporary:
            temporary.write_text(text)
            require_parity(Parity(1, 1000, agreeing, 0.5, 9.0), out)

    with pytest.raises(SystemExit) as end:
        write("refused", 998)
    assert end.value.code == 1
    assert list(tmp_path.iterdir()) == [out] and out.read_text() == "the one before"
    errors = capsys.readouterr().err
    assert errors.startswith("failed: onnxruntime and torch predict the same class at 99.800 % of 1000 pixels")
    assert len(errors.splitlines()) == 1
    write("accepted", 999)
    assert out.read_text() == "accepted"


def student(name: str, size: tuple[int, int] = (64, 128), outputs: int = 19) -> Student:
    """A network that no run has trained."""
    config: TrainConfig = parse({"student": {"name": name}, "data": {"name": "cityscapes", "size": size}})
    with initialising(0, "export"):
        model = build_model(config.student, outputs).eval()
    origin: dict[str, str | float] = {"checkpoint": "none", "sha256": "none"}
    return Student(model, config, facts_of(DataConfig(name="cityscapes")), origin, "this program", "the config")


def pictures(size: tuple[int, int] = (64, 128), n: int = 2) -> np.ndarray:
    return np.stack([paint(0, "val", index, size)[0] for index in range(n)])


def damage(path: Path) -> None:
    """Move one weight matrix a little: the graph still runs."""
    graph = onnx.load(path)
    largest = max(graph.graph.initializer, key=lambda tensor: int(np.prod(tensor.dims)))
    values = onnx.numpy_helper.to_array(largest)
    noise = np.random.default_rng(0).normal(size=values.shape).astype(values.dtype) * values.std()
    largest.CopyFrom(onnx.numpy_helper.from_array(values + 2 * noise, largest.name))
    onnx.save(graph, path)


@pytest.mark.slow
def test_every_small_network_is_among_the_exported() -> None:
    with torch.device("meta"):
        counts = {name: parameters(build_model(ModelConfig(name=name), 19)) for name in MODELS}
    assert [name for name, count in counts.items() if count < 1e6] == SMALLEST


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_every_network_is_exported_and_a_damaged_file_is_told(name: str, tmp_path: Path) -> None:
    path = tmp_path / "student.onnx"
    module = write_onnx(path, student(name), opset=20, full_size=False, dynamic=False)
    assert [file.name for file in tmp_path.iterdir()] == ["student.onnx"], "weights are inside"
    parity = compare((in_torch(module)(one[None]), open_session(path, 1)(one[None])) for one in pictures())
    assert parity.agreement > 0.9999
    assert parity.difference < 1e-4 * max(parity.largest, 1)
    assert parity.pixels == 2 * 16 * 32
    damage(path)
    told = compare((in_torch(module)(one[None]), open_session(path, 1)(one[None])) for one in pictures())
    assert not told.accepted


@pytest.mark.slow
def test_a_dynamic_file_takes_any_number_of_any_multiple_of_32(tmp_path: Path) -> None:
    path = tmp_path / "student.onnx"
    module = write_onnx(path, student("segformer_tiny", outputs=20), opset=18, full_size=True, dynamic=True)
    assert onnx.load(path).opset_import[0].version == 18
    for n, size in ((1, (64, 128)), (3, (64, 128)), (2, (96, 64)), (1, (32, 32))):
        images = np.ascontiguousarray(pictures((96, 128), n)[:, : size[0], : size[1]])
        run = open_session(path, 1)
        assert run(images).shape == (n, 20, *size)
        assert compare([(in_torch(module)(images), run(images))]).agreement > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segformer_tiny", "pvtv2_mini", "lvt_mini"])
def test_a_dynamic_file_of_the_smallest_size(name: str, tmp_path: Path) -> None:
    """A side of 32 is one position of the deepest stage, which torch.export would take for a constant."""
    path = tmp_path / "student.onnx"
    module = write_onnx(path, student(name, (32, 32)), opset=20, full_size=False, dynamic=True)
    for n, (height, width) in ((1, (32, 32)), (3, (32, 64)), (1, (96, 32)), (2, (64, 128))):
        images = np.ascontiguousarray(pictures((96, 128), n)[:, :height, :width])
        assert compare([(in_torch(module)(images), open_session(path, 1)(images))]).agreement > 0.9999


@pytest.mark.slow
def test_a_file_that_is_read_is_not_written_over(finished: Make, command: Make, tmp_path: Path) -> None:
    """Whatever the name of the file: links, `..`, hard links."""
    run = tmp_path / "run"
    shutil.copytree(finished(), run)
    picture = tmp_path / "a.png"
    Image.fromarray(pictures(n=1)[0]).save(picture)
    best = run / run_folder.BEST
    other = tmp_path / "other"
    shutil.copytree(run, other)
    (tmp_path / "link.onnx").symlink_to(best)
    (tmp_path / "hard.onnx").hardlink_to(best)
    (tmp_path / "image.onnx").symlink_to(picture)
    config = run / "config.yaml"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "notes.md").write_text("mine", encoding="utf-8")
    kept = (*run.iterdir(), *other.iterdir(), picture, tmp_path / "notes.md")
    before = {path: path.read_bytes() for path in kept if path.is_file()}
    for verb, option in (("export", "--out"), ("eval", "--json")):
        for out, read in (
            (best, best),
            (tmp_path / "link.onnx", best),
            (tmp_path / "hard.onnx", best),
            (run / ".." / "run" / run_folder.BEST, best),
            (config, config),
            *((run / name, run / name) for name in ("result.json", "epochs.jsonl", "panel.png", run_folder.LAST)),
        ):
            code, said, errors = command(verb, best, option, out)
            assert (code, said) == (2, "")
            assert errors == f"error: {option} {out} would be written over {read}, which is read; name another file\n"
        for out in (other / run_folder.BEST, other / "config.yaml", run / run_folder.PREVIOUS):
            code, _, errors = command(verb, best, option, out)
            assert (code, errors) == (2, f"error: {option} {out} is a file of a run; name another file\n")
        code, _, errors = command(verb, best, option, tmp_path / "notes.md")
        assert code == 2
        assert f"{option} {tmp_path / 'notes.md'} exists and is no ." in errors
        code, _, errors = command(verb, best, option, tmp_path / "pipe")
        assert (code, errors) == (
            2,
            f"error: {option} {tmp_path / 'pipe'} is a pipe; name a file that may be written\n",
        )
    for out in (picture, tmp_path / "image.onnx"):
        code, _, errors = command("export", best, "--images", picture, "--out", out)
        assert code == 2
        assert f"--out {out} would be written over {picture}, which is read" in errors
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_a_file_says_what_its_graph_leaves_to_the_application(finished: Make, command: Make, tmp_path: Path) -> None:
    run, out = finished({"eval.flip": True, "eval.scales": [0.75, 1.0]}), tmp_path / "student.onnx"
    code, said, errors = command("export", run / run_folder.BEST, "--out", out)
    assert (code, errors) == (0, "")
    assert (
        "the graph is one pass over one image; the run predicts by mirrored images too; scales 0.75, 1: repeat that"
        in said
    )
    assert {entry.key: entry.value for entry in onnx.load(out).metadata_props}[
        "inference"
    ] == "mirrored images too; scales 0.75, 1"


@pytest.mark.parametrize("verb", ["export", "eval"])
def test_images_of_the_data_set_are_not_written_over(verb: str, finished: Make, command: Make, tmp_path: Path) -> None:
    root = tmp_path / "city"
    write_scenes(root, train=1, val=2, seed=0, size=(64, 128))
    label = sorted(root.glob("gtFine/val/*/*.png"))[0]
    before = label.read_bytes()
    given = (finished() / run_folder.BEST, "--data", "cityscapes", "--data-root", root)
    code, _, errors = command(verb, *given, "--out" if verb == "export" else "--json", label)
    assert code == 2
    assert f"{label} would be written over {label}, which is read; name another file" in errors
    assert label.read_bytes() == before


@pytest.mark.slow
def test_the_verb_writes_a_file_that_explains_itself(finished: Make, command: Make, tmp_path: Path) -> None:
    run, out = finished(), tmp_path / "deep" / "student.onnx"
    code, said, errors = command("export", run / run_folder.BEST, "--out", out)
    assert (code, errors) == (0, "")
    assert {path.name for path in out.parent.iterdir()} == {"student.onnx", "student.card.md"}
    result = run_folder.read_result(run)
    assert result is not None
    assert f"run {result['run_id']}, epoch {result['best']['epoch']:.0f}; read as this program, normalize" in said
    assert "on 5 images: the same class at 100.000 % of 2560 pixels" in said
    assert "one image takes onnxruntime" in said
    told = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    state = checkpoint.load(run / run_folder.BEST)["model"]
    model = build_model(ModelConfig(name="segformer_tiny"), 19)
    model.load_state_dict(state)
    assert json.loads(told["classes"]) == list(dataset_class("scenes").classes)
    assert (told["normalize"], told["sizes"], told["outputs"]) == ("imagenet", "64x128 only", "19")
    assert told["parameters"] == str(parameters(model))
    assert told["origin.run_id"] == result["run_id"]
    assert "inference" not in told
    # the whole of what an application does: open, resize, ask
    (image,) = pictures((128, 256), 1)
    resized = np.asarray(Image.fromarray(image).resize((128, 64), Image.Resampling.BILINEAR))
    (answer,) = onnxruntime.InferenceSession(out).run(None, {"image": resized[None]})
    assert answer.shape == (1, 19, 16, 32)


def miou_by_hand(path: Path, packed: PackedSplit, classes: int) -> float:
    """The mIoU of a graph over the classes that occur, counted pixel by pixel in NumPy."""
    run, hits, unions, labelled = open_session(path, 1), np.zeros(classes), np.zeros(classes), np.zeros(classes)
    for index in range(len(packed)):
        label = packed.native_label(index)
        logits = torch.from_numpy(run(packed.images([index])))
        whole = torch.nn.functional.interpolate(logits, size=label.shape, mode="bilinear", align_corners=False)
        predicted = whole[0].argmax(0).numpy()
        for k in range(classes):
            true, found = label == k, (predicted == k) & (label < classes)
            hits[k] += (true & found).sum()
            unions[k] += (true | found).sum()
            labelled[k] += true.sum()
    return float(100 * (hits / np.maximum(unions, 1))[labelled > 0].mean())


@pytest.mark.slow
def test_a_file_in_int8_says_what_it_costs_and_the_card_holds_it(finished: Make, command: Make, tmp_path: Path) -> None:
    run, out = finished(), tmp_path / "student.onnx"
    code, said, errors = command("export", run / run_folder.LAST, "--out", out, "--int8")
    assert (code, errors) == (0, "")
    small, about = tmp_path / "student-int8.onnx", tmp_path / "student.card.md"
    assert set(tmp_path.iterdir()) == {out, small, about}
    assert small.stat().st_size < out.stat().st_size / 2
    kinds = {tensor.data_type for tensor in onnx.load(small).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    config = parse(read_yaml(run / "config.yaml"))
    packed = pack(open_dataset(config.data, None, default_cache()), config.data, "val", default_cache())
    mious = [miou_by_hand(path, packed, 19) for path in (out, small)]
    result = run_folder.read_result(run)
    assert result is not None
    assert mious[0] == pytest.approx(result["last"]["val/miou"], abs=0.01)
    assert f"{mious[0]:.2f} in float32, {mious[1]:.2f} in INT8, {mious[1] - mious[0]:+.2f}" in said
    text = about.read_text(encoding="utf-8")
    for path, miou in zip((out, small), mious, strict=True):
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {path.name} |")]
        assert f"| {miou:.2f} |" in row and file_digest(path) in row
    assert f"| run | {result['run_id']} |" in text and str(tmp_path) not in text
    assert all(f"| {name} |" in text for name in dataset_class("scenes").classes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "FOLDER"], "is a folder; name a file"),
        (["--out", "FILE", "--dynamic", "--size", "36x128"], "--dynamic needs sizes that are multiples of 32, but got"),
        (["--out", "FILE", "--images", "FOLDER"], "no images below"),
        (["--out", "FILE", "--images", "TEXT"], "as an image"),
        (["--out", "FILE", "--data", "cityscapes"], "needs a folder; give --data-root FOLDER"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    arguments: list[str], message: str, finished: Make, command: Make, tmp_path: Path
) -> None:
    places = {"FOLDER": tmp_path / "folder", "FILE": tmp_path / "student.onnx", "TEXT": tmp_path / "text.png"}
    places["FOLDER"].mkdir()
    places["TEXT"].write_text("not a picture")
    code, said, errors = command(
        "export", finished() / run_folder.BEST, *(places.get(word, word) for word in arguments)
    )
    assert (code, said) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "text.png"}


def test_a_package_that_is_not_installed_is_named(
    finished: Make, command: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    told = "error: export needs onnxruntime, not installed here; pip install 'transkd[export]'\n"
    assert command("export", finished() / run_folder.BEST, "--out", tmp_path / "student.onnx") == (2, "", told)
    assert not list(tmp_path.iterdir())
