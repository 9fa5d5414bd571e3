"""Windows, roll-ups and sessions of devices: every table equals a full refresh, whatever came in whichever order."""

from __future__ import annotations

import random
from datetime import datetime

import pytest

from include.transform import build, fix_horizon
from tests.conftest import Warehouse
from tests.support.marts import build_marts, differences, snapshot
from tests.support.payloads import at, registry, telemetry
from tests.support.removal import forget_month, remove_event
from tests.support.scenario import File, land
from tests.support.window_story import WINDOWS, full_refresh, story, tell, window_tables

TOUCHED = "select bucket ->> 'window_at' from ops.bucket_change where build_id = '{}' and relation = 'maintenance.fct_device_window_{}' order by 1"


def build_windows() -> str:
    """One build of what is tested here; returns its id."""
    of = fix_horizon()
    build(WINDOWS, of, run_tests=False)
    return of.build_id


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.prove) for seed in range(1, 4))])
def test_twelve_batches_of_six_days_in_any_order_give_what_a_full_refresh_gives(seed: int, unfilled: Warehouse) -> None:
    """Late, corrected and removed readings; versions of the registry that come late, are corrected and are removed; clocks change on the fourth day."""
    dice = random.Random(seed)
    tell(story(seed, 12, 6), set(dice.sample(range(11), 2)), lambda: build_marts(WINDOWS))
    incremental = snapshot(window_tables())
    assert len(incremental) == 16
    assert all(len(rows) > 20 for _, rows in incremental.values()), {name: len(rows) for name, (_, rows) in incremental.items()}
    assert differences(incremental, full_refresh()) == []


@pytest.mark.prove
def test_two_hundred_batches_of_thirty_days_give_what_a_full_refresh_gives(unfilled: Warehouse) -> None:
    dice = random.Random(2026)
    tell(story(2026, 200, 30), set(dice.sample(range(199), 50)), lambda: build_marts(WINDOWS))
    incremental = snapshot(window_tables())
    assert all(len(rows) > 100 for _, rows in incremental.values()), {name: len(rows) for name, (_, rows) in incremental.items()}
    assert differences(incremental, full_refresh()) == []


def sessions(of: Warehouse) -> list[tuple[datetime, datetime, int]]:
    return of.rows("select started_at, ended_at, reading_count from maintenance.fct_device_session order by started_at")  # type: ignore[return-value]


def test_a_late_event_joins_two_sessions_and_its_removal_splits_them_again(unfilled: Warehouse) -> None:
    """A lock falls silent after fifteen minutes; the two sessions lie on both sides of midnight."""
    land(File("device_registry", at(3), (registry("lock", at(0), deviceType="smart_lock"),)))
    land(File("device_telemetry", at(3), tuple(telemetry("lock", moment) for moment in (at(0, 23, 40), at(0, 23, 50), at(1, 0, 10), at(1, 0, 20), at(1, 9)))))
    build_windows()
    apart = [(at(0, 23, 40), at(0, 23, 50), 2), (at(1, 0, 10), at(1, 0, 20), 2), (at(1, 9), at(1, 9), 1)]
    assert sessions(unfilled) == apart
    land(File("device_telemetry", at(4), (telemetry("lock", at(1)),)))
    build_windows()
    assert sessions(unfilled) == [(at(0, 23, 40), at(1, 0, 20), 5), (at(1, 9), at(1, 9), 1)]
    remove_event("device_telemetry", f"event_at = '{at(1)}'")
    build_windows()
    assert sessions(unfilled) == apart


def test_a_session_of_many_days_grows_at_its_end_and_breaks_in_its_middle(unfilled: Warehouse) -> None:
    hours = [at(0, hour) for hour in range(1, 5 * 24)]
    land(File("device_telemetry", at(6), tuple(telemetry("m1", moment) for moment in hours)))
    build_windows()
    assert sessions(unfilled) == [(hours[0], hours[-1], len(hours))]
    land(File("device_telemetry", at(7), (telemetry("m1", at(5, 1)),)))
    build_windows()
    assert sessions(unfilled) == [(hours[0], at(5, 1), len(hours) + 1)]
    remove_event("device_telemetry", f"event_at between '{at(2, 11)}' and '{at(2, 12)}'")
    build_windows()
    assert sessions(unfilled) == [(hours[0], at(2, 10), 58), (at(2, 13), at(5, 1), 60)]


def test_a_late_registry_correction_touches_exactly_the_windows_that_it_moves(unfilled: Warehouse) -> None:
    land(File("device_registry", at(1), (registry("m1", at(-9), facility="old"), registry("m2", at(-9), facility="other"))))
    moments = [at(0, hour, minute) for hour in range(24) for minute in (0, 20, 40)]
    land(File("device_telemetry", at(1), tuple(telemetry(machine, moment) for machine in ("m1", "m2") for moment in moments)))
    build_windows()

    # It stood elsewhere since 6:10, in the middle of a silence: from the reading of 6:20 on, and what was expected of the hour and of the day.
    land(File("device_registry", at(2), (registry("m1", at(0, 6, 10), facility="new"),)))
    build_id = build_windows()
    moved = [moment for moment in moments if moment > at(0, 6, 10)]
    touched = {length: [datetime.fromisoformat(row[0]) for row in unfilled.rows(TOUCHED.format(build_id, length))] for length in ("1min", "15min", "1h", "1d")}
    assert touched["1min"] == moved
    assert touched["15min"] == [at(0, 6), *(moment.replace(minute=moment.minute // 15 * 15) for moment in moved)]
    assert touched["1h"] == [at(0, hour) for hour in range(6, 24)]
    assert touched["1d"] == [at(0)]
    hour = (
        "select facility_id, reading_count, expected_reading_count from maintenance.fct_facility_window_1h "
        "where metric_code = 'all_readings' and window_at = '{}' order by 1"
    )
    assert unfilled.rows(hour.format(at(0, 6))) == [("new", 2, pytest.approx(5 / 3)), ("old", 1, pytest.approx(1 / 3)), ("other", 3, 2.0)]

    # The same version is written anew with another line and nothing else; then it turns out never to have been.
    land(File("device_registry", at(3), (registry("m1", at(0, 6, 10), facility="new", line="line_z", updated_at=at(2)),)))
    assert [datetime.fromisoformat(row[0]) for row in unfilled.rows(TOUCHED.format(build_windows(), "1min"))] == moved
    assert unfilled.value("select sum(reading_count) from maintenance.fct_line_window_1h where line_id = 'line_z' and metric_code = 'load_pct'") == len(moved)
    remove_event("device_registry", f"event_at = '{at(0, 6, 10)}'")
    build_windows()
    assert unfilled.value("select count(*) from maintenance.fct_facility_window_1d where facility_id = 'new'") == 0

    # A version that begins after the last reading moves nothing but what the day expects.
    land(File("device_registry", at(4), (registry("m1", at(0, 23, 50), facility="new"),)))
    build_id = build_windows()
    assert [len(unfilled.rows(TOUCHED.format(build_id, length))) for length in ("1min", "5min", "15min", "1h", "1d")] == [0, 0, 0, 1, 1]
    incremental = snapshot(window_tables())
    assert differences(incremental, full_refresh()) == []


def test_a_registry_corrected_for_a_month_that_left_raw_keeps_the_minutes_and_expects_nothing_of_them(unfilled: Warehouse) -> None:
    land(File("device_registry", at(1), (registry("m1", at(-9), facility="old"),)))
    land(File("device_telemetry", at(1), tuple(telemetry("m1", at(0, hour)) for hour in range(6))))
    build_windows()
    forget_month("device_telemetry", at(0).date())

    # It stood elsewhere since half past two, which nobody can look up in raw any more.
    land(File("device_registry", at(2), (registry("m1", at(0, 2, 30), facility="new"),)))
    build_marts(WINDOWS, run_tests=True)
    hours = (
        "select facility_id, reading_count, expected_reading_count from maintenance.fct_device_window_1h where metric_code = 'all_readings' order by window_at"
    )
    assert unfilled.rows(hours) == [("old", 1, 2.0), ("old", 1, 2.0), ("old", 1, 1.0), *[("old", 1, 0.0)] * 3]

    # What cannot be mended is not tried again with each registry that changes.
    land(File("device_registry", at(3), (registry("m1", at(0, 2, 30), facility="new", line="line_z", updated_at=at(2)),)))
    build_id = build_windows()
    assert [len(unfilled.rows(TOUCHED.format(build_id, length))) for length in ("1min", "5min", "15min", "1h", "1d")] == [0, 0, 0, 0, 0]


def test_a_plant_that_learns_its_time_zone_moves_its_days(unfilled: Warehouse) -> None:
    """From UTC to a zone where clocks change on 8 March: the day has 23 hours, and the names that the database does not know stop nothing."""
    land(File("device_registry", at(1), (registry("m1", at(-9), timeZone="Mars/Olympus_Mons"),)))
    land(File("device_telemetry", at(10), tuple(telemetry("m1", at(6, hour)) for hour in range(96))))
    build_windows()
    days = "select local_date::text, reading_count, time_zone_name from maintenance.fct_facility_window_local_1d where metric_code = 'load_pct' order by 1"
    assert unfilled.rows(days) == [(f"2026-03-{day:02d}", 24, "UTC") for day in (7, 8, 9, 10)]
    land(File("device_registry", at(2), (registry("m1", at(-9), timeZone="America/Los_Angeles", updated_at=at(1)),)))
    build_windows()
    counts = (8, 24, 23, 24, 17)
    assert unfilled.rows(days) == [(f"2026-03-{6 + number:02d}", count, "America/Los_Angeles") for number, count in enumerate(counts)]
    land(File("device_telemetry", at(11), (telemetry("m1", at(7, 7, 59)),)))
    build_windows()
    assert unfilled.rows(days)[1][1] == 25
    build_marts(run_tests=True)
