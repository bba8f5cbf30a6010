"""Teachers: the config of the run that trains an arm's teacher, of several teachers each, and their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ablations.study.arms import label, short
from trainer.config import TrainConfig, UserError, teacher_run


def teacher_config(base: TrainConfig, config: TrainConfig) -> TrainConfig | None:
    """The config that trains an arm's teacher, or None where none is trained.

    Its recipe is that of the *base*: an arm that changes the student's learning rate keeps the same teacher. Only the
    teacher's own settings and its data are taken from the arm.
    """
    data = {name: getattr(config.data, name) for name in ("name", "size", "options")}
    asked = base.model_copy(update={"teacher": config.teacher, "data": base.data.model_copy(update=data)})
    return teacher_run(asked)


def numbered(config: TrainConfig, number: int) -> TrainConfig:
    """An arm's config with the teacher of this number, from 0: its seed is that of the recipe plus the number. Teacher
    0 is the one of a study with a single teacher. An arm without a teacher, or number 0, gives the config itself."""
    if number == 0 or config.teacher is None or config.teacher.train is None:
        return config
    recipe = config.teacher.train.model_copy(update={"seed": config.teacher.train.seed + number})
    return config.model_copy(update={"teacher": config.teacher.model_copy(update={"train": recipe})})


def check_several(configs: Mapping[str, TrainConfig]) -> None:
    """Raise UserError where the arms (name -> config without unused teachers) cannot have several teachers."""
    seeds = set()
    for arm, config in configs.items():
        if config.teacher is not None:
            if config.teacher.train is None:
                raise UserError(
                    f"teachers: the teacher of {arm} is a checkpoint ({config.teacher.checkpoint}), of which there is "
                    "one; give `teacher.train`, or remove `teachers`"
                )
            seeds.add(config.teacher.train.seed)
    if not seeds:
        raise UserError("teachers: no arm has a teacher; give `base.teacher.train`, or remove `teachers`")
    if len(seeds) > 1:
        raise UserError(
            f"teachers: their seeds count up from teacher.train.seed, which arms must share, but got {sorted(seeds)}; "
            "give one"
        )


def teacher_labels(configs: Mapping[str, TrainConfig], arms: Collection[str]) -> dict[str, str]:
    """A label for each teacher run, by key: `teacher segformer_b0`.

    Where several teachers share a network, the label adds the settings in which they differ (`teacher segformer_b0,
    epochs=20`), and the key where these are equal after rounding. Raises UserError where an arm has such a name.
    """
    networks: dict[str, list[str]] = {}
    for key, config in configs.items():
        networks.setdefault(config.student.name, []).append(key)
    settings = {key: _flat(config.model_dump(mode="json")) for key, config in configs.items()}
    labels = {
        key: ", ".join([f"teacher {network}", *_differences(settings[key], [settings[other] for other in keys])])
        for network, keys in networks.items()
        for key in keys
    }
    counts = Counter(labels.values())
    labels = {key: text if counts[text] == 1 else f"{text} ({key})" for key, text in labels.items()}
    plain = {" ".join(arm.split()) for arm in arms}
    if taken := [text for text in labels.values() if text in plain]:
        raise UserError(f"arm '{taken[0]}' has the name of the run that trains its teacher; rename the arm")
    return {key: labels[key] for key in configs}


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted path -> value."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _differences(own: Mapping[str, Any], alike: Sequence[Mapping[str, Any]]) -> list[str]:
    """`epochs=20` for each setting that is not the same in all configs; one that is not set reads `default`."""
    paths = dict.fromkeys(path for settings in alike for path in settings)
    differing = [path for path in paths if any(other.get(path) != alike[0].get(path) for other in alike)]
    # The teacher's network is the student of its own run.
    return [
        f"{short(path.removeprefix('student.'))}={'default' if own.get(path) is None else label(own[path])}"
        for path in differing
    ]
