"""Months of event time: which of a stream have left the raw table, and which partitions it has. All SQL on `ops.partition_state` but landing's is here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

import psycopg

from include.lake.digest import Digest


class MonthState(StrEnum):
    """What became of a month that left raw."""

    EXPIRED = "expired"
    RESTORED = "restored"
    DELETED = "deleted"


@dataclass(frozen=True)
class Month:
    """A month that has left the raw table at least once.

    Attributes:
        stream: The stream.
        month: Its first day.
        state: Where it is now.
        row_count: Its rows when it left last.
        content_digest: Digest of its days then, see `digest_of_days`; empty where this warehouse took over the month with a lake.
        keep_until: Until when a restored month stays.
    """

    stream: str
    month: date
    state: MonthState
    row_count: int
    content_digest: bytes
    keep_until: datetime | None


def month_of(day: date) -> date:
    """First day of the month of a day."""
    return date(day.year, day.month, 1)


def last_day(month: date) -> date:
    """Last day of a month."""
    return start_of(next_month(month)).date() - timedelta(days=1)


def next_month(month: date) -> date:
    """First day of the month after a month."""
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def start_of(month: date) -> datetime:
    """First instant of a month, UTC."""
    return datetime(month.year, month.month, month.day, tzinfo=UTC)


def partition_of(stream: str, month: date) -> str:
    """Name of the partition in schema `raw` that holds a month."""
    return f"{stream}_y{month:%Y}m{month:%m}"


def digest_of_days(days: Mapping[date, Digest]) -> bytes:
    """SHA-256 over day, number of rows and digest of each day, in order."""
    digest = hashlib.sha256()
    for day, of_day in sorted(days.items()):
        digest.update(f"{day.isoformat()} {of_day.rows} ".encode() + of_day.digest)
    return digest.digest()


def partitions(connection: psycopg.Connection, stream: str) -> list[date]:
    """Months that the raw table has a partition of, in order."""
    rows = connection.execute(
        "select c.relname from pg_inherits as i join pg_class as c on c.oid = i.inhrelid "
        "where i.inhparent = to_regclass('raw.' || quote_ident(%s)) and c.relname ~ '_y[0-9]{4}m[0-9]{2}$' order by 1",
        (stream,),
    )
    return [date(int(name[-7:-3]), int(name[-2:]), 1) for (name,) in rows]


def months(connection: psycopg.Connection, stream: str) -> dict[date, Month]:
    """Months of a stream that ever left raw, in order."""
    rows = connection.execute("select month, state, row_count, content_digest, keep_until from ops.partition_state where stream = %s order by month", (stream,))
    return {month: Month(stream, month, MonthState(state), count, bytes(digest), keep_until) for month, state, count, digest, keep_until in rows}


def set_expired(connection: psycopg.Connection, stream: str, month: date, days: Mapping[date, Digest], batch_id: int) -> None:
    """Enters that a month has left raw, with what it held."""
    connection.execute(
        "insert into ops.partition_state (stream, month, state, row_count, content_digest, batch_id) values (%s, %s, 'expired', %s, %s, %s) "
        "on conflict (stream, month) do update set state = excluded.state, row_count = excluded.row_count, content_digest = excluded.content_digest, "
        "batch_id = excluded.batch_id, keep_until = null, changed_at = clock_timestamp()",
        (stream, month, sum(day.rows for day in days.values()), digest_of_days(days), batch_id),
    )


def set_adopted(connection: psycopg.Connection, stream: str, wanted: Sequence[date]) -> None:
    """Enters months of a lake that this warehouse took over as expired, with the rows that its lines say and no digest; leaves alone what is known of them."""
    for month in wanted:
        connection.execute(
            "insert into ops.partition_state (stream, month, state, row_count, content_digest) select %(stream)s, %(month)s, 'expired', sum(row_count), '' "
            "from ops.file where kind = 'lake' and state = 'live' and stream = %(stream)s and event_date between %(month)s and %(last)s "
            "on conflict (stream, month) do nothing",
            {"stream": stream, "month": month, "last": last_day(month)},
        )


def set_restored(connection: psycopg.Connection, stream: str, month: date, keep_until: datetime) -> None:
    """Enters that an expired month is in raw again, until then."""
    connection.execute(
        "update ops.partition_state set state = 'restored', keep_until = %s, changed_at = clock_timestamp() "
        "where stream = %s and month = %s and state = 'expired'",
        (keep_until, stream, month),
    )


def keep_longer(connection: psycopg.Connection, stream: str, month: date, keep_until: datetime) -> bool:
    """Lets a restored month stay at least until then; never shortens its time. Returns whether it is there: one that is not must not be said to be."""
    done = connection.execute(
        "update ops.partition_state set keep_until = greatest(keep_until, %s), changed_at = clock_timestamp() "
        "where stream = %s and month = %s and state = 'restored'",
        (keep_until, stream, month),
    )
    return done.rowcount == 1


def set_deleted(connection: psycopg.Connection, stream: str, month: date) -> bool:
    """Enters that an expired month is gone from the lake too. Returns whether it is expired still."""
    done = connection.execute(
        "update ops.partition_state set state = 'deleted', changed_at = clock_timestamp() where stream = %s and month = %s and state = 'expired'",
        (stream, month),
    )
    return done.rowcount == 1
