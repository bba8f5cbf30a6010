"""Provenance: code, packages, hardware, data and weights of the runs, and a list of the runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from markupsafe import Markup

from orchestrator.report.page.data import Report
from orchestrator.report.page.parts import Section
from orchestrator.store.ledger_run import LedgerRun

NAMES = {
    "numerics": "numerics version",
    "git.commit": "git commit",
    "git.dirty": "uncommitted changes",
    "git.diff": "digest of the changes",
    "git.untracked": "files git does not know",
    "device_name": "GPU",
    "threads": "threads a worker",
    "workers": "workers a run",
    "cohort": "runs that trained together",
}
"""Readable names for fields of the ledger; other fields keep their names."""


def facts(runs: Iterable[LedgerRun]) -> dict[str, Counter[str]]:
    """Name -> value -> number of runs that recorded it."""
    found: dict[str, Counter[str]] = {}
    for run in runs:
        for name, value in _flat(_recorded(run)).items():
            if value not in ("", None, [], {}):
                text = value if isinstance(value, str) else json.dumps(value)
                found.setdefault(NAMES.get(name, name), Counter())[text] += 1
    return found


def section(report: Report) -> Section | None:
    """What the runs recorded, and a list of the runs. Values that only some runs have show their number."""
    if not report.runs:
        return None
    finished = [run for run in report.runs if run.status == "finished"]
    at_end, lines = facts(finished), []
    for name, values in facts(report.runs).items():
        # some fields, such as hardware and data, are only recorded by finished runs
        runs, what = (finished, "finished runs") if values == at_end.get(name) else (report.runs, "runs")
        shown = Markup("<br>").join(_value(text, count, len(runs), what) for text, count in sorted(values.items()))
        lines.append(Markup("<dt>{}</dt><dd>{}</dd>").format(name, shown))
    listed = Markup("<dl>\n{}\n</dl>").format(Markup("\n").join(lines))
    return Section("provenance", "Provenance", (listed, _runs(report)))


def _recorded(run: LedgerRun) -> dict[str, Any]:
    """The recorded fields of a run; of weights the file's name and digest, without its folder."""
    environment = dict(run.environment)
    environment |= environment.pop("packages", {})
    weights = {
        f"{role} weights": f"{PurePath(used['file']).name}, sha256 {used['sha256'][:12]}"
        for role, used in run.weights.items()
        if "sha256" in used
    }
    data = {f"data: {split}": fingerprint for split, fingerprint in run.data.items()}
    return {**environment, **data, **weights}


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in data.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def _value(text: str, count: int, total: int, what: str) -> Markup:
    some = Markup(' <span class="dim">in {} of {} {}</span>').format(count, total, what) if count < total else ""
    return Markup("{}{}").format(text, some)


def _runs(report: Report) -> Markup:
    """The list of runs, collapsed."""
    listed = [(m.plan.arm, m.plan.seed, m.run) for m in report.members if m.run.run_id]
    for search in report.searched:
        named = [(search.study.trial_name(trial.number), search.study.seeds[0]) for trial in search.trials]
        listed += [(*own, run) for own, run in zip(named, search.runs, strict=True) if run.run_id]
    rows = Markup("\n").join(
        Markup(
            '<tr><th scope="row">{}</th><td class="number">{}</td><td><code>{}</code></td><td>{}</td>'
            '<td class="number">{}</td><td class="number">{}</td><td class="number">{:.2f}</td><td>{}</td></tr>'
        ).format(arm, seed, run.run_id, run.status, len(run.epochs), run.attempts, run.seconds / 3600, _remarks(run))
        for arm, seed, run in listed
    )
    head = Markup("").join(
        Markup('<th scope="col"{}>{}</th>').format(Markup(' class="number"') if number else "", name)
        for name, number in (
            *(("arm", False), ("seed", True), ("run", False), ("state", False)),
            *(("epochs", True), ("attempts", True), ("hours", True), ("remarks", False)),
        )
    )
    return Markup(
        '<details><summary>All {} runs</summary><div class="scroll"><table>\n<thead><tr>{}</tr></thead>\n'
        "<tbody>\n{}\n</tbody></table></div></details>"
    ).format(len(listed), head, rows)


def _remarks(run: LedgerRun) -> str:
    """Why it failed, the folder it was imported from, and its notes."""
    failed = f"{run.cause}: {run.reason}" if run.cause and run.reason else run.reason
    return "; ".join(filter(None, [failed, f"imported from {run.imported}" if run.imported else "", *run.notes]))
