"""Groups: images that stay together, such as the frames of a video, and the share of them that is held out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from trainer.config import UserError, message_of
from trainer.data.pairing import Flaw, Split

_OPTION = "data.options.group"


def expression(group: str) -> re.Pattern[str]:
    """The regular expression of a group. Raises UserError for one that is none."""
    try:
        return re.compile(group)
    except re.error as error:
        raise UserError(f"{_OPTION}: {group!r} is no regular expression ({message_of(error)}); correct it") from None


def groups_of(stems: Iterable[str], group: str | None) -> dict[str, str]:
    """Stem -> its group: the first parenthesis of `group` in the stem, or all that it matches; without, the stem.

    Raises UserError for stems that it does not match.
    """
    if group is None:
        return {stem: stem for stem in stems}
    found = {stem: expression(group).search(stem) for stem in stems}
    without = [stem for stem, match in found.items() if match is None]
    if without:
        which = "no stem" if len(without) == len(found) else f"{len(found) - len(without)} of {len(found)} stems"
        raise UserError(
            f"{_OPTION}: {group!r} matches {which}; not, for example, {without[0]!r}; every image needs a group, so "
            "correct the expression"
        )
    return {stem: (match[1] if match.re.groups else match[0]) or "" for stem, match in found.items() if match}


def hold_out(groups: Mapping[str, str], shares: Mapping[Split, float]) -> dict[str, Split]:
    """Stem -> its split. Whole groups are held out, in an order that depends on their names only, each while it brings
    the split closer to its share of the images; at least one.

    Raises UserError where there are too few groups.
    """
    members = Counter(groups.values())
    if len(members) <= len(shares):
        raise UserError(
            f"data.options.holdout: {len(groups)} images are in {len(members)} group{'s' * (len(members) != 1)} "
            f"({', '.join(map(repr, sorted(members)[:3]))}), which cannot be divided into train and "
            f"{' and '.join(shares)}; correct data.options.group so that it tells more groups apart"
        )
    left = sorted(members, key=lambda name: hashlib.sha256(name.encode()).digest())
    splits: dict[str, Split] = {}
    waiting = len(shares)
    for split, share in shares.items():
        want, taken = share * len(groups), 0
        waiting -= 1
        for name in list(left):
            keep = len(left) > waiting + 1  # one for train, and one for each split to come
            if keep and (not taken or abs(taken + members[name] - want) < abs(taken - want)):
                splits[name], taken = split, taken + members[name]
                left.remove(name)
    return {stem: splits.get(name, "train") for stem, name in groups.items()}


def hold_out_groups(groups: Sequence[str], share: float) -> tuple[np.ndarray, np.ndarray]:
    """(train indices, held-out indices), sorted, of samples with these groups; groups stay whole."""
    split = hold_out({str(i): name for i, name in enumerate(groups)}, {"val": share})
    held = np.array([split[str(i)] == "val" for i in range(len(groups))])
    return np.flatnonzero(~held), np.flatnonzero(held)


def crossing(mine: Mapping[str, str], others: Mapping[Split, Mapping[str, str]], split: Split) -> list[Flaw]:
    """The groups of `split` that other splits have too; all as of `groups_of`."""
    flaws = []
    for other, groups in others.items():
        both = sorted(set(mine.values()) & set(groups.values()))
        flaws.append(
            Flaw(
                f"group on both sides, in {other} and {split}, so that {split} would measure what was learnt by heart",
                both,
                f"move each to one split, or correct {_OPTION}",
            )
        )
    return flaws
