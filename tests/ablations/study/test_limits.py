"""What the deployed student may cost: every arm beyond it is named, with value and limit."""

import pytest

from ablations.study.limits import Limits
from trainer.config import UserError

COSTS = {
    "small": {"params_m": 3.715, "gmacs": 0.9, "gmacs_paper": 0.8},
    "large": {"params_m": 24.72, "gmacs": 7.25, "gmacs_paper": 6.5},
}


def test_without_limits_nothing_is_refused():
    Limits().refuse(COSTS)
    assert Limits().given == {}


def test_all_arms_beyond_a_limit_are_named_with_value_and_limit():
    Limits(params_m=24.72, gmacs=8).refuse(COSTS)
    with pytest.raises(UserError) as error:
        Limits(params_m=3, gmacs=5).refuse(COSTS)
    assert str(error.value) == (
        "limits: small: params_m 3.715 is above 3; large: params_m 24.72 is above 3 and gmacs 7.25 is above 5; "
        "take a smaller student or data.size, or raise the limit"
    )


@pytest.mark.parametrize("wrong", ["{params: 5}", "{params_m: -1}", "{gmacs: 1e1}", "5"])
def test_a_limit_is_a_number_above_zero_by_a_name_there_is(study, wrong):
    with pytest.raises(UserError, match="limits"):
        study(f"variants: {{a: {{}}, b: {{distill: {{}}}}}}\nlimits: {wrong}\n")
