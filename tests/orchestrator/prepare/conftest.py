"""What the tests of the estimate share."""

import pytest

from orchestrator.store.folder import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")
