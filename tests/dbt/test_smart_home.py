"""Use of smart homes, and where trucks were: every table equals a full refresh, whatever came in whichever order, and says what its docs promise."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from include.simulator.clock import MINUTE, to_datetime, to_ms
from include.simulator.device_events import device_event_rows, planted
from include.simulator.devices import registry_rows
from include.simulator.positions import position_rows, tour_truth, tours
from include.simulator.world import World, make_world
from include.transform import build, fix_horizon
from include.transform.invocation import load_manifest, run_dbt
from include.warehouse import Role, connect
from tests.conftest import Warehouse
from tests.dbt.test_models_on_rows import rows_read
from tests.support.home_story import FLEET, FLEET_TABLES, HOME_TABLES, HOMES, made_anew, story, tell
from tests.support.marts import build_marts, differences, snapshot
from tests.support.payloads import Payload, at, device_event, position, registry, telemetry
from tests.support.removal import forget_month, remove_event
from tests.support.scenario import File, land

DAYS_OF_TRUCKS = "select device_id, local_date, distance_km, stop_count from maintenance.fct_device_position_daily"


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.prove)])
def test_files_in_any_order_give_what_a_full_refresh_gives(seed: int, unfilled: Warehouse) -> None:
    """Late, removed and twice told events and fixes; registry versions that come late, are corrected and are removed; clocks change on the eighth day."""
    build_after = set(random.Random(seed).sample(range(7), 2))
    tell(story(seed, 8), build_after, lambda: build_marts(f"{HOMES} {FLEET}"), seed)
    incremental = snapshot(HOME_TABLES + FLEET_TABLES)
    assert all(rows for _, rows in incremental.values()), {name: len(rows) for name, (_, rows) in incremental.items()}
    assert differences(incremental, made_anew(HOME_TABLES + FLEET_TABLES, f"{HOMES} {FLEET}")) == []


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(100, 104))
def test_many_files_in_any_order_give_what_a_full_refresh_gives(seed: int, unfilled: Warehouse) -> None:
    tell(story(seed, 20), set(range(0, 20, 3)), lambda: build_marts(f"{HOMES} {FLEET}"), seed)
    incremental = snapshot(HOME_TABLES + FLEET_TABLES)
    assert differences(incremental, made_anew(HOME_TABLES + FLEET_TABLES, f"{HOMES} {FLEET}")) == []


def unlocked(days: range, hour: float) -> tuple[Payload, ...]:
    """A lock is unlocked at one hour of several days."""
    return tuple(device_event("lock1", at(day, hour), "unlock", "key", deviceType="smart_lock", actor="resident_1") for day in days)


def test_an_access_is_unusual_by_what_was_before_whenever_it_becomes_known(unfilled: Warehouse) -> None:
    """Twelve evenings from a Monday on, then a night. It is usual once an earlier such night turns up, and odd again when that turns out not to have been."""
    rows = "select local_date::text, local_hour_number, profile_day_count, similar_day_count from maintenance.fct_unusual_access order by 1, 2"
    lock = {"deviceType": "smart_lock", "facility": "home"}
    land(File("device_registry", at(20), (registry("lock1", at(-30), **lock),)))
    land(File("device_events", at(20), (*unlocked(range(1, 13), 18), *unlocked(range(15, 16), 3))))
    build_marts(HOMES)
    night = [("2026-03-16", 3, 10, 0)]
    assert unfilled.rows(rows) == night
    profile = "select used_hour_count, device_day_count, used_pct from maintenance.rpt_usage_profile where iso_weekday_number = 1 and local_hour_number = 18"
    assert unfilled.rows(profile) == [(2, 3, pytest.approx(200 / 3))]

    land(File("device_events", at(21), unlocked(range(3, 4), 3.3)))
    build_marts(HOMES)
    assert unfilled.rows(rows) == []
    remove_event("device_events", f"event_at = '{at(3, 3.3)}'")
    build_marts(HOMES)
    assert unfilled.rows(rows) == night

    # The home turns out to live nine hours ahead, where evenings are the night after and the night is noon; then, to have had the lock for three days only.
    land(File("device_registry", at(22), (registry("lock1", at(-30), timeZone="Asia/Tokyo", updated_at=at(-29), **lock),)))
    build_marts(HOMES)
    assert unfilled.rows(rows) == [("2026-03-16", 12, 9, 0)]
    land(File("device_registry", at(23), (registry("lock1", at(10), deviceType="smart_lock", facility="other_home", timeZone="Asia/Tokyo"),)))
    build_marts(HOMES, run_tests=True)
    assert unfilled.rows(rows) == []


def test_a_home_whose_zone_becomes_known_after_its_events_left_raw_keeps_one_row_an_hour(unfilled: Warehouse) -> None:
    """The use stays at 20 h UTC; the energy of 11 h UTC turns out to be of 20 h in Tokyo."""
    warm = {"deviceType": "thermostat", "facility": "home"}
    land(File("device_registry", at(20), (registry("warm", at(-30), **warm), registry("other", at(-30), **warm))))
    readings = (telemetry("warm", at(0, hour)) | {"deviceType": "thermostat", "measurements": {"energy": hour / 4}} for hour in (11, 20))
    land(File("device_telemetry", at(20), tuple(readings)))
    land(File("device_events", at(20), (device_event("warm", at(0, 20), "setpoint", "manual", deviceType="thermostat", setPoint=20.0),)))
    build_marts(HOMES)
    columns = "local_date::text, local_hour_number, use_count, energy_kwh, time_zone_name"
    hours = f"select {columns} from intermediate.int_maintenance__device_use_hourly order by 1, 2"
    assert unfilled.rows(hours) == [("2026-03-01", 11, 0, 2.75, "UTC"), ("2026-03-01", 20, 1, 5.0, "UTC")]

    forget_month("device_events", date(2026, 3, 1))
    zoned = {"timeZone": "Asia/Tokyo", "updated_at": at(-29)}
    land(File("device_registry", at(21), (registry("warm", at(-30), **warm, **zoned), registry("other", at(-30), **warm, **zoned))))
    build_marts(HOMES, run_tests=True)
    assert unfilled.rows(hours) == [("2026-03-01", 20, 1, 2.75, "Asia/Tokyo"), ("2026-03-02", 5, 0, 5.0, "Asia/Tokyo")]

    # And a registry that changes otherwise does not make it anew.
    land(File("device_registry", at(22), (registry("other", at(-30), model="t_2", **warm, **zoned | {"updated_at": at(-28)}),)))
    of = fix_horizon()
    build(HOMES, of, run_tests=False)
    touched = "select count(*) from ops.bucket_change where build_id = '{}' and relation = 'intermediate.int_maintenance__device_use_hourly'"
    assert unfilled.value(touched.format(of.build_id)) == 0


def test_a_late_fix_splits_a_stop_that_began_the_day_before(unfilled: Warehouse) -> None:
    stops = "select started_at, ended_at, is_open from maintenance.fct_device_stop order by 1"
    days = "select local_date::text, round(distance_km), moving_s, stop_count, fix_count from maintenance.fct_device_position_daily order by 1"
    base, town, far = (37.0, -122.0), (37.27, -122.0), (37.36, -122.0)
    told = [(at(0, 22), base), (at(0, 22, 10), base), (at(1, 2), base), (at(1, 2, 30), town), (at(1, 3), town)]
    land(File("gps_positions", at(2), tuple(position("t1", when, *place) for when, place in told)))
    build_marts(FLEET)
    whole = [(at(0, 22), at(1, 2), False), (at(1, 2, 30), at(1, 3), True)]
    assert unfilled.rows(stops) == whole
    assert unfilled.rows(days) == [("2026-03-01", 0, 0, 1, 2), ("2026-03-02", 30, 1800, 1, 3)]

    land(File("gps_positions", at(3), (position("t1", at(0, 23), *far),)))
    build_marts(FLEET)
    assert unfilled.rows(stops) == [(at(0, 22), at(0, 22, 10), False), (at(1, 2, 30), at(1, 3), True)]
    assert unfilled.rows(days) == [("2026-03-01", 40, 3000, 1, 3), ("2026-03-02", 70, 12600, 1, 3)]
    remove_event("gps_positions", f"event_at = '{at(0, 23)}'")
    build_marts(FLEET, run_tests=True)
    assert unfilled.rows(stops) == whole

    # A truck is where it was last seen; that is a place once the registry says that one of ours is there.
    last = "select last_fix_at, nearest_facility_id, is_at_facility from maintenance.rpt_device_last_position"
    assert unfilled.rows(last) == [(at(1, 3), None, False)]
    land(File("device_registry", at(4), (registry("m1", at(-9), facility="town", location={"lat": town[0], "lon": town[1]}),)))
    build_marts(FLEET)
    assert unfilled.rows(last) == [(at(1, 3), "town", True)]


def simulated(types: set[str], start: datetime, end: datetime) -> World:
    """A world of homes and trucks whose events, fixes and registry entries of a time have landed."""
    world = make_world(20240115, 80, to_ms(end))
    world = replace(world, devices=tuple(device for device in world.devices if device.device_type in types))
    span = (to_ms(start), to_ms(end))
    for rows in (
        registry_rows(world.noise, world.devices, *span, is_live=False, is_export=True),
        device_event_rows(world, *span),
        position_rows(world.noise, world.devices, *span, is_live=False),
    ):
        land(File(rows.stream, at(21), tuple(rows.lines)))
    return world


def test_accesses_that_are_planted_at_unusual_hours_are_found(unfilled: Warehouse) -> None:
    """In four homes, one of which has somebody who works at night: what is planted is found, and hardly anything else once eight weeks are known."""
    start, known, end = at(-80), at(-24), at(20)
    world = simulated({"smart_lock"}, start, end)
    build_marts(HOMES)
    found = set(unfilled.rows(f"select device_id, accessed_at, event_type from maintenance.fct_unusual_access where accessed_at >= '{known}'"))
    all_of = "select count(*) from intermediate.int_maintenance__device_use where is_access and used_at >= '{}'"
    accesses = int(str(unfilled.value(all_of.format(known))))
    expected = {
        (happening.device.device_id, to_datetime(happening.at_ms), happening.kind)
        for plant in planted(world, to_ms(known), to_ms(end))
        for happening in plant.happenings
        if happening.kind in {"access", "unlock"}
    }
    assert len(expected) >= 10
    # What happens for the third time within eight weeks at the same hour is no more unusual, planted or not.
    assert len(expected & found) >= 0.9 * len(expected), sorted(expected - found)
    assert accesses > 500
    assert len(found - expected) <= 0.03 * accesses, sorted(found - expected)


def test_tours_of_trucks_are_as_long_as_they_were_and_stop_where_customers_are(unfilled: Warehouse) -> None:
    """Lines between fixes of every ten minutes cut corners; a rest of twenty minutes has two fixes; the depot is a stop too."""
    start, end = at(0), at(15)
    world = simulated({"gps_tracker"}, start, end)
    build_marts(FLEET)
    days = {(device, day): values for device, day, *values in unfilled.rows(DAYS_OF_TRUCKS)}
    device_of = {device.device_id: device for device in world.devices}
    told = [each for each in tour_truth(world.noise, world.devices, to_ms(start), to_ms(end)) if to_ms(start) <= int(str(each["departed_ms"]))]
    assert len(told) >= 10
    for tour in told:
        day = int(str(tour["local_day"]))
        local_day = date(1970, 1, 1) + timedelta(days=day)
        (driven,) = tours(world.noise, device_of[str(tour["device_id"])], range(day, day + 1))
        long_rests = int((driven.local_ms[2:-1:2] - driven.local_ms[1:-1:2] >= 20 * MINUTE).sum())
        distance_km, stop_count = days[(tour["device_id"], local_day)]
        assert float(str(tour["distance_km"])) * 0.93 <= distance_km <= float(str(tour["distance_km"])) * 1.01, tour
        assert 1 <= long_rests <= stop_count <= driven.stop_count + 2, tour


TOUCHED = {
    "int_maintenance__device_use": "used_date",
    "int_maintenance__device_use_hourly": "local_date",
    "fct_unusual_access": "local_date",
    "int_maintenance__device_position": "fix_date",
    "int_maintenance__device_leg": "leg_date",
    "fct_device_stop": "stop_date",
    "fct_device_position_daily": "local_date",
}
SIXTY_DAYS = """
    insert into raw.{stream} (tenant_id, event_id, event_at, _arrived_at, _known_at, _landed_at, _batch_id, _file_id, _row_number,
        _content_hash, device_id, {columns})
    select 'default', substr(sha256(convert_to(device || ' ' || t, 'UTF8')), 1, 16), t, t, t, t, 1, 1, 1, '\\x00', 'd' || device, {values}
    from generate_series(1, 20) as device, generate_series(timestamptz '2026-02-01', '2026-03-31 23:00', interval '{every}') as t
"""


def test_a_changed_day_of_a_few_devices_does_not_read_history(unfilled: Warehouse, tmp_path: Path) -> None:
    """Twenty locks and twenty trackers for two months; three of them change on one day."""
    events = {"columns": "device_type, event_type, event_code", "values": "'smart_lock', 'unlock', 'key'", "every": "12 hours"}
    # Half of the time on the move, so that stops are short.
    fixes = {"columns": "latitude_deg, longitude_deg", "values": "37 + floor(extract(epoch from t) / 7200)::integer % 2, -122", "every": "1 hour"}
    for stream, parts in (("device_events", events), ("gps_positions", fixes)):
        unfilled.execute(f"select ops.ensure_partitions('{stream}', '2026-02-01', '2026-04-01')")
        unfilled.execute(SIXTY_DAYS.format(stream=stream, **parts))
        unfilled.execute(f"insert into ops.stream_state (stream, last_batch_id) values ('{stream}', 1)")
    build_marts(f"{HOMES} {FLEET}")
    variables = {"build_id": "plan", "horizon": {"device_events": 1, "gps_positions": 1}}
    result = run_dbt(["compile", "--select", *TOUCHED, "--vars", json.dumps(variables)], tmp_path, load_manifest())
    compiled = {item.node.name: item.node.compiled_code for item in result.results if item.node.resource_type.value == "model"}
    unfilled.execute("analyze")
    with connect(Role.TRANSFORMER) as connection:
        for name, column in TOUCHED.items():
            connection.execute(
                f"create temporary table touched__{name} as "  # type: ignore[arg-type]
                f"select 'default' as tenant_id, 'd' || device as device_id, date '2026-03-30' as {column} from generate_series(1, 3) as device"
            )
            connection.execute(f"analyze touched__{name}")  # type: ignore[arg-type]
            plan = connection.execute(f"explain (analyze, format json) {compiled[name]}").fetchone()  # type: ignore[arg-type]
            assert plan is not None
            # A day is 72 fixes of the three and 480 of all, and 56 days of a lock are 112 unlocks for each of two; the tables hold 28,800 and 2,400 rows.
            assert 0 < rows_read(plan[0][0]["Plan"]) < 1_500, name
