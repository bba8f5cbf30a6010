"""cohort_key(): which runs may train side by side in one process, on one stream of batches and with one teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from trainer.config.errors import UserError
from trainer.config.identity import splits_read
from trainer.config.plain import differences, digest
from trainer.config.schema import TrainConfig


class CohortKey(NamedTuple):
    """Two runs may train side by side if their keys fit; so may any number of runs of which each two fit."""

    stream: str
    """Names the batches that the run sees."""
    teacher: str
    """Names the outputs that a teacher gives for them, "" where no path needs one."""

    def fits(self, other: CohortKey) -> bool:
        """Whether the runs see the same batches, and need the same teacher if both need one."""
        return self.stream == other.stream and (self.teacher == other.teacher or not (self.teacher and other.teacher))


def cohort_key(config: TrainConfig, teacher: str = "") -> CohortKey:
    """The key of a config's run. `teacher` names the weights of a teacher that the config has a recipe for."""
    return CohortKey(digest(_of_stream(config)), digest([_of_teacher(config), teacher]) if config.active else "")


def check_cohort(configs: Sequence[TrainConfig], names: Sequence[str]) -> None:
    """Raise UserError unless all configs may train side by side; `names` are theirs, for the message."""
    taught = next((i for i, config in enumerate(configs) if config.active), 0)
    for config, name in zip(configs, names, strict=True):
        found = differences(_of_stream(configs[0]), _of_stream(config))
        other = names[0]
        if not found and config.active:
            found, other = differences(_of_teacher(configs[taught]), _of_teacher(config)), names[taught]
        if found:
            key, (there, here) = next(iter(found.items()))
            raise UserError(
                f"{name} cannot train side by side with {other}, for {key} is {here} there and {there} in {other}; "
                "train it by a command of its own"
            )


def _of_stream(config: TrainConfig) -> dict[str, Any]:
    """What the batches depend on, and what holds for a whole process."""
    data = config.data.model_dump(mode="json", exclude={"class_weights"})
    optim = {"global_batch": config.optim.global_batch, "tf32": config.optim.precision == "tf32"}
    if config.optim.iterations is not None:  # which say where an epoch of the record ends
        optim |= {"iterations": config.optim.iterations, "epochs": config.optim.epochs}
    return {"data": data, "seed": config.seed, "optim": optim, **splits_read(config.eval.splits)}


def _of_teacher(config: TrainConfig) -> dict[str, Any]:
    """What the teacher's outputs depend on, beside the batches."""
    assert config.teacher is not None, "paths need a teacher"
    return {
        "teacher": {
            **config.teacher.model_dump(mode="json", exclude={"miou", "precision"}),
            "precision": config.teacher_precision,
        }
    }
