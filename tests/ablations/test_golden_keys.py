"""The keys of all runs of every packaged study: a new field at its default changes none of them.

A key names a run in every store. `python tests/ablations/test_golden_keys.py` writes the file anew, for a new study or
one that is meant to change.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablations.study.plan import expand
from ablations.study.schema import load, packaged
from trainer.config import digest, parse

FILE = Path(__file__).parents[1] / "golden" / "keys.json"


def keys_of(name: str) -> dict[str, str]:
    """The key of a study's base, and the digest of the sorted keys of its runs."""
    study = load(name)
    return {"base": parse(study.base).key, "runs": digest(sorted({run.key for run in expand(study)}))}


@pytest.mark.parametrize("name", packaged())
def test_the_runs_of_a_study_keep_their_keys(name: str) -> None:
    assert keys_of(name) == json.loads(FILE.read_text(encoding="utf-8"))[name]


def test_no_study_is_missing() -> None:
    assert list(json.loads(FILE.read_text(encoding="utf-8"))) == sorted(packaged())


if __name__ == "__main__":
    lines = [f"{json.dumps(name)}: {json.dumps(keys_of(name))}" for name in sorted(packaged())]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
