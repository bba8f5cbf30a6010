"""predict: pictures of what the network says, at the images' own size; a second run does only what is missing."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from trainer.config import EvalConfig, ModelConfig
from trainer.data import dataset_class
from trainer.data.cityscapes import CLASSES
from trainer.data.images import read_rgb
from trainer.data.packs.packing import resize_image
from trainer.data.stream import normalise
from trainer.data.synthetic.painter import paint
from trainer.deploy.open import Wanted, open_student
from trainer.deploy.predict import find_images, label_images, plan, predict
from trainer.files import checkpoint, run_folder
from trainer.models import build_model
from trainer.training.evaluation.inference import logits_of
from trainer.training.evaluation.prediction import class_of

Make = Callable[..., Any]
SIZES = {"aachen/aachen_000000_000019_leftImg8bit.png": (64, 128), "bonn/bonn_000001_000019.jpg": (50, 90)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images of different sizes in two folders, beside a file that is none."""
    folder = tmp_path / "images"
    for index, (name, (height, width)) in enumerate(SIZES.items()):
        picture, _ = paint(0, "val", index, (64, 128))
        (folder / name).parent.mkdir(parents=True)
        Image.fromarray(picture).resize((width, height)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def classes_by_hand(path: Path, image: np.ndarray) -> np.ndarray:
    """(H, W) of an image (H, W, 3): resized to the run's 64x128, and its logits resized back."""
    model = build_model(ModelConfig(name="segformer_tiny"), 19)
    model.load_state_dict(checkpoint.load(path)["model"])
    small = torch.from_numpy(resize_image(image, (64, 128)).copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = model.eval()(normalise(small, "imagenet")).logits
    assert logits is not None
    return F.interpolate(logits, size=image.shape[:2], mode="bilinear").argmax(1)[0].numpy()


def test_every_pixel_is_labelled_at_the_images_own_size(finished: Make, command: Make, images: Path) -> None:
    best, out = finished() / run_folder.BEST, images.parent / "out"
    code, said, errors = command("predict", best, images, "--out", out, "--ids", "train")
    assert (code, errors) == (0, "")
    assert f"2 images labelled: masks, overlays, train_ids in {out}" in said
    assert "; read as this program, normalize imagenet (from the config)\n" in said
    palette = np.array(dataset_class("scenes").palette, np.uint8)
    for name in SIZES:
        image = np.asarray(Image.open(images / name))
        ids, mask, overlay = (
            np.asarray(Image.open((out / kind / name).with_suffix(".png")))
            for kind in ("train_ids", "masks", "overlays")
        )
        assert ids.shape == image.shape[:2]
        np.testing.assert_array_equal(ids, classes_by_hand(best, image))
        np.testing.assert_array_equal(mask, palette[ids])
        np.testing.assert_allclose(overlay, (image / 2 + mask / 2), atol=0.5)


@pytest.mark.slow
def test_predictions_are_made_as_the_run_is_validated(finished: Make, command: Make, images: Path) -> None:
    """With the windows, mirror images and scales of its config."""
    asked = {"inference": "slide", "window": [64, 64], "stride": [64, 32], "flip": True, "scales": [1.0, 1.5]}
    path, out = (
        finished({f"eval.{name}": value for name, value in asked.items()}) / run_folder.LAST,
        images.parent / "out",
    )
    assert command("predict", path, images, "--out", out, "--ids", "train")[0] == 0
    student = open_student(path, Wanted(), "cpu")
    assert student.config.eval.model_dump(mode="json").items() >= asked.items()
    plain = student._replace(config=student.config.model_copy(update={"eval": EvalConfig()}))
    differing = 0
    for name in SIZES:
        native = read_rgb(images / name)
        small = resize_image(native, (64, 128))
        with torch.no_grad():
            views = logits_of(
                student.model, small[None].copy(), student.config.data, student.device, how=student.config.eval
            )
        assert len(views) == 4
        found = np.asarray(Image.open((out / "train_ids" / name).with_suffix(".png")))
        np.testing.assert_array_equal(found, class_of(views, native.shape[:2])[0].numpy())
        differing += not np.array_equal(found, label_images(plain, [native], [small])[0])
    assert differing


def test_label_ids_are_what_the_cityscapes_server_looks_for(finished: Make, command: Make, images: Path) -> None:
    """mcordts/cityscapesScripts, evalPixelLevelSemanticLabeling.py: label ids in CITY_SEQUENCE_FRAME*.png, one each."""
    out = images.parent / "out"
    for ids in ("train", "label"):
        arguments = ("predict", finished() / run_folder.BEST, images, "--out", out, "--no-masks", "--no-overlays")
        assert command(*arguments, "--ids", ids)[0] == 0
    assert {path.name for path in out.iterdir()} == {"train_ids", "label_ids", "predict.json"}
    submitted = [path for path in (out / "label_ids").rglob("*") if path.is_file()]
    for stem in ("aachen_000000_000019", "bonn_000001_000019"):
        (found,) = (path for path in submitted if fnmatch.fnmatch(path.name, f"{stem}*.png"))
        picture = Image.open(found)
        assert picture.mode == "L"
        trained = np.asarray(Image.open(out / "train_ids" / found.relative_to(out / "label_ids")))
        np.testing.assert_array_equal(picture, np.array([entry.label_id for entry in CLASSES])[trained])


@pytest.mark.slow
def test_again_does_what_is_missing(finished: Make, command: Make, images: Path) -> None:
    out = images.parent / "out"
    arguments = ("predict", finished() / run_folder.BEST, images, "--out", out)
    assert command(*arguments)[0] == 0
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert len(written) == 4
    gone = out / "masks" / "bonn" / "bonn_000001_000019.png"
    gone.unlink()
    Image.open(images / next(iter(SIZES))).save(images / "new.png")
    _, said, _ = command(*arguments)
    assert "2 images labelled, 1 were before" in said
    assert (out / "overlays" / "new.png").exists() and gone.exists()
    kept = out / "masks" / "aachen" / "aachen_000000_000019_leftImg8bit.png"
    assert kept.stat().st_mtime_ns == written[kept]
    assert "0 images labelled, 3 were before" in command(*arguments)[1]


@pytest.mark.slow
def test_predictions_of_another_student_are_not_mixed_in(finished: Make, command: Make, images: Path) -> None:
    out = images.parent / "out"
    assert command("predict", finished() / run_folder.LAST, images, "--out", out)[0] == 0
    for changed, message in (
        (("--normalize", "unit"), f"{out} holds predictions with another normalize; choose another folder"),
        (("--flip",), f"{out} holds predictions with another inference; choose another folder"),
        (("--out", images / "bonn"), f"{images / 'bonn'} holds other files; choose a folder that is new or empty"),
    ):
        code, _, errors = command("predict", finished() / run_folder.LAST, images, "--out", out, *changed)
        assert code == 2
        assert message in errors
    _, _, errors = command("predict", finished({"seed": 1}) / run_folder.LAST, images, "--out", out)
    assert f"{out} holds predictions of another checkpoint; choose another folder" in errors
    for damage in ('{"sha256": "', "7", "[7]"):
        (out / "predict.json").write_text(damage)
        code, _, errors = command("predict", finished() / run_folder.LAST, images, "--out", out)
        assert code == 2
        assert errors == f"error: {out / 'predict.json'} is damaged; choose another folder\n"


def test_images_that_cannot_be_read_are_named_and_the_others_labelled(
    finished: Make, command: Make, images: Path
) -> None:
    good = images / next(iter(SIZES))
    (images / "cut.png").write_bytes(good.read_bytes()[:400])
    (images / "text.jpg").write_text("not a picture")
    out = images.parent / "out"
    code, said, errors = command("predict", finished() / run_folder.BEST, images, "--out", out)
    assert code == 1
    assert "2 images labelled" in said
    assert errors.startswith("failed: 2 of 4 images:\n")
    assert f"cannot read {images / 'cut.png'} as an image" in errors
    assert f"cannot read {images / 'text.jpg'} as an image" in errors
    assert len(list((out / "masks").rglob("*.png"))) == 2


@pytest.mark.slow
def test_predictions_inside_the_images_are_no_images(finished: Make, command: Make, images: Path) -> None:
    arguments = ("predict", finished() / run_folder.BEST, images, "--out", images / "out")
    assert "2 images labelled:" in command(*arguments)[1]
    assert "0 images labelled, 2 were before" in command(*arguments)[1]
    other = ("predict", finished({"seed": 1}) / run_folder.BEST, images, "--out", images / "other")
    assert "2 images labelled:" in command(*other)[1]
    for out in (images / "out", images / "out" / "deeper", images.parent / "new"):
        code, _, errors = command("predict", finished() / run_folder.BEST, images / "out", "--out", out)
        assert code == 2
        assert f"no images below {images / 'out'} except predictions (folders with predict.json)" in errors


def test_pictures_never_take_the_place_of_images(finished: Make, command: Make, images: Path) -> None:
    one = images / next(iter(SIZES))
    before = {path: path.read_bytes() for path in images.rglob("*") if path.is_file()}
    for given, out in ((images, images), (images, images.parent), (one, one.parent), (one, images)):
        code, _, errors = command("predict", finished() / run_folder.BEST, given, "--out", out)
        assert code == 2
        assert f"--out {out} holds the images of {given}; choose a folder that is new or empty" in errors
    assert {path: path.read_bytes() for path in images.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_predictions_never_feed_themselves(finished: Make, command: Make, images: Path) -> None:
    """Neither by the folders inside them, nor by links to the images or to the predictions."""
    best, out = finished() / run_folder.BEST, images / "p"
    assert command("predict", best, images, "--out", out)[0] == 0
    (images.parent / "link").symlink_to(out / "masks")
    for given in (out / "masks", out / "masks" / "bonn", images.parent / "link", images / "bonn" / ".." / "p"):
        code, _, errors = command("predict", best, given, "--out", images.parent / "again")
        assert code == 2
        assert f"no images below {given} except predictions (folders with predict.json)" in errors
    (images.parent / "same").symlink_to(images)
    for over in (images.parent / "same", images.parent / "missing" / ".." / "images"):
        code, _, errors = command("predict", best, images, "--out", over)
        assert (code, "holds the images of" in errors) == (2, True)
    _, said, _ = command("predict", best, images.parent / "same", "--out", out)
    assert "0 images labelled, 2 were before" in said


def test_no_output_is_one_of_the_images(finished: Make, command: Make, images: Path) -> None:
    """A link in a folder of predictions leads back to the images."""
    best, out = finished() / run_folder.BEST, images.parent / "out"
    assert command("predict", best, images, "--out", out, "--no-overlays")[0] == 0
    image = images / "aachen" / "aachen_000000_000019_leftImg8bit.png"
    before = image.read_bytes()
    mask = out / "masks" / "aachen" / image.name
    for link in (mask.symlink_to, mask.hardlink_to):
        mask.unlink()
        link(image)
        code, _, errors = command("predict", best, images, "--out", out, "--no-overlays")
        assert code == 2
        assert f"{mask} would be written, and is one of the images of {images}; choose another --out" in errors
        assert image.read_bytes() == before


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_images_are_read_while_others_are_written(batch: int, finished: Make, images: Path) -> None:
    """The tail of the folder does not exist until the first picture is out: so it cannot have been in memory."""
    student = open_student(finished() / run_folder.BEST, Wanted(), "cpu")
    first = images / next(iter(SIZES))
    found = [first, *(images / f"{i:02}.png" for i in range(4 * batch))]
    jobs = plan(images, found, images.parent / "out", ("masks",))
    late = found[-batch:]
    for path in found[1:-batch]:
        path.write_bytes(first.read_bytes())

    def outcomes() -> Iterator[str | None]:
        for job, error in predict(student, jobs, batch):
            for path in late:
                path.write_bytes(first.read_bytes())
            assert all(path.exists() for path in job.files.values())
            yield error

    assert list(outcomes()) == [None] * len(jobs)


def test_void_is_never_predicted(command: Make, images: Path) -> None:
    """A network with a void output that always wins: every pixel still gets a class."""
    model = build_model(ModelConfig(name="segformer_tiny"), 20)
    model.load_state_dict({"linear_pred.bias": torch.tensor([0.0] * 7 + [5.0] + [0.0] * 11 + [99.0])}, strict=False)
    path = images.parent / "void.pth"
    checkpoint.save(path, model.state_dict())
    described = ("--model", "segformer_tiny", "--data", "cityscapes", "--size", "64x128")
    out = images.parent / "out"
    assert command("predict", path, images, "--out", out, *described, "--ids", "train")[0] == 0
    for written in (out / "train_ids").rglob("*.png"):
        assert np.asarray(Image.open(written)).max() <= 18


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["EMPTY", "--out", "OUT"], "no images below"),
        (["NOWHERE", "--out", "OUT"], "no such image or folder"),
        (["IMAGES", "--out", "OUT", "--no-masks", "--no-overlays"], "nothing to write"),
        (["TWINS", "--out", "OUT"], "would both be written as a.png; rename one of them"),
        (["STRANGE", "--out", "OUT"], r"strange/\xff.png' is not UTF-8; rename it"),
        (["IMAGES", "--out", "\udcff"], r"the name b'\xff' is not UTF-8; rename it"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    arguments: list[str], message: str, finished: Make, command: Make, images: Path
) -> None:
    base = images.parent
    places = {"EMPTY": base / "empty", "NOWHERE": base / "nowhere", "OUT": base / "out", "IMAGES": images}
    places["TWINS"] = base / "twins"
    places["EMPTY"].mkdir()
    places["TWINS"].mkdir()
    places["STRANGE"] = base / "strange"
    places["STRANGE"].mkdir()
    Image.new("RGB", (40, 40)).save(places["STRANGE"] / "\udcff.png")
    for suffix in ("jpg", "png"):
        Image.new("RGB", (40, 40)).save(places["TWINS"] / f"a.{suffix}")
    code, said, errors = command(
        "predict", finished() / run_folder.BEST, *(places.get(word, word) for word in arguments)
    )
    assert (code, said) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not places["OUT"].exists()


def test_label_ids_belong_to_cityscapes(command: Make, images: Path) -> None:
    path = images.parent / "camvid.pth"
    checkpoint.save(path, build_model(ModelConfig(name="segformer_tiny"), 11).state_dict())
    described = ("--model", "segformer_tiny", "--data", "camvid", "--size", "64x128", "--normalize", "unit")
    code, _, errors = command("predict", path, images, "--out", images.parent / "out", *described, "--ids", "label")
    assert code == 2
    assert "only the classes of Cityscapes have label ids; use --ids train" in errors
    assert find_images(images) == sorted(images / name for name in SIZES)


def test_hidden_files_are_no_images(images: Path) -> None:
    hidden = images.rename(images.with_name(".images"))  # only what is hidden below the folder that was asked for
    for name in ("._a.png", "__MACOSX/._b.jpg", ".thumbnails/c.png"):
        (hidden / name).parent.mkdir(exist_ok=True)
        (hidden / name).write_bytes(b"\0\5\x16\7")
    assert find_images(hidden) == sorted(hidden / name for name in SIZES)
