"""data init: look at a user's folder of images and masks, and write the `data:` section that fits it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from trainer.config import UserError, counted, parse, plain_scale, printable
from trainer.config.input_files import check_output
from trainer.files.run_folder import write_text
from trainer.place import default_cache
from trainer.verbs.data_report import Progress, report

if TYPE_CHECKING:
    from trainer.data.own_folder.discover import Match
    from trainer.data.own_folder.section import Seen
    from trainer.data.pairing import Split

LISTED = 40
"""Most values that are listed."""


def init(
    root: Annotated[Path, typer.Argument(metavar="FOLDER", help="where your images and masks are")],
    out: Annotated[Path, typer.Option(help="the YAML file to write")] = Path("data.yaml"),
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="folder or glob of the images below FOLDER, where they are not found; or one for each split, "
            "train=GLOB and val=GLOB"
        ),
    ] = None,
    masks: Annotated[list[str] | None, typer.Option(help="folder or glob of the masks below FOLDER, alike")] = None,
) -> None:
    """Look at a folder of your own, propose the data section of a config, and write it as YAML.

    It pairs images and masks by their names, counts what masks hold, and checks all of it as `data check` does.
    """
    from trainer.data import open_dataset
    from trainer.data.own_folder.discover import Discovery, discover
    from trainer.data.own_folder.given import given_matches
    from trainer.data.own_folder.section import HELD_OUT, proposed, seen_in

    check_output("--out", out, [])
    if out.exists():
        raise UserError(f"--out {out} exists; name a new file")
    if not root.is_dir():
        raise UserError(f"no folder {root}; give the folder of your images and masks")
    if bool(images) != bool(masks):
        raise UserError("--images and --masks go together; give both, or neither")
    folder = root.absolute()
    matches, left_out = Discovery(given_matches(folder, images, masks), {}) if images and masks else discover(folder)
    _print_pairs(matches)
    lost = _lost(matches, left_out)
    for text in (text for split, texts in left_out.items() if split not in lost for text in texts):
        print(printable(f"left out: {text}"))
    files = [match.masks.files[stem] for match in matches for stem in match.pairs]
    seen = seen_in(files, Progress("masks"))
    _print_values(seen)
    section = proposed(folder, matches, seen)
    if "holdout" in section["options"]:
        left = [match.images.split for match in matches if match.images.split not in (None, "train")]
        print(
            f"{'val is left out' if 'val' in lost else 'no split val'}: {HELD_OUT:.0%} are held out as val"
            + "".join(f"; {split} is left out" for split in left)
        )
    draft = parse({"data": {**section, "normalize": "unit"}}, "the proposal").data
    dataset = open_dataset(draft, folder, default_cache())
    problems, found = report(dataset, "folder", subset=True, known=list(lost.values()))
    section["normalize"] = "imagenet"
    if draft.options.get("channels", 3) != 3:
        scale = found["train"].scale
        section["normalize"] = "unit" if scale is None else plain_scale(scale)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, _text(section, folder))
    print(printable(f"wrote {out}: name the classes in it, then look at it with"))
    print(printable(f"  transkd data check {out} {root}\n  transkd data show {out} {root}").replace("\\n", "\n"))
    if problems:
        raise typer.Exit(1)


def _lost(matches: list[Match], left_out: Mapping[Split | None, list[str]]) -> dict[Split, str]:
    """The splits train and val of which files were found, but none that belong together -> the problem."""
    have = [match.images.split for match in matches]
    return {
        split: f"{split} is left out: {'; '.join(texts)}; correct these files, or say where images and masks are with "
        "--images and --masks"
        for split, texts in left_out.items()
        if split in ("train", "val") and split not in have
    }


def _text(section: dict[str, Any], folder: Path) -> str:
    head = (
        f"# Written by `transkd data init {folder}`: the section `data:` of a config, or of a study's `base:`.\n"
        "# docs/own-data.md explains every option.\n"
    )
    if "ignore" not in section["options"]:
        head += (
            "# Every value is a class. Take out of classes what is none (void, unlabelled), and add ignore: [VALUE].\n"
        )
    return head + yaml.safe_dump(
        {"data": section}, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110
    )


def _print_pairs(matches: list[Match]) -> None:
    for match in matches:
        pictures, masks = set(match.images.files), set(match.masks.files)
        lone = [f"{counted(len(pictures - masks), 'image')} without a mask"] if pictures - masks else []
        lone += [f"{counted(len(masks - pictures), 'mask')} without an image"] if masks - pictures else []
        where = f"{match.images.split or 'all'}: {len(match.pairs)} pairs, {match.images.pattern} with "
        print(printable("; ".join([where + match.masks.pattern, *lone])))


def _print_values(seen: Seen) -> None:
    kind = "colour" if isinstance(next(iter(seen.shares)), tuple) else "value"
    print(f"masks hold {len(seen.shares)} {kind}s, with their share of all pixels:")
    for value, share in list(seen.shares.items())[:LISTED]:
        shown = list(value) if isinstance(value, tuple) else value
        print(f"  {shown!s:>16} {share:8.2%}{'  likely ignored' if value == seen.ignored else ''}")
    if len(seen.shares) > LISTED:
        print(f"  and {len(seen.shares) - LISTED} more")
