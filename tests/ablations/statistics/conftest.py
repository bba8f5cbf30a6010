"""What the tests of published numbers share."""

from __future__ import annotations

import pytest

from tests.ablations.statistics.published_study import ARMS, WHOLE, published


@pytest.fixture
def written(study):
    """written(rest of the YAML, ...): a study with published numbers, as `published` is told to write them."""

    def write(rest="", data=WHOLE, **published_as):
        return study(ARMS + published(**published_as) + rest, data=data)

    return write
