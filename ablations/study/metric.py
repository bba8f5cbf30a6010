"""Metric: the names of the metrics by which a study can compare, and the protocol of each."""

from __future__ import annotations

from collections.abc import Iterable

from trainer.config import TrainConfig, UserError, unknown

PROTOCOLS = ("full", "paper")

CONDITIONS = {"acdc": ("fog", "night", "rain", "snow")}
"""Parts of a data set's val split that are logged beside the whole, as `val/<condition>/miou`."""


def conditions(config: TrainConfig) -> tuple[str, ...]:
    """The conditions that a config's data set reports separately; most have none."""
    return CONDITIONS.get(config.data.name, ())


def protocol_of(metric: str, config: TrainConfig) -> str:
    """The protocol of a metric: `val/paper/miou` names its own; `val/miou`, classes and conditions have the first of
    `eval.protocols`."""
    parts = metric.split("/")
    return parts[1] if len(parts) == 3 and parts[1] in PROTOCOLS else config.eval.protocols[0]


def on_test(metric: str) -> str:
    """The metric of the test split that corresponds to one of val."""
    return f"test/{metric.removeprefix('val/')}"


def reads_test(configs: Iterable[TrainConfig]) -> bool:
    """Whether some run is evaluated on the test split too."""
    return any("test" in config.eval.splits for config in configs)


def is_whole(metric: str) -> bool:
    """Whether a metric is the mean over all classes and all of val, as publications report it."""
    return metric in ("val/miou", *(f"val/{protocol}/miou" for protocol in PROTOCOLS))


def described(metric: str) -> str:
    """A metric as written in titles, without its protocol: `val mIoU`, `val mIoU in fog`, `val IoU of rider`."""
    if metric.startswith("val/iou/"):
        return f"val IoU of {metric.removeprefix('val/iou/')}"
    return "val mIoU" if is_whole(metric) else f"val mIoU in {metric.split('/')[1]}"


def check_metric(metric: str, config: TrainConfig) -> None:
    """Raise UserError for a metric that no run of this config logs. Names of classes are not checked, as only the data
    set knows them."""
    if metric.startswith("test/"):
        raise UserError(
            f"metric '{metric}' is of the test split, by which nothing is selected or compared; give a val/ metric: "
            "test has its own column"
        )
    parts = (*config.eval.protocols[1:], *conditions(config))
    logged = ["val/miou", *(f"val/{part}/miou" for part in parts)]
    if metric not in logged and not metric.startswith("val/iou/"):
        raise unknown("metric", metric, logged)
