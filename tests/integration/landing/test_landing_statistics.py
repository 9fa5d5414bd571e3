"""A load leaves statistics that the next build can plan by, at a cost that follows what it added."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from include.landing import land_pending, load
from tests.conftest import Warehouse
from tests.support.payloads import at, put, telemetry

STREAM = "device_telemetry"


def land(day: int, rows: int, arrived_at: datetime) -> None:
    put(STREAM, [telemetry("m1", at(day, minute=number)) for number in range(rows)], arrived_at=arrived_at)
    assert land_pending(STREAM, arrived_from=at(-100), arrived_before=at(60)).accepted == rows


def known(warehouse: Warehouse) -> dict[str, int]:
    """Rows as the planner knows them; -1 where nothing was ever analyzed."""
    return dict(warehouse.rows("select relname, reltuples::bigint from pg_class where relname ~ '^device_telemetry(_y2026m0[23])?$'"))


def test_what_grew_by_a_fifth_is_analyzed_and_nothing_else(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "ANALYZE_AFTER", 1)
    land(0, 50, at(40))
    assert known(warehouse) == {STREAM: 50, f"{STREAM}_y2026m03": 50}, "a build that starts now must not plan for an empty table"
    land(1, 10, at(41))
    assert known(warehouse) == {STREAM: 50, f"{STREAM}_y2026m03": 50}, "a fifth is not more than a fifth"
    land(-10, 5, at(42))
    assert known(warehouse) == {STREAM: 50, f"{STREAM}_y2026m02": 5, f"{STREAM}_y2026m03": 50}, "a month that is new, not what is stored beside it"
    land(2, 12, at(43))
    assert known(warehouse) == {STREAM: 77, f"{STREAM}_y2026m02": 5, f"{STREAM}_y2026m03": 72}


def test_batches_of_one_load_add_up(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "ANALYZE_AFTER", 1)
    monkeypatch.setattr(load, "BATCH_FILES", 1)
    land(0, 50, at(40))
    for number in range(5):
        put(STREAM, [telemetry("m2", at(0, number, minute)) for minute in range(5)], arrived_at=at(41) + timedelta(minutes=number))
    assert land_pending(STREAM, arrived_from=at(-100), arrived_before=at(60)).batches == 5
    assert known(warehouse) == {STREAM: 65, f"{STREAM}_y2026m03": 65}, "after the third; the two behind it are counted from before the load, and once"
