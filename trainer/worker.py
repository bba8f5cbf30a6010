"""fit() inside Ray: in a Tune trial's own process, or as one worker of a Ray Train run. The one file here with Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import ray.tune
import torch

from trainer import parallel, record
from trainer.config import NumericalError, UserError, parse
from trainer.loop import fit
from trainer.place import Place


def train_worker(settings: dict[str, Any]) -> None:
    """Train one run. `settings`: config (plain data), place (Place's fields), workers (of the run).

    Errors that would only happen again (a wrong config, a loss that is not finite) reach every worker alike: they are
    recorded in the run's folder and end the run, so that nothing retries them. Everything else is raised.
    """
    place = Place(**settings["place"])
    nested = settings["workers"] > 1
    if nested and place.device == "cuda":  # the workers of a machine see all of its GPUs
        device = ray.train.torch.get_device()
        torch.cuda.set_device(device)
        place = replace(place, device=str(device))
    if parallel.rank() == 0:
        record.clear_failure(place.out_dir)

    def report(metrics: dict[str, float], checkpoint: Path | None) -> None:
        if nested:
            ray.train.report(metrics)
        else:
            ray.tune.report(metrics)

    try:
        fit(parse(settings["config"]), place, report=report)
    except (UserError, NumericalError) as error:
        record.write_failure(place.out_dir, type(error).__name__, str(error))
    except Exception as error:
        record.write_failure(place.out_dir, type(error).__name__, " ".join(f"{type(error).__name__}: {error}".split()))
        raise
