"""What tests of the lake compare: its rows, the rows of raw, and the bytes that lie there."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from psycopg import sql
from psycopg.rows import dict_row

from include.contracts import load_contract
from include.lake import digest, live_files, verify
from include.lake.export import export_stream
from include.lake.parquet import frame_of
from include.lake.store import open_lake
from include.landing.store import raw_columns
from include.warehouse import Role, connect

Rows = list[dict[str, Any]]


def stored_rows(stream: str) -> Rows:
    """Whole rows of a raw table, envelope included, by event."""
    columns = sql.SQL(", ").join(
        sql.SQL("{}::text").format(sql.Identifier(name)) if name == "_extra" else sql.Identifier(name) for name in raw_columns(load_contract(stream))
    )
    with connect(Role.LOADER) as connection, connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(sql.SQL("select {} from {}").format(columns, sql.Identifier("raw", stream))).fetchall()
    return sorted(rows, key=lambda row: row["event_id"])


def lake_rows(stream: str) -> Rows:
    """The same of the live files of the lake; a column that came after a file has no values in it."""
    lake, names = open_lake(), raw_columns(load_contract(stream))
    with connect(Role.ANALYST) as connection:
        files = live_files(connection, stream)
    rows: Rows = []
    for file in files:
        with lake.open(file.address) as stored:
            rows += [dict.fromkeys(names) | row for row in pq.read_table(stored).to_pylist()]
    return sorted(rows, key=lambda row: row["event_id"])


def assert_lake_is_raw(stream: str) -> None:
    """Asserts that live files hold exactly the rows of raw, bit for bit, that bytes and digests are those entered, and that days have the digests of raw."""
    assert lake_rows(stream) == stored_rows(stream)
    with connect(Role.LOADER) as connection:
        assert verify(connection, stream) == digest.of_raw(connection, stream, date(2000, 1, 1), date(2100, 1, 1))


def bytes_of(stream: str) -> dict[str, int]:
    """Size by address of everything that lies in the lake of a stream."""
    lake = open_lake()
    return {lake.relative(path): int(info["size"]) for path, info in lake.files_below("", stream).items()}


def age_files(stream: str, hours: float) -> None:
    """Makes files of a lake in a folder look as if they were written so many hours ago."""
    lake = open_lake()
    for path in lake.files_below("", stream):
        moment = Path(path).stat().st_mtime - hours * 3600
        os.utime(path, (moment, moment))


def keys_of(rows: Rows) -> pl.DataFrame:
    """Rows as `digest.of_rows` takes them."""
    import pyarrow as pa

    return frame_of(pa.Table.from_pylist([{name: row[name] for name in digest.COLUMNS} for row in rows]))


def drop_month(stream: str, month: date) -> None:
    """What an expiry does to raw: the partition goes, and a batch enters that its rows left."""
    export_stream(stream)
    with connect(Role.OWNER) as connection:
        partition = f"{stream}_y{month:%Y}m{month:%m}"
        connection.execute(sql.SQL("alter table {} detach partition {}").format(sql.Identifier("raw", stream), sql.Identifier("raw", partition)))
        connection.execute("select ops.lock_stream(%s)", (stream,))
        gone = connection.execute(sql.SQL("select _batch_id, count(*) from {} group by 1").format(sql.Identifier("raw", partition))).fetchall()
        connection.execute(sql.SQL("drop table {}").format(sql.Identifier("raw", partition)))
        rows = sum(count for _, count in gone)
        row = connection.execute(
            "insert into ops.batch (batch_id, stream, started_at, kind, files, landed, accepted, quarantined, duplicate, corrected) "
            "values (nextval('ops.batch_id_seq'), %s, clock_timestamp(), 'expiry', 0, %s, %s, 0, 0, 0) returning batch_id",
            (stream, -rows, -rows),
        ).fetchone()
        assert row is not None
        connection.execute("update ops.stream_state set last_batch_id = %s where stream = %s", (row[0], stream))
        for batch, count in gone:
            connection.execute(
                "insert into ops.movement (stream, partition, batch_id, rows_of_batch, reason, row_count) values (%s, %s, %s, %s, 'expiry', %s)",
                (stream, partition, row[0], batch, -count),
            )
