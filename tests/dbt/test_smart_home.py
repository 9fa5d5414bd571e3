"""Use of smart homes, and where trucks were: every table equals a full refresh, whatever came in whichever order, and says what its docs promise."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

import pytest

from tests.conftest import Warehouse
from tests.support.home_story import FLEET, FLEET_TABLES, HOME_TABLES, HOMES, device_event, made_anew, position, story, tell
from tests.support.marts import build_marts, differences, snapshot
from tests.support.payloads import Payload, at, registry
from tests.support.removal import remove_event
from tests.support.scenario import File, land


@pytest.mark.parametrize("seed", range(2))
def test_files_in_any_order_give_what_a_full_refresh_gives(seed: int, deployed: Warehouse) -> None:
    """Late, removed and twice told events and fixes; versions of the registry that come late, are corrected and are removed; clocks change on the eighth day."""
    build_after = set(random.Random(seed).sample(range(7), 2))
    tell(story(seed, 8), build_after, lambda: build_marts(f"{HOMES} {FLEET}"), seed)
    incremental = snapshot(HOME_TABLES + FLEET_TABLES)
    assert all(rows for _, rows in incremental.values()), {name: len(rows) for name, (_, rows) in incremental.items()}
    assert differences(incremental, made_anew(HOME_TABLES + FLEET_TABLES, f"{HOMES} {FLEET}")) == []


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(100, 130))
def test_many_files_in_any_order_give_what_a_full_refresh_gives(seed: int, deployed: Warehouse) -> None:
    tell(story(seed, 20), set(range(20)), lambda: build_marts(f"{HOMES} {FLEET}"), seed)
    incremental = snapshot(HOME_TABLES + FLEET_TABLES)
    assert differences(incremental, made_anew(HOME_TABLES + FLEET_TABLES, f"{HOMES} {FLEET}")) == []
