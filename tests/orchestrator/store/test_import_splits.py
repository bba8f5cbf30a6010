"""`transkd import` of a run that was evaluated on test too: the images of test are part of its id, and are verified."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from orchestrator.store.folder import Store
from orchestrator.store.import_runs import measure_again, runs_below, take_in
from orchestrator.store.ledger import Ledger
from trainer.config import parse
from trainer.files import checkpoint
from trainer.files.run_folder import LAST
from trainer.place import Place
from trainer.training.loop import fit

SPLITS = {"train": 4, "val": 2, "test": 2}
OPTIONS = {kind: {split: f"{kind}/{split}" for split in SPLITS} for kind in ("images", "masks")}


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in SPLITS.items():
        for at in range(count):
            for kind, pixels in (
                ("images", rng.integers(0, 256, (32, 64, 3))),
                ("masks", rng.integers(0, 2, (32, 64))),
            ):
                path = tmp_path / "mine" / kind / split / f"{at}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return tmp_path / "mine"


@pytest.mark.slow
def test_a_run_with_a_test_split_is_verified_on_it(root, tmp_path, cache):
    data = {"name": "folder", "size": [32, 64], "options": {**OPTIONS, "classes": ["a", "b"]}}
    config = parse(
        {
            "data": data,
            "student": {"name": "segformer_tiny"},
            "optim": {"epochs": 1, "global_batch": 4},
            "eval": {"splits": ["val", "test"]},
        }
    )
    run = tmp_path / "runs" / "mine"
    place = Place(out_dir=run, cache_dir=cache, data_root=root, device="cpu")
    fit(config, place, report=lambda metrics, checkpoint: None)

    def imported(name):
        store = Store(tmp_path / name)
        measure = partial(measure_again, root=root, cache=cache)
        (found,) = take_in(runs_below(run), store, Ledger(store.ledger), measure)
        return found.state, found.about

    assert imported("first")[0] == "taken"
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert result["data"].keys() == SPLITS.keys()
    state = checkpoint.load(run / LAST)
    for forged in (result["last"], state["history"][-1]):
        forged["test/miou"] += 1
    checkpoint.save(run / LAST, state)
    (run / "result.json").write_text(json.dumps(result), encoding="utf-8")
    (run / "epochs.jsonl").write_text(json.dumps(result["last"]) + "\n", encoding="utf-8")
    assert imported("second")[0] == "left"
    Image.new("L", (64, 32), 1).save(root / "masks" / "test" / "0.png")
    assert "its test images have fingerprint" in imported("third")[1]
