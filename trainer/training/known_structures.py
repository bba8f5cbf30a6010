"""Structures that have been checked before, in the cache: read without torch, so that a plan answers at once."""

from __future__ import annotations

import functools
from pathlib import Path

from trainer.config import TrainConfig, digest, splits_read, weight_names
from trainer.files.atomic import whole_json
from trainer.files.file_digest import file_digest


def known_cost(config: TrainConfig, cache: Path) -> dict[str, float] | None:
    """The deployed student's cost if the structure was built before; None if `build.check` has to build it."""
    return whole_json(structure_file(config, cache))


def structure_file(config: TrainConfig, cache: Path) -> Path:
    """Where the cost of a structure is kept. Its name is a digest of all that the check depends on: what shapes the
    modules, the weights that are here, and this package's source."""
    shape = config.model_dump(mode="json", include={"student", "teacher", "data"}) | splits_read(config.eval.splits)
    paths = {name: term.options for name, term in config.active.items()}
    weights = [file_digest(path) for path in map(Path, weight_names(config)) if path.exists()]
    losses = {name: term.model_dump(mode="json") for name, term in config.loss.items()}
    code = [_source(), *(plugin.sha256 for plugin in config.used_plugins)]
    optim = [config.optim.effective_norm_batch, config.optim.lr_multipliers.head != 1]
    key = digest([shape, paths, losses, optim, weights, code])
    return cache / "checks" / f"{key}.json"


@functools.cache
def _source() -> str:
    here = Path(__file__).parents[1]
    files = [(str(f.relative_to(here)), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(here.rglob("*.py"))]
    return digest(files)
