"""Write the configs of a study's runs: OUT/teacher.yaml and, for each seed, OUT/seed<K>/<arm>.yaml, one file a run.

`python -m trainer fit` reads them, on a machine without Ray. Run: python benchmarks/flagship_configs.py STUDY OUT
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

from ablations.study.plan import Run, expand
from ablations.study.schema import load
from trainer.config import UserError


def file_name(arm: str) -> str:
    """An arm's name as that of a file: `+ CSF` is csf, `TransKD-GL` transkd-gl."""
    return re.sub("[^a-z0-9]+", "-", arm.lower()).strip("-") or "arm"


def write(run: Run, path: Path) -> None:
    """Write a run's config."""
    if path.exists():
        raise UserError(f"two arms of one seed have the file name {path.name}; rename {run.arm!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def main(study: str, out: Path) -> None:
    """Write all configs of a study with one teacher, and refuse another study."""
    runs = expand(load(study))
    teachers = [run for run in runs if run.role == "teacher"]
    if len(teachers) > 1 or any(run.awaits for run in runs):
        raise UserError(f"{study} must have one teacher, and no search, to run without Ray; run it with: transkd run")
    for run in runs:
        write(
            run,
            out / "teacher.yaml" if run.role == "teacher" else out / f"seed{run.seed}" / f"{file_name(run.arm)}.yaml",
        )


if __name__ == "__main__":
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    except UserError as error:
        sys.exit(str(error))
