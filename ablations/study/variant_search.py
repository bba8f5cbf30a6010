"""Variant search: the searches of a study with `tune_each`, one for each variant, as separate studies."""

from __future__ import annotations

from typing import Any

from ablations.study.schema import Study
from trainer.config import located, override


class VariantSearch(Study):
    """The search of one variant: its base is the variant's complete config, its only seed the `train_seed`."""

    variant: str
    whole: dict[str, Any]

    @property
    def recipe(self) -> dict[str, Any]:
        """The base of the whole study, so that the search and the final seeds share one teacher."""
        return self.whole

    def trial_name(self, number: int) -> str:
        """The label of a trial; it names the variant, as one study has trials of several."""
        return f"{self.variant} trial {number}"


def searches(study: Study) -> dict[str, Study]:
    """By arm, the search that tunes it, in the order of the arms. A study with `search` has one entry, of name "".

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
