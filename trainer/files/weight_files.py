"""weight_files(): the files of a checkpoint, which may be a Hugging Face folder with one file or several shards."""

from __future__ import annotations

import json
from pathlib import Path

from trainer.config import UserError
from trainer.config.input_files import check_regular
from trainer.files.run_folder import BEST

WHOLE = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in a Hugging Face folder; with INDEX added, of the list of their shards."""
INDEX = ".index.json"


def weight_files(path: Path) -> tuple[Path, ...]:
    """The files that hold the weights of `path`: a file itself, the shards that an index names, or those of a folder.

    Raises UserError for a folder without weights, an index that is none, a shard that is missing, and special files.
    """
    folder = _snapshot(path)
    if folder.is_dir():
        names = [name + suffix for name in WHOLE for suffix in ("", INDEX)]
        found = next((folder / name for name in names if (folder / name).exists()), None)
        if found is None:
            own = f", for example {path / BEST}" if (path / BEST).exists() else ""
            raise UserError(
                f"{path} is a folder without {' or '.join(WHOLE)}; give a file of weights{own}, or a folder as Hugging "
                "Face saves it"
            )
    else:
        found = path
    check_regular(found)
    return _shards(found) if found.name.endswith(INDEX) and found.is_file() else (found,)


def is_weight_folder(path: Path) -> bool:
    """Whether `path` is a folder of weights as Hugging Face saves it."""
    folder = _snapshot(path)
    return any((folder / (name + suffix)).exists() for name in WHOLE for suffix in ("", INDEX))


def _snapshot(path: Path) -> Path:
    """The folder with the files in Hugging Face's cache (models--OWNER--NAME), else `path`."""
    snapshots = sorted((path / "snapshots").iterdir()) if (path / "snapshots").is_dir() else []
    return snapshots[0] if len(snapshots) == 1 else path


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f"{index} is no list of shards (a JSON file with `weight_map`); download it again") from None
    shards = tuple(index.with_name(name) for name in names)
    for shard in shards:
        if not shard.exists():
            raise UserError(f"{index} names {shard.name}, which is not beside it; download all {len(shards)} shards")
        check_regular(shard)
    return shards
