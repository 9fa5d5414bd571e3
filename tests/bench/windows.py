"""`make bench-windows`: what a 5-minute batch costs all levels of device windows when 3 and when 30 days are stored.

docs/benchmarks.md says how it is measured, and what the figures mean.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from psycopg import ClientCursor

from include.settings import REPOSITORY, get_settings
from include.transform import build, deploy, fix_horizon
from include.transform.invocation import load_manifest, run_dbt
from include.warehouse import Role, connect
from tests.bench.report import Figure, Report, Target, interleaved
from tests.bench.server import BenchmarkError, BenchServer, bench_server, scratch_folder

DATABASES = {"3 days": "bench_windows_few", "30 days": "bench_windows_many"}
NOW = datetime(2026, 3, 30, 12, tzinfo=UTC)
"""End of what is stored: the batches are the 5 minutes after it, and so on."""
STEP = timedelta(minutes=5)
READINGS_A_BATCH = 10
"""Of a device, one every 30 seconds."""
SELECTORS = ("tag:core,tag:micro_batch", "tag:maintenance,tag:micro_batch")
"""The calls of build_marts up to the levels, with everything else that they build."""
RATIO, SECONDS = 1.15, 30.0

# A reading of a sensor with two metrics, so three rows a window with that of all readings. Batch 1 is what is stored.
_READINGS = """
insert into raw.device_telemetry (tenant_id, event_id, event_at, _arrived_at, _known_at, _landed_at, _batch_id, _file_id, _row_number, _content_hash, device_id,
    device_type, temperature_c, vibration_x_mm_s)
select 'default', substr(sha256(convert_to(device || ' ' || at, 'UTF8')), 1, 16), at, at, at, at, %(batch)s, 1, 1, '\\x00', 'd' || lpad(device::text, 5, '0'),
    'vibration_sensor', 40 + device %% 40 + (device * extract(epoch from at)::bigint) %% 997 / 100.0, 1 + device %% 7 / 10.0
from generate_series(timestamptz %(from)s, timestamptz %(to)s - interval '1 second', %(every)s) as moment
cross join generate_series(1, %(devices)s) as device
cross join lateral (select moment + device %% 25 * interval '1 second' as at) as shifted
order by moment, device
"""
_REGISTRY = """
insert into raw.device_registry (tenant_id, event_id, event_at, _arrived_at, _known_at, _landed_at, _batch_id, _file_id, _row_number, _content_hash, device_id,
    updated_at, device_type, facility_id, line_id, reporting_interval_s, registry_status, firmware_version, time_zone_name)
select 'default', substr(sha256(convert_to(device || ' ' || at, 'UTF8')), 1, 16), at, at, at, at, 2, 1, 1, '\\x00', 'd' || lpad(device::text, 5, '0'), at,
    'vibration_sensor', 'plant_' || device %% 10, 'line_' || device %% 40, 30, 'active', '1.' || version || '.0', 'Europe/Berlin'
from generate_series(1, %(devices)s) as device
cross join generate_series(0, 2) as version
cross join lateral (select timestamptz '2026-01-01' + version * interval '40 days' + device %% 900 * interval '1 minute' as at) as dated
"""


def use(server: BenchServer, database: str) -> None:
    """Makes a database the one that the settings of this process name."""
    os.environ["TIDEMARK_WAREHOUSE_URL"] = server.url(database)
    get_settings.cache_clear()


def insert_readings(batch: int, start: datetime, end: datetime, every: timedelta, devices: int) -> int:
    """Puts readings into raw as a load does, with the stream's watermark.

    Returns:
        Number of readings.
    """
    with connect(Role.OWNER) as connection:
        connection.execute("select ops.ensure_partitions('device_telemetry', %s, %s)", (start.date(), end.date()))
        values = {"batch": batch, "from": start, "to": end, "every": every, "devices": devices}
        rows = ClientCursor(connection).execute(_READINGS, values).rowcount  # `timestamptz %s` wants a literal
        connection.execute(
            "insert into ops.stream_state (stream, last_batch_id) values ('device_telemetry', %s) on conflict (stream) do update set last_batch_id = %s",
            (batch, batch),
        )
    return rows


def fill(days: int, devices: int, every: timedelta) -> dict[str, Any]:
    """Stores history and builds all levels of it.

    Args:
        days: Days of history.
        devices: Devices that report.
        every: Time between two readings of a device; in the last hour it is that of the batches.

    Returns:
        Facts for the report.
    """
    recent = NOW - timedelta(hours=1)
    insert_readings(1, NOW - timedelta(days=days), recent, every, devices)
    stored = insert_readings(1, recent, NOW, STEP / READINGS_A_BATCH, devices)
    with connect(Role.OWNER) as connection:
        connection.execute(_REGISTRY, {"devices": devices})
        connection.execute("insert into ops.stream_state (stream, last_batch_id) values ('device_registry', 2)")
    with connect(Role.OWNER, autocommit=True) as connection:
        connection.execute("vacuum (analyze) raw.device_telemetry")
        connection.execute("vacuum (analyze) raw.device_registry")
    started = time.perf_counter()
    of = fix_horizon()
    for selector in SELECTORS:
        build(selector, of, run_tests=False)
    seconds = time.perf_counter() - started
    with connect(Role.OWNER, autocommit=True) as connection:
        connection.execute("vacuum (analyze)")
        rows = connection.execute("select (select count(*) from raw.device_telemetry), (select count(*) from maintenance.fct_device_window_1min)").fetchone()
        size = connection.execute("select sum(pg_total_relation_size(oid)) from pg_class where relnamespace = 'maintenance'::regnamespace").fetchone()
    assert rows is not None
    assert size is not None
    return {
        "days": days,
        "readings": rows[0],
        "in the last hour": stored,
        "rows of 1 minute": rows[1],
        "first build, s": round(seconds, 1),
        "marts, MB": int(size[0]) >> 20,
    }


def batch(number: int, devices: int) -> float:
    """Inserts a batch and brings every level up to it, with the data tests of what was touched.

    Returns:
        Seconds from the batch being there to all levels.
    """
    start = NOW + number * STEP
    expected = insert_readings(3 + number, start, start + STEP, STEP / READINGS_A_BATCH, devices)
    started = time.perf_counter()
    of = fix_horizon()
    for selector in SELECTORS:
        build(selector, of)
    seconds = time.perf_counter() - started
    with connect(Role.OWNER) as connection:
        row = connection.execute(
            "select sum(reading_count) from maintenance.fct_device_sliding_15min where metric_code = 'all_readings' and window_end_at = %s", (start + STEP,)
        ).fetchone()
    if row is None or row[0] is None or row[0] < expected:
        raise BenchmarkError(f"batch {number} did not reach the sliding windows: {row} of {expected} readings")
    return seconds


def seconds_by_node(since: float) -> dict[str, float]:
    """Seconds of each model and data test of the newest build, the slowest first.

    Args:
        since: Not used for times before it, seconds since 1970.
    """
    with connect(Role.OWNER) as connection:
        rows = connection.execute(
            "select split_part(unique_id, '.', 3), sum(execution_s)::float8 from ops.dbt_run_result "
            "where completed_at >= to_timestamp(%s) group by 1 order by 2 desc",
            (since,),
        ).fetchall()
    return {name: round(seconds, 2) for name, seconds in rows}


def plans(folder: Path) -> dict[str, Any]:
    """How PostgreSQL recomputes and removes what the newest batch touched, model by model, in a transaction that is taken back.

    Returns:
        By model: touched buckets, scans of the select and of the delete with their pages, and milliseconds of both.
    """
    with connect(Role.OWNER) as connection:
        row = connection.execute(
            "select build_id, horizon from ops.build where build_id in (select build_id from ops.bucket_change) order by created_at desc limit 1"
        ).fetchone()
    assert row is not None
    variables = {"build_id": row[0], "horizon": row[1]}
    result = run_dbt(["compile", "--select", "tag:windows", "--vars", json.dumps(variables)], folder, load_manifest())
    nodes = [item.node for item in result.results if item.node.resource_type.value == "model"]
    found = {}
    with connect(Role.TRANSFORMER) as connection:
        connection.execute("set work_mem = '32MB'")
        for node in nodes:
            relation, bucket = f"{node.schema}.{node.alias}", node.config.extra["bucket"]
            connection.execute(
                f"create temporary table touched__{node.alias} on commit drop as select distinct {', '.join(f'b.{column}' for column in bucket)} "  # type: ignore[arg-type]
                f"from ops.bucket_change as logged, lateral jsonb_populate_record(null::{relation}, logged.bucket) as b "
                f"where logged.relation = '{relation}' and logged.build_id = '{row[0]}' and logged.bucket is not null"
            )
            connection.execute(f"create index on touched__{node.alias} ({', '.join(bucket)})")  # type: ignore[arg-type]
            connection.execute(f"analyze touched__{node.alias}")  # type: ignore[arg-type]
            count = connection.execute(f"select count(*) from touched__{node.alias}").fetchone()  # type: ignore[arg-type]
            same = " and ".join(f"stored.{column} = touched.{column}" for column in bucket)
            select = _explained(connection, node.compiled_code)
            connection.execute("savepoint before_delete")
            delete = _explained(connection, f"delete from {relation} as stored using touched__{node.alias} as touched where {same}")
            connection.execute("rollback to savepoint before_delete")  # the next level reads these rows
            found[node.alias] = {
                "buckets": count[0] if count else 0,
                "rows": select["rows"],
                "pages": select["pages"] + delete["pages"],
                "select ms": select["ms"],
                "delete ms": delete["ms"],
                "select": select["scans"],
                "delete": delete["scans"],
            }
        connection.rollback()
    return found


def _explained(connection: Any, statement: str) -> dict[str, Any]:
    row = connection.execute("explain (analyze, buffers, format json) " + statement).fetchone()
    top = row[0][0]
    nodes = list(_nodes(top["Plan"]))
    scans = [
        f"{node['Node Type']} on {node.get('Relation Name') or node.get('Index Name')} ({round(node['Actual Rows'] * node['Actual Loops'])} rows)"
        for node in nodes
        if "Scan" in node["Node Type"]
        and (node.get("Relation Name") or node.get("Index Name"))
        and not str(node.get("Relation Name", "")).startswith("touched__")
    ]
    return {
        "rows": round((nodes[0] if nodes[0]["Node Type"] != "ModifyTable" else nodes[1])["Actual Rows"]),
        "pages": top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"],
        "ms": round(top["Planning Time"] + top["Execution Time"]),
        "scans": scans,
    }


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def main(
    devices: Annotated[int, typer.Option(min=25, help="Devices; each sends ten readings a batch.")] = 3000,
    hours_between: Annotated[
        int, typer.Option(min=1, help="Hours between two stored readings of a device, but for the last hour, which is as dense as a batch.")
    ] = 2,
    few: Annotated[int, typer.Option(min=1, help="Days stored in the small database.")] = 3,
    many: Annotated[int, typer.Option(min=1, help="Days stored in the large one.")] = 30,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds, each with a batch for both.")] = 5,
    work: Annotated[Path, typer.Option(help="Folder for the server's home and the JSON file.")] = REPOSITORY / "build" / "bench",
    output: Annotated[Path | None, typer.Option(help="The JSON file; <work>/windows.json when not given.")] = None,
) -> None:
    """Measures what a 5-minute batch costs all levels of device windows.

    Example: python -m tests.bench.windows --devices 300 --repeats 2
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the server goes too
    report = Report("windows", {"devices": devices, "hours_between": hours_between, "few": few, "many": many, "repeats": repeats})
    run, target = work / "run-windows", output or work / "windows.json"
    days = dict(zip(DATABASES, (few, many), strict=True))
    seconds: dict[str, list[float]] = {name: [] for name in DATABASES}
    with scratch_folder(run), bench_server(run / "home") as server:
        report.facts["server"] = server.facts()
        for name, database in DATABASES.items():
            server.fresh(database)
            use(server, database)
            deploy()
            report.facts[f"stored, {name}"] = fill(days[name], devices, timedelta(hours=hours_between))
            batch(0, devices)  # the first batch finds nothing in memory and tables without free space
        report.show_facts()
        for number, name in interleaved(list(DATABASES), repeats):
            use(server, DATABASES[name])
            server.settle()
            started = time.time()
            seconds[name].append(batch(number + 1, devices))
            report.facts.setdefault("seconds by node", {})[name] = seconds_by_node(started)
        report.facts["plans"] = {}
        for name, database in DATABASES.items():
            use(server, database)
            report.facts["plans"][name] = plans(run / "plans")
    events = devices * READINGS_A_BATCH
    for name in DATABASES:
        report.figures.append(
            Figure(name, f"a batch of {events:,} readings to all levels, sessions and roll-ups", events, tuple(seconds[name]), f"{days[name]} days stored")
        )
    pairs = tuple(large / small for small, large in zip(seconds["3 days"], seconds["30 days"], strict=True))
    small, large = report.figures
    report.targets = [
        Target("growth", f"seconds with {many} days stored ÷ seconds with {few}", large.median_s / small.median_s, at_most=RATIO, by_round=pairs),
        Target("seconds", "seconds from the batch to all levels, data tests included", large.median_s, at_most=SECONDS, by_round=large.seconds),
    ]
    report.finish(target)


if __name__ == "__main__":
    typer.run(main)
