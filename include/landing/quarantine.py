"""The quarantine: which rows no table could take and why, what was tried with them since, and how they are marked as settled without being sent again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from include.contracts import streams
from include.landing.errors import LandingBusy, LandingError
from include.warehouse import Role, connect


class State(StrEnum):
    """Where a quarantined row stands."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


@dataclass(frozen=True)
class Filter:
    """Which rows of the quarantine a command is about; what is None or empty leaves nothing out.

    Attributes:
        stream: Rows of this stream.
        code: Rows with this error code among those of their newest verdict.
        address: Rows of this file of the zone; `*` stands for any text.
        since: Rows that came to the quarantine from then on.
        before: Rows that came to the quarantine before then.
        state: Rows in this state.
        tenant: Rows of this tenant.
        ids: Rows of these numbers.
        month: Rows, as `2026-01`, whose event lies in a month that had left the raw table.
    """

    stream: str | None = None
    code: str | None = None
    address: str | None = None
    since: datetime | None = None
    before: datetime | None = None
    state: State | None = State.OPEN
    tenant: str | None = None
    ids: tuple[int, ...] = ()
    month: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it names no rows in particular; a state alone does not."""
        return not any(getattr(self, name) for name in _CONDITIONS)

    def where(self) -> tuple[sql.Composed, dict[str, Any]]:
        """Condition on `QUARANTINED`, and its parameters."""
        conditions: list[sql.Composable] = [sql.SQL("true")]
        if self.state is not None:
            conditions.append(sql.SQL("q.state = {}").format(sql.Literal(self.state.value)))  # literal, so that the index on open rows serves
        for name, condition in _CONDITIONS.items():
            if getattr(self, name):
                conditions.append(sql.SQL(condition))
        pattern = self.address and self.address.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("*", "%")
        return sql.SQL(" and ").join(conditions), {**vars(self), "address": pattern, "ids": list(self.ids)}


_CONDITIONS = {
    "stream": "q.stream = %(stream)s",
    "code": "%(code)s = any(coalesce(latest.codes, q.codes))",
    "address": "f.address like %(address)s",
    "since": "q.quarantined_at >= %(since)s",
    "before": "q.quarantined_at < %(before)s",
    "tenant": "q.tenant_id = %(tenant)s",
    "ids": "q.quarantine_id = any(%(ids)s)",
    "month": "exists (select from jsonb_array_elements(coalesce(latest.errors, q.errors)) as e where e ->> 'code' = 'partition_expired' "
    "and left(e ->> 'value', 7) = %(month)s)",
}
# What every question about the quarantine reads. A row's newest verdict is that of the last replay that failed, else that of its landing.
QUARANTINED = sql.SQL(
    "from ops.quarantine as q join ops.file as f using (file_id) left join lateral (select e.codes, e.errors from ops.quarantine_event as e "
    "where e.quarantine_id = q.quarantine_id and e.outcome = 'failed' order by e.event_id desc limit 1) as latest on true"
)


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
        codes: Distinct error codes of the newest verdict.
        errors: Every error of the newest verdict: code, field, value, message.
        arrived_at: When the file arrived.
        quarantined_at: When it came here.
        state: open, replayed or discarded.
        replay_batch_id: Batch that replayed it.
        outcome: What that replay made of it: accepted, duplicate or corrected; read for a file that had been quarantined whole.
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
    replay_batch_id: int | None
    outcome: str | None
    original: bytes

    @property
    def text(self) -> str:
        """The original as text; bytes that are not UTF-8 are shown as escapes."""
        return self.original.decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Event:
    """Something that happened to a quarantined row.

    Attributes:
        happened_at: When.
        action: land (it came here with its file), replay, discard or reopen.
        outcome: Of a landing `quarantined`; of a replay failed, accepted, duplicate, corrected or read; None otherwise.
        done_by: Who did it; None for a landing.
        batch_id: Batch of a landing or replay.
        contract_version: Version of the contract that judged the row.
        codes: Error codes of a verdict that refused the row.
        errors: Its errors.
        reason: Why it was discarded or reopened.
    """

    happened_at: datetime
    action: str
    outcome: str | None
    done_by: str | None
    batch_id: int | None
    contract_version: str | None
    codes: list[str] | None
    errors: list[dict[str, Any]] | None
    reason: str | None


_ROW = sql.SQL(
    "select q.quarantine_id, q.stream, q.tenant_id, f.address, q.row_number, q.batch_id, coalesce(latest.codes, q.codes) as codes, "
    "coalesce(latest.errors, q.errors) as errors, q.arrived_at, q.quarantined_at, q.state, q.replay_batch_id, q.outcome, "
    "coalesce(q.original, '') as original "
)
_HISTORY = """
select q.quarantined_at as happened_at, case when r.is_whole then 'replay' else 'land' end as action, 'quarantined' as outcome, null as done_by, q.batch_id,
    coalesce(r.contract_version, f.contract_version) as contract_version, q.codes, q.errors, null as reason
from ops.quarantine as q join ops.file as f using (file_id) left join ops.file_replay as r on r.batch_id = q.batch_id and r.file_id = q.file_id
where q.quarantine_id = %(id)s
union all
(select happened_at, action, outcome, done_by, batch_id, contract_version, codes, errors, reason
from ops.quarantine_event where quarantine_id = %(id)s order by event_id)
"""


def list_quarantined(selection: Filter, *, limit: int = 100) -> list[QuarantinedRow]:
    """Rows in quarantine, newest first.

    Args:
        selection: Which.
        limit: At most so many.
    """
    where, parameters = selection.where()
    query = sql.SQL("{}{} where {} order by q.quarantine_id desc limit %(limit)s").format(_ROW, QUARANTINED, where)
    with connect(Role.LOADER) as connection, connection.cursor(row_factory=class_row(QuarantinedRow)) as cursor:
        return cursor.execute(query, {**parameters, "limit": limit}).fetchall()


def count_quarantined(selection: Filter) -> int:
    """Number of rows."""
    where, parameters = selection.where()
    with connect(Role.LOADER) as connection:
        row = connection.execute(sql.SQL("select count(*) {} where {}").format(QUARANTINED, where), parameters).fetchone()
    return int(row[0]) if row else 0


def show_quarantined(quarantine_id: int, selection: Filter | None = None) -> QuarantinedRow:
    """One row in quarantine, in whatever state.

    Raises:
        LandingError: If there is no such row, or the selection does not name it.
    """
    found = list_quarantined(replace(selection or Filter(state=None), ids=(quarantine_id,)))
    if not found:
        which = "of those that the options name " if selection and not selection.is_empty else ""
        raise LandingError(f"no row {quarantine_id} {which}in quarantine; `tidemark quarantine list --state all` shows what is there")
    return found[0]


def history(quarantine_id: int) -> list[Event]:
    """Everything that happened to a row, oldest first; the first is how it came here."""
    with connect(Role.LOADER) as connection, connection.cursor(row_factory=class_row(Event)) as cursor:
        return cursor.execute(_HISTORY, {"id": quarantine_id}).fetchall()


def discard(selection: Filter, *, by: str, reason: str) -> int:
    """Marks open rows as not to be landed. Nothing is deleted; `reopen` takes it back.

    Args:
        selection: Which; of these the open ones.
        by: Who does it.
        reason: Why, for those who ask later.

    Returns:
        Number of rows.

    Raises:
        LandingBusy: If a stream is being loaded for longer than 30 seconds. Streams before it in the alphabet are done; run it again.
        LandingError: If the reason is blank.
    """
    return _mark(selection, State.OPEN, State.DISCARDED, "discard", by, reason)


def reopen(selection: Filter, *, by: str, reason: str) -> int:
    """Takes back a discard: the rows are open again, for replay and for the counts of what is open.

    Args:
        selection: Which; of these the discarded ones.
        by: Who does it.
        reason: Why.

    Returns:
        Number of rows.

    Raises:
        LandingBusy: See `discard`.
    """
    return _mark(selection, State.DISCARDED, State.OPEN, "reopen", by, reason)


def _mark(selection: Filter, before: State, after: State, action: str, by: str, reason: str) -> int:
    """Moves rows from a state to another, a stream a transaction, under the lock of its loads: a replay under way settles its rows first."""
    if not reason.strip():
        raise LandingError(f"to {action} rows needs a reason that says something")
    marked = 0
    statement = (
        "with chosen as (select q.quarantine_id {source} where {where}), "
        "marked as (update ops.quarantine as q set state = %(after)s from chosen where chosen.quarantine_id = q.quarantine_id returning q.quarantine_id) "
        "insert into ops.quarantine_event (quarantine_id, action, done_by, reason) select quarantine_id, %(action)s, %(by)s, %(reason)s from marked"
    )
    try:
        with connect(Role.LOADER, autocommit=True) as connection:
            for stream in [selection.stream] if selection.stream else streams():
                where, parameters = replace(selection, stream=stream, state=before).where()
                with connection.transaction():
                    connection.execute("select ops.lock_stream(%s)", (stream,))
                    values = {**parameters, "after": after.value, "action": action, "by": by, "reason": reason}
                    marked += connection.execute(sql.SQL(statement).format(source=QUARANTINED, where=where), values).rowcount
    except psycopg.errors.LockNotAvailable as error:
        raise LandingBusy(f"{stream} is being loaded; {action} the rest when the batch is through ({marked:,} rows are done)") from error
    return marked


def reasons(stream: str | None = None) -> list[tuple[str, str, int]]:
    """Open rows by stream and error code of their newest verdict, most frequent first."""
    where, parameters = Filter(stream=stream).where()
    query = sql.SQL(
        "select q.stream, code, count(*) {} cross join unnest(coalesce(latest.codes, q.codes)) as code where {} group by 1, 2 order by 3 desc, 1, 2"
    )
    with connect(Role.LOADER) as connection:
        return connection.execute(query.format(QUARANTINED, where), parameters).fetchall()


def require(selection: Filter, *, everything: bool, action: str) -> None:
    """Refuses to mark the whole quarantine by a forgotten option.

    Raises:
        LandingError: If the selection names no rows in particular and it was not said that everything is meant.
    """
    if selection.is_empty and not everything:
        raise LandingError(f"this would {action} the whole quarantine: say which rows (--stream, --code, --file, …), or --all")
