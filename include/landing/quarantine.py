"""Reading the quarantine: which rows no table could take, and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from include.warehouse import Role, connect


@dataclass(frozen=True)
class QuarantinedRow:
    """A row in quarantine.

    Attributes:
        quarantine_id: Its number.
        stream: The stream.
        tenant_id: Tenant of the row, or of its file.
        address: File in the zone.
        row_number: Row in the file; None for a file quarantined whole.
        batch_id: Batch that put it here.
        codes: Distinct error codes.
        errors: Every error: code, field, value, message.
        arrived_at: When the file arrived.
        quarantined_at: When it came here.
        state: open, replayed or discarded.
        original: The row as it stood in its file; the first 64 KiB of an unreadable file.
    """

    quarantine_id: int
    stream: str
    tenant_id: str
    address: str
    row_number: int | None
    batch_id: int
    codes: list[str]
    errors: list[dict[str, Any]]
    arrived_at: datetime
    quarantined_at: datetime
    state: str
    original: bytes

    @property
    def text(self) -> str:
        """The original as text; bytes that are not UTF-8 are shown as escapes."""
        return self.original.decode("utf-8", "backslashreplace")


_SELECT = """
select q.quarantine_id, q.stream, q.tenant_id, f.address, q.row_number, q.batch_id, q.codes, q.errors, q.arrived_at, q.quarantined_at, q.state,
    coalesce(q.original, '') as original
from ops.quarantine as q join ops.file as f using (file_id)
"""


def list_quarantined(
    stream: str | None = None,
    *,
    code: str | None = None,
    address: str | None = None,
    since: datetime | None = None,
    state: str | None = "open",
    limit: int = 100,
) -> list[QuarantinedRow]:
    """Rows in quarantine, newest first.

    Args:
        stream: Only this stream.
        code: Only rows with this error code among theirs.
        address: Only rows of this file.
        since: Only rows quarantined from then on.
        state: Only rows in this state; None for all.
        limit: At most so many.
    """
    query = _SELECT + (
        " where (%(stream)s::text is null or q.stream = %(stream)s) and (%(code)s::text is null or %(code)s = any(q.codes))"
        " and (%(address)s::text is null or f.address = %(address)s) and (%(since)s::timestamptz is null or q.quarantined_at >= %(since)s)"
        " and (%(state)s::text is null or q.state = %(state)s) order by q.quarantine_id desc limit %(limit)s"
    )
    parameters = {"stream": stream, "code": code, "address": address, "since": since, "state": state, "limit": limit}
    with connect(Role.LOADER) as connection, connection.cursor(row_factory=class_row(QuarantinedRow)) as cursor:
        return cursor.execute(query, parameters).fetchall()


def show_quarantined(quarantine_id: int) -> QuarantinedRow:
    """One row in quarantine.

    Raises:
        KeyError: If there is no such row.
    """
    with connect(Role.LOADER) as connection, connection.cursor(row_factory=class_row(QuarantinedRow)) as cursor:
        row = cursor.execute(_SELECT + " where q.quarantine_id = %s", (quarantine_id,)).fetchone()
    if row is None:
        raise KeyError(f"no row {quarantine_id} in quarantine; `tidemark quarantine list` shows what is there")
    return row


def reasons(stream: str | None = None) -> list[tuple[str, str, int]]:
    """Open rows by stream and error code, most frequent first."""
    with connect(Role.LOADER) as connection:
        return connection.execute(
            "select stream, code, count(*) from ops.quarantine, unnest(codes) as code "
            "where state = 'open' and (%(stream)s::text is null or stream = %(stream)s) group by stream, code order by 3 desc, 1, 2",
            {"stream": stream},
        ).fetchall()
