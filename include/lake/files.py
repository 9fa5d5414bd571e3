"""Lines of the lake in `ops.file`, and how far each stream was exported. All SQL on them is here; readers of the lake begin with `live_files`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from include.lake.errors import LakeBusy


@dataclass(frozen=True)
class NewFile:
    """A file that is complete under its final name and may be entered.

    Attributes:
        event_date: UTC day of the event time of its rows.
        address: Path within the lake.
        content_hash: SHA-256 of its bytes.
        size_bytes: Size of its bytes.
        row_count: Number of rows.
        content_digest: Digest of its rows (`include.lake.digest`).
        first_batch_id: Least `_batch_id` that it covers.
        last_batch_id: Greatest `_batch_id` that it covers.
        first_event_at: Least event time of its rows.
        last_event_at: Greatest event time of its rows.
        contract_version: Version of the contract whose columns it has.
    """

    event_date: date
    address: str
    content_hash: bytes
    size_bytes: int
    row_count: int
    content_digest: bytes
    first_batch_id: int
    last_batch_id: int
    first_event_at: datetime
    last_event_at: datetime
    contract_version: str


@dataclass(frozen=True)
class LakeFile(NewFile):
    """A file that is or was entered.

    Attributes:
        file_id: Its line in `ops.file`.
        stream: The stream.
    """

    file_id: int
    stream: str


@dataclass(frozen=True)
class SourceFile:
    """A file of the landing zone that rows of a lake file came in: its ledger line, as far as it belongs to the rows. Attributes as columns of `ops.file`."""

    file_id: int
    tenant_id: str
    address: str
    content_hash: bytes
    version_tag: str
    size_bytes: int
    file_format: str
    mapping: str | None
    contract_version: str | None
    arrived_at: datetime
    published_at: datetime | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            name: value.hex() if isinstance(value, bytes) else value.isoformat() if isinstance(value, datetime) else value for name, value in vars(self).items()
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> SourceFile:
        """From what `as_dict` gave."""
        published_at = document["published_at"]
        return cls(
            **{
                **document,
                "content_hash": bytes.fromhex(document["content_hash"]),
                "arrived_at": datetime.fromisoformat(document["arrived_at"]),
                "published_at": None if published_at is None else datetime.fromisoformat(published_at),
            }
        )


_SOURCE = sql.SQL("file_id, tenant_id, address, content_hash, version_tag, size_bytes, file_format, mapping, contract_version, arrived_at, published_at")
_LINE = sql.SQL(
    "file_id, stream, event_date, address, content_hash, size_bytes, row_count, content_digest, first_batch_id, last_batch_id, first_event_at, last_event_at, "
    "contract_version"
)
_KEY = sql.SQL("hashtextextended('tidemark.lake.' || %s, 0)")


@contextmanager
def holding_lake(connection: psycopg.Connection, stream: str) -> Iterator[None]:
    """Holds the lock of a stream's lake for the session: one export, compaction, sweep or restore of a stream at a time.

    Args:
        connection: In autocommit, so that the lock outlives transactions. A process that dies gives it back.
        stream: The stream.

    Raises:
        LakeBusy: If it was not free within 30 seconds.
    """
    try:
        connection.execute(sql.SQL("select pg_advisory_lock({})").format(_KEY), (stream,))
    except psycopg.errors.LockNotAvailable as error:
        raise LakeBusy(f"the lake of {stream} is being written; try again when that is through") from error
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute(sql.SQL("select pg_advisory_unlock({})").format(_KEY), (stream,))


def lock_lake(connection: psycopg.Connection, stream: str) -> None:
    """Takes the same lock until the end of the transaction.

    Raises:
        LakeBusy: If it was not free within 30 seconds.
    """
    try:
        connection.execute(sql.SQL("select pg_advisory_xact_lock({})").format(_KEY), (stream,))
    except psycopg.errors.LockNotAvailable as error:
        raise LakeBusy(f"the lake of {stream} is being written; try again when that is through") from error


def lock_loads(connection: psycopg.Connection, stream: str) -> None:
    """Takes the lock of the loads and replays of a stream until the end of the transaction. Whoever wants both takes that of the lake first.

    Raises:
        LakeBusy: If it was not free within 30 seconds.
    """
    try:
        connection.execute("select ops.lock_stream(%s)", (stream,))
    except psycopg.errors.LockNotAvailable as error:
        raise LakeBusy(f"{stream} is being loaded for longer than 30 s; nothing was changed, try again when the batch is through") from error


def live_files(connection: psycopg.Connection, stream: str, first: date | None = None, last: date | None = None) -> list[LakeFile]:
    """The files that hold the rows of a stream now, by day and batch.

    Args:
        connection: Of any role that reads `ops.file`.
        stream: The stream.
        first: First day, inclusive; None: from the beginning.
        last: Last day, inclusive; None: to the end.
    """
    query = sql.SQL(
        "select {} from ops.file where kind = 'lake' and state = 'live' and stream = %(stream)s "
        "and event_date >= coalesce(%(first)s::date, '-infinity') and event_date <= coalesce(%(last)s::date, 'infinity') "
        "order by event_date, last_batch_id, first_batch_id"
    ).format(_LINE)
    with connection.cursor(row_factory=class_row(LakeFile)) as cursor:
        return cursor.execute(query, {"stream": stream, "first": first, "last": last}).fetchall()


def exported_batch(connection: psycopg.Connection, stream: str) -> int | None:
    """Up to which batch the lake holds the rows of a stream; None before the first export."""
    row = connection.execute("select exported_batch_id from ops.lake_state where stream = %s", (stream,)).fetchone()
    return int(row[0]) if row else None


def set_exported(connection: psycopg.Connection, stream: str, batch_id: int) -> None:
    """Moves the mark of `exported_batch`; never back."""
    connection.execute(
        "insert into ops.lake_state as s (stream, exported_batch_id) values (%s, %s) on conflict (stream) do update "
        "set exported_batch_id = greatest(s.exported_batch_id, excluded.exported_batch_id), exported_at = clock_timestamp()",
        (stream, batch_id),
    )


def editions(connection: psycopg.Connection, stream: str, day: date, first_batch_id: int, last_batch_id: int) -> int:
    """How many files were ever entered under a day and batch range: a further one gets a name of its own."""
    row = connection.execute(
        "select count(*) from ops.file where kind = 'lake' and stream = %s and event_date = %s and first_batch_id = %s and last_batch_id = %s",
        (stream, day, first_batch_id, last_batch_id),
    ).fetchone()
    return int(row[0]) if row else 0


def enter(connection: psycopg.Connection, stream: str, files: Sequence[NewFile]) -> dict[str, int]:
    """Enters files as live.

    Returns:
        file_id by address.
    """
    entered: dict[str, int] = {}
    for file in files:
        row = connection.execute(
            """
            insert into ops.file (kind, stream, address, content_hash, version_tag, size_bytes, file_format, contract_version, arrived_at, state, event_date,
                first_batch_id, last_batch_id, row_count, content_digest, first_event_at, last_event_at)
            values ('lake', %s, %s, %s, %s, %s, 'parquet', %s, clock_timestamp(), 'live', %s, %s, %s, %s, %s, %s, %s)
            returning file_id
            """,
            (
                stream,
                file.address,
                file.content_hash,
                file.content_hash.hex(),
                file.size_bytes,
                file.contract_version,
                file.event_date,
                file.first_batch_id,
                file.last_batch_id,
                file.row_count,
                file.content_digest,
                file.first_event_at,
                file.last_event_at,
            ),
        ).fetchone()
        if row is not None:
            entered[file.address] = int(row[0])
    return entered


def exchange(connection: psycopg.Connection, stream: str, new: Sequence[NewFile], old: Mapping[int, str | None]) -> None:
    """Enters files as live in the place of others, in one transaction of the caller.

    Args:
        connection: In a transaction.
        stream: The stream.
        new: Files to enter.
        old: Live files that are replaced, each with the address of the new file that holds its rows; None where the day has no rows any more.
    """
    connection.execute(
        "update ops.file set state = 'replaced', replaced_at = clock_timestamp() where kind = 'lake' and state = 'live' and file_id = any(%s)", (list(old),)
    )
    entered = enter(connection, stream, new)
    with connection.cursor() as cursor:
        cursor.executemany(
            "update ops.file set replaced_by = %s where file_id = %s", [(entered[address], file_id) for file_id, address in old.items() if address is not None]
        )


def mark_expiring(connection: psycopg.Connection, file_ids: Sequence[int]) -> list[LakeFile]:
    """Marks live or replaced files whose bytes are about to be removed; from the commit on no reader begins with them.

    Returns:
        The files, those that were marked before among them.
    """
    query = sql.SQL(
        "update ops.file set state = 'expiring' where kind = 'lake' and file_id = any(%s) and state in ('live', 'replaced', 'expiring') returning {}"
    ).format(_LINE)
    with connection.cursor(row_factory=class_row(LakeFile)) as cursor:
        return cursor.execute(query, (list(file_ids),)).fetchall()


def mark_expired(connection: psycopg.Connection, file_ids: Sequence[int]) -> int:
    """Marks files whose bytes are gone. Returns how many."""
    return connection.execute(
        "update ops.file set state = 'expired', expired_at = clock_timestamp() where kind = 'lake' and file_id = any(%s) and state = 'expiring'",
        (list(file_ids),),
    ).rowcount


def to_remove(connection: psycopg.Connection, stream: str, grace: timedelta) -> list[int]:
    """Files whose bytes are to go: replaced for longer than the grace, or marked by a removal that did not get through."""
    rows = connection.execute(
        "select file_id from ops.file where kind = 'lake' and stream = %s "
        "and (state = 'expiring' or (state = 'replaced' and replaced_at <= clock_timestamp() - %s)) order by file_id",
        (stream, grace),
    )
    return [file_id for (file_id,) in rows]


def known_addresses(connection: psycopg.Connection, stream: str) -> set[str]:
    """Addresses whose bytes the lake must keep: live, or replaced and not yet to be removed."""
    rows = connection.execute("select address from ops.file where kind = 'lake' and stream = %s and state in ('live', 'replaced')", (stream,))
    return {address for (address,) in rows}


def unknown(connection: psycopg.Connection, addresses: Sequence[str]) -> list[str]:
    """Of the addresses those that no file of the lake ever had."""
    rows = connection.execute(
        "select address from unnest(%s::text[]) as a (address) where not exists (select from ops.file as f where f.address = a.address and f.kind = 'lake')",
        (list(addresses),),
    )
    return [address for (address,) in rows]


def last_file_id(connection: psycopg.Connection) -> int:
    """The greatest number of any file."""
    row = connection.execute("select coalesce(max(file_id), 0) from ops.file").fetchone()
    return int(row[0]) if row else 0


def sources(connection: psycopg.Connection, file_ids: Collection[int]) -> list[SourceFile]:
    """Ledger lines of files of the zone, by number."""
    with connection.cursor(row_factory=class_row(SourceFile)) as cursor:
        query = sql.SQL("select {} from ops.file where kind = 'arrival' and file_id = any(%s) order by file_id").format(_SOURCE)
        return cursor.execute(query, (list(file_ids),)).fetchall()


def enter_sources(connection: psycopg.Connection, stream: str, lines: Sequence[SourceFile]) -> list[SourceFile]:
    """Enters files of the zone that are known from the lake only, under their own numbers, as `restored`. What is there already stays as it is.

    Returns:
        Those whose number, or whose address and content, belong to another line.
    """
    with connection.cursor() as cursor:
        cursor.executemany(
            sql.SQL(
                "insert into ops.file (stream, state, {}) overriding system value "
                "values (%s, 'restored', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing"
            ).format(_SOURCE),
            [(stream, *vars(line).values()) for line in lines],
        )
    there = connection.execute("select file_id, address, content_hash from ops.file where file_id = any(%s)", ([line.file_id for line in lines],))
    known = {(file_id, address, bytes(content_hash)) for file_id, address, content_hash in there}
    return [line for line in lines if (line.file_id, line.address, line.content_hash) not in known]
