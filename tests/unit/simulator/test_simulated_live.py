"""Live intervals: the same call writes the same bytes, and intervals continue history and each other without gap or overlap."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.simulator import FaultRates, Files, IntervalSummary, write_interval
from tests.support.simulated import UNTIL, MemoryZone, Written

FIVE_MINUTES = timedelta(minutes=5)


def live(zone: MemoryZone, folder: Path, start: datetime, length: timedelta = FIVE_MINUTES, **arguments) -> IntervalSummary:
    return write_interval(Files(zone), interval_start=start, interval_end=start + length, truth_dir=folder, **arguments)


def test_a_second_run_writes_the_same_names_and_bytes(tmp_path: Path):
    first, second = MemoryZone(), MemoryZone()
    summary = live(first, tmp_path / "a", UNTIL, live_since=UNTIL)
    live(second, tmp_path / "b", UNTIL + FIVE_MINUTES, live_since=UNTIL)  # what ran in between changes nothing
    second = MemoryZone()
    assert live(second, tmp_path / "b", UNTIL, live_since=UNTIL) == summary
    assert first.files == second.files
    assert first.arrivals == second.arrivals
    (name,) = [path.name for path in (tmp_path / "a" / "live").iterdir()]
    assert (tmp_path / "a" / "live" / name).read_bytes() == (tmp_path / "b" / "live" / name).read_bytes()


def test_five_minutes_at_real_cadence(tmp_path: Path):
    zone = MemoryZone()
    start = datetime(2026, 3, 10, 14, 0, tzinfo=UTC)
    summary = live(zone, tmp_path, start, live_since=UNTIL)
    assert 1_700 <= summary.events <= 6_000
    counts = Counter(p.get("deviceId") for _, p in zone.payloads("device_telemetry"))
    assert 57 <= counts["pres_001"] <= 63  # every 5 s
    assert 28 <= counts["vib_001"] <= 32  # every 10 s
    assert 9 <= counts["temp_001"] <= 11  # every 30 s
    assert 4 <= counts["truck_001"] <= 6  # every 60 s
    for arrived_at in zone.arrivals.values():
        assert start <= arrived_at < start + FIVE_MINUTES


def test_an_hour_is_the_same_in_one_piece_and_in_twelve(tmp_path: Path):
    start = datetime(2026, 3, 10, 14, 0, tzinfo=UTC)
    pieces, whole = MemoryZone(), MemoryZone()
    parts = [live(pieces, tmp_path, start + i * FIVE_MINUTES, machines=6, live_since=UNTIL) for i in range(12)]
    summary = live(whole, tmp_path, start, timedelta(hours=1), machines=6, live_since=UNTIL)
    for stream, expected in summary.expected.items():
        assert sorted(line for _, line in pieces.lines(stream)) == sorted(line for _, line in whole.lines(stream))
        assert sum(part.expected[stream].duplicate for part in parts) == expected.duplicate


def test_live_continues_history_without_sending_it_again(small: Written, tmp_path: Path):
    """The hours after a history hold what its sources still owed and no row that it already sent."""
    zone = MemoryZone()
    summaries = [live(zone, tmp_path, UNTIL + timedelta(hours=i), timedelta(hours=1), machines=4, live_since=UNTIL) for i in range(10)]
    orders = {p.get("orderId") for _, p in small.zone.payloads("orders")}
    continued = {p.get("orderId") for _, p in zone.payloads("orders")} & orders
    assert continued  # orders of history move on
    sent = {line for _, line in small.zone.lines("orders")}
    again = sum(line in sent for _, line in zone.lines("orders"))
    assert again <= sum(summary.expected["orders"].duplicate for summary in summaries) + sum(summary.expected["orders"].quarantined for summary in summaries)
    owed = [p for _, p in zone.payloads("device_telemetry") if "timestamp" in p and p["timestamp"] < f"{UNTIL:%Y-%m-%dT%H:%M}"]
    assert len(owed) < 60


def test_late_sensors_reconnect_in_live_time(tmp_path: Path):
    zone = MemoryZone()
    rates = FaultRates(late=0.2, duplicate=0, out_of_order=0, unknown_field=0, malformed=0, impossible=0)
    summaries = [live(zone, tmp_path, UNTIL + timedelta(hours=i), timedelta(hours=1), machines=2, rates=rates) for i in range(12)]
    telemetry = sum(summary.expected["device_telemetry"].landed for summary in summaries)
    assert 0.12 < sum(summary.faults["late"] for summary in summaries) / telemetry < 0.28
    for arrived_at, p in zone.payloads("device_telemetry"):
        assert timedelta(0) <= arrived_at - datetime.fromisoformat(p["timestamp"]) < timedelta(days=3, hours=1)


def test_the_interval_that_holds_the_switch_sends_only_what_comes_after_it(tmp_path: Path):
    zone = MemoryZone()
    faultless = FaultRates(late=0, duplicate=0, out_of_order=0, unknown_field=0, malformed=0, impossible=0)
    live(zone, tmp_path, UNTIL - timedelta(minutes=3), live_since=UNTIL, machines=2, rates=faultless)
    times = [datetime.fromisoformat(p["timestamp"]) for _, p in zone.payloads("device_telemetry")]
    assert min(times) >= UNTIL - timedelta(seconds=20)  # what was under way when history ended
    assert max(times) < UNTIL + timedelta(minutes=2)
    before = MemoryZone()
    assert live(before, tmp_path, UNTIL - timedelta(hours=1), live_since=UNTIL).events == 0
    assert before.files == {}


@pytest.mark.parametrize("length", [timedelta(0), timedelta(hours=2)])
def test_an_interval_of_no_sensible_length_is_refused(tmp_path: Path, length: timedelta):
    with pytest.raises(ValueError, match="at most"):
        live(MemoryZone(), tmp_path, UNTIL, length)
