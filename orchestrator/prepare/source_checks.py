"""What runs read: what of it a plan can check on this machine, what is certain to fail, and what stays unknown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestrator.prepare.jobs import Preparer
from orchestrator.store.objects.address import as_address
from trainer.config import TrainConfig, UserError, masked, weight_names


def not_here(preparer: Preparer, configs: Iterable[TrainConfig]) -> list[str]:
    """Why data and weights of these configs cannot be checked here, a phrase each: they may be on another machine.

    Raises UserError for what no machine could read: a folder that is here and is not of the data set, weights that are
    here and cannot be read, an address in place of a file.
    """
    configs = list(configs)
    data = {config.data.model_dump_json(include={"name", "options"}): config for config in configs}
    weights = dict.fromkeys(name for config in configs for name in weight_names(config))
    found = [why for config in data.values() for why in _data_not_here(preparer, config)]
    return found + [why for name in weights for why in _weights_not_here(name)]


def _data_not_here(preparer: Preparer, config: TrainConfig) -> Iterator[str]:
    from trainer.data import dataset_class

    name = config.data.name
    root = preparer.roots.get(name)
    if root is None and dataset_class(name).needs_root:
        yield f"the folder of {name} is not given (--data-root FOLDER)"
    elif root is not None and not root.exists():
        yield f"the folder of {name} is not on this machine: {root}"
    else:
        preparer.check_root(config)


def _weights_not_here(name: str) -> Iterator[str]:
    from trainer.files.file_digest import file_digest

    if (address := as_address(name)) is not None:
        raise UserError(f"weights must be a file but got {masked(address)}; copy it to a file system and name that")
    if Path(name).exists():
        file_digest(Path(name))
    else:
        yield f"no such weights here: {name}"
