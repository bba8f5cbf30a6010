"""Metric: the names under which a run logs what a study may compare by, and the protocol each is of."""

from __future__ import annotations

from trainer.config import TrainConfig, unknown

PROTOCOLS = ("full", "paper")

CONDITIONS = {"acdc": ("fog", "night", "rain", "snow")}
"""Parts of a data set's val split that are logged beside the whole, as `val/<condition>/miou`."""


def conditions(config: TrainConfig) -> tuple[str, ...]:
    """The conditions that a config's data set reports separately; none for most."""
    return CONDITIONS.get(config.data.name, ())


def protocol_of(metric: str, config: TrainConfig) -> str:
    """`val/miou` is of the first in `eval.protocols`, and so are classes and conditions; `val/paper/miou` is of its
    own."""
    parts = metric.split("/")
    return parts[1] if len(parts) == 3 and parts[1] in PROTOCOLS else config.eval.protocols[0]


def is_whole(metric: str) -> bool:
    """Whether a metric is the mean over all classes and all of val, which publications report."""
    return metric in ("val/miou", *(f"val/{protocol}/miou" for protocol in PROTOCOLS))


def described(metric: str) -> str:
    """A metric in a title's words: `val mIoU`, `val mIoU in fog`, `val IoU of rider`. Its protocol stands beside it."""
    if metric.startswith("val/iou/"):
        return f"val IoU of {metric.removeprefix('val/iou/')}"
    return "val mIoU" if is_whole(metric) else f"val mIoU in {metric.split('/')[1]}"


def check_metric(metric: str, config: TrainConfig) -> None:
    """Raise UserError for a metric that no run of this config logs. Class names are the data set's, and not known
    here."""
    parts = (*config.eval.protocols[1:], *conditions(config))
    logged = ["val/miou", *(f"val/{part}/miou" for part in parts)]
    if metric not in logged and not metric.startswith("val/iou/"):
        raise unknown("metric", metric, logged)
