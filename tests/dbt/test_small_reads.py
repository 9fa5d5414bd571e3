"""What looks for the newest or for a window reads it by index, however long the history is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg

from include.transform.invocation import load_manifest, run_dbt
from include.warehouse import Role, connect
from tests.conftest import Warehouse
from tests.dbt.test_models_on_rows import rows_read
from tests.dbt.test_outcomes import SELECTOR
from tests.support.marts import build_marts

Connection = psycopg.Connection[tuple[Any, ...]]
ANY = {
    "text": "'x'",
    "int4": "0",
    "int8": "0",
    "float8": "0",
    "bool": "false",
    "date": "date '2026-01-01'",
    "timestamptz": "timestamptz '2026-01-01'",
    "jsonb": "'[]'",
}
DAY = "date '2025-01-01' + day"


def fill(connection: Connection, table: str, rows: str, **columns: str) -> None:
    """Rows of a query into a table: the named columns as expressions over it, anything where another one must not be NULL."""
    needed = connection.execute(
        "select attname, typname from pg_attribute join pg_type on pg_type.oid = atttypid "
        "where attrelid = %s::regclass and attnum > 0 and not attisdropped and attnotnull and not atthasdef",
        (table,),
    ).fetchall()
    values = {name: ANY[kind] for name, kind in needed} | columns
    connection.execute(f"insert into {table} ({', '.join(values)}) select {', '.join(values.values())} from {rows}")  # type: ignore[arg-type]
    connection.execute(f"analyze {table}")  # type: ignore[arg-type]


def read_by(connection: Connection, sql: str) -> int:
    plan = connection.execute(f"explain (analyze, format json) {sql}").fetchone()  # type: ignore[arg-type]
    assert plan is not None
    return rows_read(plan[0][0]["Plan"])


def compiled(model: str, path: Path) -> str:
    result = run_dbt(["compile", "--select", model, "--vars", json.dumps({"build_id": "plan", "horizon": {}})], path, load_manifest())
    return str(next(item.node.compiled_code for item in result.results if item.node.name == model))


def test_outcomes_read_the_newest_days_and_their_windows(deployed: Warehouse, tmp_path: Path) -> None:
    """Twenty machines with 400 days of features and an entry each day: a new day looks for the day before, an old prediction for the entries of its week."""
    build_marts(SELECTOR)
    node = next(node for node in load_manifest().nodes.values() if node.name == "fct_prediction_outcome")
    days = "generate_series(1, 20) as machine, generate_series(0, 399) as day"
    own = {"tenant_id": "'t'", "device_id": "'m' || machine"}
    with connect(Role.OWNER) as connection:
        fill(connection, "features.feat_device_daily", days, **own, feature_date=DAY)
        event = {"occurred_date": DAY, "occurred_at": f"({DAY})::timestamptz", "known_at": f"({DAY})::timestamptz", "maintenance_type": "'failure'"}
        fill(connection, "maintenance.fct_maintenance_event", days, **own, log_id="machine || ' ' || day", **event)
        window = {"known_at": f"({DAY} + 1)::timestamptz", "outcome_from": f"({DAY} + 1)::timestamptz", "outcome_to": f"({DAY} + 8)::timestamptz"}
        predicted = {"feature_date": DAY, "model_name": "'device_failure'", "model_version": "1", "failure_probability": "0.5"}
        fill(connection, "predictions.device_failure", "generate_series(1, 20) as machine, generate_series(100, 100) as day", **own, **predicted, **window)
        mapping = node.config.extra["inputs"]["feat_device_daily"]["select"]
        names = {"changes": "(select 't' as tenant_id, date '2025-01-01' + 399 as feature_date)", "this": node.relation_name}
        names |= {"feat_device_daily": "features.feat_device_daily", "int_platform__prediction": "intermediate.int_platform__prediction"}
        for name, relation in names.items():
            mapping = mapping.replace(f"{{{name}}}", relation)
        # The 20 rows of the newest day, one of the day before, and the 20 predictions.
        assert read_by(connection, mapping) < 200
        touched = "select 't' as tenant_id, 'device_failure' as use_case, date '2025-01-01' + 100 as feature_date"
        connection.execute(f"create temporary table touched__fct_prediction_outcome as {touched}")  # type: ignore[arg-type]
        # Of each machine the 9 entries of the window and 5 days of features; 300 entries are later.
        assert 0 < read_by(connection, compiled("fct_prediction_outcome", tmp_path)) < 1_000


def test_the_schedule_reads_its_newest_day(deployed: Warehouse, tmp_path: Path) -> None:
    """Two tenants, twenty machines each, 200 planned days."""
    build_marts("+rpt_maintenance_schedule")
    with connect(Role.OWNER) as connection:
        order = {
            "tenant_id": "'t' || tenant",
            "device_id": "'m' || machine",
            "work_order_id": "machine || ' ' || day",
            "planned_date": DAY,
            "prediction_date": DAY,
        }
        order |= {"state": "'proposed'", "benefit_rank": "machine", "prevented_share": "1"}
        fill(connection, "decisions.work_order", "generate_series(1, 2) as tenant, generate_series(1, 20) as machine, generate_series(0, 199) as day", **order)
        sql = compiled("rpt_maintenance_schedule", tmp_path)
        assert connection.execute(f"select count(*), count(distinct planned_date) from ({sql}) as scheduled").fetchone() == (40, 1)  # type: ignore[arg-type]
        assert read_by(connection, sql) < 200
