"""A simulated company at full and at small size, kept in memory."""

from __future__ import annotations

import pytest

from tests.support.simulated import Written, written


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """The history of the demo."""
    return written(tmp_path_factory.mktemp("truth"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A history for quick tests."""
    return written(tmp_path_factory.mktemp("truth"), machines=4, days=10)
