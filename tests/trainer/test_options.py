"""Options of a YAML section against the signature they will meet."""

from __future__ import annotations

import pytest

from trainer.config import UserError
from trainer.options import check_options


class Path:
    """Something with two supplied parameters and two of the user's, one without a default."""

    def __init__(self, student: int, teacher: int, *, rank: int, stage_weights: tuple[float, ...] = (1.0,)) -> None:
        self.rank = rank


def test_options_that_fit_pass() -> None:
    check_options("distill.pea", Path, {"rank": 1}, skip=("student", "teacher"))
    check_options("distill.pea", Path, {"rank": 1, "stage_weights": (1.0,)}, skip=("student", "teacher"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rank": 1, "stage_weight": 2},
            "distill.pea: unknown option 'stage_weight'; did you mean 'stage_weights'?",
        ),
        ({"rank": 1, "zzz": 2}, "distill.pea: unknown option 'zzz'; known: rank, stage_weights"),
        ({"rank": 1, "student": 2}, "distill.pea: unknown option 'student'; known: rank, stage_weights"),
        ({}, "distill.pea: the option 'rank' has no default; give it under options"),
    ],
)
def test_options_that_do_not_are_refused_in_one_line(options: dict[str, int], message: str) -> None:
    with pytest.raises(UserError) as error:
        check_options("distill.pea", Path, options, skip=("student", "teacher"))
    assert str(error.value) == message
