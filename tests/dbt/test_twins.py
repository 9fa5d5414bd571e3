"""Events, patterns, states of machines and twins: the same as a full refresh whatever came in whichever order, and what they say."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from include.landing import land_everything
from include.landing.zone import Zone
from include.simulator import write_history
from include.simulator.faults import FaultRates
from include.transform import build, fix_horizon
from tests.conftest import Warehouse
from tests.support.marts import build_marts, differences, made_anew, snapshot
from tests.support.payloads import at, desired_state, device_event, maintenance, registry, telemetry, zone
from tests.support.removal import remove_event
from tests.support.scenario import File, land
from tests.support.twin_story import TABLES, TWINS, happenings, story, tell

Instance = tuple[str, str, datetime, datetime, str]
TWIN = "select {} from maintenance.rpt_device_twin where device_id = '{}'"
TOUCHED = "select bucket ->> 'device_id', bucket ->> 'window_at' from ops.bucket_change where build_id = '{}' and relation = 'maintenance.{}' order by 1, 2"


@dataclass(frozen=True)
class SomeStreams:
    """A zone that takes a few streams and lets the others go."""

    zone: Zone
    streams: tuple[str, ...]

    def put(self, stream: str, data: bytes, *, arrived_at: datetime, name: str | None = None) -> object:
        return self.zone.put(stream, data, arrived_at=arrived_at, name=name) if stream in self.streams else None


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.prove) for seed in range(1, 40))])
def test_batches_in_any_order_give_what_a_full_refresh_gives(seed: int, unfilled: Warehouse) -> None:
    """Late, doubled, corrected and removed events, readings, targets, entries of the log and versions of the registry."""
    dice = random.Random(seed)
    tell(story(seed, 10, 3), set(dice.sample(range(9), 4)), lambda: build_marts(TWINS))
    incremental = snapshot(TABLES)
    assert all(rows for _, rows in incremental.values()), {name: len(rows) for name, (_, rows) in incremental.items()}
    assert differences(incremental, made_anew(TABLES, TWINS)) == []


def reference(events: list[tuple[str, datetime, str, str]]) -> set[Instance]:
    """Instances of the three patterns by a plain walk: device, pattern, first and last event, codes."""
    steps = {
        "error_restart_error": (10, lambda e, seen: (e[2] == "error") if len(seen) != 1 else e[2] == "restart", 3),
        "overheating_load_drop": (15, lambda e, seen: e[3] == ("load_drop" if seen else "overheating"), 2),
        "fault_again": (60, lambda e, seen: e[2] == "state_change" and e[3] == ("running" if len(seen) == 1 else "fault"), 3),
    }
    found: dict[tuple[str, str, datetime, str, str], list[tuple[str, datetime, str, str]]] = {}
    by_device = defaultdict(list)
    for event in sorted(set(events)):
        by_device[event[0]].append(event)
    for device, own in by_device.items():
        for pattern, (minutes, meets, length) in steps.items():
            for first in own:
                seen = [first] if meets(first, []) else []
                for event in own if seen else ():
                    in_time = seen[-1][1] < event[1] <= first[1] + timedelta(minutes=minutes)
                    same_error = pattern != "error_restart_error" or len(seen) != 2 or event[3] == first[3]
                    if in_time and len(seen) < length and meets(event, seen) and same_error:
                        seen.append(event)
                if len(seen) == length:
                    last = seen[-1]
                    key = (device, pattern, last[1], last[2], last[3])
                    if key not in found or found[key][0][1] < first[1]:
                        found[key] = seen
    return {(key[0], key[1], seen[0][1], seen[-1][1], " > ".join(event[3] for event in seen)) for key, seen in found.items()}


def matches(of: Warehouse) -> set[Instance]:
    return set(of.rows("select device_id, pattern_code, started_at, ended_at, event_codes from maintenance.fct_pattern_match"))  # type: ignore[arg-type]


def test_patterns_are_found_as_a_plain_walk_finds_them(unfilled: Warehouse) -> None:
    dice = random.Random(6)
    payloads = [event for machine in ("m1", "m2", "m3") for event in happenings(machine, 15, dice)]
    land(File("device_events", at(16), tuple(payloads)))
    build_marts("dim_device fct_device_event fct_pattern_match")
    events = [(event["deviceId"], datetime.fromisoformat(event["timestamp"]), event["eventType"], event["code"]) for event in payloads]
    expected = reference(events)
    assert {pattern for _, pattern, *_ in expected} == {"error_restart_error", "overheating_load_drop", "fault_again"}
    assert len(expected) > 50
    assert matches(unfilled) == expected


def test_a_late_event_completes_a_pattern_across_the_hour_and_its_removal_undoes_it(unfilled: Warehouse) -> None:
    land(File("device_events", at(1), (device_event("m1", at(0, 9, 58), "error", "E1"), device_event("m1", at(0, 10, 7), "error", "E1"))))
    build_marts("dim_device fct_device_event fct_pattern_match")
    assert matches(unfilled) == set()
    land(File("device_events", at(2), (device_event("m1", at(0, 10, 1), "restart", "watchdog"),)))
    build_marts("dim_device fct_device_event fct_pattern_match")
    assert matches(unfilled) == {("m1", "error_restart_error", at(0, 9, 58), at(0, 10, 7), "E1 > watchdog > E1")}
    # An error nearer to the restart makes the instance shorter; it is still one.
    land(File("device_events", at(3), (device_event("m1", at(0, 9, 59), "error", "E1"),)))
    build_marts("dim_device fct_device_event fct_pattern_match")
    assert [started for _, _, started, *_ in matches(unfilled)] == [at(0, 9, 59)]
    remove_event("device_events", "event_type = 'restart'")
    build_marts("dim_device fct_device_event fct_pattern_match")
    assert matches(unfilled) == set()


def test_locks_and_access_stay_below_the_marts(unfilled: Warehouse) -> None:
    lock = [device_event("lock", at(0, 9), kind, "keypad", deviceType="smart_lock", actor="resident_2") for kind in ("lock", "unlock", "access")]
    land(File("device_events", at(1), (*lock, device_event("m1", at(0, 9), "error", "E1"))))
    build_marts(TWINS, run_tests=True)
    assert unfilled.rows("select device_id, event_type from maintenance.fct_device_event") == [("m1", "error")]
    assert unfilled.rows("select device_id from maintenance.rpt_device_twin") == [("m1",)]


def test_a_late_change_of_state_moves_the_windows_up_to_the_next_one_and_no_other(unfilled: Warehouse) -> None:
    land(File("device_registry", at(-1), (registry("m1", at(-9)), registry("s1", at(-9), deviceType="temperature_sensor"))))
    land(File("device_telemetry", at(1), tuple(telemetry(device, at(0, hour, 2)) for device in ("m1", "s1") for hour in range(12))))
    land(File("device_events", at(1), (device_event("m1", at(0, 1), "state_change", "running"), device_event("m1", at(0, 8, 4), "state_change", "idle"))))
    build_marts(TWINS)
    states = (
        "select extract(hour from window_at)::int, machine_state, running_s, idle_s, fault_s, unknown_s "
        "from maintenance.fct_machine_state_5min where reading_count > 0 order by 1"
    )
    assert unfilled.rows(states)[:2] == [(0, None, 0, 0, 0, 300), (1, "running", 300, 0, 0, 0)]
    assert unfilled.rows(states)[8] == (8, "idle", 240, 60, 0, 0)
    assert unfilled.value("select count(*) from maintenance.fct_machine_state_5min where device_id = 's1'") == 0

    land(File("device_events", at(2), (device_event("m1", at(0, 5, 1), "state_change", "fault", severity="critical"),)))
    of = fix_horizon()
    build(TWINS, of, run_tests=False)
    assert [row[1] for row in unfilled.rows(TOUCHED.format(of.build_id, "fct_machine_state_5min"))] == [at(0, hour).isoformat() for hour in (5, 6, 7, 8)]
    assert unfilled.rows(states)[5:9] == [(5, "fault", 60, 0, 240, 0), (6, "fault", 0, 0, 300, 0), (7, "fault", 0, 0, 300, 0), (8, "idle", 0, 60, 240, 0)]
    verdicts = "select condition_code, is_contradicted, crew_downtime_s, maintenance_type from maintenance.fct_machine_state_5min where window_at = '{}'"
    assert unfilled.rows(verdicts.format(at(0, 6))) == [("failed", True, 0.0, None)]

    # The crew had it for two hours in two entries that overlap; then it turns out to have been one.
    entries = (maintenance("f", "m1", at(0, 6, 3), downtimeMinutes=60), maintenance("r", "m1", at(0, 6, 4), kind="repair", downtimeMinutes=60))
    land(File("maintenance_log", at(2), entries))
    build_marts(TWINS)
    assert unfilled.rows(verdicts.format(at(0, 6))) == [("in_maintenance", True, 120.0, "repair")]
    assert unfilled.rows(verdicts.format(at(0, 7))) == [("in_maintenance", True, 240.0, "repair")]
    land(File("maintenance_log", at(3), (maintenance("r", "m1", at(0, 6, 4), kind="repair", updated_at=at(2), downtimeMinutes=0.5),)))
    build_marts(TWINS, run_tests=True)
    assert unfilled.rows(verdicts.format(at(0, 6))) == [("in_maintenance", True, 120.0, "repair")]
    assert unfilled.rows(verdicts.format(at(0, 7))) == [("in_maintenance", True, 180.0, "failure")]


def test_an_entry_without_downtime_leaves_its_window_when_it_moves(unfilled: Warehouse) -> None:
    land(File("device_registry", at(-1), (registry("m1", at(-9)),)))
    land(File("device_telemetry", at(1), tuple(telemetry("m1", at(0, hour, 2)) for hour in range(4))))
    land(File("maintenance_log", at(1), (maintenance("i", "m1", at(0, 1, 2), kind="inspection", downtimeMinutes=0),)))
    build_marts(TWINS)
    looked_at = "select window_at, maintenance_type, crew_downtime_s from maintenance.fct_machine_state_5min where maintenance_type is not null"
    assert unfilled.rows(looked_at) == [(at(0, 1), "inspection", 0.0)]
    land(File("maintenance_log", at(2), (maintenance("i", "m1", at(0, 2, 3), kind="inspection", updated_at=at(1), downtimeMinutes=0),)))
    build_marts(TWINS)
    assert unfilled.rows(looked_at) == [(at(0, 2), "inspection", 0.0)]


def test_a_set_point_without_a_value_does_not_hide_what_a_late_one_changes(unfilled: Warehouse) -> None:
    def sets(*values: tuple[float, float | None]) -> None:
        told = ((at(0, hour), {} if value is None else {"setPoint": value}) for hour, value in values)
        land(File("device_events", at(1), tuple(device_event("t1", when, "setpoint", "manual", deviceType="thermostat", **more) for when, more in told)))
        build_marts(TWINS)

    changes = "select changed_at, previous_value, reported_value from intermediate.int_maintenance__device_reported_change order by 1"
    sets((8, 20.0), (10, None), (12, 20.0))
    assert unfilled.rows(changes) == [(at(0, 8), None, "20")]
    sets((9, 21.0))
    assert unfilled.rows(changes) == [(at(0, 8), None, "20"), (at(0, 9), "20", "21"), (at(0, 12), "21", "20")]


def test_a_drift_is_as_old_as_the_target_or_as_the_leaving_of_it(unfilled: Warehouse) -> None:
    def reports(*values: tuple[datetime, str]) -> None:
        land(File("device_telemetry", at(8), tuple(telemetry("m1", when) | {"metadata": {"firmware_version": version}} for when, version in values)))
        build_marts(TWINS)

    columns = "twin_status, reported_firmware_version, is_firmware_drifting, firmware_drifting_since_at, firmware_drift_s / 3600, last_contact_at"
    drift = TWIN.format(columns, "m1")
    reports((at(0, 9), "1.0"), (at(0, 12), "1.0"))
    assert unfilled.rows(drift) == [("nothing_desired", "1.0", None, None, None, at(0, 12))]
    # Asked for twice, in the middle and after the last contact: the age counts from the first.
    versions = (desired_state("m1", at(0, 10), firmwareVersion="2.0"), desired_state("m1", at(0, 11), firmwareVersion="2.0", setPoint=20.0))
    land(File("device_desired_state", at(8), versions))
    build_marts(TWINS)
    assert unfilled.rows(drift) == [("drifting", "1.0", True, at(0, 10), 2.0, at(0, 12))]
    assert unfilled.rows(TWIN.format("target_setpoint_c, reported_setpoint_c, is_setpoint_drifting, drift_count", "m1")) == [(20.0, None, None, 1)]
    # It obeyed, and left again; what comes late in between moves the time at which it left.
    reports((at(0, 13), "2.0"), (at(0, 15), "1.1"), (at(0, 16), "1.0"))
    assert unfilled.rows(drift) == [("drifting", "1.0", True, at(0, 15), 1.0, at(0, 16))]
    reports((at(0, 14), "1.0"))
    assert unfilled.rows(drift) == [("drifting", "1.0", True, at(0, 14), 2.0, at(0, 16))]
    reports((at(0, 15, 30), "2.0"))
    assert unfilled.rows(drift) == [("drifting", "1.0", True, at(0, 16), 0.0, at(0, 16))]
    reports((at(0, 17), "2.0"))
    assert unfilled.rows(drift) == [("as_desired", "2.0", False, None, None, at(0, 17))]
    build_marts(TWINS, run_tests=True)


def test_only_twins_of_touched_devices_are_made_anew(unfilled: Warehouse) -> None:
    land(File("device_registry", at(-1), tuple(registry(f"m{number}", at(-9)) for number in range(9))))
    land(File("device_telemetry", at(1), tuple(telemetry(f"m{number}", at(0, 9)) for number in range(9))))
    build_marts(TWINS)
    land(File("device_telemetry", at(2), (telemetry("m4", at(0, 10)),)))
    of = fix_horizon()
    build(TWINS, of, run_tests=False)
    assert [row[0] for row in unfilled.rows(TOUCHED.format(of.build_id, "rpt_device_twin"))] == ["m4"]
    assert unfilled.value(TWIN.format("last_contact_at", "m4")) == at(0, 10)


def test_what_was_planted_in_simulated_devices_is_found_and_nothing_else(unfilled: Warehouse, tmp_path: Path) -> None:
    """Three weeks of twelve machines with everything around them: patterns against what only looks like one, and twins against both of their true halves."""
    until = at(21)
    streams = ("device_events", "device_desired_state", "device_registry", "device_telemetry")
    rates = FaultRates(malformed=0, impossible=0)
    write_history(SomeStreams(zone(), streams), until=until, days=21, machines=12, rates=rates, truth_dir=tmp_path / "truth")
    for stream in streams:
        land_everything(stream)
    build_marts(TWINS, run_tests=True)

    # Of the last days something may still be on its way from a source that was offline.
    planted = pl.read_parquet(tmp_path / "truth" / "planted.parquet").filter(pl.col("ended_at") < until - timedelta(days=4))
    real = planted.filter(pl.col("is_match") & pl.col("kind").is_in(["error_restart_error", "overheating_load_drop"]))
    found = unfilled.rows(
        f"select pattern_code, device_id, started_at, ended_at from maintenance.fct_pattern_match where ended_at < '{until - timedelta(days=4)}'"
    )
    assert {row for row in found if row[0] != "fault_again"} == set(real.select("kind", "device_id", "started_at", "ended_at").iter_rows())
    looks_alike = planted.filter(~pl.col("is_match") & pl.col("kind").is_in(real["kind"].unique().to_list()))
    assert (real.height > 5, looks_alike.height > 5) == (True, True)

    truth = pl.read_parquet(tmp_path / "truth" / "twins.parquet").filter(pl.col("firmware_version").is_not_null())
    columns = "device_id, reported_firmware_version, target_firmware_version, is_firmware_drifting"
    twins = {row[0]: row[1:] for row in unfilled.rows(f"select {columns} from maintenance.rpt_device_twin where reported_firmware_version is not null")}
    expected = {row[0]: (row[1], row[2], row[1] != row[2]) for row in truth.select("device_id", "firmware_version", "target_firmware_version").iter_rows()}
    assert len(twins) > 20
    assert twins == {device: expected[device] for device in twins}
    assert any(drifts for *_, drifts in twins.values())
