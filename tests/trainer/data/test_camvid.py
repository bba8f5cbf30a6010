"""The real CamVid, where its folder is given: counts, sizes and classes are those published."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from trainer.config import DataConfig
from trainer.data import open_dataset, pack

pytestmark = [
    pytest.mark.camvid,
    pytest.mark.slow,
    pytest.mark.skipif("TRANSKD_CAMVID" not in os.environ, reason="set TRANSKD_CAMVID=FOLDER"),
]


def test_camvid_packs_whole_with_every_class_in_either_split(tmp_path: Path) -> None:
    config = DataConfig(name="camvid", size=(96, 128))
    data = open_dataset(config, Path(os.environ["TRANSKD_CAMVID"]), tmp_path)
    assert len(data.classes) == len(data.palette) == 11
    for split, count in (("train", 367), ("val", 101)):
        packed = pack(data, config, split, tmp_path)
        assert len(packed) == count
        assert packed.native_label(0).shape == (360, 480)
        assert (packed.class_counts > 0).all()
        road_and_sky = packed.class_counts[[data.classes.index("road"), data.classes.index("sky")]].sum()
        assert 0.3 < road_and_sky / packed.class_counts.sum() < 0.6
        assert all(np.isin(packed.sample(i)[1], [*range(11), 255]).all() for i in range(count))
