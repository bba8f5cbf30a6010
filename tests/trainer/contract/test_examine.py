"""`plugin check`: what keeps the contract is said to, and each promise that is broken is told in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.config import installed
from trainer.config.plugin import read_plugin
from trainer.contract.augmentations import CHECKS
from trainer.contract.examine import Finding, examine
from trainer.contract.models import CLASSES, Network
from trainer.data.augmentations import AUGMENTATIONS
from trainer.plugins.load import activate


def broken(folder: Path, name: str, *edits: tuple[str, str]) -> dict[str, str]:
    """Promise -> what is broken, of a plugin of docs/plugins.md with edits."""
    text = (folder / name).read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    (folder / name).write_text(text, encoding="utf-8")
    return {one.promise: one.broken for one in findings(folder, name) if one.broken}


def findings(folder: Path, name: str) -> list[Finding]:
    return list(examine(read_plugin(name, folder)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["my_kd.py", "my_net.py", "my_data.py", "my_steps.py"])
def test_the_examples_of_the_page_keep_the_contract(name: str, own: Path) -> None:
    found = list(examine(read_plugin(name, own)))
    assert len(found) >= 5
    assert [one for one in found if one.broken] == []


GRADIENT = "a scalar loss, whose gradient reaches the student and never the teacher"
LOSS = "return self.scale * (self.project(ours) - theirs).square().mean()"


@pytest.mark.parametrize(
    ("edits", "promise", "told"),
    [
        (
            [("(self.project(ours)", "(self.project(ours.detach())")],
            GRADIENT,
            "the gradient does not reach what it reads",
        ),
        ([(".mean()\n", ".mean((1,))\n")], GRADIENT, "the loss must be a scalar, but has shape (2,)"),
        (
            [("self.project = nn", "self.spare = nn.Linear(2, 2)\n        self.project = nn")],
            GRADIENT,
            "its parameter spare",
        ),
        (
            [("        ours, theirs", "        teacher.features[-1].mul_(0.5)\n        ours, theirs")],
            GRADIENT,
            "it changes the outputs of student or teacher in place; compute on copies",
        ),
        (
            [("needs: ClassVar = FEATURES", "needs: ClassVar = FEATURES | {'logits'}")],
            "needs says what",
            "`needs` has logits",
        ),
        ([(".square().mean()", ".square().sum()")], "micro-batches do not", "the loss depends on the micro-batch: "),
        (
            [("import nn\n", "import nn\nimport torch\n"), (LOSS, f"{LOSS} + torch.rand(()) * ours.mean()")],
            "equal inputs give",
            "it draws from torch's random numbers, which seeds do not pair",
        ),
        (
            [
                ("        self.scale = scale\n", "        self.scale = scale\n        self._calls = [0]\n"),
                ("        ours, theirs", "        self._calls[0] += 1\n        ours, theirs"),
            ],
            "equal inputs give",
            "each call changes its _calls; keep nothing from one call to the next",
        ),
        (
            [(".mean((2, 3))", ".mean((2, 3)).bfloat16().float()[:, :, None]")],
            GRADIENT,
            "it fails in line 27: RuntimeError",
        ),
        (
            [
                ("self.project = nn.Linear(student", "self.project = nn.Linear(device='cpu', in_features=student"),
                ("teacher.features[-1])\n\n", "out_features=teacher.features[-1])\n\n"),
            ],
            "works on the meta device",
            "on the meta device its parameter project.weight, project.bias is on another; create it without a device",
        ),
        (
            [("*, scale: float = 1.0", "scale: float = 1.0")],
            "options have defaults",
            "its option scale must be keyword-only",
        ),
        (
            [("Options. `scale`", "Options. scale")],
            "options have defaults",
            "its docstring does not name the option `scale`",
        ),
    ],
)
def test_a_broken_distiller(edits: list[tuple[str, str]], promise: str, told: str, own: Path) -> None:
    found = broken(own, "my_kd.py", *edits)
    assert any(name.startswith(promise) and said.startswith(told) for name, said in found.items()), found


@pytest.mark.parametrize(
    ("edits", "promise", "told"),
    [
        (
            [("GroupedBatchNorm2d(width)", "nn.BatchNorm2d(width)")],
            "micro-batches do not",
            "stages.0.1 is BatchNorm2d, whose statistics depend on micro-batches and workers; use GroupedBatchNorm2d",
        ),
        (
            [("            maps.append(x)\n", "            maps.append(x - x.mean((0, 2, 3), keepdim=True))\n")],
            "micro-batches do not",
            "micro-batches change its outputs; relate samples only in GroupedBatchNorm2d",
        ),
        (
            [("(SegModel)", "(nn.Module)")],
            "shapes of",
            "the model 'small_net' must be a SegModel (trainer.models.base), but is SmallNet; derive from it",
        ),
        (
            [
                (
                    "self.dropout(torch.cat(same, 1), self.draw(keys))",
                    "F.dropout(torch.cat(same, 1), 0.5, self.training)",
                )
            ],
            "equal images",
            "in training equal images with equal keys give different logits; use the layers of trainer.models.masks",
        ),
        (
            [
                ("        maps, x = [], image\n", "        maps, x = [], image\n        self.seen += 1\n"),
                ("        self.draw = ", "        self.seen = 0\n        self.draw = "),
            ],
            "equal images",
            "each call changes its seen; keep nothing from one call to the next",
        ),
        (
            [("(4, 2, 2, 2)", "(4, 2, 2, 1)")],
            "shapes of",
            "of an image of 32x32 the features of stage 4 must have shape",
        ),
        (
            [("(4, 8, 16, 32), num", "(4, 8, 16, 16), num")],
            "shapes of",
            "the strides of its stages must be (4, 8, 16, 32)",
        ),
        (
            [("self.dropout(torch.cat(same, 1), self.draw(keys))", "F.dropout(torch.cat(same, 1), 0.5)")],
            "equal images",
            "in evaluation equal images give different logits",
        ),
        (
            [("        self.classify", "        self.spare = nn.Linear(2, 2)\n        self.classify")],
            "the gradient",
            "its parameter spare",
        ),
        (
            [("map(as_autocast, maps)", "m.float() for m in maps")],
            "outputs have the dtype",
            "with parameters in torch.float64",
        ),
        ([('if "features" in needs else ()', "")], "parts asked for", "asked for embeds, it gives features too"),
        (
            [("        logits = None\n", "        logits = maps[9]\n")],
            "shapes of",
            "it fails in line 34: IndexError: list index",
        ),
    ],
)
def test_a_broken_network(edits: list[tuple[str, str]], promise: str, told: str, own: Path) -> None:
    found = broken(own, "my_net.py", *edits)
    assert any(name.startswith(promise) and said.startswith(told) for name, said in found.items()), found


@pytest.mark.parametrize(
    ("edits", "promise", "told"),
    [
        (
            [('("ground", "blob")', '("blob", "blob")')],
            "can be made",
            "two classes have one name; give each its own",
        ),
        (
            [("((90, 90, 90), (220, 40, 40))", "((90, 90, 90),)")],
            "can be made",
            "the data set 'blobs' must have classes, and a colour of each in palette, but its palette is ((90,",
        ),
        ([("{0: 0, 1: 1}", "{0: 0, 1: 1, 255: 1}")], "can be made", "table()[255] must be 255, ignored, but is 1"),
        (
            [('/mask/made_{index}.png"', '/mask/m_{index}.png"')],
            "reads pairs",
            "of pairs made in its own layout train has",
        ),
        ([("Official(4, 4, (64, 128))", "Official(0, 4, (64, 128))")], "official", "official has 0 pairs in train"),
        (
            [("    def paths", "    def other_paths")],
            "can be made",
            "the data set does not say where its files lie; implement paths",
        ),
        ([("label_table({0: 0, 1: 1}, ignored=())", "{0: 0}")], "can be made", "table() of Blobs must give an array"),
    ],
)
def test_a_broken_data_set(edits: list[tuple[str, str]], promise: str, told: str, own: Path) -> None:
    found = broken(own, "my_data.py", *edits)
    assert any(name.startswith(promise) and said.startswith(told) for name, said in found.items()), found


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_our_steps_keep_the_contract(check: Callable[[str], None], name: str) -> None:
    check(name)


@pytest.mark.parametrize(
    ("edits", "promise", "told"),
    [
        ([("draw.random()", "__import__('random').random()")], "random numbers", "equal draws give other images"),
        ([("label=sample.label[::-1]", "label=sample.label + 1")], "images and labels", "a label holds"),
        (
            [("            return sample\n", "            sample.image[:] = 0\n            return sample\n")],
            "what it is given",
            "it",
        ),
        (
            [("sample.image[::-1], label=sample.label[::-1]", "sample.image[4:], label=sample.label[4:]")],
            "images and labels",
            "an image became 60x96, which sizes() does not allow",
        ),
        ([(": float = 0.5", ": float")], "options have", "its option probability has no default; give one"),
        (
            [(", label=sample.label[::-1]", "")],
            "image and label change alike",
            "its image no longer shows what its label says: it moves one of the two",
        ),
        (
            [("sample.image[::-1]", "sample.image[::-1] @ __import__('numpy').eye(3, dtype='uint8')")],
            "images of any number of channels",
            "of an image with 1 channel: ValueError",
        ),
        (
            [
                ("        self.probability", "        self.calls = 0\n        self.probability"),
                ("        if draw.random()", "        self.calls += 1\n        if self.calls % 2"),
            ],
            "random numbers",
            "equal draws give other images after other samples; keep nothing from one call to the next",
        ),
    ],
)
def test_a_broken_step(edits: list[tuple[str, str]], promise: str, told: str, own: Path) -> None:
    found = broken(own, "my_steps.py", *edits)
    assert any(name.startswith(promise) and said.startswith(told) for name, said in found.items()), found


@pytest.mark.parametrize(
    ("name", "old", "new", "promise"),
    [
        ("my_kd.py", LOSS, f"{LOSS} * float('nan')", GRADIENT),
        ("my_kd.py", LOSS, "raise KeyError('boom')", GRADIENT),
        ("my_kd.py", LOSS, f"{LOSS} * (1 + __import__('random').random())", "equal inputs give equal losses"),
        ("my_net.py", "        logits = None", "        return None", "shapes of logits, features and embeds"),
        ("my_net.py", "self.classify(", "float('nan') * self.classify(", "shapes of logits, features and embeds"),
        (
            "my_steps.py",
            "return sample._",
            "return 1 / 0, sample._",
            "images and labels have shape, dtype and classes, and",
        ),
    ],
)
def test_what_explains_all_further_findings_is_told_alone(
    name: str, old: str, new: str, promise: str, own: Path
) -> None:
    told = broken(own, name, (old, new))
    assert len(told) == 1 and next(iter(told)).startswith(promise), told
    found = findings(own, name)
    checks = {"my_kd.py": 8, "my_net.py": 10, "my_steps.py": 6}[name]
    assert len(found) + found[-1].unchecked == checks
    assert found[-1].unchecked > 0


def test_a_name_means_the_network_of_the_plugin_in_force(own: Path) -> None:
    widths = []
    for text in ("(8, 16, 24, 32)", "(8, 16, 24, 40)"):
        (own / "my_net.py").write_text((own / "my_net.py").read_text().replace("(8, 16, 24, 32)", text))
        activate([read_plugin("my_net.py", own)])
        model = Network("small_net").on_meta()
        assert model.channels.classes == CLASSES
        widths.append(model.channels.features[-1])
    assert widths == [32, 40]


@pytest.mark.slow
def test_of_a_package_the_file_and_line_of_what_it_raises_are_told(install: Callable[..., Path], own: Path) -> None:
    text = (own / "my_kd.py").read_text(encoding="utf-8").replace(LOSS, "return {}['no loss']")
    install({"my_kd/__init__.py": "", "my_kd/losses.py": text}, "mean_gap = my_kd.losses:MeanGap")
    (package,) = installed()
    line = text.splitlines().index("        return {}['no loss']") + 1
    (told,) = (one.broken for one in examine(package) if one.broken)
    activate([])
    assert told == f"it fails in line {line} of losses.py: KeyError: 'no loss'"
