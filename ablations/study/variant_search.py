"""Tuning: the searches of a study, one for each variant that is tuned, as studies of their own."""

from __future__ import annotations

from typing import Any

from ablations.study.schema import Study
from trainer.config import located, override


class VariantSearch(Study):
    """The search of one variant: its base is the variant's whole config, its only seed that of the trials."""

    variant: str
    whole: dict[str, Any]

    @property
    def recipe(self) -> dict[str, Any]:
        """The base of the whole study: one teacher serves the search and the seeds after it."""
        return self.whole

    def trial_name(self, number: int) -> str:
        """Trials of all variants stand in one study, so their names say whose they are."""
        return f"{self.variant} trial {number}"


def searches(study: Study) -> dict[str, Study]:
    """By arm, the search that comes before it, in the order of the arms; a study that is a search has one, of no arm.

    Raises UserError where the search of a variant is not valid.
    """
    if study.search is not None:
        return {"": study}
    found: dict[str, Study] = {}
    if study.tune_each is None:
        return found
    for arm, changes in study.compared.overrides.items():
        with located(f"{study.name}: {arm}"):
            base = override(study.base, changes, absent_ok=study.variants is None)
            search = study.tune_each.search_of(arm, base)
            if search is not None:
                found[arm] = VariantSearch(
                    name=study.name,
                    base=base,
                    search=search,
                    seeds=(study.tune_each.train_seed,),
                    metric=study.metric,
                    limits=study.limits,
                    variant=arm,
                    whole=study.base,
                )
    return found
