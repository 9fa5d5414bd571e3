"""A month leaves the raw table: only once the lake was read and holds exactly its rows, and every model that reads the stream has read them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime

import psycopg

from include.lake import files
from include.lake.digest import Digest, of_raw
from include.lake.errors import LakeBusy, LakeError
from include.lake.export import export_days, export_stream
from include.lake.months import last_day, month_of, months, next_month, partition_of, set_expired, start_of
from include.lake.steps import LakeStep
from include.lake.verify import verify
from include.landing import ledger
from include.landing.crash import crash_point
from include.landing.movements import Movement, Movements, Reason, write_movements

ATTEMPTS = 3


class MonthHeldBack(LakeError):
    """A month cannot leave raw yet; nothing was changed. The message says what it waits for."""


@dataclass(frozen=True)
class Expired:
    """A month that left raw.

    Attributes:
        stream: The stream.
        month: Its first day.
        batch_id: Batch of kind `expiry`.
        rows: Rows that left.
    """

    stream: str
    month: date
    batch_id: int
    rows: int


def unread(connection: psycopg.Connection, stream: str, month: date, models: Collection[str]) -> list[str]:
    """What models have still to do with a month before its rows may go, a line each; none if they have read all of it.

    Args:
        connection: Of the loader.
        stream: The stream.
        month: First day of the month.
        models: The models that read the stream, as `schema.name`.
    """
    rows = connection.execute(
        """
        with moved as (
            select coalesce(max(batch_id), 0) as batch_id from ops.movement
            where stream = %(stream)s and partition = %(partition)s and reason not in ('expiry', 'restore')
        ),
        asked as (select coalesce(max(request_id), 0) as request_id from ops.touch_request where event_from < %(before)s and event_to > %(start)s)
        select m.model, moved.batch_id, s.position, asked.request_id, t.position
        from unnest(%(models)s::text[]) as m (model) cross join moved cross join asked
        left join ops.model_state as s on s.model = m.model and s.input = 'stg_' || %(stream)s
        left join ops.model_state as t on t.model = m.model and t.input = 'touch'
        order by m.model
        """,
        {
            "stream": stream,
            "partition": partition_of(stream, month),
            "models": list(models),
            "start": start_of(month),
            "before": start_of(next_month(month)),
        },
    )
    found = []
    for model, batch_id, position, request_id, touched in rows:
        if position is None:
            found.append(f"{model} was never built")
        elif position < batch_id:
            found.append(f"{model} has read up to batch {position} of {batch_id}")
        elif request_id > (touched or 0):
            found.append(f"{model} has still to recompute the span of touch request {request_id}")
    return found


def expire_month(connection: psycopg.Connection, stream: str, month: date, models: Collection[str], at: datetime | None = None) -> Expired:
    """Drops the partition of a month once the lake holds exactly its rows.

    Every live file of the month is read: bytes, number of rows and digest of each day must be those of raw. A day that differs is exported anew first, for a
    repeated event may have given a row the envelope of another copy. Under the locks of the stream raw is compared once more; then partition, state, batch
    and movements change in one transaction.

    Args:
        connection: As the loader, in autocommit.
        stream: The stream.
        month: Any day of the month.
        models: Models that must have read it, as `schema.name`.
        at: The time that counts as now for a restored month, which may have been asked for again since it was found to be due; None: it goes in any case.

    Raises:
        MonthHeldBack: If a model has not read all of it, it is to stay, or it changes all the time.
        LakeDamaged: If a file of the lake is not what was entered. The month stays in raw.
        LakeBusy: If the lake is being written, or a lock was not free within 30 seconds. Run it again.
        LakeError: If a day cannot be exported, or raw does not hold as many rows as its movements say.
    """
    month = month_of(month)
    export_stream(stream)
    for _ in range(ATTEMPTS):
        with files.holding_lake(connection, stream):
            known = months(connection, stream).get(month)
            if at is not None and known is not None and known.keep_until is not None and known.keep_until > at:
                raise MonthHeldBack(f"{month:%Y-%m} of {stream} was restored and stays in raw until {known.keep_until:%Y-%m-%d %H:%M} UTC")
            in_lake = verify(connection, stream, month, last_day(month))
            in_raw, booked = _in_raw(connection, stream, month)
            there = sum(day.rows for day in in_raw.values())
            if there != booked:  # the lake may be all that is left of what is missing: it must not follow
                raise LakeError(
                    f"raw.{partition_of(stream, month)} holds {there:,} rows, its movements say {booked:,}: the lake is not written anew from it, and the "
                    "month stays; docs/runbooks/reconciliation.md says how to find what is missing"
                )
            if in_lake == in_raw:
                crash_point(LakeStep.EXPIRE_AFTER_VERIFY)
                expired = _drop(connection, stream, month, models, in_lake)
                if expired is not None:
                    crash_point(LakeStep.EXPIRE_AFTER_COMMIT)
                    return expired
        export_days(stream, sorted(day for day in in_lake.keys() | in_raw.keys() if in_lake.get(day) != in_raw.get(day)))
    raise MonthHeldBack(f"{month:%Y-%m} of {stream} changed while it was compared with the lake, {ATTEMPTS} times; the next run tries again")


def _in_raw(connection: psycopg.Connection, stream: str, month: date) -> tuple[dict[date, Digest], int]:
    """Digests of the days of a month in raw, and how many rows its movements say it has at the same moment."""
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        days = of_raw(connection, stream, month, last_day(month))
        row = connection.execute(
            "select coalesce(sum(row_count), 0)::bigint from ops.movement where stream = %s and partition = %s", (stream, partition_of(stream, month))
        ).fetchone()
    return days, int(row[0]) if row else 0


def _drop(connection: psycopg.Connection, stream: str, month: date, models: Collection[str], in_lake: dict[date, Digest]) -> Expired | None:
    """Drops the partition in one transaction; None where raw does not hold what was compared any more."""
    partition = partition_of(stream, month)
    try:
        with connection.transaction():
            connection.execute("select ops.lock_stream(%s)", (stream,))
            connection.execute("select ops.lock_raw_changes()")
            if of_raw(connection, stream, month, last_day(month)) != in_lake or _is_to_be_exported(connection, stream, partition):
                return None
            waiting = unread(connection, stream, month, models)
            if waiting:
                raise MonthHeldBack(f"{month:%Y-%m} of {stream} stays in raw: {'; '.join(waiting)}")
            batch_id, started_at = _next_batch(connection)
            movements: Movements = Movements()
            rows = 0
            for origin, count in connection.execute("select batch_id, row_count from ops.partition_rows(%s, %s, true)", (stream, partition)):
                movements[Movement(partition, origin, Reason.EXPIRY)] = -count
                rows += count
            write_movements(connection, stream, batch_id, movements)
            ledger.write_move(connection, stream, batch_id, started_at, "expiry", -rows)
            set_expired(connection, stream, month, in_lake, batch_id)
            connection.execute("select ops.drop_expired_partition(%s, %s)", (stream, month))
            crash_point(LakeStep.EXPIRE_BEFORE_COMMIT)
    except psycopg.errors.LockNotAvailable as error:
        raise LakeBusy(f"{month:%Y-%m} of {stream} stays in raw: a load, a build or a reader held it for longer than 30 s; run it again") from error
    return Expired(stream, month, batch_id, rows)


def _is_to_be_exported(connection: psycopg.Connection, stream: str, partition: str) -> bool:
    """Whether an export would still look at the month: it must not find it gone."""
    row = connection.execute(
        "select coalesce(max(batch_id), 0) from ops.movement where stream = %s and partition = %s and reason not in ('expiry', 'restore')", (stream, partition)
    ).fetchone()
    return row is not None and row[0] > (files.exported_batch(connection, stream) or 0)


def _next_batch(connection: psycopg.Connection) -> tuple[int, datetime]:
    row = connection.execute("select nextval('ops.batch_id_seq'), clock_timestamp()").fetchone()
    if row is None:
        raise LakeError("the warehouse gave no batch id")
    return int(row[0]), row[1]
