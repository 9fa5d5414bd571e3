"""Windows of device readings: every level equals a full refresh, and a reading belongs to the registry of then."""

from __future__ import annotations

import pytest

from tests.conftest import Warehouse
from tests.support.marts import build_marts, differences, snapshot
from tests.support.scenario import files, land


def test_windows_are_the_same_as_a_full_refresh_after_every_kind_of_change(deployed: Warehouse) -> None:
    for file in files()[:8]:
        land(file)
    build_marts()
    for file in files()[8:]:
        land(file)
    build_marts(run_tests=True)
    incremental = snapshot()
    build_marts(rebuild=True)
    assert differences(incremental, snapshot()) == []
