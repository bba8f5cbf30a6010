"""Winners: the best trial of each tuned variant's search, and the number of trials that each variant had."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablations.study.schema import Study
from ablations.study.search import Search
from ablations.study.trial import Trial
from ablations.study.variant_search import searches


@dataclass(frozen=True)
class Tuned:
    """The search of one variant and its trials so far. It has a winner once all trials have ended."""

    search: Search
    trials: tuple[Trial, ...]

    @property
    def left(self) -> int:
        """The number of trials that have not ended."""
        return max(0, self.search.trials - sum(trial.state != "running" for trial in self.trials))

    @property
    def winner(self) -> Trial | None:
        """The finished trial with the highest metric, of equal ones the earliest. Stopped trials are left out: their
        scores are of earlier epochs."""
        scores = {trial.number: trial.metrics.get(self.search.metric, math.nan) for trial in self.trials}
        ended = [t for t in self.trials if t.state == "finished" and math.isfinite(scores[t.number])]
        return min(ended, key=lambda t: (-scores[t.number], t.number)) if ended and not self.left else None

    @property
    def reason(self) -> str:
        """Why there is no winner."""
        if self.left:
            return f"its search has ended {self.search.trials - self.left} of {self.search.trials} trials"
        return "no trial of its search finished"


def winners(tuned: Mapping[str, Tuned]) -> dict[str, dict[str, Any]]:
    """By arm, the values of its winner as proposed; arms without a winner are left out."""
    return {arm: dict(found.winner.values) for arm, found in tuned.items() if found.winner}


def budgets(study: Study) -> dict[str, int]:
    """By arm, the number of trials of its search; 0 where no dimension applies. Empty for a study without tune_each."""
    if study.tune_each is None:
        return {}
    found = searches(study)
    return {arm: found[arm].search.trials if arm in found else 0 for arm in study.compared.overrides}  # type: ignore[union-attr]
