"""The history that the demo starts from: its size, its faults, its truth."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

import polars as pl
import pytest

from include.simulator import FaultRates, write_history
from include.simulator.clock import DAY, to_ms
from include.simulator.devices import Device
from include.simulator.sources import STREAMS, VERSIONED
from include.simulator.telemetry import telemetry_rows
from include.simulator.truth import failures
from include.simulator.world import make_world
from tests.support.simulated import UNTIL, MemoryZone, Written, written

NO_FAULTS = FaultRates(late=0, duplicate=0, out_of_order=0, unknown_field=0, malformed=0, impossible=0)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_the_demo_has_six_hundred_thousand_events_most_of_them_telemetry(whole: Written):
    assert 590_000 <= whole.summary.events <= 650_000
    assert whole.summary.expected["device_telemetry"].landed > 0.78 * whole.summary.events
    assert whole.summary.expected["device_events"].landed + whole.summary.expected["gps_positions"].landed < 75_000
    assert set(whole.summary.expected) == set(STREAMS)


def test_faults_come_at_the_documented_rates(whole: Written):
    rates = FaultRates()
    for name, rate in asdict(rates).items():
        share = whole.summary.faults[name] / whole.summary.events
        assert 0.8 * rate < share < 1.25 * rate, (name, share)
    for stream, expected in whole.summary.expected.items():
        assert expected.quarantined < 0.02 * expected.landed, stream
        assert expected.landed == expected.accepted + expected.quarantined + expected.duplicate + expected.corrected


def test_the_documentation_states_the_rates_that_are_used():
    page = (Path(__file__).parents[3] / "docs" / "simulator.md").read_text(encoding="utf-8")
    for name, rate in asdict(FaultRates()).items():
        assert f"| `{name}` | {rate * 100:g} % |" in page


@pytest.mark.parametrize("seed", [1, 2, 3, 20_240_115])
def test_the_newest_15_percent_hold_enough_failures_for_any_seed(seed: int):
    until = to_ms(UNTIL)
    made = failures(make_world(seed, 60, until), until - 180 * DAY, until)
    newest = [failure for failure in made if failure["failed_at"] >= UNTIL - 0.15 * timedelta(days=180)]
    assert 300 <= len(made) <= 600
    assert 30 <= len(newest) <= 110
    sudden = sum(failure["symptom_days"] == 0 for failure in made)
    assert 0.1 < sudden / len(made) < 0.45  # some come without warning, most do not


def test_every_failure_is_in_the_log_and_in_the_truth(whole: Written):
    truth = pl.read_parquet(whole.truth / "failures.parquet")
    logged = {(p["deviceId"], moment(p["occurredAt"])) for _, p in whole.zone.payloads("maintenance_log") if p.get("type") == "failure" and "deviceId" in p}
    made = {(row["device_id"], row["failed_at"]) for row in truth.iter_rows(named=True)}
    assert {failure for failure in made if failure[1] < UNTIL - timedelta(days=3, hours=2)} <= logged  # the newest may still be under way
    assert {failure for failure in logged if failure[1] < UNTIL} == made & logged
    assert whole.summary.failures == len(truth)
    wear = pl.read_parquet(whole.truth / "wear.parquet")
    assert wear.height == 60 * 180
    assert wear["bearing_damage"].is_between(0, 1).all()


def test_symptoms_show_before_a_failure():
    """Vibration in the day before a bearing with symptoms fails is higher than in the month around it, for most but not all failures."""
    until = to_ms(UNTIL)
    world = make_world(1, 20, until)
    bearings = [f for f in failures(world, until - 180 * DAY, until) if f["component_code"] == "bearing" and f["symptom_days"] > 4]

    def running_vibration(device: Device, start_ms: int, end_ms: int) -> list[float]:
        measured = [json.loads(line)["measurements"] for line in telemetry_rows(world, start_ms, end_ms, is_live=False, devices=[device]).lines]
        return [m["vibration"]["x"] for m in measured if m["machineStatus"] in {"running", "warning"}]

    higher = []
    for failure in bearings:
        (device,) = (device for device in world.devices if device.device_id == failure["device_id"])
        failed = to_ms(failure["failed_at"])
        before, usual = running_vibration(device, failed - DAY, failed), running_vibration(device, failed - 30 * DAY, failed + 10 * DAY)
        if before:
            higher.append(fmean(before) > 1.25 * median(usual))
    assert len(higher) > 15
    assert 0.5 < fmean(higher) < 1.0


def test_the_same_arguments_write_the_same_bytes(small: Written, tmp_path: Path):
    again = written(tmp_path, machines=4, days=10)
    assert again.zone.files == small.zone.files
    assert again.summary == small.summary
    assert written(tmp_path, machines=4, days=10, seed=7).zone.files != small.zone.files


def test_a_small_history_is_quick(tmp_path: Path):
    started = time.process_time()
    written(tmp_path, machines=4, days=10)
    assert time.process_time() - started < 2.0


def test_events_happen_before_they_arrive_and_arrive_before_the_end(tmp_path: Path):
    """Without faults nothing is in the future and nothing is later than its file allows."""
    history = written(tmp_path, machines=4, days=10, rates=NO_FAULTS)
    others = {"device_telemetry": "timestamp", "device_registry": "validFrom", "device_events": "timestamp", "gps_positions": "timestamp"}
    for stream in STREAMS:
        name = others.get(stream, "updatedAt")
        rows = history.zone.payloads(stream)
        assert rows
        for arrived_at, payload in rows:
            assert arrived_at < UNTIL
            is_switch = stream in VERSIONED and moment(payload[name]) == UNTIL
            assert moment(payload[name]) <= arrived_at or is_switch, payload
        assert all(expected.quarantined == expected.duplicate == 0 for expected in history.summary.expected.values())


def test_late_events_are_at_most_three_days_late(tmp_path: Path):
    history = written(tmp_path, machines=6, days=20, rates=replace(NO_FAULTS, late=0.2))
    late = [arrived_at - moment(p["timestamp"]) for arrived_at, p in history.zone.payloads("device_telemetry")]
    assert max(late) < timedelta(days=4)  # three days, and the file of a day arrives at its end
    share = sum(delay > timedelta(days=1) for delay in late) / len(late)
    assert 0.08 < share < 0.2


def test_files_hold_a_day_and_then_hours(small: Written):
    hours = Counter(at.date() for address, at in small.zone.arrivals.items() if address.startswith("device_telemetry"))
    old = [count for day, count in hours.items() if day < small.summary.recent_from.date()]
    assert set(old) == {1}
    recent = [count for day, count in hours.items() if small.summary.recent_from.date() <= day < UNTIL.date()]
    assert set(recent) == {24}
    assert small.summary.recent_from == datetime(2026, 2, 27, tzinfo=UTC)


def test_the_registry_states_the_interval_that_devices_keep_and_switches_at_the_end(tmp_path: Path):
    history = written(tmp_path, machines=4, days=10, rates=NO_FAULTS)
    versions: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
    for _, p in history.zone.payloads("device_registry"):
        versions[p["deviceId"]].append((moment(p["validFrom"]), p["reportingIntervalSeconds"]))
    reports: dict[str, list[datetime]] = defaultdict(list)
    for _, p in history.zone.payloads("device_telemetry"):
        reports[p["deviceId"]].append(moment(p["timestamp"]))
    assert set(reports) <= set(versions)
    for found in versions.values():
        found.sort()
        assert found[0][0] <= UNTIL - timedelta(days=10)
        assert found[-1][0] == UNTIL
    live = {device.rsplit("_", 1)[0]: found[-1][1] for device, found in versions.items()}
    assert (live["temp"], live["vib"], live["pres"], live["truck"]) == (30, 10, 5, 60)
    for device in ("machine_001", "temp_001"):
        for (start, interval), (end, _) in pairwise(versions[device]):
            inside = sum(start <= at < end for at in reports[device])
            known = (end - max(start, UNTIL - timedelta(days=10))).total_seconds() / interval
            assert 900 <= interval <= 3600
            assert abs(inside - known) <= 2


def test_orders_add_up_and_come_from_registered_customers(tmp_path: Path):
    history = written(tmp_path, machines=6, days=12, rates=NO_FAULTS)
    customers = {p["customerId"] for _, p in history.zone.payloads("customers")}
    states: dict[str, list[dict]] = defaultdict(list)
    for _, p in history.zone.payloads("orders"):
        assert p["netAmount"] == pytest.approx(p["grossAmount"] - p["discountAmount"] + p["taxAmount"], abs=0.005)
        assert p["customerId"] in customers
        states[p["orderId"]].append(p)
    once = sum(len(found) == 1 for found in states.values())
    assert once / len(states) > 0.6
    for found in states.values():
        times = [p["updatedAt"] for p in found]
        assert times == sorted(times)
        assert len(set(times)) == len(times)
        assert len({(p["customerId"], p["netAmount"]) for p in found}) == 1


def test_customer_value_is_heavy_tailed(whole: Written):
    spent: Counter[str] = Counter()
    for _, p in whole.zone.payloads("orders"):
        if isinstance(p.get("netAmount"), float) and "customerId" in p:
            spent[p["customerId"]] += p["netAmount"]
    values = sorted(spent.values(), reverse=True)
    assert sum(values[: len(values) // 10]) > 0.35 * sum(values)


def test_truth_says_which_file_holds_which_faults(small: Written):
    files = [json.loads(line) for line in (small.truth / "files.ndjson").read_text(encoding="utf-8").splitlines()]
    assert {file["address"] for file in files} == set(small.zone.files)
    assert sum(file["rows"] for file in files) == small.summary.events
    assert json.loads((small.truth / "expected.json").read_text(encoding="utf-8")) == {s: asdict(e) for s, e in small.summary.expected.items()}


def test_progress_counts_up_to_the_total(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    write_history(MemoryZone(), until=UNTIL, days=2, machines=1, truth_dir=tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))


@pytest.mark.parametrize("wrong", [{"days": 0}, {"machines": 0}, {"until": datetime(2020, 1, 1, tzinfo=UTC)}, {"until": UNTIL.replace(tzinfo=None)}])
def test_arguments_that_make_no_sense_are_refused(tmp_path: Path, wrong: dict):
    with pytest.raises(ValueError):
        write_history(MemoryZone(), **{"until": UNTIL, "truth_dir": tmp_path, **wrong})


def test_a_fault_rate_outside_of_its_range_is_refused():
    with pytest.raises(ValueError, match="late"):
        FaultRates(late=1.5)
