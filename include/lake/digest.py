"""Digests by which two places can be compared that are to hold exactly the same rows: a day of a raw table, and files of the lake.

The digest of rows is SHA-256 over their UTC hours in order: start of the hour, number of rows, and SHA-256 over the rows of that hour in order of `event_id`,
each as `event_id ‖ _content_hash ‖ _known_at ‖ _batch_id ‖ _file_id ‖ _row_number`. Numbers are big-endian, times microseconds since 2000 as PostgreSQL sends
them. By hours, because a value of PostgreSQL may not be larger than a gigabyte.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from include.landing.binary import MICROSECONDS_1970_TO_2000

COLUMNS = ("event_id", "event_at", "_content_hash", "_known_at", "_batch_id", "_file_id", "_row_number")
"""What `of_rows` looks at."""
_HOUR_US = 3_600_000_000
_OF_RAW = """
select day, sum(rows)::bigint, sha256(string_agg(timestamptz_send(hour) || int8send(rows) || digest, ''::bytea order by hour))
from (
    select (date_trunc('day', event_at, 'UTC') at time zone 'UTC')::date as day, date_trunc('hour', event_at, 'UTC') as hour, count(*) as rows,
        sha256(string_agg(
            event_id || _content_hash || timestamptz_send(_known_at) || int8send(_batch_id) || int8send(_file_id) || int4send(_row_number), ''::bytea
            order by event_id
        )) as digest
    from {} where event_at >= {}::date::timestamp at time zone 'UTC' and event_at < ({}::date + 1)::timestamp at time zone 'UTC'
    group by 1, 2
) as hours
group by day
"""


@dataclass(frozen=True)
class Digest:
    """How many rows, and which.

    Attributes:
        rows: Number of rows.
        digest: SHA-256, 32 bytes.
    """

    rows: int
    digest: bytes


def of_raw(connection: psycopg.Connection, stream: str, first: date, last: date) -> dict[date, Digest]:
    """Digests of a raw table by UTC day of event time, from the first to the last day, both inclusive. Days without rows are left out."""
    return of_table(connection, sql.Identifier("raw", stream), first, last)


def of_table(connection: psycopg.Connection, table: sql.Identifier, first: date, last: date) -> dict[date, Digest]:
    """The same of any table with the columns of a raw one."""
    # Literal days, so that the planner leaves out partitions.
    rows = connection.execute(sql.SQL(_OF_RAW).format(table, sql.Literal(first.isoformat()), sql.Literal(last.isoformat())), prepare=False)
    return {day: Digest(count, bytes(digest)) for day, count, digest in rows}


def of_rows(rows: pl.DataFrame) -> Digest:
    """Digest of rows with `COLUMNS`, in any order; times are UTC microseconds."""
    hours = (pl.col("event_at").to_physical() // _HOUR_US).alias("hour")
    ordered = rows.select(*COLUMNS, hours).sort("hour", "event_id")
    encoded = np.concatenate(
        [
            *(_bytes(ordered[name]) for name in ("event_id", "_content_hash")),
            _big_endian(ordered["_known_at"].to_physical().to_numpy() - MICROSECONDS_1970_TO_2000, ">i8"),
            *(_big_endian(ordered[name].to_numpy(), ">i8") for name in ("_batch_id", "_file_id")),
            _big_endian(ordered["_row_number"].to_numpy(), ">i4"),
        ],
        axis=1,
    )
    whole = hashlib.sha256()
    starts = ordered["hour"].to_numpy()
    begins = np.flatnonzero(np.diff(starts, prepend=starts[:1] - 1)).tolist()
    for begin, end in zip(begins, [*begins[1:], len(starts)], strict=False):
        head = _big_endian(np.array([starts[begin] * _HOUR_US - MICROSECONDS_1970_TO_2000, end - begin]), ">i8")
        whole.update(head.tobytes() + hashlib.sha256(encoded[begin:end].reshape(-1).data).digest())
    return Digest(ordered.height, whole.digest())


def _bytes(values: pl.Series) -> NDArray[np.uint8]:
    """Values of one length as rows of bytes."""
    width = len(values[0]) if len(values) else 0
    return np.frombuffer(b"".join(values.to_list()), dtype=np.uint8).reshape(len(values), width)


def _big_endian(values: NDArray[np.int64], form: str) -> NDArray[np.uint8]:
    numbers = values.astype(form)
    return numbers.view(np.uint8).reshape(len(numbers), numbers.dtype.itemsize)
