"""A first fill of a long history costs what the history is long, not its square: no plan compares every row of a device with every other."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from include.contracts import streams
from include.transform.invocation import load_manifest, run_dbt
from include.warehouse import Role, connect
from tests.conftest import Warehouse
from tests.support.home_story import FLEET, HOMES
from tests.support.marts import build_marts
from tests.support.payloads import at, desired_state, device_event, maintenance, position, registry, telemetry
from tests.support.scenario import File, land
from tests.support.twin_story import TWINS
from tests.support.window_story import WINDOWS

HOURS = 40 * 24
"""Readings, events and fixes of each device: one an hour."""
MOST = 200
"""Rows that the nodes of a plan may pass on or throw away for each of them: metrics, versions and days around are a few dozen; every other row would be 960."""


def work(plan: dict[str, Any]) -> int:
    """Rows that the nodes of a plan passed on or threw away."""
    own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Join Filter", 0)
    return round(own * plan["Actual Loops"]) + sum(work(child) for child in plan.get("Plans", []))


def land_forty_days() -> None:
    """A machine, a thermostat, a lock and a truck, each with something every hour."""
    hours = [at(-20, hour, hour % 60) for hour in range(HOURS)]
    types = {"m1": "machine_controller", "warm": "thermostat", "lock": "smart_lock", "truck": "gps_tracker"}
    versions = [
        registry(device, at(day), deviceType=kind, timeZone="Europe/Berlin", firmwareVersion=f"{day}") for device, kind in types.items() for day in (-9, 9)
    ]
    land(File("device_registry", at(21), tuple(versions)))
    land(File("device_telemetry", at(21), tuple(telemetry(device, when) | {"deviceType": types[device]} for device in ("m1", "warm") for when in hours)))
    kinds = (("state_change", "running"), ("error", "E1"), ("state_change", "fault"), ("restart", "watchdog"))
    events = [device_event("m1", when, *kinds[number % 4]) for number, when in enumerate(hours)]
    errors = [when for number, when in enumerate(hours) if number % 4 == 1]
    events += [device_event("m1", when + timedelta(minutes=2), "restart", "watchdog") for when in errors]
    events += [device_event("m1", when + timedelta(minutes=4), "error", "E1") for when in errors]
    events += [device_event("warm", when, "setpoint", "manual", deviceType="thermostat", setPoint=20.0 + when.hour % 2) for when in hours]
    events += [device_event("lock", when, "unlock", "key", deviceType="smart_lock") for when in hours if when.hour not in range(1, 6) or when > hours[-24]]
    land(File("device_events", at(21), tuple(events)))
    land(File("gps_positions", at(21), tuple(position("truck", when, 37.0 + number // 2 % 2, -122.0) for number, when in enumerate(hours))))
    land(File("maintenance_log", at(21), tuple(maintenance(f"w{day}", "m1", at(day, 7)) for day in range(-20, 20, 10))))
    land(File("device_desired_state", at(21), (desired_state("m1", at(-19), firmwareVersion="2"),)))


def whole_mappings(node: Any, of_name: dict[str, Any]) -> dict[str, str]:
    """By input: the SQL that says which buckets are touched when all of the input is new."""
    found = {}
    for name, mapping in node.config.extra["inputs"].items():
        sql = mapping.get("select_when_new", mapping.get("select", "{this}"))
        if "{this}" not in sql:
            relation, bucket = of_name[name].relation_name, of_name[name].config.extra["bucket"]
            found[name] = sql.replace("{changes}", f"(select distinct {', '.join(bucket)} from {relation})").replace("{input}", relation)
    return found


def test_no_model_compares_every_row_of_a_device_with_every_other(deployed: Warehouse, tmp_path: Path) -> None:
    land_forty_days()
    selector = f"{WINDOWS} {TWINS} {HOMES} {FLEET}"
    build_marts(selector)
    manifest = load_manifest()
    variables = {"build_id": "plan", "horizon": dict.fromkeys(streams(), 1_000_000)}
    result = run_dbt(["compile", "--select", *selector.split(), "--vars", json.dumps(variables)], tmp_path, manifest)
    nodes = [item.node for item in result.results if item.node.resource_type.value == "model" and item.node.config.extra.get("bucket")]
    assert len(nodes) > 30
    of_name = {node.name: node for node in manifest.nodes.values() if node.resource_type.value == "model"}
    much = {}
    with connect(Role.TRANSFORMER) as connection:

        def measure(name: str, sql: str) -> None:
            plan = connection.execute(f"explain (analyze, format json) {sql}").fetchone()  # type: ignore[arg-type]
            assert plan is not None
            much[name] = work(plan[0][0]["Plan"]) / HOURS

        for node in nodes:
            columns = ", ".join(node.config.extra["bucket"])
            connection.execute(f"analyze {node.relation_name}")  # type: ignore[arg-type]
            connection.execute(f"create temporary table touched__{node.alias} as select distinct {columns} from {node.relation_name}")  # type: ignore[arg-type]
            connection.execute(f"create index on touched__{node.alias} ({columns})")  # type: ignore[arg-type]
            connection.execute(f"analyze touched__{node.alias}")  # type: ignore[arg-type]
            measure(node.name, node.compiled_code)
            assert much[node.name] > 0 or node.name.startswith(("dim_", "rpt_device")), node.name
        for node in nodes:
            for name, sql in whole_mappings(node, of_name).items():
                measure(f"{name} to {node.name}", sql)
    assert {name: each for name, each in much.items() if each > MOST} == {}, much
