"""data show: a page with a few samples of a data set under their masks, its classes' shares and its sizes."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.config import UserError, printable
from trainer.config.input_files import check_output
from trainer.files.run_folder import write_text
from trainer.place import default_cache
from trainer.verbs.data_named import Name, Options, PluginFile, section
from trainer.verbs.data_report import Progress

if TYPE_CHECKING:
    from PIL import Image

    from trainer.data import SegDataset
    from trainer.data.check import Contents
    from trainer.data.own_folder.overlay import Sample
    from trainer.data.pairing import Split

_STYLE = (
    "body{font:15px sans-serif;margin:2em;color:#222}figure{display:inline-block;margin:0 1em 1em 0}"
    "img{display:inline-block;max-width:480px;margin-right:4px}figcaption{font-size:13px;color:#555}"
    "td,th{padding:2px 12px 2px 0;text-align:right}th:first-child,td:first-child{text-align:left}"
    ".key{display:inline-block;width:1em;height:1em;border:1px solid #999;margin-right:6px;vertical-align:-2px}"
)


def show(
    name: Name,
    root: Annotated[Path | None, typer.Argument(metavar="ROOT", help="its folder (scenes makes its own)")] = None,
    out: Annotated[Path, typer.Option(help="the HTML page to write")] = Path("data.html"),
    count: Annotated[int, typer.Option(min=1, max=100, help="samples of each split")] = 4,
    option: Options = None,
    plugin: PluginFile = None,
) -> None:
    """Write a page with a few samples of each split, the share of every class, and the sizes of the images."""
    from trainer.data import open_dataset
    from trainer.data.check import check_split
    from trainer.data.own_folder.overlay import samples

    config = section(name, option, plugin)
    dataset = open_dataset(config, root.absolute() if root else None, default_cache())
    check_output("--out", out, (path for split in dataset.splits for pair in dataset.pairs(split) for path in pair[1:]))
    if out.exists() and out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out} exists and is no page; name a new file, or one that ends in .html")
    chosen = {split: samples(dataset, split, count) for split in dataset.splits}
    found: dict[Split, Contents] = {}
    for split in dataset.splits:
        found[split] = check_split(dataset, split, subset=True, progress=Progress(split), before=found)
    problems = sum(len(contents.problems) for contents in found.values())
    body = [f"<h1>{_text(config.name)} in {_text(str(dataset.root))}</h1>", _splits(found), _classes(dataset, found)]
    for split, shown in chosen.items():
        body += [f"<h2>{split}</h2>", *(_figure(sample) for sample in shown)]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, f"<!doctype html><meta charset=utf-8><title>data</title><style>{_STYLE}</style>{''.join(body)}\n")
    print(printable(f"wrote {out}: {sum(map(len, chosen.values()))} samples"))
    if problems:
        print(printable(f"{problems} problem{'s' * (problems > 1)}; `transkd data check {name}` lists them"))
        raise typer.Exit(1)


def _splits(found: Mapping[Split, Contents]) -> str:
    rows = []
    for split, contents in found.items():
        sizes = ", ".join(f"{w}x{h} ({n})" for (h, w), n in contents.sizes.most_common(5))
        more = len(contents.sizes) - 5
        rows.append(f"<tr><td>{split}<td>{contents.pairs}<td>{sizes}{f' and {more} more' if more > 0 else ''}")
    return f"<table><tr><th>split<th>pairs<th>sizes, width x height (images){''.join(rows)}</table>"


def _classes(dataset: SegDataset, found: Mapping[Split, Contents]) -> str:
    rows = []
    for at, (name, colour) in enumerate(zip(dataset.classes, dataset.palette, strict=True)):
        cells = "".join(f"<td>{c.counts[at] / max(c.counts.sum(), 1):.2%}" for c in found.values())
        key = '<span class=key style="background:#{:02x}{:02x}{:02x}"></span>'.format(*colour)
        rows.append(f"<tr><td>{key}{_text(name)}{cells}")
    ignored = "".join(f"<td>{c.ignored / max(c.counts.sum() + c.ignored, 1):.2%}" for c in found.values())
    heads = "".join(f"<th>{split}" for split in found)
    return f"<table><tr><th>share of labelled pixels{heads}{''.join(rows)}<tr><td>ignored, of all{ignored}</table>"


def _figure(sample: Sample) -> str:
    height, width = sample.size
    pictures = "".join(f'<img src="{_inline(picture)}" alt="">' for picture in (sample.image, sample.overlay))
    told = f"{_text(sample.pair.stem)}, {width}x{height}: {_text(', '.join(sample.classes))}"
    return f"<figure>{pictures}<figcaption>{told}</figcaption></figure>"


def _inline(picture: Image.Image) -> str:
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _text(text: str) -> str:
    return html.escape(printable(text))
