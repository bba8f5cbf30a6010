"""ACDC: Cityscapes' classes in fog, at night, in rain and in snow; mIoU is also reported for each condition."""

from __future__ import annotations

from pathlib import Path

from trainer.data.base import Official
from trainer.data.cityscapes import Cityscapes
from trainer.data.images import SUFFIXES
from trainer.data.pairing import Found, Split, by_suffix, folder

LAYOUT = (
    "rgb_anon/{fog,night,rain,snow}/{train,val}/SEQUENCE/STEM_rgb_anon.png with "
    "gt/{fog,night,rain,snow}/{train,val}/SEQUENCE/STEM_gt_labelTrainIds.png or _labelIds.png"
)

# Sakaridis, Dai and Van Gool, ACDC (ICCV 2021): pairs in train and val of each condition.
CONDITIONS = {"fog": (400, 100), "night": (400, 106), "rain": (400, 100), "snow": (400, 100)}


class ACDC(Cityscapes):
    """The Adverse Conditions Dataset, 1920x1080. Train is all four conditions together, as in the paper.

    A condition whose folder is missing is skipped; `data check` and the option `whole` report it.
    """

    official = Official(1600, 406, (1080, 1920), CONDITIONS)

    def find(self, split: Split) -> Found:
        """Files by stem, for example `fog/GOPR0475/GOPR0475_frame_000041`."""
        assert self.root is not None
        base = folder(self.root / "rgb_anon", LAYOUT)
        folder(self.root / "gt", LAYOUT)
        images: dict[str, Path] = {}
        labels: dict[str, Path] = {}
        for condition in CONDITIONS:
            pictures, truths = (self.root / kind / condition / split for kind in ("rgb_anon", "gt"))
            images |= _below(condition, by_suffix(pictures, "_rgb_anon", *SUFFIXES))
            for mark in ("_gt_labelIds", "_gt_labelTrainIds"):  # trainIds replace labelIds of the same stem
                labels |= _below(condition, by_suffix(truths, mark, ".png"))
        return Found(images, labels, base)

    def condition_of(self, stem: str) -> str:
        """The first component of the stem."""
        return stem.partition("/")[0]

    def paths(self, split: Split, index: int) -> tuple[str, str]:
        """The conditions alternate with `index`."""
        condition = list(CONDITIONS)[index % len(CONDITIONS)]
        stem = f"{condition}/{split}/SYNTH{index:04d}/SYNTH{index:04d}_frame_000001"
        return f"rgb_anon/{stem}_rgb_anon.png", f"gt/{stem}_gt_labelTrainIds.png"


def _below(condition: str, files: dict[str, Path]) -> dict[str, Path]:
    return {f"{condition}/{stem}": path for stem, path in files.items()}
