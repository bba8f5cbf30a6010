"""eval: a run's checkpoint gives the run's own numbers; other data, sizes and weights are what the options say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from trainer.config import IGNORE, DataConfig, ModelConfig
from trainer.data import dataset_class, open_dataset, pack
from trainer.data.make import make_tree
from trainer.data.scenes import write_scenes
from trainer.files import checkpoint, run_folder
from trainer.models import SegModel, build_model
from trainer.rng import initialising
from trainer.training.evaluation.evaluate import evaluate
from trainer.training.loop import fit

Make = Callable[..., Any]


def measured(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name.startswith("val/")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"optim.precision": "fp32"},
        {"optim.precision": "bf16"},
        {"eval.inference": "slide", "eval.window": [64, 64], "eval.stride": [64, 32]},
        {"eval.flip": True, "eval.scales": [0.75, 1.0]},
    ],
    ids=["fp32", "bf16", "slide", "views"],
)
def test_a_run_is_measured_as_it_measured_itself(
    changes: dict[str, Any], finished: Make, command: Make, tmp_path: Path
) -> None:
    run = finished(changes)
    epochs, result = run_folder.read_epochs(run), run_folder.read_result(run)
    assert result is not None
    for name, epoch in ((run_folder.LAST, epochs[-1]), (run_folder.BEST, epochs[int(result["best"]["epoch"]) - 1])):
        code, said, errors = command("eval", run / name, "--json", tmp_path / "eval.json")
        assert (code, errors) == (0, "")
        told = json.loads((tmp_path / "eval.json").read_text())
        assert told["metrics"] == measured(epoch)
        assert told["origin"]["run_id"] == result["run_id"]
        assert told["origin"]["epoch"] == epoch["epoch"]
        assert f"mIoU      {epoch['val/miou']:.2f} full   {epoch['val/paper/miou']:.2f} paper\n" in said
        assert f"recorded  {epoch['val/miou']:.2f} full by its run\n" in said
        assert "read as   this program, normalize imagenet (from the config)\n" in said


@pytest.mark.slow
def test_predictions_may_be_made_in_another_way_than_the_run_s(finished: Make, command: Make, tmp_path: Path) -> None:
    """Two runs that differ in how they are validated train alike, so that each measures what the other recorded."""
    windows = {"eval.inference": "slide", "eval.window": [64, 64], "eval.stride": [64, 32]}
    views = {"eval.flip": True, "eval.scales": [0.75, 1.0]}
    whole, slid, viewed = finished(), finished(windows), finished(views)
    recorded = {run: run_folder.read_epochs(run)[-1]["val/miou"] for run in (whole, slid, viewed)}
    assert len(set(recorded.values())) == 3
    file = tmp_path / "eval.json"
    for run, arguments, like, how in (
        (whole, ("--window", "64x64", "--stride", "64x32"), slid, "windows of 64x64 every 64x32"),
        (whole, ("--flip", "--scales", "0.75,1"), viewed, "mirrored images too; scales 0.75, 1"),
        (slid, ("--whole",), whole, ""),
        (viewed, ("--no-flip", "--scales", "1"), whole, ""),
    ):
        code, said, errors = command("eval", run / run_folder.LAST, *arguments, "--json", file)
        assert (code, errors) == (0, "")
        assert json.loads(file.read_text())["metrics"]["val/miou"] == recorded[like]
        assert (f"predicted {how}\n" in said) == bool(how)
        made = {whole: "one pass over the image", slid: "windows of 64x64 every 64x32"}
        assert f"full by its run, predicted by {made.get(run, 'mirrored images too; scales 0.75, 1')}\n" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--window", "64"), "--window must be HEIGHTxWIDTH, for example 512x1024, but got '64'"),
        (("--window", "64x64"), "the options: eval: inference: slide needs stride"),
        (("--window", "64x64", "--stride", "64x96"), "as windows may leave no gap, but got 96"),
        (("--window", "128x128", "--stride", "64x64"), "eval.window must fit into data.size (64x128) but got 128x128"),
        (("--whole", "--stride", "64x64"), "--whole and --window exclude each other"),
        (("--scales", "1,big"), "--scales must be numbers such as 0.75,1,1.25, but got 'big'"),
        (("--scales", "1,1"), "scales must be one or more different numbers"),
    ],
)
def test_a_way_to_predict_that_makes_no_sense(
    arguments: tuple[str, ...], message: str, finished: Make, command: Make
) -> None:
    code, said, errors = command("eval", finished() / run_folder.LAST, *arguments)
    assert (code, said) == (2, "")
    assert message in errors and len(errors.splitlines()) == 1


@pytest.mark.slow
def test_the_table_has_each_class_with_its_share_of_pixels(finished: Make, command: Make) -> None:
    run = finished()
    last = run_folder.read_epochs(run)[-1]
    _, said, _ = command("eval", run / run_folder.LAST)
    lines = said.splitlines()
    rows = {" ".join(words[:-3]): words[-3:] for words in map(str.split, lines[lines.index("") + 2 :])}
    assert tuple(rows) == dataset_class("scenes").classes
    for name, (full, paper, _) in rows.items():
        for shown, key in ((full, f"val/iou/{name}"), (paper, f"val/paper/iou/{name}")):
            assert shown == (f"{last[key]:.2f}" if key in last else "-")
    assert sum(float(share) for *_, share in rows.values()) == pytest.approx(100, abs=0.1)


@pytest.mark.slow
def test_protocol_split_and_batch_are_options(finished: Make, command: Make, tmp_path: Path) -> None:
    run, file = finished(), tmp_path / "new" / "eval.json"
    last = run_folder.read_epochs(run)[-1]
    assert command("eval", run / run_folder.LAST, "--protocol", "paper", "--batch", "2", "--json", file)[0] == 0
    assert json.loads(file.read_text())["metrics"]["val/miou"] == last["val/paper/miou"]
    assert command("eval", run / run_folder.LAST, "--split", "train", "--json", file)[0] == 0
    metrics = json.loads(file.read_text())["metrics"]
    assert set(metrics) >= {"train/miou", "train/paper/miou"}
    assert not measured(metrics)


@pytest.mark.slow
def test_another_data_set_of_the_same_classes_shows_its_conditions(
    finished: Make, command: Make, tmp_path: Path
) -> None:
    root = tmp_path / "acdc"
    make_tree(dataset_class("acdc")(root, cache=tmp_path), train=4, val=8, seed=0, size=(64, 128))
    arguments = ("eval", finished() / run_folder.LAST, "--data", "acdc", "--data-root", root)
    code, said, errors = command(*arguments, "--json", tmp_path / "eval.json")
    assert (code, errors) == (0, "")
    metrics = json.loads((tmp_path / "eval.json").read_text())["metrics"]
    miou = run_folder.read_epochs(finished())[-1]["val/miou"]
    known = run_folder.read_result(finished())
    there = f"on scenes val at 64x128, normalize imagenet, images with fingerprint {known['data']['val']}"
    assert f"recorded  {miou:.2f} full by its run, {there}\n" in said
    for condition in ("fog", "night", "rain", "snow"):
        assert [condition, f"{metrics[f'val/{condition}/miou']:.2f}"] in [line.split() for line in said.splitlines()]


@pytest.mark.slow
def test_what_has_no_labelled_pixel_has_no_number(finished: Make, command: Make, tmp_path: Path) -> None:
    """Night first, whose mIoU is absent beside the others; then the whole split."""
    root = tmp_path / "acdc"
    made = dataset_class("acdc")(root, cache=tmp_path)
    make_tree(made, train=4, val=4, seed=0, size=(64, 128))
    arguments = ("eval", finished() / run_folder.LAST, "--data", "acdc", "--data-root", root, "--json", root / "x.json")
    for gone in ("night", ""):
        for pair in made.pairs("val"):
            if gone in pair.stem:
                Image.new("L", (128, 64), IGNORE).save(pair.label)
        code, said, errors = command(*arguments)
        assert (code, errors) == (0, "")
        rows = [line.split() for line in said.splitlines()]
        assert ["night", "-"] in rows
        assert "val/night/miou" not in json.loads((root / "x.json").read_text())["metrics"]
    assert ["mIoU", "-", "full", "-", "paper"] in rows
    assert ["road", "-", "-", "0.00"] in rows


@pytest.mark.slow
def test_a_number_of_other_pictures_is_not_shown_as_the_runs(finished: Make, command: Make, tmp_path: Path) -> None:
    run = finished()
    there = "on scenes val at 64x128, normalize imagenet"
    images = f"images with fingerprint {run_folder.read_result(run)['data']['val']}"
    more = yaml.safe_load((run / "config.yaml").read_text())
    more["data"]["options"]["val"] = 6
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(more))
    more["data"]["options"] |= {"val": 5, "train": 12}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(more))
    for options, told in (
        (("--size", "32x64"), f"full by its run, {there}"),
        (("--normalize", "unit"), f"full by its run, {there}"),
        (("--split", "train"), f"full by its run, {there}, {images}"),
        (("--protocol", "paper"), "full by its run"),
        (("--config", tmp_path / "more.yaml"), f"full by its run, {there}, {images}"),
        (("--config", tmp_path / "train.yaml"), "full by its run"),
    ):
        _, said, _ = command("eval", run / run_folder.LAST, *options)
        assert recorded(said) == told
    alone = tmp_path / "alone.pt"
    alone.write_bytes((run / run_folder.BEST).read_bytes())
    _, said, _ = command("eval", alone, "--config", run / "config.yaml")
    assert recorded(said) == "full by its run"
    described = ("--model", "segformer_tiny", "--data", "scenes", "--size", "64x128", "--normalize", "imagenet")
    _, said, _ = command("eval", alone, *described)
    assert recorded(said) == f"by its run, on {images}; no config.yaml beside the checkpoint"


def recorded(said: str) -> str:
    """What is printed after a recorded mIoU."""
    (line,) = (line for line in said.splitlines() if line.startswith("recorded"))
    return line.split(maxsplit=2)[2]


@pytest.mark.slow
def test_other_images_under_the_same_config_are_told_by_their_fingerprint(
    tiny: Make, place: Make, command: Make, tmp_path: Path
) -> None:
    """A folder like the run's with other images in it, for last.pt and best.pt of a finished and an unfinished run."""
    for seed, name in enumerate(("here", "there")):
        write_scenes(tmp_path / name, train=8, val=3, seed=seed, size=(64, 128))
    changes = {"data.name": "cityscapes", "data.options": {}, "optim.epochs": 1, "eval.every": 1}
    run = place(data_root=tmp_path / "here")
    result = fit(tiny({}, changes), run, report=lambda metrics, checkpoint: None)
    words = "full by its run, on cityscapes val at 64x128, normalize imagenet, images"
    for name in (run_folder.LAST, run_folder.BEST):
        for root, told in (
            ("here", "full by its run"),
            ("there", f"{words} with fingerprint {result['data']['val']}"),
        ):
            assert recorded(command("eval", run.out_dir / name, "--data-root", tmp_path / root)[1]) == told
    (run.out_dir / "result.json").unlink()
    assert (
        recorded(command("eval", run.out_dir / run_folder.LAST, "--data-root", tmp_path / "here")[1])
        == "full by its run"
    )
    state = checkpoint.load(run.out_dir / run_folder.LAST)
    del state["data"]  # as before fingerprints were part of checkpoints
    checkpoint.save(run.out_dir / run_folder.LAST, state)
    _, said, _ = command("eval", run.out_dir / run_folder.LAST, "--data-root", tmp_path / "here")
    assert recorded(said) == f"{words} whose fingerprint it did not record"


@pytest.fixture
def public(tmp_path: Path) -> tuple[Path, SegModel]:
    """A network with a void output, in a file as TransKD publishes them, and the same network."""
    with initialising(0, "public"):
        model = build_model(ModelConfig(name="segformer_tiny"), 20)
    checkpoint.save(tmp_path / "public.pth", {f"module.{name}": value for name, value in model.state_dict().items()})
    return tmp_path / "public.pth", model


@pytest.mark.slow
def test_public_weights_without_a_config(public: tuple[Path, SegModel], command: Make, tmp_path: Path) -> None:
    """Reference's weights: 20 outputs, and images scaled to 0..1, which their naming tells."""
    path, model = public
    root = tmp_path / "city"
    write_scenes(root, train=1, val=3, seed=0, size=(64, 128))
    described = ("--model", "segformer_tiny", "--data", "cityscapes", "--size", "64x128")
    file = tmp_path / "eval.json"
    data = DataConfig(name="cityscapes", size=(64, 128), normalize="unit")
    split = pack(open_dataset(data, root, tmp_path), data, "val", tmp_path)
    for options, normalize in (((), "unit"), (("--normalize", "imagenet"), "imagenet")):
        code, said, errors = command("eval", path, *described, *options, "--data-root", root, "--json", file)
        assert (code, errors) == (0, "")
        source = "--normalize" if options else "the weights' family"
        told = f"TransKD SegFormer, normalize {normalize} (from {source}), 20 outputs, the last void"
        assert f"read as   {told}\n" in said
        expected = evaluate(
            model,
            split,
            dataset_class("cityscapes").classes,
            data.model_copy(update={"normalize": normalize}),
            ("full",),
        )
        assert json.loads(file.read_text())["metrics"] == expected


@pytest.mark.slow
def test_a_plain_file_of_our_own_is_not_taken_for_the_references(finished: Make, command: Make, tmp_path: Path) -> None:
    """Names alone do not tell: SegFormer's are the same in both."""
    run = finished()
    checkpoint.save(tmp_path / "plain.pth", checkpoint.load(run / run_folder.BEST)["model"])
    described = ("--model", "segformer_tiny", "--data", "scenes", "--size", "64x128")
    code, said, errors = command("eval", tmp_path / "plain.pth", *described)
    assert (code, said) == (2, "")
    assert "does not tell its normalisation; give --normalize unit or imagenet" in errors
    code, said, _ = command("eval", tmp_path / "plain.pth", *described, "--normalize", "imagenet")
    assert code == 0
    assert "normalize imagenet (from --normalize)\n" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "has no config.yaml beside it; give --config FILE, or --model NAME --data NAME --size HxW"),
        (["--model", "segformer_tiny", "--size", "64x128"], "also needs --data NAME"),
        (["--model", "segformer_tiny", "--data", "cityscapes"], "also needs --size HxW"),
        (["--model", "segformer_tiny", "--config", "x.yaml"], "--config and --model exclude each other"),
        (["--model", "segformer_tyni", "--data", "scenes", "--size", "64x128"], "did you mean 'segformer_tiny'?"),
        (["--model", "segformer_mini", "--data", "scenes", "--size", "64x128"], "does not fit the network"),
        (["--model", "segformer_tiny", "--data", "camvid", "--size", "64x128"], "has 20 outputs, but the data has 11"),
        (["--model", "segformer_tiny", "--data", "cityscapes", "--size", "64x128"], "needs a folder; give --data-root"),
        (["--model", "segformer_tiny", "--data", "scenes", "--size", "64"], "--size must be HEIGHTxWIDTH"),
        (
            ["--model", "segformer_tiny", "--data", "scenes", "--size", "66x128"],
            "a multiple of 4 from 32 to 16384 but",
        ),
        (["--protocol", "half"], "--protocol must be full or paper but got 'half'"),
        (["--device", "cuda:9"], "use --device cpu"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    message: str,
    public: tuple[Path, SegModel],
    command: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, said, errors = command("eval", public[0], *arguments)
    assert (code, said) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
def test_a_checkpoint_that_is_none(finished: Make, command: Make, tmp_path: Path) -> None:
    run = finished()
    for path, message in (
        (run, "is a folder; give a checkpoint in it: last.pt (the last epoch, which tables are of) or best.pt"),
        (run / "first.pt", f"no such checkpoint: {run / 'first.pt'}"),
        (run / "result.json", "is not a checkpoint that can be read safely"),
    ):
        code, _, errors = command("eval", path)
        assert code == 2
        assert message in errors
    code, _, errors = command("eval", run / run_folder.LAST, "--data", "camvid", "--data-root", tmp_path)
    assert code == 2
    assert "its classes are not those of scenes" in errors
