"""A training step dispatches few operations and never waits for the device: on a GPU each is a launch, or a stall."""

import collections
from pathlib import Path

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.config import parse
from trainer.data.stream import Stream
from trainer.models import build_model
from trainer.place import Place
from trainer.training.build import build_distilled, open_data
from trainer.training.learner import Learner
from trainer.training.step import accumulate, parts
from trainer.training.teacher import Teacher

MOST = {"fp32": 1200, "bf16": 1540, "fp32 with a bf16 teacher": 1200}
"""Operations that one step of CSF and PEA may dispatch from B2 to B0: teacher, student, losses, backward and AdamW."""

WAITS = ("aten._local_scalar_dense.default", "aten.nonzero.default", "aten.is_nonzero.default", "aten.item.default")
"""Operations whose result the host must see before it goes on."""


class Dispatched(TorchDispatchMode):
    """Counts the operations inside, by name; views compute nothing."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not any(value.alias_info and not value.alias_info.is_write for value in func._schema.returns):
            self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module", params=MOST)
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def dispatched(tmp_path_factory, precision):
    """The operations of the third step: the first ones create the optimiser's state."""
    ours, theirs = precision.partition(" with ")[0], "bf16" if "bf16" in precision else "fp32"
    config = parse(
        {
            "data": {"name": "scenes", "size": [64, 64], "options": {"train": 8, "val": 2, "size": [64, 64]}},
            "student": {"name": "segformer_b0"},
            "teacher": {"name": "segformer_b2", "train": {"epochs": 1}, "precision": theirs},
            "distill": {"csf": {"weight": 1.0}, "pea": {"weight": 1.0}},
            "optim": {"lr": 1.0e-3, "epochs": 1, "global_batch": 2, "precision": ours},
        }
    )
    folder: Path = tmp_path_factory.mktemp("operations")
    place = Place(out_dir=folder / "run", cache_dir=folder / "cache", device="cpu", threads=1)
    data = open_data(config, place)
    model = build_model(config.student.model_copy(update={"name": "segformer_b2"}), len(data.classes)).eval()
    distilled = build_distilled(config, model, data)
    teacher = Teacher(model, distilled.teacher_needs, config.teacher_precision == "bf16")
    learner = Learner(distilled, config.optim, config.distill)
    distilled.train()
    stream = Stream(data.train, config, data.learn, 0, 1)
    for step, host in enumerate(stream.epoch(0)):
        with Dispatched() as found:
            for part in parts(host, teacher, learner.device, config.data.normalize, 2, len(data.classes)):
                accumulate(learner, part, config.optim.global_batch)
            learner.update(1e-3, step)
        if step == 2:
            return found.counts
    raise AssertionError("an epoch has four steps")


@pytest.mark.slow
def test_a_step_dispatches_few_operations(dispatched, precision):
    assert dispatched.total() <= MOST[precision], dispatched.most_common(20)


@pytest.mark.slow
def test_a_step_never_waits_for_the_device(dispatched):
    assert not {name: count for name, count in dispatched.items() if name in WAITS}
