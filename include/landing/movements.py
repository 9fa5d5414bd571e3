"""The book of row movements: what came into each raw partition and what left it, and whether the partition holds what the book says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import polars as pl
import psycopg
from psycopg import sql

from include.contracts import streams
from include.contracts.ddl import HASH_PARTITIONS
from include.contracts.model import EVENT_AT, Contract
from include.landing import binary
from include.landing.errors import RowsUnaccounted
from include.landing.identity import EVENT_ID
from include.warehouse import Role, connect


class Reason(StrEnum):
    """Why rows moved."""

    LOAD = "load"
    REPLAY = "replay"
    CORRECTION = "correction"
    EXPIRY = "expiry"
    ERASURE = "erasure"
    RESTORE = "restore"


@dataclass(frozen=True)
class Movement:
    """Where rows moved.

    Attributes:
        partition: Name of the partition in schema `raw`.
        rows_of_batch: Batch that wrote them.
        reason: Why they moved.
    """

    partition: str
    rows_of_batch: int
    reason: Reason


Movements = Counter[Movement]


@dataclass(frozen=True)
class Difference:
    """A partition that does not hold what its movements say.

    Attributes:
        stream: The stream.
        partition: The partition.
        row_count: Rows that are there.
        expected_row_count: Sum of the movements.
        batches: Rows there and rows expected, by the batch that wrote them, where the two differ.
    """

    stream: str
    partition: str
    row_count: int
    expected_row_count: int
    batches: dict[int, tuple[int, int]]

    def __str__(self) -> str:
        named = ", ".join(f"batch {batch}: {there:,} rows instead of {expected:,}" for batch, (there, expected) in sorted(self.batches.items())[:5])
        more = f" and {len(self.batches) - 5:,} more batches" if len(self.batches) > 5 else ""
        return f"{self.stream}: raw.{self.partition} holds {self.row_count:,} rows, its movements say {self.expected_row_count:,} ({named}{more})"


def rows_by_partition(connection: psycopg.Connection, contract: Contract, frame: pl.DataFrame) -> dict[str, int]:
    """How many rows of a frame belong to each partition, told from the rows and not from what is stored."""
    if not frame.height:
        return {}
    if contract.partition == "month":
        months = frame.group_by(pl.col(EVENT_AT).dt.truncate("1mo").alias("month")).len()
        return {f"{contract.stream}_{month:y%Ym%m}": count for month, count in months.iter_rows()}
    query = sql.SQL(
        "select r.remainder, count(*) from unnest(%s) as k (event_id) cross join generate_series(0, {last}) as r (remainder) "
        "where satisfies_hash_partition({table}::regclass, {modulus}, r.remainder, k.event_id) group by r.remainder"
    ).format(last=sql.Literal(HASH_PARTITIONS - 1), modulus=sql.Literal(HASH_PARTITIONS), table=sql.Literal(f"raw.{contract.stream}"))
    rows = connection.execute(query, [binary.bytea_array(frame[EVENT_ID])], prepare=False)
    return {f"{contract.stream}_h{remainder}": count for remainder, count in rows}


def identities(events: Mapping[bytes, datetime]) -> pl.DataFrame:
    """A frame of events, given with the event times they are stored under: what `rows_by_partition` looks at."""
    moments = [moment.replace(tzinfo=None) for moment in events.values()]
    return pl.DataFrame({EVENT_ID: list(events), EVENT_AT: moments}, schema={EVENT_ID: pl.Binary, EVENT_AT: pl.Datetime("us")})


def write_movements(connection: psycopg.Connection, stream: str, batch_id: int, movements: Movements) -> None:
    """Enters the movements of a batch."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into ops.movement (stream, partition, batch_id, rows_of_batch, reason, row_count) values (%s, %s, %s, %s, %s, %s)",
            [(stream, movement.partition, batch_id, movement.rows_of_batch, movement.reason, count) for movement, count in movements.items() if count],
        )


def check_partitions(stream: str | None = None, *, everything: bool = False) -> int:
    """Counts the rows of partitions and compares them with their movements.

    Args:
        stream: Only this stream; every one if not given.
        everything: All partitions; otherwise those that moved since they were compared last.

    Returns:
        Number of partitions compared.

    Raises:
        RowsUnaccounted: If any differs. The message names stream, partition and batches. Partitions that differ stay due.
    """
    differences: list[Difference] = []
    compared = 0
    with connect(Role.LOADER, autocommit=True) as connection:
        for name in [stream] if stream else streams():
            for partition in _due(connection, name, everything=everything):
                difference = _compare(connection, name, partition)
                compared += 1
                if difference:
                    differences.append(difference)
    if differences:
        raise RowsUnaccounted("; ".join(map(str, differences)))
    return compared


def _due(connection: psycopg.Connection, stream: str, *, everything: bool) -> Iterator[str]:
    """Partitions to compare. With `everything` also those that hold rows nobody ever entered."""
    if everything:
        query = (
            "select c.relname from pg_inherits as i join pg_class as c on c.oid = i.inhrelid "
            "where i.inhparent = to_regclass('raw.' || quote_ident(%(stream)s)) "
            "union select partition from ops.movement where stream = %(stream)s order by 1"
        )
    else:
        query = (  # one probe of the index a partition, however long the book is
            "select p.partition from (select c.relname as partition from pg_inherits as i join pg_class as c on c.oid = i.inhrelid "
            "where i.inhparent = to_regclass('raw.' || quote_ident(%(stream)s)) "
            "union select partition from ops.partition_check where stream = %(stream)s) as p "
            "left join ops.partition_check as k on k.stream = %(stream)s and k.partition = p.partition "
            "where exists (select from ops.movement as m where m.stream = %(stream)s and m.partition = p.partition "
            "and m.movement_id > coalesce(k.checked_movement_id, 0)) order by 1"
        )
    for (partition,) in connection.execute(query, {"stream": stream}).fetchall():
        yield partition


def _compare(connection: psycopg.Connection, stream: str, partition: str) -> Difference | None:
    keys = {"stream": stream, "partition": partition}
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read")  # rows and book of one moment
        row = connection.execute(
            "select coalesce((select row_count from ops.partition_rows(%(stream)s, %(partition)s, false)), 0), coalesce(max(movement_id), 0), "
            "coalesce(sum(row_count), 0)::bigint from ops.movement where stream = %(stream)s and partition = %(partition)s",
            keys,
        ).fetchone()
        there, last, expected = row if row else (0, 0, 0)
        if there != expected:
            batches = connection.execute(
                "select batch_id, coalesce(s.row_count, 0), coalesce(m.row_count, 0) from ops.partition_rows(%(stream)s, %(partition)s, true) as s full join "
                "(select rows_of_batch as batch_id, sum(row_count)::bigint as row_count from ops.movement "
                "where stream = %(stream)s and partition = %(partition)s group by 1) as m using (batch_id) "
                "where coalesce(s.row_count, 0) <> coalesce(m.row_count, 0)",
                keys,
            ).fetchall()
            return Difference(stream, partition, there, expected, {batch: (found, wanted) for batch, found, wanted in batches})
    # Outside of that transaction: another check of the partition, by night or after a load, may write the same line meanwhile.
    connection.execute(
        "insert into ops.partition_check as c (stream, partition, checked_movement_id, row_count) values (%s, %s, %s, %s) "
        "on conflict (stream, partition) do update set checked_movement_id = excluded.checked_movement_id, row_count = excluded.row_count, "
        "checked_at = clock_timestamp() where c.checked_movement_id <= excluded.checked_movement_id",
        (stream, partition, last, there),
    )
    return None
