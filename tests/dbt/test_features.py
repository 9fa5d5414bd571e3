"""Features: the same whatever the order of arrival, and never a value of what was known later."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any

import pytest

from include.landing import land_pending
from include.settings import get_settings
from include.transform import build, fix_horizon
from include.transform.invocation import load_manifest
from include.warehouse import Role, connect
from tests.conftest import TEST_DATABASE, Warehouse, clone_database, drop_database
from tests.dbt.test_first_fill import work
from tests.support.marts import Snapshot, build_marts, differences, snapshot
from tests.support.payloads import at, device_event, feedback, iso, maintenance, put, registry, telemetry
from tests.support.removal import remove_event
from tests.support.scenario import File

FEATURES = [
    "features.feat_component_daily",
    "features.feat_device_daily",
    "intermediate.int_maintenance__error_known_daily",
    "intermediate.int_maintenance__machine_feature_daily",
    "intermediate.int_maintenance__reading_known_daily",
]
SELECTED = "+feat_component_daily,tag:micro_batch"  # these and what they are made of
MACHINE_FEATURES = "intermediate.int_maintenance__machine_feature_daily"
EVENTS = "maintenance.fct_maintenance_event"
MACHINES = ("m1", "m2", "m3", "m4")
DAYS = 34


def story() -> list[File]:
    """Five weeks of four machines of two models: drifting vibration, errors, replaced components, late and early knowledge; in order of arrival."""
    draw = random.Random(5)
    files = [File("device_registry", at(-1), tuple(registry(name, at(-60), model=f"press_{int(name[1]) % 2}") for name in MACHINES[:3]))]
    # The fourth machine is registered late, and later it turns out which model it is.
    files.append(File("device_registry", at(6), (registry("m4", at(5)),)))
    files.append(File("device_registry", at(20), (registry("m4", at(12), model="press_1"),)))
    for day in range(DAYS):
        readings, late = [], []
        for number, name in enumerate(MACHINES):
            if name == "m2" and 10 <= day < 14:
                continue  # silent
            for hour in (2, 9, 15, 21):
                wear = 1 + 0.02 * day * number + draw.random()
                reading = telemetry(name, at(day, hour), temperature=50 + number + 3 * draw.random(), vibration=wear)
                reading["measurements"]["pressure"] = 1000 + 20 * draw.random()
                (late if draw.random() < 0.08 else readings).append(reading)
        files.append(File("device_telemetry", at(day + 1, 0, 10), tuple(readings)))
        if late:
            files.append(File("device_telemetry", at(day + draw.choice((1, 2, 4)), 7), tuple(late)))
        errors = [device_event(name, at(day, draw.randrange(24)), "error", draw.choice(("E1", "E2", "E3"))) for name in MACHINES if draw.random() < 0.3]
        if errors:
            files.append(File("device_events", at(day + draw.choice((1, 1, 3)), 1), tuple(errors)))
    log = 0
    for name in MACHINES:
        for day in sorted(draw.sample(range(-40, DAYS), 9)):
            log += 1
            kind, part = draw.choice(("failure", "repair", "service", "inspection")), draw.choice(("pump", "motor", None))
            entry = maintenance(f"w{log}", name, at(day, 6), kind=kind, component=part)
            files.append(File("maintenance_log", at(max(day, -1) + draw.choice((0, 1, 3)), 20), (entry,)))
    for number, day in enumerate((2, 8, 12, 16, 20, 23, 26, 30)):
        answer = feedback(
            f"o{number}", draw.choice(MACHINES), at(day, 9), verdict=draw.choice(("done", "false_alarm")), component=draw.choice(("pump", "motor"))
        )
        files.append(File("work_order_feedback", at(day + draw.choice((0, 1, 2)), 19), (answer,)))
    return sorted(files, key=lambda file: file.arrived_at)


def tell(files: Sequence[File]) -> None:
    """Lands files as if each had been there on time, and builds once."""
    for file in files:
        put(file.stream, file.payloads, arrived_at=file.arrived_at)
    for stream in sorted({file.stream for file in files}):
        land_all(stream)
    build_marts(SELECTED)


def land_all(stream: str) -> None:
    """Everything of the story, which is longer than the scenario of the other tests."""
    land_pending(stream, arrived_from=at(-2), arrived_before=at(DAYS + 10))


def start_anew(template: str) -> None:
    """An empty warehouse and zone."""
    drop_database(TEST_DATABASE)
    clone_database(template, TEST_DATABASE)
    shutil.rmtree(get_settings().zone_url.removeprefix("file://"))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.prove) for seed in range(1, 4))])
def test_features_are_the_same_in_any_order_of_arrival(seed: int, unfilled: Warehouse, unfilled_template: str) -> None:
    tell(story())
    on_time = snapshot(FEATURES)
    assert min(len(rows) for _, rows in on_time.values()) > 30
    start_anew(unfilled_template)
    dice = random.Random(seed)
    arrivals = story()
    dice.shuffle(arrivals)
    cuts = sorted(dice.sample(range(5, len(arrivals)), 4))
    for first, last in zip([0, *cuts], [*cuts, len(arrivals)], strict=True):
        tell(arrivals[first:last])
    assert differences(snapshot(FEATURES), on_time) == []


def test_removed_rows_leave_no_trace(unfilled: Warehouse) -> None:
    """A month of errors and the readings of one machine go, and a day on which nobody else reported."""
    tell(story())
    remove_event("device_events", "device_id = 'm1'")
    remove_event("device_telemetry", "device_id = 'm3' and event_at >= '2026-03-10'")
    remove_event("device_telemetry", "event_at >= '2026-03-20' and event_at < '2026-03-21'")
    build_marts(SELECTED)
    incremental = snapshot(FEATURES)
    build_marts(SELECTED, rebuild=True)
    assert differences(incremental, snapshot(FEATURES)) == []
    assert unfilled.value("select count(*) from features.feat_device_daily where device_id = 'm1' and error_event_count_7d > 0") == 0


def permuted(files: Sequence[File], after: datetime, seed: int) -> list[File]:
    """The files, with everything that arrives after a moment torn apart: each reading, error and entry gets the content of another one of its stream."""
    dice = random.Random(seed)
    pools: dict[str, list[dict[str, Any]]] = {}
    own = {
        "device_telemetry": ("measurements",), "device_events": ("code",), "maintenance_log": ("type", "component"),
        "device_registry": ("model", "ratedPowerKw", "installedAt"), "work_order_feedback": ("verdict", "component"),
    }  # fmt: skip
    for file in files:
        if file.arrived_at >= after:
            pools.setdefault(file.stream, []).extend({key: payload[key] for key in own[file.stream]} for payload in file.payloads)  # type: ignore[index]
    for pool in pools.values():
        dice.shuffle(pool)
        for content in pool:  # in a permutation of few values many stay where they are
            if "measurements" in content:
                content["measurements"] = {**content["measurements"], "temperature": 60 + 20 * dice.random(), "runtimeHours": 5000 * dice.random()}
            if "code" in content:
                content["code"] = dice.choice(("E4", "E5"))
            if "verdict" in content:  # the other verdict, of another machine
                content["verdict"] = "done" if content["verdict"] == "false_alarm" else "false_alarm"
            if "installedAt" in content:
                content["installedAt"] = iso(at(-900))
    changed = []
    for file in files:
        if file.arrived_at >= after:
            file = File(file.stream, file.arrived_at, tuple({**payload, **pools[file.stream].pop()} for payload in file.payloads))  # type: ignore[dict-item]
        changed.append(file)
    return changed


def up_to(tables: Snapshot, day: date, *, after: bool = False) -> dict[str, list[tuple]]:
    """Rows of the feature tables up to a day, or those after it."""
    found = {}
    for name in FEATURES[:2]:
        columns, rows = tables[name]
        position = columns.index("feature_date")
        found[name] = [row for row in rows if (row[position] > day) == after]
    return found


@pytest.mark.parametrize("cut", [9, 21])
def test_no_feature_knows_what_was_known_after_its_day(cut: int, unfilled: Warehouse, unfilled_template: str) -> None:
    """Permuting everything known after the end of a day changes no feature of that day or before, and many after it."""
    day, end_of_day = at(cut).date(), at(cut + 1)
    tell(story())
    original = snapshot(FEATURES)
    start_anew(unfilled_template)
    tell(permuted(story(), end_of_day, seed=cut))
    altered = snapshot(FEATURES)
    for name, rows in up_to(original, day).items():
        assert len(rows) > 20, name
        assert rows == up_to(altered, day)[name], name
    for name, rows in up_to(original, day, after=True).items():
        other = up_to(altered, day, after=True)[name]
        assert sum(row not in other for row in rows) > len(rows) / 2, f"{name}: the permutation must be able to show"


def test_a_known_day_earlier_by_one_would_be_seen(unfilled: Warehouse, unfilled_template: str) -> None:
    """The test above fails where a model knows a day too early: the cut is moved one day into what the features know."""
    tell(story())
    original = snapshot(FEATURES)
    start_anew(unfilled_template)
    tell(permuted(story(), at(21), seed=21))
    assert up_to(original, at(21).date()) != up_to(snapshot(FEATURES), at(21).date())


def touched_by(stream: str, payloads: Sequence[dict[str, Any]], arrived_at: datetime) -> Callable[[str], set[tuple]]:
    """Lands a file alone and builds: by relation, device (where it is in the bucket) and day of the buckets that were touched."""
    put(stream, list(payloads), arrived_at=arrived_at)
    land_all(stream)
    of = fix_horizon()
    build(SELECTED, of, run_tests=False)

    def touched(relation: str) -> set[tuple]:
        with connect(Role.OWNER) as connection:
            rows = connection.execute(
                "select bucket ->> 'device_id', coalesce(bucket ->> 'feature_date', bucket ->> 'occurred_date')::date - %s::date from ops.bucket_change "
                "where build_id = %s and relation = %s",
                (at().date(), of.build_id, relation),
            ).fetchall()
        return set(rows)

    return touched


def test_a_late_entry_touches_its_machine_only(unfilled: Warehouse) -> None:
    tell(story())
    entry = maintenance("late", "m2", at(DAYS - 3, 4), kind="service", component="pump")
    touched = touched_by("maintenance_log", [entry], at(DAYS + 2))
    assert {device for device, _ in touched(MACHINE_FEATURES)} == {"m2"}


def test_a_registry_row_touches_only_the_days_of_which_it_says_something_else(unfilled: Warehouse) -> None:
    """Rows that say again what is known, or of other devices, touch nothing. Others touch what they change, and incremental equals rebuilt."""
    tell(story())

    def entries(device: str, first: int) -> set[tuple]:
        found = unfilled.rows(f"select occurred_date - date '{at().date()}' from {EVENTS} where device_id = '{device}'")
        return {(device, day) for (day,) in found if day >= first}

    sensor = registry("s1", at(-5), deviceType="temperature_sensor", firmwareVersion="2")
    touched = touched_by("device_registry", [sensor, registry("m1", at(DAYS - 1, 23), model="press_1", firmwareVersion="2")], at(12))
    assert touched(MACHINE_FEATURES) == touched("features.feat_device_daily") == touched(EVENTS) == set()
    # Another model, which was known two days later. Its entries belong to the new version, and an entry touches the features after it.
    touched = touched_by("device_registry", [registry("m3", at(18), model="press_9")], at(20))
    assert touched(EVENTS) == entries("m3", 18) != set()
    stored = unfilled.rows(f"select feature_date - date '{at().date()}' from features.feat_device_daily where device_id = 'm3'")
    known = {("m3", day) for (day,) in stored if day >= 20}
    assert known <= touched(MACHINE_FEATURES) <= known | {("m3", 18), ("m3", 19)}
    assert min(day for _, day in touched("features.feat_device_daily")) >= 18
    # A machine that said nothing has a row on every day since, and one that is taken out of use loses those on which it was silent.
    quiet = f"select count(*) from features.feat_device_daily where device_id = 'm2' and feature_date between '{at(10).date()}' and '{at(13).date()}'"
    before = unfilled.value(quiet)
    touched = touched_by("device_registry", [registry("m5", at(2)), registry("m2", at(9), model="press_0", status="retired")], at(9))
    assert {day for device, day in touched(MACHINE_FEATURES) if device == "m5"} == set(range(9, DAYS))
    assert min(day for device, day in touched(MACHINE_FEATURES) if device == "m2") >= 9
    assert {device for device, _ in touched(MACHINE_FEATURES)} == {"m2", "m5"}
    assert unfilled.value(quiet) < before  # type: ignore[operator]
    # It turns out that it never was.
    remove_event("device_registry", f"device_id = 'm2' and event_at = '{at(9)}'")
    build_marts(SELECTED)
    incremental = snapshot([*FEATURES, EVENTS])
    build_marts(SELECTED, rebuild=True)
    assert differences(incremental, snapshot([*FEATURES, EVENTS])) == []
    assert unfilled.value(quiet) == before


def test_the_machines_of_a_batch_are_not_multiplied(unfilled: Warehouse) -> None:
    """A day on which a machine reported concerns all machines of its tenant; a batch in which all reported concerns them once."""
    machines = [f"n{number}" for number in range(80)]
    put("device_registry", [registry(name, at(day), firmwareVersion=f"{day}") for name in machines for day in range(-4, 1)], arrived_at=at(1))
    put("device_telemetry", [telemetry(name, at(1, 2)) for name in machines], arrived_at=at(1, 3))
    for stream in ("device_registry", "device_telemetry"):
        land_all(stream)
    build_marts(SELECTED)
    node = next(node for node in load_manifest().nodes.values() if node.name == "int_maintenance__machine_feature_daily")
    for name in ("int_maintenance__reading_known_daily", "int_maintenance__error_known_daily"):
        date_column = "reading_date" if "reading" in name else "event_date"
        changes = f"(select distinct tenant_id, device_id, reading_date as {date_column} from intermediate.int_maintenance__reading_known_daily)"
        sql = node.config.extra["inputs"][name]["select"].replace("{changes}", changes)
        sql = sql.replace("{input}", f"intermediate.{name}").replace("{dim_device}", "core.dim_device")
        with connect(Role.OWNER) as connection:
            connection.execute("analyze")
            plan = connection.execute(f"explain (analyze, format json) {sql}").fetchone()  # type: ignore[arg-type]
            assert plan is not None
            touched = connection.execute(f"select count(*) from ({sql}) as mapped").fetchone()  # type: ignore[arg-type]
        assert touched == (len(machines),)
        # Each machine of each machine, five versions: 400 rows a machine.
        assert work(plan[0][0]["Plan"]) / len(machines) < 40, name
