"""Family: the tests that share the 5 % of a study, its contrasts and, of a grid, the effects of its factors."""

from __future__ import annotations

from ablations.effects import effects_of
from ablations.study import Study


def effects_tested(study: Study) -> int:
    """Effects with a verdict. A study with looks tests none: its seeds are added for the contrasts."""
    return 0 if study.looks else len(effects_of(study).effects)


def tests_of(study: Study) -> int:
    """How many differences a study may call better, worse or equivalent."""
    return len(study.pairs) + effects_tested(study)
