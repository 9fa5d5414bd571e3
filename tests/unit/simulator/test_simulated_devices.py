"""What is planted in events, tours and desired state can be found, and nothing else looks like it."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from include.simulator import FaultRates, Files, write_interval
from include.simulator.clock import DAY, HOUR, TIME_ZONE, from_local, to_local, to_ms
from include.simulator.desired import twin_truth
from include.simulator.device_events import planted
from include.simulator.devices import Device, catalogue
from include.simulator.home_events import NIGHT_SHIFT_HOME, UNUSUAL_SHARE, camera_happenings, lock_happenings, residents, unusual_access
from include.simulator.noise import Noise
from include.simulator.positions import great_circle_km, position_rows, tour_truth
from include.simulator.world import make_world
from tests.support.simulated import UNTIL, MemoryZone, Written, written

NO_FAULTS = FaultRates(late=0, duplicate=0, out_of_order=0, unknown_field=0, malformed=0, impossible=0)
SINCE = UNTIL - timedelta(days=60)
ZONE = ZoneInfo(TIME_ZONE)
FIRST_DAY = to_ms(datetime(2025, 1, 1, tzinfo=UTC)) // DAY
YEAR = range(FIRST_DAY, FIRST_DAY + 365)

Found = list[tuple[datetime, dict[str, Any]]]


@pytest.fixture(scope="module")
def faultless(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written(tmp_path_factory.mktemp("truth"), machines=20, days=60, rates=NO_FAULTS)


def by_device(history: Written, stream: str, time: str = "timestamp") -> dict[str, Found]:
    """Rows of each device in order of event time, without those that arrived but for the end of the history."""
    found: dict[str, Found] = defaultdict(list)
    for _, payload in history.zone.payloads(stream):
        found[payload["deviceId"]].append((datetime.fromisoformat(payload[time]), payload))
    return {device: sorted(rows, key=lambda row: row[0]) for device, rows in found.items()}


def truth(history: Written, kind: str) -> set[tuple[str, datetime, datetime]]:
    """What matches a kind and lies in the history, but for the last hour, in which its events may still be under way."""
    table = pl.read_parquet(history.truth / "planted.parquet").filter(
        pl.col("kind") == kind, pl.col("is_match"), pl.col("started_at") >= SINCE, pl.col("ended_at") < UNTIL - timedelta(hours=1)
    )
    return set(table.select("device_id", "started_at", "ended_at").iter_rows())


def test_errors_that_come_back_after_a_restart_within_ten_minutes_are_those_that_were_planted(faultless: Written):
    found, restarts = set(), 0
    for device, rows in by_device(faultless, "device_events").items():
        told = [row for row in rows if row[1]["eventType"] in {"error", "restart"}]
        restarts += sum(payload["eventType"] == "restart" for _, payload in told)
        for i, (first, error) in enumerate(told):
            for j, (between, restart) in enumerate(told[i + 1 :], i + 1):
                if error["eventType"] == "error" and restart["eventType"] == "restart" and between - first <= timedelta(minutes=10):
                    again = [at for at, each in told[j + 1 :] if each["eventType"] == "error" and at - first <= timedelta(minutes=10)]
                    found |= {(device, first, at) for at in again}
    expected = truth(faultless, "error_restart_error")
    assert {match for match in found if match[2] < UNTIL - timedelta(hours=1)} == expected
    assert 20 < len(expected) < restarts / 2, "most restarts are no part of the pattern"


def test_drops_of_load_soon_after_overheating_are_those_that_were_planted(faultless: Written):
    found, drops = set(), 0
    for device, rows in by_device(faultless, "device_events").items():
        hot = [at for at, payload in rows if payload["code"] == "overheating"]
        for at, payload in rows:
            if payload["code"] == "load_drop":
                drops += 1
                found |= {(device, before, at) for before in hot if timedelta(0) < at - before <= timedelta(minutes=30)}
    expected = truth(faultless, "overheating_load_drop")
    assert {match for match in found if match[2] < UNTIL - timedelta(hours=1)} == expected
    assert 20 < len(expected) < drops - 10, "some drops have no overheating before them, or long before"


def test_states_follow_each_other_and_stops_have_their_errors_and_restarts(faultless: Written):
    events = by_device(faultless, "device_events")
    for rows in events.values():
        states = [payload for _, payload in rows if payload["eventType"] == "state_change"]
        assert all(after["previousState"] == before["code"] for before, after in pairwise(states))
    failures = pl.read_parquet(faultless.truth / "failures.parquet").filter(
        pl.col("failed_at").is_between(SINCE + timedelta(minutes=1), UNTIL - timedelta(hours=1))
    )
    assert failures.height > 10
    for row in failures.iter_rows(named=True):
        near = [(p["eventType"], p.get("severity"), p["code"]) for at, p in events[row["device_id"]] if abs(at - row["failed_at"]) < timedelta(seconds=3)]
        assert [kind for kind, severity, _ in near if severity == "critical"] == ["error"]
        assert ("state_change", None, "fault") in near
    codes = {payload["code"] for rows in events.values() for _, payload in rows if payload["eventType"] == "restart"}
    assert {"after_repair", "after_service", "watchdog", "power_cycle"} <= codes


def lock_of(home: str) -> Device:
    (lock,) = (device for device in catalogue(Noise(1), 60) if device.device_type == "smart_lock" and device.facility == home)
    return lock


def local_hour(at_ms: int) -> float:
    shown = datetime.fromtimestamp(at_ms / 1000, ZONE)
    return shown.hour + shown.minute / 60.0


def at_night(lock: Device) -> list[float]:
    """Hours, between half past midnight and five, at which somebody comes or goes or tries to in a year."""
    hours = [local_hour(each.at_ms) for day in YEAR for each in lock_happenings(Noise(1), lock, day)]
    return [hour for hour in hours if 0.5 <= hour < 5.0]


def test_nobody_uses_a_door_at_night_but_who_was_planted_and_who_works_then():
    assert at_night(lock_of("home_001")) == []
    usual = at_night(lock_of(NIGHT_SHIFT_HOME))
    assert len(usual) > 5 * 52 * 2, "every shift unlocks and locks"
    assert all(2.0 < hour < 3.85 for hour in usual)  # an hour later on the day on which the clock skips one
    for home in ("home_001", NIGHT_SHIFT_HOME):
        lock = lock_of(home)
        made = [each for day in YEAR if (each := unusual_access(Noise(1), lock, day)) is not None]
        assert 0.5 * UNUSUAL_SHARE < len(made) / 365 < 2 * UNUSUAL_SHARE
        assert {each.variant for each in made} == {"granted", "denied"}
        for each in made:
            assert 1.4 < local_hour(each.started_ms) < 5.0
            assert not any(abs(local_hour(each.started_ms) - hour) < 0.2 for hour in usual if home == NIGHT_SHIFT_HOME and hour < 3)
            codes = [happening.code for happening in each.happenings if happening.kind == "access"]
            assert codes == ["granted"] if each.variant == "granted" else len(codes) >= 2 and set(codes) == {"denied"}


def test_who_opens_a_door_is_known_and_who_fails_is_not():
    lock = lock_of("home_003")
    seen = [each for day in YEAR for each in lock_happenings(Noise(1), lock, day)]
    assert {each.actor for each in seen if each.code == "granted"} == set(residents("home_003"))
    assert {each.actor for each in seen if each.code in {"denied", "auto", "inside"}} == {None}
    assert len({each.key for each in seen}) == len(seen)


def test_homes_live_by_their_clock_in_summer_and_winter():
    (camera, *_) = (device for device in catalogue(Noise(1), 60) if device.device_type == "security_camera")
    for month in (1, 7):
        first = to_ms(datetime(2025, month, 1, tzinfo=UTC)) // DAY
        hours = [local_hour(each.at_ms) for day in range(first, first + 30) for each in camera_happenings(Noise(1), camera, day)]
        day_share = sum(6 <= hour < 22 for hour in hours) / len(hours)
        assert day_share > 0.85


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        ("2025-01-15T12:00", "2025-01-15T04:00"),
        ("2025-07-15T12:00", "2025-07-15T05:00"),
        ("2025-03-09T09:59", "2025-03-09T01:59"),
        ("2025-03-09T10:00", "2025-03-09T03:00"),
        ("2025-11-02T08:30", "2025-11-02T01:30"),
        ("2025-11-02T10:00", "2025-11-02T02:00"),
    ],
)
def test_the_local_clock_is_that_of_the_zone(moment: str, shown: str):
    at_ms, local_ms = (to_ms(datetime.fromisoformat(text).replace(tzinfo=UTC)) for text in (moment, shown))
    assert int(to_local(at_ms)) == local_ms
    assert int(from_local(local_ms)) == at_ms


def test_a_doubled_time_is_its_first_pass_and_a_skipped_one_an_hour_later():
    doubled, skipped = (to_ms(datetime(2025, month, day, hour, 30, tzinfo=UTC)) for month, day, hour in ((11, 2, 1), (3, 9, 2)))
    assert int(from_local(doubled)) == to_ms(datetime(2025, 11, 2, 8, 30, tzinfo=UTC))
    assert int(to_local(from_local(skipped))) - skipped == HOUR


def test_fixes_follow_the_tours(faultless: Written):
    tours = pl.read_parquet(faultless.truth / "tours.parquet")
    assert tours.height > 35
    fixes = by_device(faultless, "gps_positions")
    for tour in tours.iter_rows(named=True):
        inside = [p for at, p in fixes[tour["device_id"]] if tour["departed_at"] - timedelta(minutes=10) <= at <= tour["returned_at"] + timedelta(minutes=60)]
        latitude, longitude = (np.array([p["position"][name] for p in inside]) for name in ("lat", "lon"))
        driven = float(great_circle_km(latitude[:-1], longitude[:-1], latitude[1:], longitude[1:]).sum())
        assert 0.6 * tour["distance_km"] < driven < 1.05 * tour["distance_km"], "fixes every ten minutes cut corners and add none"
        assert all(("heading" in p) == (p["speed"] > 0) for p in inside)
        assert tour["local_date"] == tour["departed_at"].astimezone(ZONE).date()
        assert 5 < tour["departed_at"].astimezone(ZONE).hour < 9
    for device, rows in fixes.items():
        gaps = [after - before for (before, _), (after, _) in pairwise(rows)]
        assert max(gaps) < timedelta(minutes=71), device
    assert {tour["local_date"].isoweekday() for tour in tours.iter_rows(named=True)} > {1, 2, 3, 4, 5}


def test_live_fixes_tell_the_length_of_a_tour():
    world = make_world(5, 20, to_ms(UNTIL))
    start_ms = to_ms(datetime(2026, 2, 2, 8, tzinfo=UTC))  # a Monday, by the depot's clock
    rows = position_rows(world.noise, world.devices, start_ms, start_ms + DAY, is_live=True)
    (told,) = tour_truth(world.noise, world.devices, start_ms, start_ms + DAY)
    places = np.array([[p["position"]["lat"], p["position"]["lon"]] for p in map(json.loads, rows.lines) if p["speed"] > 0])
    driven = float(great_circle_km(places[:-1, 0], places[:-1, 1], places[1:, 0], places[1:, 1]).sum())
    assert driven == pytest.approx(told["distance_km"], rel=0.05)


def test_twins_are_as_the_truth_says(faultless: Written):
    """The target is the newest version asked for, by the copy written last; the firmware is what telemetry says last."""
    desired: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {}
    for _, p in faultless.zone.payloads("device_desired_state"):
        if datetime.fromisoformat(p["desiredSince"]) < UNTIL:
            order = (p["desiredSince"], p["updatedAt"])
            desired[p["deviceId"]] = max(desired.get(p["deviceId"], (("", ""), {})), (order, p), key=lambda each: each[0])
    runs = {device: rows[-1][1]["metadata"]["firmware_version"] for device, rows in by_device(faultless, "device_telemetry").items()}
    held = {device: [p["setPoint"] for _, p in rows if "setPoint" in p] for device, rows in by_device(faultless, "device_events").items()}
    twins = pl.read_parquet(faultless.truth / "twins.parquet")
    assert twins.height == len(desired)
    for twin in twins.iter_rows(named=True):
        wanted = desired[twin["device_id"]][1]
        assert (wanted["firmwareVersion"], wanted["reportingIntervalSeconds"]) == (twin["target_firmware_version"], twin["target_reporting_interval_s"])
        assert runs[twin["device_id"]] == twin["firmware_version"]
        assert (twin["firmware_drift_since_at"] is None) == (twin["firmware_version"] == twin["target_firmware_version"])
        assert wanted.get("setPoint") == twin["target_setpoint_c"]
        assert twin["setpoint_c"] == (held[twin["device_id"]][-1] if wanted.get("setPoint") else None)


def test_some_devices_are_behind_their_firmware_at_any_time():
    shares = []
    for days in range(0, 300, 20):
        at_ms = to_ms(UNTIL) - days * DAY
        twins = twin_truth(Noise(1), catalogue(Noise(1), 60), at_ms)
        drifting = [twin for twin in twins if twin["firmware_drift_since_ms"] is not None]
        assert all(0 <= at_ms - int(str(twin["firmware_drift_since_ms"])) < 155 * DAY for twin in drifting)
        assert any(twin["reporting_interval_s"] != twin["target_reporting_interval_s"] for twin in twins)
        shares.append(len(drifting) / len(twins))
    assert min(shares) > 0
    assert max(shares) < 0.5


def json_of(told: dict[str, Any]) -> str:
    return json.dumps(told, sort_keys=True)


def test_what_is_planted_in_live_intervals_is_in_their_truth(tmp_path: Path):
    start = datetime(2026, 3, 10, 8, tzinfo=UTC)
    for hour in range(12):
        begins = start + timedelta(hours=hour)
        write_interval(Files(MemoryZone()), interval_start=begins, interval_end=begins + timedelta(hours=1), machines=40, live_since=UNTIL, truth_dir=tmp_path)
    told = [each for path in sorted((tmp_path / "live").iterdir()) for each in json.loads(path.read_text(encoding="utf-8"))["planted"]]
    end_ms = to_ms(start + timedelta(hours=12))
    expected = [each.truth() for each in planted(make_world(20_240_115, 40, end_ms), to_ms(start), end_ms)]
    assert len(expected) > 0
    assert sorted(told, key=json_of) == sorted(expected, key=json_of)
