"""A raw table that holds tens of millions of rows, as if they had been landed: real identities, real values, and a ledger that adds up."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg import sql

from include.contracts import load_contract
from include.landing.store import raw_columns
from include.warehouse import Role, connect, server
from tests.bench.report import console
from tests.bench.server import BenchmarkError
from tests.bench.telemetry import FIRST_DAY, STREAM

FILE_ROWS = 1_000_000
STORED_DAYS = 56
LATE_FIRST_DAY = FIRST_DAY - timedelta(days=28)
"""First day of late data: in the midst of what is stored."""
BYTES_PER_ROW = 700
"""Disk that a row needs with its indexes, and what WAL and the sorting of an index need meanwhile."""
_TABLE = sql.Identifier("raw", STREAM)
# What every row has of its own; the other columns are those of a sample row.
_OWN = {
    "event_id": "substr(sha256(convert_to('7:default,16:device_telemetry,' || octet_length(device) || ':' || device || ',' "
    "|| length(us) || ':' || us || ',', 'UTF8')), 1, 16)",
    "event_at": "at",
    "_arrived_at": "%(until)s",
    "_known_at": "%(until)s",
    "_landed_at": "clock_timestamp()",
    "_batch_id": "%(batch)s",
    "_file_id": "%(file)s",
    "_row_number": "(n - %(first)s + 1)::integer",
    "_content_hash": "substr(sha256(convert_to(device || us, 'UTF8')), 1, 16)",
    "_extra": "null::jsonb",
    "device_id": "device",
}


def span() -> tuple[datetime, datetime]:
    """The days that the stored rows are spread over: those before the data of the benchmark, which is then on time."""
    return FIRST_DAY - timedelta(days=STORED_DAYS), FIRST_DAY


def fill(database: str, rows: int, devices: Sequence[str]) -> dict[str, object]:
    """Fills the raw table of a warehouse that holds at least a few landed rows, whose values are used again.

    Readings of all devices are spread over the days before the benchmark's data, half a millisecond beside any that the simulator makes, so that no event of
    late data is among them. Indexes are made afterwards, as a restore does.

    Args:
        database: The warehouse.
        rows: How many rows to add.
        devices: Their devices.

    Returns:
        Facts for the report.

    Raises:
        BenchmarkError: If the disk is too small.
    """
    free, needed = shutil.disk_usage(server.data_directory()).free, rows * BYTES_PER_ROW
    if free < needed:
        raise BenchmarkError(f"{rows:,} rows need about {needed / 2**30:.0f} GiB and {free / 2**30:.0f} GiB are free: free some, or take fewer with --stored")
    since, until = span()
    with connect(Role.OWNER, database=database, autocommit=True) as connection:
        connection.execute("select ops.ensure_partitions(%s, %s, %s)", (STREAM, since, until - timedelta(seconds=1)))
        definitions = _drop_indexes(connection)
        _prepare(connection, devices)
        # Each device reports once a slot; the slots divide the days.
        slot_us = int((until - since) / timedelta(microseconds=1)) // (-(-rows // len(devices)))
        for first in range(0, rows, FILE_ROWS):
            count = min(FILE_ROWS, rows - first)
            _land_file(connection, first, count, {"since": since, "until": until, "slot_us": slot_us, "devices": len(devices)})
            console.print(f"  [dim]stored rows: {first + count:,} of {rows:,}[/dim]")
        for definition in definitions:
            connection.execute("set maintenance_work_mem = '1GB'")
            connection.execute(definition.replace(" ON ONLY ", " ON ").encode())
            console.print(f"  [dim]{definition.split(' ON ')[0].lower()}[/dim]")
        connection.execute(sql.SQL("vacuum (analyze) {}").format(_TABLE))
        return _facts(connection, len(devices))


def _drop_indexes(connection: psycopg.Connection) -> list[str]:
    found = connection.execute(
        "select indexdef, indexname from pg_indexes where schemaname = 'raw' and tablename = %s order by indexname", (STREAM,)
    ).fetchall()
    for _, name in found:
        connection.execute(sql.SQL("drop index {}").format(sql.Identifier("raw", name)))
    return [definition for definition, _ in found]


def _prepare(connection: psycopg.Connection, devices: Sequence[str]) -> None:
    """Devices and sample rows by number."""
    connection.execute(sql.SQL("create temporary table sample as select row_number() over (order by event_id) - 1 as position, * from {}").format(_TABLE))
    connection.execute(
        "create temporary table device as select name, n - 1 as position from unnest(%s::text[]) with ordinality as d (name, n)", (list(devices),)
    )
    for name in ("sample", "device"):
        connection.execute(sql.SQL("create unique index on {} (position)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("analyze {}").format(sql.Identifier(name)))


def _land_file(connection: psycopg.Connection, first: int, count: int, spread: dict[str, object]) -> None:
    """One file and its batch, with the ledger, in one transaction."""
    columns = raw_columns(load_contract(STREAM))
    values = sql.SQL(", ").join(sql.SQL(_OWN[name]) if name in _OWN else sql.Identifier("sample", name) for name in columns)
    statement = sql.SQL(
        "insert into {table} ({columns}) select {values} from ("
        "select n, n %% (select count(*) from sample) as sample_position, device.name as device, at, (extract(epoch from at) * 1000000)::bigint::text as us "
        "from generate_series(%(first)s::bigint, %(last)s::bigint) as n "
        "join device on device.position = n %% %(devices)s cross join lateral (select date_trunc('milliseconds', %(since)s::timestamptz "
        "+ (n / %(devices)s * %(slot_us)s + hashint8(device.position)::bigint %% (%(slot_us)s / 4) + %(slot_us)s / 2) * interval '1 microsecond') "
        "+ interval '500 microseconds' as at) as moment) as reading join sample on sample.position = reading.sample_position"
    ).format(table=_TABLE, columns=sql.SQL(", ").join(map(sql.Identifier, columns)), values=values)
    with connection.transaction():
        batch = _one(connection, "select nextval('ops.batch_id_seq')")
        connection.execute(
            "insert into ops.batch (batch_id, stream, started_at, files, landed, accepted, quarantined, duplicate, corrected) "
            "values (%s, %s, clock_timestamp(), 1, %s, %s, 0, 0, 0)",
            (batch, STREAM, count, count),
        )
        file = _one(
            connection,
            "insert into ops.file (stream, tenant_id, address, content_hash, version_tag, size_bytes, file_format, contract_version, arrived_at, state, "
            "batch_id, landed, accepted, landed_at) values (%s, 'default', %s, sha256(%s), 'made by the benchmark', 0, 'parquet', %s, %s, 'landed', "
            "%s, %s, %s, clock_timestamp()) returning file_id",
            (STREAM, f"{STREAM}/made/{first}", str(first).encode(), load_contract(STREAM).version, spread["until"], batch, count, count),
        )
        moved = sql.SQL(
            "insert into ops.movement (stream, partition, batch_id, rows_of_batch, reason, row_count) "
            "select %s, p.relname, r._batch_id, r._batch_id, 'load', count(*) from {} as r join pg_class as p on p.oid = r.tableoid "
            "where r._batch_id = %s group by 2, 3"
        ).format(_TABLE)
        connection.execute(statement, spread | {"batch": batch, "file": file, "first": first, "last": first + count - 1})
        connection.execute(moved, (STREAM, batch))
        connection.execute("update ops.stream_state set last_batch_id = %s, last_landed_at = clock_timestamp() where stream = %s", (batch, STREAM))


def _facts(connection: psycopg.Connection, devices: int) -> dict[str, object]:
    stored = _one(connection, sql.SQL("select count(*) from {}").format(_TABLE))
    booked = _one(connection, "select sum(accepted)::bigint from ops.file where stream = %s", (STREAM,))
    if stored != booked:
        raise BenchmarkError(f"the table holds {stored} rows and the ledger {booked}")
    size = "select sum({}(inhrelid))::bigint from pg_inherits where inhparent = %s::regclass"
    heap, indexes = (_one(connection, sql.SQL(size).format(sql.SQL(name)), (f"raw.{STREAM}",)) for name in ("pg_table_size", "pg_indexes_size"))
    since, until = span()
    days = f"{since:%Y-%m-%d} to {until.astimezone(UTC):%Y-%m-%d}"
    return {"rows": stored, "devices": devices, "event_time": days, "table_bytes": heap, "index_bytes": indexes}


def _one(connection: psycopg.Connection, query: str | sql.Composed, parameters: Sequence[object] = ()) -> int:
    row = connection.execute(query if isinstance(query, sql.Composed) else query.encode(), parameters).fetchone()
    if row is None:
        raise BenchmarkError("the server gave no row")
    return int(row[0])
