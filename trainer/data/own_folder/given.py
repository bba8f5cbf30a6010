"""given_matches(): the images and masks that a user's patterns name, by split where the patterns or folders tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path

from trainer.config import UserError
from trainer.data.own_folder.discover import Match, Unit, split_of
from trainer.data.own_folder.patterns import find_files
from trainer.data.pairing import SPLITS, Split


def given_matches(root: Path, pictures: Sequence[str], masks: Sequence[str]) -> list[Match]:
    """The matches of the patterns below `root`: one for each split, or one. Raises UserError where nothing matches."""
    of_pictures, of_masks = _by_split("--images", pictures), _by_split("--masks", masks)
    if of_pictures.keys() != of_masks.keys():
        told = (", ".join(str(split or "all") for split in given) for given in (of_pictures, of_masks))
        raise UserError(
            f"--images is given for {next(told)}, but --masks for {next(told)}; give both for the same splits"
        )
    matches = [_match(root, split, of_pictures[split], of_masks[split]) for split in of_pictures]
    divided = [_divided(root, unit) for unit in matches[0]] if None in of_pictures else []
    if divided and {"train", "val"} <= divided[0].keys() & divided[1].keys():
        both = [split for split in SPLITS if split in divided[0] and split in divided[1]]
        return [_match(root, split, divided[0][split], divided[1][split]) for split in both]
    return matches


def _by_split(option: str, given: Sequence[str]) -> dict[Split | None, str]:
    """SPLIT=PATTERN, or one pattern for all."""
    found: dict[Split | None, str] = {}
    for text in given:
        name, _, pattern = text.partition("=")
        split = next((split for split in SPLITS if split == name and pattern), None)
        if split in found or (found and None in (split, *found)):
            raise UserError(
                f"{option} {text}: one pattern for all images, or one for each split, is expected, beside {option} "
                f"{next(iter(given))}; write {option} train=PATTERN {option} val=PATTERN"
            )
        found[split] = pattern if split else text
    return found


def _match(root: Path, split: Split | None, pictures: str, masks: str) -> Match:
    masked = find_files("--masks", root, masks)
    taken = set(masked.values()) if pictures != masks else set()
    found = find_files("--images", root, pictures, without=taken)
    match = Match(Unit(pictures, split, found, False), Unit(masks, split, masked, True))
    if not match.pairs:
        raise UserError(
            f"--images {pictures} and --masks {masks} have no name in common, for example {next(iter(found))} and "
            f"{next(iter(masked))}; what the wildcards stand for must be equal"
        )
    return match


def _divided(root: Path, unit: Unit) -> Mapping[Split, str]:
    """The pattern of each split, where all files of a pattern lie in folders named for splits; else none."""
    is_folder = (root / unit.pattern).is_dir()
    parts = [part for part in unit.pattern.split("/") if part not in ("", ".")]
    found: dict[Split, str] = {}
    for path in unit.files.values():
        folders = path.relative_to(root).parts[:-1]
        at, split = next(((i, split) for i, name in enumerate(folders) if (split := split_of(name))), (None, None))
        if at is None or split is None:
            return {}
        if is_folder and at == len(parts):
            pattern = "/".join([*parts, folders[at]])
        elif not is_folder and at < len(parts) and "**" not in parts[:at]:
            rest = parts[at:] if parts[at] == "**" else parts[at + 1 :]
            pattern = "/".join([*parts[:at], escape(folders[at]), *rest])
        else:
            return {}
        if found.setdefault(split, pattern) != pattern:
            return {}
    return found
