"""Plugins on the command line: `plugin check`, and fit, eval, predict, export and data with names of plugins."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from trainer.config import DataConfig, parse, read_yaml
from trainer.config.plugin import read_plugin
from trainer.data import open_dataset, pack
from trainer.plugins.load import activate

Make = Callable[..., Any]
FILES = ("my_kd.py", "my_net.py", "my_data.py", "my_steps.py")
RUN = {
    "plugins": ["my_kd.py", "my_net.py", "my_data.py"],
    "data": {"name": "blobs", "size": [32, 64]},
    "student": {"name": "small_net"},
    "optim": {"epochs": 1, "global_batch": 4},
}


def write(folder: Path, **sections: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**RUN, **sections}))
    return path


@pytest.mark.slow
def test_check_says_what_is_kept(own: Path, command: Make) -> None:
    code, out, err = command("plugin", "check", own / "my_kd.py")
    assert (code, err) == (0, "")
    assert out.startswith("my_kd.py: distiller mean_gap\n  kept    a scalar loss")
    assert out.endswith("keeps the contract\n")


@pytest.mark.slow
def test_check_says_what_is_broken(own: Path, command: Make) -> None:
    text = (own / "my_kd.py").read_text().replace(".square().mean()", ".square().sum()")
    (own / "my_kd.py").write_text(text)
    code, out, _ = command("plugin", "check", own / "my_kd.py")
    assert code == 1
    assert "  broken  micro-batches do not change the loss: the loss depends on the micro-batch: " in out
    assert out.endswith("1 promise broken\n")


def test_check_of_what_is_no_plugin_is_one_line(own: Path, command: Make) -> None:
    code, _, err = command("plugin", "check", own / "away.py")
    assert (code, err) == (2, f"error: plugins: no such file: {own}/away.py; put it beside the study\n")
    code, _, err = command("plugin", "check", "my-package")
    assert (code, err) == (2, "error: unknown plugin file or package 'my-package'; known: none\n")


def test_check_takes_a_package_by_its_name_however_written_and_says_how_of_its_folder(
    install: Callable[..., Path], command: Make
) -> None:
    site = install({"my_kd.py": "raise OSError\n"}, "gap = my_kd:Gap")
    for name in ("my-kd", "my_kd", "My.KD"):
        code, _, err = command("plugin", "check", name)
        assert (code, err) == (
            2,
            "error: plugin my-kd 1.2: the distiller 'gap' cannot be loaded from my_kd:Gap, line 1 of my_kd.py: "
            "OSError; correct the package\n",
        )
    code, _, err = command("plugin", "check", site)
    assert code == 2
    assert (
        f"{site} is a folder: a plugin is a Python file or an installed package; install it, `pip install -e {site}`"
        in err
    )


@pytest.mark.slow
def test_names_of_a_package_are_valid_wherever_ours_are(own: Path, install: Callable[..., Path], command: Make) -> None:
    files = {f"my_all/{name[3:]}": (own / name).read_text() for name in FILES}
    points = "\n".join(
        f"[transkd.{group}]\n{name} = my_all.{module}:{entry}"
        for group, name, module, entry in (
            ("distillers", "mean_gap", "kd", "MeanGap"),
            ("models", "small_net", "net", "SmallNet"),
            ("datasets", "blobs", "data", "Blobs"),
            ("augmentations", "upside_down", "steps", "UpsideDown"),
        )
    )
    install({"my_all/__init__.py": "", **files}, points.encode(), name="my-all")
    assert command("plugin", "check", "my-all")[0] == 0
    tree, out = own / "tree", own / "out"
    assert command("data", "make", "blobs", tree)[0] == 0
    assert command("data", "check", "blobs", tree, "--subset")[0] == 0
    run = write(own, data={"name": "blobs", "size": [32, 64], "augment": [{"upside_down": {}}]})
    run.write_text(run.read_text().replace("plugins:\n- my_kd.py\n- my_net.py\n- my_data.py\n", ""))
    code, _, err = command("fit", run, "--out", out, "--data-root", tree)
    assert (code, err) == (0, "")
    assert [plugin.name for plugin in parse(read_yaml(out / "config.yaml")).used_plugins] == ["my-all 1.2"]
    for words in (
        ("eval", out / "last.pt", "--data-root", tree),
        ("predict", out / "last.pt", tree / "val" / "image", "--out", own / "pictures"),
        ("export", out / "last.pt", "--out", own / "student.onnx", "--data-root", tree),
    ):
        code, _, err = command(*words)
        assert (code, err) == (0, ""), words


def test_fit_tells_the_line_of_a_plugin_that_does_not_run_and_writes_nothing(own: Path, command: Make) -> None:
    (own / "my_net.py").write_text("import nothing_of_this_name\nMODELS = {'small_net': 1}\n")
    code, _, err = command("fit", write(own), "--out", own / "out")
    assert code == 2
    assert err == (
        "error: plugin my_net.py, line 1 does not run: No module named 'nothing_of_this_name'; a plugin is one file: "
        "install what it imports, or write it into the file\n"
    )
    assert not (own / "out").exists()


def test_two_runs_side_by_side_may_not_mean_different_modules_by_one_name(own: Path, command: Make) -> None:
    other = own.parent / "other"
    shutil.copytree(own, other)
    (other / "my_net.py").write_text((own / "my_net.py").read_text() + "# changed\n")
    one = write(own, data={"name": "scenes", "size": [32, 64]})
    two = write(other, data={"name": "scenes", "size": [32, 64]}).rename(other / "two.yaml")
    code, _, err = command("fit", one, two, "--out", own / "out")
    assert code == 2
    assert "the model 'small_net' is defined twice, in my_net.py and in my_net.py; rename one" in err


@pytest.mark.slow
def test_a_checkpoint_is_opened_without_the_files_of_its_plugins(own: Path, command: Make) -> None:
    tree, out = own / "tree", own / "out"
    code, said, err = command("data", "make", "blobs", tree, "--plugin", own / "my_data.py")
    assert (code, err) == (0, "")
    assert f"data check blobs {tree} --subset --plugin {own / 'my_data.py'}" in said
    code, said, _ = command("data", "check", "blobs", tree, "--subset", "--plugin", own / "my_data.py")
    assert code == 0
    assert "no problems" in said

    code, said, err = command("fit", write(own), "--out", out, "--data-root", tree)
    assert (code, err) == (0, "")
    assert [plugin.name for plugin in parse(read_yaml(out / "config.yaml")).used_plugins] == ["my_data.py", "my_net.py"]
    for name in ("my_kd.py", "my_net.py", "my_data.py"):
        (own / name).unlink()
    code, said, err = command("eval", out / "last.pt", "--data-root", tree)
    assert (code, err) == (0, "")
    assert "last.pt, small_net, run " in said
    assert "blobs val: 4 images at 32x64, 2 of 2 classes occur" in said
    code, _, err = command("predict", out / "last.pt", tree / "val" / "image", "--out", own / "pictures")
    assert (code, err) == (0, "")
    code, said, err = command("export", out / "last.pt", "--out", own / "student.onnx", "--data-root", tree)
    assert (code, err) == (0, "")
    assert "the same class at 100.000 %" in said


def test_packs_of_other_code_are_not_read(own: Path, command: Make, tmp_path: Path) -> None:
    """A data set whose code maps labels otherwise is packed anew, though its files are the same."""
    tree, counts = own / "tree", []
    assert command("data", "make", "blobs", tree, "--plugin", own / "my_data.py")[0] == 0
    for table in ("{0: 0, 1: 1}", "{0: 1, 1: 0}"):
        text = (own / "my_data.py").read_text().replace("{0: 0, 1: 1}", table)
        (own / "my_data.py").write_text(text)
        activate([read_plugin("my_data.py", own)])
        config = DataConfig(name="blobs", size=(32, 64))
        packed = pack(open_dataset(config, tree, tmp_path), config, "val", tmp_path)
        counts.append(packed.class_counts.tolist())
    assert counts[0] == counts[1][::-1] != counts[1]
