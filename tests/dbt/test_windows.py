"""Windows, roll-ups and sessions of devices: every table equals a full refresh, whatever came in whichever order."""

from __future__ import annotations

import random
from datetime import datetime

import pytest

from include.transform import build, fix_horizon
from tests.conftest import Warehouse
from tests.support.marts import build_marts, differences, snapshot
from tests.support.payloads import at, registry, telemetry
from tests.support.removal import remove_event
from tests.support.scenario import File, land
from tests.support.window_story import WINDOWS, full_refresh, story, tell, window_tables

TOUCHED = "select bucket ->> 'window_at' from ops.bucket_change where build_id = '{}' and relation = 'maintenance.fct_device_window_{}' order by 1"


def build_windows() -> str:
    """One build of what is tested here; returns its id."""
    of = fix_horizon()
    build(WINDOWS, of, run_tests=False)
    return of.build_id


@pytest.mark.parametrize("seed", range(3))
def test_twelve_batches_of_six_days_in_any_order_give_what_a_full_refresh_gives(seed: int, deployed: Warehouse) -> None:
    """Late, corrected and removed readings; versions of the registry that come late, are corrected and are removed; clocks change on the fourth day."""
    dice = random.Random(seed)
    tell(story(seed, 12, 6), set(dice.sample(range(11), 2)), lambda: build_marts(WINDOWS))
    incremental = snapshot(window_tables())
    assert len(incremental) == 15
    assert all(len(rows) > 20 for _, rows in incremental.values()), {name: len(rows) for name, (_, rows) in incremental.items()}
    assert differences(incremental, full_refresh()) == []


@pytest.mark.prove
def test_two_hundred_batches_of_thirty_days_give_what_a_full_refresh_gives(deployed: Warehouse) -> None:
    tell(story(2026, 200, 30), set(range(200)), lambda: build_marts(WINDOWS))
    incremental = snapshot(window_tables())
    assert differences(incremental, full_refresh()) == []
