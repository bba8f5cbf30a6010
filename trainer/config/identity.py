"""The id of a run: a digest of its config, the numerics version, its data, its weights and its teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainer.config.plain import digest
from trainer.config.schema import DataConfig, TrainConfig, teacher_run


def identity(key: str, numerics: int, fingerprints: Sequence[str], weights: Mapping[str, str]) -> str:
    """12 hex digits naming what is computed. `key` is the config's; `fingerprints` are of the data's splits (train,
    val, and test where it is read); `weights` hold, by `student` and `teacher` where they have any, the sha256 of the
    weights' file or the id of the run that trained them."""
    return digest([key, numerics, list(fingerprints), dict(weights)])


def data_key(data: DataConfig, splits: Sequence[str] = ("val",)) -> str:
    """Names the files that a data section reads, with `eval.splits`. Input size and augmentation do not change them."""
    return digest(data.model_dump(mode="json", include={"name", "options"}) | splits_read(splits))


def splits_read(splits: Sequence[str]) -> dict[str, list[str]]:
    """What `data_key` has of `eval.splits`: nothing where they are as they always were."""
    return {} if list(splits) == ["val"] else {"splits": list(splits)}


def weight_names(config: TrainConfig) -> list[str]:
    """The files of weights that enter a config's run id, as the config names them."""
    names = [config.student.init]
    if config.teacher is not None:
        names.append(config.teacher.train.init if config.teacher.train else config.teacher.checkpoint or "scratch")
    return [name for name in names if name != "scratch"]


@dataclass(frozen=True)
class Sources:
    """What runs read beside their configs, by content. Runs of one config under equal sources are one run."""

    numerics: int
    data: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By `data_key`: the fingerprints of train and val, and of test where it is read."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """By file, as configs name it: its sha256."""

    def plain(self) -> dict[str, object]:
        """As JSON."""
        return {"numerics": self.numerics, "data": {k: list(v) for k, v in self.data.items()}, "weights": self.weights}


class RunIds:
    """Ids of runs under given sources. What runs share that differ only in seed and distillation is computed once."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._shared: dict[tuple[int, ...], tuple[tuple[str, ...] | None, dict[str, str] | None]] = {}
        self._kept: list[object] = []  # `_shared` goes by the identity of objects, which must not be freed

    def of(self, config: TrainConfig, key: str = "", teacher: TrainConfig | str | None = None) -> str | None:
        """The id of a config's run; None where the sources do not say what it reads. `key` is the config's, if known.

        `teacher` says which teacher the run has: the config of the run that trains it, that run's id, or the sha256 of
        weights that no run trained. Without it, a teacher with a recipe is that of `teacher_run`.
        """
        parts = (config.student, config.teacher, config.data, config.optim, config.eval, teacher)
        place = tuple(map(id, parts))
        if place not in self._shared:
            self._kept.append((config, teacher))
            self._shared[place] = (
                self.sources.data.get(data_key(config.data, config.eval.splits)),
                self._weights(config, teacher),
            )
        fingerprints, weights = self._shared[place]
        if fingerprints is None or weights is None:
            return None
        return identity(key or config.key, self.sources.numerics, fingerprints, weights)

    def _weights(self, config: TrainConfig, teacher: TrainConfig | str | None) -> dict[str, str] | None:
        found: dict[str, str | None] = {}
        if config.student.init != "scratch":
            found["student"] = self.sources.weights.get(config.student.init)
        if teacher is None or self.sources.numerics < 2:  # ids of version 1 always named the run of `teacher_run`
            teacher = teacher_run(config)
        if teacher is not None:
            found["teacher"] = teacher if isinstance(teacher, str) else self.of(teacher)
        elif config.teacher is not None and config.teacher.checkpoint is not None:
            found["teacher"] = self.sources.weights.get(config.teacher.checkpoint)
        whole = {name: value for name, value in found.items() if value is not None}
        return whole if len(whole) == len(found) else None
