"""The ledger: which files of the zone are landed, quarantined, waiting or set aside, and the state of each stream.

All SQL on arrivals in `ops.file` is here; files of the lake stand in the same table under another kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from include.landing.errors import LandingUnbalanced
from include.landing.source import stored_format
from include.landing.zone import DEFAULT_TENANT, ZoneFile

MAX_ATTEMPTS = 3
_FINAL = ("landed", "quarantined", "failed", "expiring", "expired")


@dataclass(frozen=True)
class Arrival:
    """A file that is about to be landed.

    Attributes:
        file: The file in the zone.
        content_hash: SHA-256 of its stored bytes; with the address it is the file's identity.
        data: Its stored bytes; None for a file too large to keep in memory.
        arrived_at: When these bytes arrived.
        published_at: When the publisher issued them, where the file's mapping finds that in the file; else None.
    """

    file: ZoneFile
    content_hash: bytes
    data: bytes | None
    arrived_at: datetime
    published_at: datetime | None = None

    @property
    def tenant_id(self) -> str:
        """Tenant of rows that do not name their own."""
        return self.file.tenant_id or DEFAULT_TENANT


@dataclass(frozen=True)
class KnownFile:
    """What the ledger knows about one content of an address."""

    address: str
    content_hash: bytes
    version_tag: str
    state: str

    @property
    def is_settled(self) -> bool:
        """Nothing is left to do: landed, quarantined whole, or set aside; or so it was, and its bytes have gone since."""
        return self.state in _FINAL


@dataclass
class FileCounts:
    """What became of the rows of one file."""

    landed: int = 0
    accepted: int = 0
    quarantined: int = 0
    duplicate: int = 0
    corrected: int = 0
    first_event_at: datetime | None = None
    last_event_at: datetime | None = None
    unreadable: str | None = None

    def add(self, change: FileCounts) -> None:
        """Adds the counts of rows that are counted otherwise than before."""
        for name in ("accepted", "quarantined", "duplicate"):
            setattr(self, name, getattr(self, name) + getattr(change, name))

    @property
    def is_balanced(self) -> bool:
        """Whether every row is counted once."""
        return self.landed == self.accepted + self.quarantined + self.duplicate + self.corrected


@dataclass(frozen=True)
class StreamState:
    """State of a stream."""

    last_batch_id: int
    last_event_at: datetime | None
    last_arrived_at: datetime | None
    last_landed_at: datetime | None
    is_held: bool
    held_reason: str | None


def known_files(connection: psycopg.Connection, addresses: Sequence[str]) -> dict[str, list[KnownFile]]:
    """What the ledger knows about addresses; an address has one entry for each content it ever had."""
    found: dict[str, list[KnownFile]] = {}
    rows = connection.execute("select address, content_hash, version_tag, state from ops.file where kind = 'arrival' and address = any(%s)", (list(addresses),))
    for address, content_hash, version_tag, state in rows:
        found.setdefault(address, []).append(KnownFile(address, bytes(content_hash), version_tag, state))
    return found


class SettledFiles:
    """Which files of a stream nothing is left to do with, by address and version tag; asked for in order of days, of which it holds one at a time.

    It may say no where the ledger says yes, of files that are then looked up by their address (`known_files`): of a content that came later than its day.

    Args:
        connection: As the loader.
        stream: The stream.
        arrived_from: Files that arrived earlier are not asked for; None if any may be.
    """

    def __init__(self, connection: psycopg.Connection, stream: str, arrived_from: datetime | None) -> None:
        self._connection, self._stream, self._arrived_from = connection, stream, arrived_from
        self._day, self._files = "", frozenset[tuple[str, str]]()

    def __call__(self, address: str, version_tag: str) -> bool:
        """Whether these bytes are settled."""
        day = address.split("/", 2)[1]
        if day != self._day:
            self._day, self._files = day, self._of(day)
        return (address, version_tag) in self._files

    def _of(self, folder: str) -> frozenset[tuple[str, str]]:
        try:
            day = datetime.fromisoformat(f"{folder.removeprefix('dt=')}T00:00:00+00:00")
        except ValueError:
            return frozenset()  # no folder of the zone
        rows = self._connection.execute(
            "select address, version_tag from ops.file where kind = 'arrival' and stream = %s and arrived_at >= %s and arrived_at < %s and state = any(%s)",
            (self._stream, max(day, self._arrived_from or day), day + timedelta(days=1), list(_FINAL)),
        )
        return frozenset(rows.fetchall())


def note_version(connection: psycopg.Connection, arrival: Arrival) -> None:
    """Remembers that the bytes of an address were written anew without a change, so that they are not read again."""
    connection.execute(
        "update ops.file set version_tag = %s where address = %s and content_hash = %s", (arrival.file.version_tag, arrival.file.address, arrival.content_hash)
    )


def register(connection: psycopg.Connection, arrivals: Sequence[Arrival], contract_version: str) -> list[int]:
    """Writes or finds the ledger lines of files; their state stays `pending` until `settle`.

    Returns:
        file_id of each, in order.
    """
    identifiers = []
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into ops.file
                (stream, tenant_id, address, content_hash, version_tag, size_bytes, file_format, mapping, contract_version, arrived_at, published_at, state)
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'pending')
            on conflict (address, content_hash) do update
            set version_tag = excluded.version_tag, contract_version = excluded.contract_version, published_at = excluded.published_at, error = null
            returning file_id
            """,
            [_line(arrival, contract_version) for arrival in arrivals],
            returning=True,
        )
        for _ in arrivals:
            row = cursor.fetchone()
            identifiers.append(int(row[0]) if row else 0)
            cursor.nextset()
    return identifiers


def settle(connection: psycopg.Connection, file_ids: Sequence[int], counts: Sequence[FileCounts], batch_id: int, landed_at: datetime) -> None:
    """Completes the ledger lines of a batch."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            update ops.file set state = %s, batch_id = %s, landed = %s, accepted = %s, quarantined = %s, duplicate = %s, corrected = %s,
                first_event_at = %s, last_event_at = %s, error = %s, landed_at = %s
            where file_id = %s
            """,
            [
                (
                    "quarantined" if count.unreadable else "landed",
                    batch_id,
                    count.landed,
                    count.accepted,
                    count.quarantined,
                    count.duplicate,
                    count.corrected,
                    count.first_event_at,
                    count.last_event_at,
                    count.unreadable,
                    landed_at,
                    file_id,
                )
                for file_id, count in zip(file_ids, counts, strict=True)
            ],
        )


def write_replays(
    connection: psycopg.Connection, batch_id: int, contract_version: str, file_ids: Sequence[int], is_whole: Sequence[bool], counts: Sequence[FileCounts]
) -> None:
    """Writes what a replay did with rows of each file, beside the lines of the ledger, which stay as they are."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into ops.file_replay (batch_id, file_id, is_whole, contract_version, landed, accepted, quarantined, duplicate, corrected) "
            "values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (batch_id, file_id, whole, contract_version, count.landed, count.accepted, count.quarantined, count.duplicate, count.corrected)
                for file_id, whole, count in zip(file_ids, is_whole, counts, strict=True)
            ],
        )


def recount(connection: psycopg.Connection, file_id: int | None, replay_batch_id: int | None, change: FileCounts) -> int:
    """Counts a row anew that lost its place to an earlier arrival, where it was counted: in its file's line, or in the replay that it came through.

    The batch's totals follow; `landed` does not change.

    Returns:
        The batch that counted it.

    Raises:
        LandingUnbalanced: If no batch did.
    """
    line = sql.SQL("ops.file as t set {} where t.file_id = %(file_id)s")
    if replay_batch_id is not None:
        line = sql.SQL("ops.file_replay as t set {} where t.file_id = %(file_id)s and t.batch_id = %(batch)s")
    sums = sql.SQL("accepted = {0}.accepted + %(accepted)s, quarantined = {0}.quarantined + %(quarantined)s, duplicate = {0}.duplicate + %(duplicate)s")
    row = connection.execute(
        sql.SQL(
            "with moved as (update {} returning t.batch_id) update ops.batch as b set {} from moved where b.batch_id = moved.batch_id returning b.batch_id"
        ).format(line.format(sums.format(sql.Identifier("t"))), sums.format(sql.Identifier("b"))),
        {"file_id": file_id, "batch": replay_batch_id, "accepted": change.accepted, "quarantined": change.quarantined, "duplicate": change.duplicate},
    ).fetchone()
    if row is None:
        raise LandingUnbalanced(f"no batch counted the rows of file {file_id}; nothing of the batch was kept")
    return int(row[0])


def note_publication(connection: psycopg.Connection, file_id: int, published_at: datetime) -> None:
    """Remembers when a file was published that could not be read when it landed."""
    connection.execute("update ops.file set published_at = %s where file_id = %s", (published_at, file_id))


def addresses(connection: psycopg.Connection, file_ids: Iterable[int]) -> dict[int, tuple[str, str, bytes]]:
    """Address, version tag and content hash of files, by their line."""
    rows = connection.execute("select file_id, address, version_tag, content_hash from ops.file where file_id = any(%s)", (list(file_ids),))
    return {file_id: (address, version_tag, bytes(content_hash)) for file_id, address, version_tag, content_hash in rows}


def record_failure(connection: psycopg.Connection, arrival: Arrival, contract_version: str, error: str) -> str:
    """Counts a failed attempt of a file, in a transaction of its own.

    Returns:
        The file's state: `pending`, or `failed` once it failed `MAX_ATTEMPTS` times and is set aside.
    """
    row = connection.execute(
        """
        insert into ops.file
            (stream, tenant_id, address, content_hash, version_tag, size_bytes, file_format, mapping, contract_version, arrived_at, published_at,
            state, attempts, error)
        values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'pending', 1, %s)
        on conflict (address, content_hash) do update
        set attempts = ops.file.attempts + 1, error = excluded.error, version_tag = excluded.version_tag,
            state = case when ops.file.state in ('pending', 'restored') and ops.file.attempts + 1 >= %s then 'failed' else ops.file.state end
        returning state
        """,
        (*_line(arrival, contract_version), error[:2000], MAX_ATTEMPTS),
    ).fetchone()
    return str(row[0]) if row else "pending"


def retry_failed(connection: psycopg.Connection, stream: str) -> int:
    """Lets files that were set aside be tried again.

    Returns:
        Number of files.
    """
    return connection.execute("update ops.file set state = 'pending', attempts = 0 where stream = %s and state = 'failed'", (stream,)).rowcount


def stream_state(connection: psycopg.Connection, stream: str) -> StreamState | None:
    """State of a stream; None before its first batch."""
    row = connection.execute(
        "select last_batch_id, last_event_at, last_arrived_at, last_landed_at, is_held, held_reason from ops.stream_state where stream = %s", (stream,)
    ).fetchone()
    return StreamState(*row) if row else None


def expired_months(connection: psycopg.Connection, stream: str) -> frozenset[date]:
    """First days of the months of a stream that have left the raw table; under the stream's lock they stay what they are."""
    rows = connection.execute("select month from ops.partition_state where stream = %s and state in ('expired', 'deleted')", (stream,))
    return frozenset(month for (month,) in rows)


def write_batch(
    connection: psycopg.Connection,
    stream: str,
    batch_id: int,
    started_at: datetime,
    counts: Iterable[FileCounts],
    last_arrived_at: datetime,
    kind: str = "load",
) -> None:
    """Writes the batch (kind `load` or `replay`) and moves the stream's watermark."""
    files = list(counts)
    totals: list[Any] = [sum(getattr(count, name) for count in files) for name in ("landed", "accepted", "quarantined", "duplicate", "corrected")]
    last_event_at = max((count.last_event_at for count in files if count.last_event_at), default=None)
    connection.execute(
        "insert into ops.batch (batch_id, stream, started_at, kind, files, landed, accepted, quarantined, duplicate, corrected) "
        "values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (batch_id, stream, started_at, kind, len(files), *totals),
    )
    _move_watermark(connection, stream, batch_id, last_event_at, last_arrived_at, started_at)


def write_move(
    connection: psycopg.Connection,
    stream: str,
    batch_id: int,
    started_at: datetime,
    kind: str,
    rows: int,
    last_event_at: datetime | None = None,
    last_arrived_at: datetime | None = None,
) -> None:
    """Writes a batch that moved stored rows between raw and the lake, and moves the stream's watermark.

    Args:
        connection: In a transaction that holds the stream's lock.
        stream: The stream.
        batch_id: Drawn under that lock.
        started_at: When it began.
        kind: `restore` or `expiry`.
        rows: Rows that came into raw; negative where they left it. Accepted rows of all batches add up to what raw holds.
        last_event_at: Greatest event time of rows that came.
        last_arrived_at: Last arrival of rows that came.
    """
    connection.execute(
        "insert into ops.batch (batch_id, stream, started_at, kind, files, landed, accepted, quarantined, duplicate, corrected) "
        "values (%s, %s, %s, %s, 0, %s, %s, 0, 0, 0)",
        (batch_id, stream, started_at, kind, rows, rows),
    )
    _move_watermark(connection, stream, batch_id, last_event_at, last_arrived_at, started_at)


def _move_watermark(
    connection: psycopg.Connection, stream: str, batch_id: int, last_event_at: datetime | None, last_arrived_at: datetime | None, landed_at: datetime
) -> None:
    connection.execute(
        """
        insert into ops.stream_state as s (stream, last_batch_id, last_event_at, last_arrived_at, last_landed_at) values (%s, %s, %s, %s, %s)
        on conflict (stream) do update set last_batch_id = excluded.last_batch_id, last_event_at = greatest(s.last_event_at, excluded.last_event_at),
            last_arrived_at = greatest(s.last_arrived_at, excluded.last_arrived_at), last_landed_at = excluded.last_landed_at
        """,
        (stream, batch_id, last_event_at, last_arrived_at, landed_at),
    )


def set_hold(connection: psycopg.Connection, stream: str, *, is_held: bool, reason: str | None) -> None:
    """Holds or releases a stream."""
    connection.execute(
        """
        insert into ops.stream_state (stream, is_held, held_reason) values (%s, %s, %s)
        on conflict (stream) do update set is_held = excluded.is_held, held_reason = excluded.held_reason
        """,
        (stream, is_held, reason),
    )


def _line(arrival: Arrival, contract_version: str) -> tuple[Any, ...]:
    file = arrival.file
    return (
        file.stream,
        arrival.tenant_id,
        file.address,
        arrival.content_hash,
        file.version_tag,
        file.size_bytes,
        stored_format(file.file_format, file.compression),
        file.mapping,
        contract_version,
        arrival.arrived_at,
        arrival.published_at,
    )
