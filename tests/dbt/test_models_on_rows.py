"""Models on rows: scores never fall when an input gets worse, data tests find what they guard, a small change reads little."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from include.transform import Build, TransformFailed, build, fix_horizon
from include.transform.invocation import invoke, load_manifest, run_dbt
from include.warehouse import Role, connect
from tests.conftest import Warehouse
from tests.support.marts import MICRO_BATCH, build_marts
from tests.support.payloads import at, order, telemetry
from tests.support.scenario import File, land
from tests.support.twin_story import TWINS
from tests.support.window_story import WINDOWS

CASES = 150
HOT = {
    "fct_device_reading_hourly": "hour_at = timestamptz '2026-03-30 10:00+00'",
    "fct_device_reading_daily": "reading_date = date '2026-03-30'",
    "int_maintenance__device_baseline_daily": "reading_date = date '2026-03-30'",
    "int_maintenance__reading_known_daily": "reading_date = date '2026-03-30'",
    "fct_device_health_daily": "health_date = date '2026-03-30'",
    "int_maintenance__machine_feature_daily": "feature_date = date '2026-03-30'",
    "feat_device_daily": "feature_date = date '2026-03-30'",
}
HOT_WINDOWS = {
    "fct_device_window_1min": "window_at = timestamptz '2026-03-30 10:00+00'",
    "fct_device_window_5min": "window_at = timestamptz '2026-03-30 10:00+00'",
    "fct_device_window_15min": "window_at = timestamptz '2026-03-30 10:00+00'",
    "fct_device_window_1h": "window_at = timestamptz '2026-03-30 10:00+00'",
    "fct_device_window_1d": "window_at = timestamptz '2026-03-30 00:00+00'",
    "fct_device_sliding_15min": "window_end_at = timestamptz '2026-03-30 10:05+00'",
    "fct_device_sliding_1h": "window_end_at = timestamptz '2026-03-30 10:05+00'",
    "int_maintenance__device_activity_hourly": "hour_at = timestamptz '2026-03-30 10:00+00'",
    "int_maintenance__device_activity_daily": "day_at = timestamptz '2026-03-30 00:00+00'",
    "int_maintenance__device_activity_weekly": "week_at = timestamptz '2026-03-28 00:00+00'",
}
HOT_TWINS = {
    "fct_device_event": "hour_at = timestamptz '2026-03-30 08:00+00'",
    "fct_machine_state_5min": "window_at = timestamptz '2026-03-30 10:00+00'",
    "fct_pattern_match": "hour_at = timestamptz '2026-03-30 08:00+00'",
    "int_maintenance__device_firmware_hourly": "hour_at = timestamptz '2026-03-30 08:00+00'",
    "int_maintenance__device_reported_change": "hour_at = timestamptz '2026-03-30 08:00+00'",
    "rpt_device_twin": "no_time = true",
}


def raised(values: dict[str, float], name: str, to: float) -> dict[str, float]:
    return {**values, name: max(values[name], to)}


def insert(table: str, rows: list[dict[str, Any]]) -> None:
    """Rows of a mart as a test wants them; columns that are not named are NULL."""
    with connect(Role.OWNER) as connection:
        columns = ", ".join(rows[0])
        connection.execute(
            f"insert into {table} ({columns}) select {columns} from jsonb_populate_recordset(null::{table}, %s::jsonb)",
            (json.dumps(rows),),
        )


def make_champion_line(use_case: str, version: int) -> None:
    """The version is champion, as far as marts can see."""
    line = {"use_case": use_case, "model_version": version, "registered_at": at(0).isoformat()}
    insert("ops.model_version", [line | {"snapshot": "s", "card": {}, "model_file": "f", "has_passed": True, "gate_reason": "better"}])
    with connect(Role.OWNER) as connection:
        connection.execute(
            "insert into ops.model_history (use_case, model_version, champion_from, decided_by, reason) values (%s, %s, %s, 'gate', 'better')",
            (use_case, version, at(0)),
        )


def test_priority_never_falls_when_an_input_gets_worse(unfilled: Warehouse) -> None:
    build_marts()
    source = random.Random(7)
    inputs = ("failure_probability", "recent_anomaly_share", "health_loss", "overdue_maintenance_ratio")
    cases: dict[str, dict[str, float]] = {}
    for number in range(CASES):
        base = {name: source.choice((0.0, 1.0, source.random(), source.random() * 3 if name == inputs[3] else source.random())) for name in inputs}
        cases[f"{number}-base"] = base
        for name in inputs:
            cases[f"{number}-{name}"] = raised(base, name, source.random() * (3 if name == inputs[3] else 1))
    insert(
        "maintenance.fct_device_health_daily",
        [
            {
                **dict.fromkeys(("error_share", "vibration_penalty", "temperature_penalty", "error_penalty", "sensor_penalty"), 0),
                **{name: values[name] for name in inputs[1:]},
                **{"tenant_id": "t", "device_id": device, "health_date": "2026-03-01", "device_type": "machine_controller"},
                "health_score": 100 * (1 - values["health_loss"]),
            }
            for device, values in cases.items()
        ],
    )
    insert(
        "predictions.device_failure",
        [
            {
                **{"tenant_id": "t", "device_id": device, "feature_date": "2026-03-01", "model_name": "m", "model_version": 1, "feature_snapshot": "s"},
                **{"known_at": at(1).isoformat(), "outcome_from": at(1).isoformat(), "outcome_to": at(8).isoformat(), "_scored_at": at(1).isoformat()},
                "failure_probability": values["failure_probability"],
            }
            for device, values in cases.items()
        ],
    )
    make_champion_line("m", 1)
    build("rpt_maintenance_priority", fix_horizon())
    rows = unfilled.rows("select device_id, maintenance_priority_score, is_high_priority, priority_rank from maintenance.rpt_maintenance_priority")
    scores = {device: score for device, score, _, _ in rows}
    assert len(scores) == len(cases)
    assert all(0 <= score <= 3 for score in scores.values())
    for device, score in scores.items():
        assert score >= scores[f"{device.split('-')[0]}-base"], device
    assert sum(flagged for _, _, flagged, _ in rows) == 30
    assert sorted(rank for _, _, _, rank in rows) == list(range(1, len(cases) + 1))


def test_health_never_rises_when_a_measurement_gets_worse(unfilled: Warehouse) -> None:
    build_marts()
    source = random.Random(11)
    worst = {"vibration_rms_mm_s": 9.0, "avg_temperature_c": 120.0, "error_or_fault_count": 100.0, "faulty_count": 100.0}
    lowest = {"min_battery_pct": 0.0, "avg_accuracy_pct": 50.0}
    cases: dict[str, dict[str, float]] = {}
    for number in range(CASES):
        base = {"vibration_rms_mm_s": source.uniform(1, 6), "avg_temperature_c": source.uniform(40, 100), "error_or_fault_count": source.randrange(0, 30)}
        base |= {"faulty_count": source.randrange(0, 100), "min_battery_pct": source.uniform(0, 100), "avg_accuracy_pct": source.uniform(80, 100)}
        cases[f"{number}-base"] = base
        for name, end in (worst | lowest).items():
            moved = base[name] + source.random() * (end - base[name])
            cases[f"{number}-{name}"] = {**base, name: int(moved) if name.endswith("_count") else moved}
    counts = ("hour_count", "temperature_count", "vibration_count", "load_count", "error_count", "fault_count", "warning_count", "running_count")
    common = {"tenant_id": "t", "reading_date": "2026-03-01"}
    insert(
        "maintenance.fct_device_reading_daily",
        [
            {
                **common,
                **values,
                **dict.fromkeys((*counts, "degraded_count", "accuracy_count"), 1),
                **{"device_id": device, "device_type": "machine_controller", "reading_count": 100},
                **{"first_reading_at": at().isoformat(), "last_reading_at": at(0, 9).isoformat()},
            }
            for device, values in cases.items()
        ],
    )
    insert(
        "intermediate.int_maintenance__device_baseline_daily",
        [{**common, "device_id": device, "baseline_vibration_rms_mm_s": 2.5, "baseline_temperature_c": 60} for device in cases],
    )
    build("fct_device_health_daily", fix_horizon(), rebuild=True)
    scores = dict(unfilled.rows("select device_id, health_score from maintenance.fct_device_health_daily"))
    assert len(scores) == len(cases)
    assert all(0 <= score <= 100 for score in scores.values())
    for device, score in scores.items():
        assert score <= scores[f"{device.split('-')[0]}-base"], device


def failures(of: Build, *, full_tests: bool = False) -> list[str]:
    """Kinds of data tests of the orders that fail as they stand."""
    variables = {**of.as_vars(), "full_tests": full_tests}
    nodes = invoke(["test", "--select", "fct_order", "--exclude-resource-type", "unit_test", "--vars", json.dumps(variables)], purpose="planted")
    return sorted(node.unique_id.split(".")[2].partition("_fct_order")[0] for node in nodes if node.status == "fail")


def test_data_tests_see_the_touched_buckets_and_at_night_everything(unfilled: Warehouse) -> None:
    land(File("orders", at(1), (order("old", "c1", at(0)),)))
    build_marts()
    land(File("orders", at(2), (order("new", "c1", at(1)),)))
    of = fix_horizon()
    build("tag:customers,tag:micro_batch", of)
    unfilled.execute("update customers.fct_order set net_usd = net_usd + 5 where order_id = 'old'")
    assert failures(of) == []
    assert failures(of, full_tests=True) == ["equal_totals", "holds"]
    unfilled.execute("update customers.fct_order set net_usd = net_usd + 5 where order_id = 'new'")
    assert failures(of) == ["equal_totals", "holds"]
    unfilled.execute("delete from customers.fct_order where order_id = 'new'")
    assert failures(of) == ["equal_totals", "no_fanout"]


def test_a_wrong_row_fails_the_build(unfilled: Warehouse) -> None:
    land(File("device_telemetry", at(1), (telemetry("m1", at(0, 10)),)))
    build_marts(MICRO_BATCH, run_tests=True)
    unfilled.execute("update maintenance.fct_device_reading_hourly set reading_count = 2")
    with pytest.raises(TransformFailed, match="equal_totals_fct_device_reading_hourly"):
        build(MICRO_BATCH, fix_horizon(), full_tests=True)


def rows_read(plan: dict[str, Any]) -> int:
    """Rows that the scans of a plan touched, the discarded ones included."""
    own = 0
    if plan["Node Type"] in {"Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan"}:
        own = round((plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"])
    return own + sum(rows_read(child) for child in plan.get("Plans", []))


def mappings(node: Any, manifest: Any) -> dict[str, str]:
    """By input: the SQL that says which buckets a change of three machines on one day touches, for inputs whose mapping is a query."""
    of_name = {other.name: other for other in manifest.nodes.values() if other.resource_type.value == "model"}
    found = {}
    for name, mapping in node.config.extra["inputs"].items():
        if "select" in mapping and "bucket" in of_name[name].config.extra:
            values = {"tenant_id": "'default'", "device_id": "'m' || machine", "_date": "date '2026-03-30'", "_at": "timestamptz '2026-03-30 08:00+00'"}
            given = [f"{values.get(column) or values['_' + column.rpartition('_')[2]]} as {column}" for column in of_name[name].config.extra["bucket"]]
            changes = f"(select {', '.join(given)} from generate_series(1, 3) as machine)"
            relations = {"{changes}": changes, "{this}": node.relation_name, "{input}": of_name[name].relation_name}
            sql = mapping["select"]
            relations |= {f"{{{other}}}": of_name[other].relation_name for other in node.config.extra["inputs"]}
            for placeholder, relation in relations.items():
                sql = sql.replace(placeholder, relation)
            found[name] = sql
    return found


# The longest window of the first is 28 days; windows of devices look an hour back, and a day makes many rows of them.
@pytest.mark.parametrize(
    ("machines", "start", "hot", "selector", "exclude"),
    [(30, "2026-01-01", HOT, MICRO_BATCH, "tag:windows+"), (90, "2026-03-24", HOT_WINDOWS, WINDOWS, None), (30, "2026-03-24", HOT_TWINS, TWINS, None)],
    ids=["days", "windows", "twins"],
)
def test_a_small_change_does_not_read_history(
    machines: int, start: str, hot: dict[str, str], selector: str, exclude: str | None, deployed: Warehouse, tmp_path: Path
) -> None:
    """Machines report for three months, or for eight days, every half hour and restart every four; three of them change in one bucket each."""
    with connect(Role.OWNER) as connection:
        connection.execute("select ops.ensure_partitions('device_telemetry', '2026-01-01', '2026-04-01')")
        connection.execute(
            """
            insert into raw.device_telemetry (tenant_id, event_id, event_at, _arrived_at, _known_at, _landed_at, _batch_id, _file_id, _row_number,
                _content_hash, device_id, device_type, temperature_c, vibration_x_mm_s, firmware_version)
            select 'default', substr(sha256(convert_to(machine || ' ' || t, 'UTF8')), 1, 16), t, t, t, t, 1, 1, 1,
                '\\x00', 'm' || machine, 'machine_controller', 60, 2, '1.0'
            from generate_series(1, %s) as machine, generate_series(%s::timestamptz, '2026-03-31 23:30', interval '30 minutes') as t
            """,
            (machines, start),
        )
        connection.execute("select ops.ensure_partitions('device_events', '2026-01-01', '2026-04-01')")
        connection.execute(
            """
            insert into raw.device_events (tenant_id, event_id, event_at, _arrived_at, _known_at, _landed_at, _batch_id, _file_id, _row_number,
                _content_hash, device_id, device_type, event_type, event_code)
            select 'default', substr(sha256(convert_to(machine || kind || t, 'UTF8')), 1, 16), t, t, t, t, 1, 1, 1,
                '\\x00', 'm' || machine, 'machine_controller', kind, code
            from generate_series(1, %s) as machine, generate_series(%s::timestamptz, '2026-03-31 20:00', interval '4 hours') as t,
                (values ('error', 'E1'), ('restart', 'watchdog'), ('state_change', 'running')) as happened (kind, code)
            """,
            (machines, start),
        )
        connection.execute("insert into ops.stream_state (stream, last_batch_id) values ('device_telemetry', 1), ('device_events', 1)")
    build(selector, fix_horizon(), exclude=exclude, run_tests=False)
    variables = {"build_id": "plan", "horizon": {"device_telemetry": 1, "device_events": 1}}
    manifest = load_manifest()
    result = run_dbt(["compile", "--select", *hot, "--vars", json.dumps(variables)], tmp_path, manifest)
    nodes = [item.node for item in result.results if item.node.resource_type.value == "model"]
    compiled = {node.name: node.compiled_code for node in nodes}
    with connect(Role.TRANSFORMER) as connection:
        for table in ("raw.device_telemetry", *(f"{node.schema}.{node.alias}" for node in nodes)):
            with connect(Role.OWNER if table.startswith("raw.") else Role.TRANSFORMER) as other:
                other.execute(f"analyze {table}")
        for name, condition in hot.items():
            column, _, value = condition.partition(" = ")
            connection.execute(
                f"create temporary table touched__{name} as "
                f"select 'default' as tenant_id, 'm' || machine as device_id, {value} as {column} from generate_series(1, 3) as machine"
            )
            connection.execute(f"analyze touched__{name}")
            plan = connection.execute(f"explain (analyze, format json) {compiled[name]}").fetchone()
            assert plan is not None
            # A day is 144 readings of the three machines and 1,440 of thirty; the longest window is 28 days of three. The tables hold 129,600 and 34,560 rows.
            assert 0 < rows_read(plan[0][0]["Plan"]) < 2_000, name
        # A registry that changes is compared with what is stored of its devices, a row a window; whatever else changes is found by its time.
        for node in nodes:
            for name, sql in mappings(node, manifest).items():
                plan = connection.execute(f"explain (analyze, format json) {sql}").fetchone()  # type: ignore[arg-type]
                assert plan is not None
                assert rows_read(plan[0][0]["Plan"]) < 2_000, (node.name, name)
