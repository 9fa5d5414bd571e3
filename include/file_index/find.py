"""Finding files: which arrivals and lake files there are, and what each one is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from include.file_index.errors import FileIndexError
from include.file_index.kinds import ARRIVAL_STATES, FileState, Kind
from include.warehouse import Role, connect

_MAX_BIGINT = 2**63 - 1


@dataclass(frozen=True)
class FileFilter:
    """Which files; what is None leaves nothing out.

    Attributes:
        stream: Files of this stream.
        kind: Files of this kind.
        state: Files in this state.
        tenant: Files of this tenant, and lake files that hold several.
        event_from: Files that hold rows from then on, by event time.
        event_before: Files that hold rows from before then.
        arrived_from: Files that arrived, or were written to the lake, from then on.
        arrived_before: Files that arrived, or were written to the lake, before then.
    """

    stream: str | None = None
    kind: Kind | None = None
    state: FileState | None = None
    tenant: str | None = None
    event_from: datetime | None = None
    event_before: datetime | None = None
    arrived_from: datetime | None = None
    arrived_before: datetime | None = None

    def __post_init__(self) -> None:
        for what, start, end in (("event time", self.event_from, self.event_before), ("arrival", self.arrived_from, self.arrived_before)):
            if start is not None and end is not None and start >= end:
                raise FileIndexError(f"the span of {what} from {start.isoformat()} to {end.isoformat()} is empty: its end must be after its start")

    def where(self) -> tuple[sql.Composed, dict[str, Any]]:
        """Condition on `ops.file as f`, and its parameters."""
        conditions: list[sql.Composable] = [sql.SQL("true")]
        if self.event_from is not None or self.event_before is not None:
            conditions.append(sql.SQL("f.event_span && tstzrange(%(event_from)s, %(event_before)s)"))
        if self.tenant is not None:
            # Only lake files may hold several tenants. Where none of them is asked for, PostgreSQL must not have to think of them, or it reads every file.
            is_lake_out = self.kind is Kind.ARRIVAL or self.state in ARRIVAL_STATES
            conditions.append(sql.SQL("f.tenant_id = %(tenant)s" if is_lake_out else "(f.tenant_id = %(tenant)s or f.tenant_id is null)"))
        conditions += [sql.SQL(condition) for name, condition in _CONDITIONS.items() if getattr(self, name) is not None]
        return sql.SQL(" and ").join(conditions), {name: value.value if isinstance(value, StrEnum) else value for name, value in vars(self).items()}


_CONDITIONS = {
    "stream": "f.stream = %(stream)s",
    "kind": "f.kind = %(kind)s",
    "state": "f.state = %(state)s",
    "arrived_from": "f.arrived_at >= %(arrived_from)s",
    "arrived_before": "f.arrived_at < %(arrived_before)s",
}


@dataclass(frozen=True)
class IndexedFile:
    """A line of the index.

    Attributes:
        file_id: Its number.
        kind: arrival or lake.
        state: See `FileState`.
        stream: The stream.
        tenant_id: Its tenant; None for a lake file of several.
        address: Path within the zone, or within the lake.
        size_bytes: Size as stored.
        content_hash: SHA-256 of the stored bytes, hexadecimal.
        version_tag: What the store said of these bytes; differs whenever they do.
        file_format: Format, with the ending of its compression.
        mapping: Mapping of a foreign file.
        contract_version: Version of the contract that judged its rows.
        row_count: Rows that were read from an arrival, rows that a lake file holds; 0 before it is landed.
        first_event_at: Oldest event time of its rows; None where no row could be used.
        last_event_at: Newest event time of its rows.
        arrived_at: When it arrived, or was written to the lake.
        first_batch_id: First batch whose rows it holds; None while it is not landed.
        last_batch_id: Last one.
        replaced_by: Lake file that holds its rows now.
        expired_at: When its bytes were deleted.
        error: Why it could not be read or landed.
    """

    file_id: int
    kind: str
    state: str
    stream: str
    tenant_id: str | None
    address: str
    size_bytes: int
    content_hash: str
    version_tag: str
    file_format: str
    mapping: str | None
    contract_version: str | None
    row_count: int
    first_event_at: datetime | None
    last_event_at: datetime | None
    arrived_at: datetime
    first_batch_id: int | None
    last_batch_id: int | None
    replaced_by: int | None
    expired_at: datetime | None
    error: str | None


LINE = sql.SQL(
    "f.file_id, f.kind, f.state, f.stream, f.tenant_id, f.address, f.size_bytes, encode(f.content_hash, 'hex') as content_hash, f.version_tag, f.file_format, "
    "f.mapping, f.contract_version, coalesce(f.row_count, f.landed) as row_count, f.first_event_at, f.last_event_at, f.arrived_at, "
    "coalesce(f.first_batch_id, f.batch_id) as first_batch_id, coalesce(f.last_batch_id, f.batch_id) as last_batch_id, f.replaced_by, "
    "f.expired_at, f.error"
)

# Whether lake file `c` may hold rows of arrival `l` of its stream: it covers a batch that brought them, and a day of their event time. A lake file names its
# exact sources in its own metadata; this is what the books say without reading it.
COVERS = sql.SQL(
    "(l.first_event_at is null or (c.first_event_at <= l.last_event_at and c.last_event_at >= l.first_event_at)) "
    "and exists (select from (select l.batch_id union all select r.batch_id from ops.file_replay as r where r.file_id = l.file_id) as b "
    "where b.batch_id between c.first_batch_id and c.last_batch_id)"
)


def find_files(selection: FileFilter, *, limit: int = 100) -> list[IndexedFile]:
    """Files, newest arrival first.

    Args:
        selection: Which.
        limit: At most so many.
    """
    with connect(Role.ANALYST) as connection:
        return find_lines(connection, selection, limit=limit)


def find_lines(connection: psycopg.Connection, selection: FileFilter, *, limit: int) -> list[IndexedFile]:
    """The same on an open connection."""
    query, parameters = find_statement(selection, limit=limit)
    with connection.cursor(row_factory=class_row(IndexedFile)) as cursor:
        return cursor.execute(query, parameters).fetchall()


def find_statement(selection: FileFilter, *, limit: int) -> tuple[sql.Composed, dict[str, Any]]:
    """The query, so that a benchmark can ask for its plan."""
    where, parameters = selection.where()
    query = sql.SQL("select {} from ops.file as f where {} order by f.arrived_at desc, f.file_id desc limit %(limit)s").format(LINE, where)
    return query, {**parameters, "limit": limit}


def lines_of(connection: psycopg.Connection, name: str) -> list[IndexedFile]:
    """The lines that a number or an address names; an address has one for each content it ever had, newest first.

    Raises:
        FileIndexError: If there is none.
    """
    # An address holds slashes, so a number is never one.
    is_number = name.isascii() and name.isdecimal()
    condition, value = ("f.file_id = %(name)s", min(int(name), _MAX_BIGINT)) if is_number else ("f.address = %(name)s", name)
    with connection.cursor(row_factory=class_row(IndexedFile)) as cursor:
        query = sql.SQL("select {} from ops.file as f where {} order by f.file_id desc").format(LINE, sql.SQL(condition))
        found = cursor.execute(query, {"name": value}).fetchall()
    if not found:
        what = "file" if is_number else "address"
        raise FileIndexError(f"there is no {what} {name} in the index; `tidemark files find --stream STREAM` lists files with their numbers and addresses")
    return found
