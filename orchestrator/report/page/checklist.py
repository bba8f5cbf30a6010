"""The reproducibility checklist, answered from the ledger and the study.

The questions follow those on experiments in the checklist of Pineau et al. (JMLR 22, 2021, Fig. 8), with some for
ablations added.
"""

from __future__ import annotations

from collections import Counter

from markupsafe import Markup

from ablations.statistics.factor_effects import effects_tested
from ablations.statistics.holm import FAMILY_WISE
from ablations.statistics.outcome import protocol
from ablations.study.arms import short
from ablations.study.metric import described
from orchestrator.report.page.data import MOST_ARMS, Report
from orchestrator.report.page.parts import Section
from orchestrator.report.page.provenance import facts
from orchestrator.state.outcomes import hardware
from trainer.config import Plugin, counted, parse
from trainer.config.plugin import GROUPS

UNKNOWN = "not recorded"


def answers(report: Report) -> dict[str, str]:
    """Question -> answer, in the order of the page."""
    found = {
        "What is measured": f"{described(report.study.metric)}, {protocol(report.study)} protocol, at the last epoch "
        "(a run's last.pt; best.pt is of the epoch with the highest val/miou); higher is better",
        "Data": _data(report),
    }
    if report.study.search is None:
        found |= {
            "What is compared": _contrasts(report),
            "Seeds": _seeds(report),
            "Error bars": "±: sample standard deviation over seeds (n - 1); in brackets: the mean paired differences "
            "that the test does not reject at the level of its verdict; bands of curves: lowest to highest seed",
            "Test": f"exact two-sided sign-flip test of paired differences{_margin(report)}, Holm over "
            f"{_tests(report)}, {FAMILY_WISE * 100:g} % family-wise{_looks(report)}",
        }
    return found | {
        "Training": _training(report),
        "Choice of hyperparameters": _tuning(report),
        "Runs that did not finish": _unfinished(report),
        "Compute": _compute(report),
        "Code": _code(report),
        **_plugins(report),
        "Deviations from the published recipe": _deviations(report),
    }


def section(report: Report) -> Section:
    """The section with all answers."""
    lines = Markup("\n").join(Markup("<dt>{}</dt><dd>{}</dd>").format(*pair) for pair in answers(report).items())
    return Section("checklist", "Reproducibility checklist", (Markup("<dl>\n{}\n</dl>").format(lines),))


def _data(report: Report) -> str:
    config = parse(report.study.base)
    data, how = config.data, config.eval.predictions
    height, width = data.size
    prints = {f"{split} {name}" for run in report.runs for split, name in run.data.items()}
    cut = f"; {data.select:g} of train held out for selection" if data.select else ""
    changed = ", ".join(step.name for step in data.steps) or ("" if data.augment == "standard" else data.augment)
    cut += f"; augmentation: {changed}" if changed else ""
    cut += f"; predictions: {how}" if how else ""
    listed = f"; fingerprints: {', '.join(sorted(prints))}" if prints else ""
    return f"{data.name}, input {height}x{width}, {data.train_labels} training labels{cut}{listed}"


def _contrasts(report: Report) -> str:
    """The arms by reference; only their number where there are many."""
    by_reference: dict[str, list[str]] = {}
    for arm, reference in report.study.pairs:
        by_reference.setdefault(reference, []).append(arm)
    return (
        "; ".join(
            f"{', '.join(arms) if len(arms) <= MOST_ARMS else f'{len(arms)} arms'} against {reference}"
            for reference, arms in by_reference.items()
        )
        or "nothing"
    )


def _seeds(report: Report) -> str:
    counts = Counter(len(scores) for arm, scores in report.scores.items() if _is_arm(report, arm))
    seeds = sorted({m.plan.seed for m in report.members if m.plan.role == "arm"})
    done = ", ".join(f"{n} in {counted(arms, 'arm')}" for n, arms in sorted(counts.items(), reverse=True))
    return f"{', '.join(map(str, seeds))}, the same for an arm and its reference; finished: {done}"


def _margin(report: Report) -> str:
    margin = report.study.margin
    return "" if margin is None else f" and two one-sided t tests within ±{margin:g} points"


def _tests(report: Report) -> str:
    contrasts, effects = counted(len(report.study.pairs), "contrast"), effects_tested(report.study)
    return f"{contrasts} and {counted(effects, 'effect')}" if effects else contrasts


def _looks(report: Report) -> str:
    looks = report.study.looks
    return f", spent over looks at {', '.join(map(str, looks))} seeds" if looks else ""


def _is_arm(report: Report, arm: str) -> bool:
    return report.groups[arm][0].plan.role == "arm"


def _training(report: Report) -> str:
    """Epochs, batch and learning rate: each value that an arm has, or `searched`."""
    searched = report.study.search.space if report.study.search else {}
    optims = [member.plan.config.optim for member in report.members if member.plan.role == "arm"]
    optims = optims or [parse(report.study.base).optim]

    def each(name: str) -> str:
        if any(f"optim.{name}".startswith(path) for path in searched):
            return "searched"
        values = dict.fromkeys(getattr(optim, name) for optim in optims)
        return " or ".join("those of the epochs" if value is None else f"{value:g}" for value in values)

    parts = any(optim.iterations is not None for optim in optims)
    steps = f"iterations: {each('iterations')}; " if parts else ""
    return f"{steps}epochs: {each('epochs')}; global batch: {each('global_batch')}; learning rate: {each('lr')}"


def _tuning(report: Report) -> str:
    """Each search with its budget, and the arms that were not tuned where others were."""
    if not report.searched:
        return "none: every arm has the values of the study's file"
    said = []
    for searched in report.searched:
        search = searched.search
        of = f"{searched.arm}: " if searched.arm else ""
        space = ", ".join(short(path) for path in search.space)
        said.append(
            f"{of}{len(searched.history)} of {counted(search.trials, 'trial')}, {search.sampler}, by {search.metric}, "
            f"over {space}"
        )
    without = [arm for arm in report.groups if _is_arm(report, arm) and arm not in {s.arm for s in report.searched}]
    if report.study.tune_each is not None and without:
        said.append(f"{', '.join(without)}: not tuned")
    return "; ".join(said)


def _unfinished(report: Report) -> str:
    """Failed runs by cause, and runs that have not ended. A trial counts with its state in its own search."""
    ends = [(member.run.status, member.run) for member in report.members]
    for s in report.searched:
        ends += [(trial.state, run) for trial, run in zip(s.trials, s.runs, strict=True)]
    failed = Counter(run.cause or run.reason if run.run_id else "refused" for state, run in ends if state == "failed")
    parts = [f"{count} failed ({cause})" for cause, count in sorted(failed.items())]
    parts += [
        f"{count} {state}"
        for state, count in sorted(Counter(state for state, _ in ends).items())
        if state not in ("finished", "failed")
    ]
    return ", ".join(parts) or "none"


def _compute(report: Report) -> str:
    """Hours by hardware, of attempts that ended; the time of killed attempts is unknown."""
    hours: dict[str, float] = {}
    for run in report.runs:
        if run.seconds:
            name = hardware(run.environment) or "unknown hardware"
            hours[name] = hours.get(name, 0.0) + run.seconds / 3600
    return "; ".join(f"{spent:.2f} h on {name}" for name, spent in sorted(hours.items())) or UNKNOWN


def _code(report: Report) -> str:
    known = facts(report.runs)
    parts = [
        f"{name} {', '.join(sorted(known[name]))}"
        for name in ("git commit", "numerics version", "torch")
        if name in known
    ]
    if "true" in known.get("uncommitted changes", {}):
        parts.append("with uncommitted changes")
    return "; ".join(parts) or UNKNOWN


def _plugins(report: Report) -> dict[str, str]:
    """The users' modules that runs use, where there are any."""
    used = {plugin.sha256: plugin for member in report.members for plugin in member.plan.config.used_plugins}
    listed = sorted(f"{plugin.name} ({_defined(plugin)}; sha256 {plugin.sha256[:12]})" for plugin in used.values())
    return {"Own modules": "; ".join(listed)} if used else {}


def _defined(plugin: Plugin) -> str:
    return ", ".join(f"{GROUPS[group].what} {name}" for group, names in plugin.entries.items() for name in names)


def _deviations(report: Report) -> str:
    published = report.study.published
    if published is None:
        return "the study states no published numbers"
    rows = {arm: (*found.differs, *found.unknown) for arm, found in report.published.items()}
    said = [f"{arm}: {', '.join(own)}" for arm, own in rows.items() if own]
    return "; ".join(said) or "none in the configs"
