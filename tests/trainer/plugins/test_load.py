"""Plugins run from their text; what cannot be run, or is not what its group needs, is told with file and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trainer.config import ModelConfig, Term, UserError, unknown
from trainer.config.blame import answers_for, blaming
from trainer.config.plugin import Plugin, read_plugin
from trainer.data import DATASETS, dataset_class
from trainer.distill import DISTILLERS, build_distillers
from trainer.files.failure import Failure, failure_of
from trainer.models import MODELS, build_model
from trainer.models.base import Channels
from trainer.plugins.load import activate, add

CHANNELS = Channels((8, 8, 8, 8), (8, 8, 8, 8), (4, 8, 16, 32), 5)
DISTILLER = """
from trainer.distill.base import Distiller
from trainer.models.base import FEATURES
class Gap(Distiller):
    needs = FEATURES
    value = VALUE
    def forward(self, *_): ...
DISTILLERS = {"gap": Gap}
"""


def plugin(folder: Path, text: str, name: str = "my.py") -> Plugin:
    (folder / name).write_text(text, encoding="utf-8")
    return read_plugin(name, folder)


def test_names_of_plugins_stand_beside_ours(own: Path) -> None:
    add(read_plugin(name, own) for name in ("my_kd.py", "my_net.py", "my_data.py"))
    path = build_distillers({"mean_gap": Term(options={"scale": 2.0})}, CHANNELS, CHANNELS, 0)["mean_gap"]
    assert vars(path)["scale"] == 2.0
    assert build_model(ModelConfig(name="small_net"), 3).channels.classes == 3
    assert dataset_class("blobs").classes == ("ground", "blob")
    with pytest.raises(UserError, match=r"distill.mean_gap: unknown option 'scole'; did you mean 'scale'"):
        build_distillers({"mean_gap": Term(options={"scole": 2.0})}, CHANNELS, CHANNELS, 0)
    assert "did you mean 'mean_gap'" in str(unknown("distiller", "mean_gab", DISTILLERS))


def test_activate_forgets_the_plugins_of_another_study(own: Path) -> None:
    ours = [set(known) for known in (DISTILLERS, MODELS, DATASETS)]
    activate([read_plugin("my_kd.py", own)])
    activate([read_plugin("my_net.py", own)])
    assert "small_net" in MODELS
    assert "mean_gap" not in DISTILLERS
    activate([])
    assert [set(known) for known in (DISTILLERS, MODELS, DATASETS)] == ours


def test_the_later_of_two_texts_is_in_force(own: Path) -> None:
    for value in (1, 2, 1):
        add([plugin(own, DISTILLER.replace("VALUE", str(value)))])
        assert vars(DISTILLERS["gap"])["value"] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = x / 0\nMODELS = {'net': y}\n", "my.py, line 2 does not run: ZeroDivisionError: division by zero"),
        (
            "import helper_of_mine\nMODELS = {'net': 1}\n",
            "line 1 does not run: No module named 'helper_of_mine'; a plug",
        ),
        ("raise SystemExit(3)\nMODELS = {'net': 1}\n", "plugin my.py, line 1 does not run: SystemExit: 3"),
        ("def f():\n  return g()\nMODELS = {'net': f()}\n", "line 2 does not run: NameError: name 'g' is not defined"),
        ("break\nMODELS = {'net': 1}\n", "plugin my.py, line 1 does not run: SyntaxError: 'break' outside loop"),
        ("MODELS = {'net': 1}\nMODELS['too'] = 2\n", "MODELS must have the names that its line shows, net, but after"),
        ("MODELS = {'net': 1}\ndel MODELS\n", "MODELS must have the names that its line shows, net, but after running"),
        (
            "DISTILLERS = {'gap': print}\n",
            "the distiller 'gap' must be a class derived from Distiller (trainer.distill",
        ),
        (
            "from trainer.distill.base import Distiller\nclass Gap(Distiller): pass\nDISTILLERS = {'gap': Gap}\n",
            "the distiller 'gap' must say what it reads of the teacher, for example `needs = FEATURES`, but needs is",
        ),
        ("MODELS = {'net': 'resnet'}\n", "the model 'net' must be a class or function that builds a SegModel, but is"),
        (
            "def net(classes): ...\nMODELS = {'net': net}\n",
            "the model 'net' must take (num_classes, drop_path=0.1, dropout=0.1), but got an unexpected keyword",
        ),
        (
            "from trainer.distill.base import Distiller\nclass Gap(Distiller): needs = {'logits'}\n"
            "DISTILLERS = {'gap': Gap}\n",
            "the distiller 'gap' must implement forward(), which Distiller declares; write it",
        ),
        (
            "from trainer.distill.base import Distiller\nclass Gap(Distiller):\n  needs = {'logit'}\n"
            "  def forward(self, *_): ...\nDISTILLERS = {'gap': Gap}\n",
            "the distiller 'gap' must have `needs` of LOGITS, FEATURES, EMBEDS (trainer.models.base), but has {'logit",
        ),
        (
            "DISTILLERS = {'dice': 1}\n",
            "the distiller 'dice' has the name of one of our losses, and loss/dice would be both; rename yours",
        ),
        ("DATASETS = {'blobs': dict}\n", "the data set 'blobs' must be a class derived from SegDataset (trainer.data"),
        (
            "from trainer.data.base import SegDataset\nclass D(SegDataset): pass\nDATASETS = {'blobs': D}\n",
            "the data set 'blobs' must implement find(), which SegDataset declares; write it",
        ),
        (
            "from trainer.data.base import SegDataset\nclass D(SegDataset):\n  def find(self, split): ...\n"
            "  def table(self, path): ...\nDATASETS = {'blobs': D}\n",
            "the data set 'blobs' must have `classes`, one for each class; add it to the class",
        ),
        ("MODELS = {'segformer_b0': 1}\n", "the model 'segformer_b0' is defined twice, for it is one of ours; rename"),
    ],
)
def test_a_broken_plugin_is_one_line(text: str, message: str, own: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as refused:
        add([plugin(own, text)])
    assert "\n" not in str(refused.value)
    assert not {"net", "gap", "blobs", "too"} & {*MODELS, *DISTILLERS, *DATASETS}


def test_a_record_without_its_text_cannot_be_run(own: Path) -> None:
    recorded = read_plugin("my_kd.py", own).model_copy(update={"source": "", "sha256": "0" * 64})
    with pytest.raises(UserError, match=r"plugin my_kd.py: its text is not in this record; take the config.yaml of a"):
        add([recorded])


def test_what_a_plugin_raises_later_is_told_with_its_line(own: Path) -> None:
    add([plugin(own, "def net(classes, drop_path, dropout):\n    return [][classes]\nMODELS = {'net': net}\n")])
    told = "plugin my.py, line 2: IndexError: list index out of range; `transkd plugin check my.py` tells more"
    with pytest.raises(UserError, match=re.escape(told)), blaming():
        build_model(ModelConfig(name="net"), 3)
    with pytest.raises(ZeroDivisionError), blaming():
        print(1 / 0)


def test_what_a_plugin_raises_in_a_run_is_the_users_unless_the_machine_is_short(own: Path) -> None:
    text = "def net(classes, drop_path, dropout):\n    raise KIND('no room')\nMODELS = {'net': net}\n"
    for kind, failure in (
        (
            "KeyError",
            Failure("user", "plugin my.py, line 2: KeyError: 'no room'; `transkd plugin check my.py` tells more"),
        ),
        ("MemoryError", Failure("memory", "no memory left (MemoryError: no room)")),
    ):
        add([plugin(own, text.replace("KIND", kind))])
        with pytest.raises((KeyError, MemoryError)) as raised:
            build_model(ModelConfig(name="net"), 3)
        assert failure_of(raised.value) == failure
        with pytest.raises(UserError if kind == "KeyError" else MemoryError), blaming():
            build_model(ModelConfig(name="net"), 3)


def test_of_a_package_the_file_is_named(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "package_of_mine").mkdir()
    (own / "package_of_mine" / "losses.py").write_text("def f():\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(own)
    losses = __import__("package_of_mine.losses").losses
    answers_for("package_of_mine", "my_kd 1.2")
    told = (
        "plugin my_kd 1.2, line 2 of losses.py: ZeroDivisionError: division by zero; `transkd plugin check my_kd` tells"
    )
    with pytest.raises(UserError, match=re.escape(told)), blaming():
        losses.f()


def test_another_version_of_a_package_is_refused(own: Path) -> None:
    away = Plugin(name="my_kd 1.2", sha256="0" * 64, entries={"DISTILLERS": ("gap",)})
    with pytest.raises(UserError, match=r"plugin my_kd 1.2 is not installed on this machine; install it"):
        add([away])
