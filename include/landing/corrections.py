"""`ops.correction`: what was said about an event before, and what was refused. Written in the transaction of the load; read by `tidemark corrections list`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import psycopg
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from include.contracts.model import Contract, LogicalType
from include.landing import store
from include.landing.history import PAST, Correction, corrections, merge, past_statements
from include.landing.identity import EXTRA
from include.landing.rows import TENANT
from include.landing.winner import Copy
from include.warehouse import Role, connect

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def record(
    connection: psycopg.Connection,
    contract: Contract,
    frame: pl.DataFrame,
    disputes: Mapping[bytes, Sequence[Copy]],
    stored: Mapping[bytes, tuple[Copy, datetime, int]],
    batch_id: int,
) -> dict[bytes, Copy]:
    """Brings the corrections of events to what all of their copies say, before stored rows are replaced.

    Args:
        connection: In the transaction of the load.
        contract: The stream's contract.
        frame: The chunk's rows.
        disputes: New copies by event, of events for which `history.is_disputed`; their `row` is a row of `frame`.
        stored: Stored copies, as `store.stored_copies` gives them.
        batch_id: The batch.

    Returns:
        By event the statement that counts, with its knowledge time.
    """
    recorded, contents = _recorded(connection, contract, list(disputes))
    lasting: dict[bytes, Copy] = {}
    changed: list[tuple[bytes, int, Correction]] = []
    for event_id, copies in disputes.items():
        holder = stored[event_id][0] if event_id in stored else None
        before = recorded.get(event_id, [])
        statements = merge(past_statements(before, holder, contract), copies, contract)
        lasting[event_id] = statements[-1]
        after = corrections(statements, contract)
        changed += [
            (event_id, step, correction)
            for step, correction in enumerate(after, start=1)
            if step > len(before) or _identity(correction) != _identity(before[step - 1])
        ]
    if not changed:
        return lasting
    touched = {event_id for event_id, _, _ in changed}
    for event_id, row in store.stored_rows(connection, contract, {event_id: stored[event_id][1] for event_id in touched if event_id in stored}).items():
        contents[event_id, stored[event_id][0].content] = row.content
    for event_id in touched:
        for copy in disputes[event_id]:
            if (event_id, copy.content) not in contents:
                contents[event_id, copy.content] = row_text(frame, copy.row, contract)
    _write(connection, contract, changed, contents, {event_id: frame[TENANT][disputes[event_id][0].row] for event_id in touched}, batch_id)
    return lasting


def row_text(frame: pl.DataFrame, row: int, contract: Contract) -> str:
    """Fields and `_extra` of a typed row as JSON text by column name; PostgreSQL gives values their final form."""
    found = frame.select(*contract.column_by_name, EXTRA).row(row, named=True)
    extra = found.pop(EXTRA)
    pairs = [f"{json.dumps(name)}:{json.dumps(_plain(value), ensure_ascii=False)}" for name, value in found.items() if value is not None]
    return "{" + ",".join([*pairs, *([f'"{EXTRA}":{extra}'] if extra is not None else [])]) + "}"


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a typed column holds
    if isinstance(value, datetime):
        return f"{value.isoformat()}Z"
    return value.isoformat() if isinstance(value, date) else value


def _identity(correction: Correction) -> tuple[Any, ...]:
    """What a row of the table says, apart from contents, which the hashes stand for."""
    sides = [(copy.content, copy.known_us, copy.file_id, copy.row_number if copy.file_id is not None else None) for copy in (correction.old, correction.new)]
    return (*sides, correction.known_to_us, correction.is_applied)


_SIDES = ("old", "new")
_RECORDED = """
select k.event_id, c.is_applied, c.old_known_to,
    c.old_content_hash, c.old_content::text, c.old_known_from, c.old_file_id, c.old_row_number, o.arrived_at, o.published_at, o.content_hash,
    c.new_content_hash, c.new_content::text, c.new_known_from, c.new_file_id, c.new_row_number, n.arrived_at, n.published_at, n.content_hash
from unnest(%(ids)s::bytea[]) as k (event_id)
join ops.correction as c on c.stream = %(stream)s and c.event_id = k.event_id
left join ops.file as o on o.file_id = c.old_file_id
left join ops.file as n on n.file_id = c.new_file_id
order by k.event_id, c.step
"""


def _recorded(
    connection: psycopg.Connection, contract: Contract, event_ids: Sequence[bytes]
) -> tuple[dict[bytes, list[Correction]], dict[tuple[bytes, bytes], str]]:
    """Recorded corrections by event, in order, and the JSON text of every content they name, by event and content hash."""
    found: dict[bytes, list[Correction]] = {}
    contents: dict[tuple[bytes, bytes], str] = {}
    for event_id, is_applied, known_to, *sides in connection.execute(_RECORDED, {"ids": list(event_ids), "stream": contract.stream}, prepare=False):
        old, new = _copy(contract, sides[:8]), _copy(contract, sides[8:])
        contents[event_id, old.content], contents[event_id, new.content] = sides[1], sides[9]
        found.setdefault(event_id, []).append(Correction(old, new, _microseconds(known_to) if known_to else None, is_applied))
    return found, contents


def _copy(contract: Contract, side: Sequence[Any]) -> Copy:
    content_hash, content, known_from, file_id, row_number, arrived_at, published_at, file_hash = side
    known_us = _microseconds(known_from)
    return Copy(
        PAST,
        bytes(content_hash),
        _version(contract, content),
        known_us if arrived_at is None else _microseconds(arrived_at),
        b"" if file_hash is None else bytes(file_hash),
        row_number or 0,
        known_us,
        None if published_at is None else _microseconds(published_at),
        file_id,
    )


def _version(contract: Contract, content: str) -> Any:  # noqa: ANN401 - a number, as `Copy.version`
    if contract.version_field is None:
        return None
    value = json.loads(content)[contract.version_field]
    is_time = contract.by_name[contract.version_field].logical_type is LogicalType.TIMESTAMP
    return _microseconds(datetime.fromisoformat(value)) if is_time else value


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


# Contents pass through the row type of the raw table, so that they read the same whether they come from a file or from the table.
_WRITE = """
insert into ops.correction (
    stream, tenant_id, event_id, step, key, is_applied, old_content, new_content, old_known_from, old_known_to, new_known_from,
    old_content_hash, new_content_hash, old_file_id, old_row_number, new_file_id, new_row_number, batch_id
)
select %(stream)s, d.tenant_id, d.event_id, d.step, (select jsonb_object_agg(name, {old_content} -> name) from unnest(%(key)s::text[]) as name),
    d.is_applied, {old_content}, {new_content}, d.old_known_from, d.old_known_to, d.new_known_from,
    d.old_hash, d.new_hash, d.old_file, d.old_number, d.new_file, d.new_number, %(batch)s
from unnest(
    %(tenants)s::text[], %(ids)s::bytea[], %(steps)s::int[], %(applied)s::bool[], %(old)s::text[], %(new)s::text[],
    %(old_from)s::timestamptz[], %(old_to)s::timestamptz[], %(new_from)s::timestamptz[], %(old_hash)s::bytea[], %(new_hash)s::bytea[],
    %(old_file)s::bigint[], %(old_number)s::int[], %(new_file)s::bigint[], %(new_number)s::int[]
) as d (
    tenant_id, event_id, step, is_applied, old_text, new_text, old_known_from, old_known_to, new_known_from, old_hash, new_hash,
    old_file, old_number, new_file, new_number
)
cross join lateral jsonb_populate_record(null::{table}, d.old_text::jsonb) as old_row
cross join lateral jsonb_populate_record(null::{table}, d.new_text::jsonb) as new_row
on conflict (stream, event_id, step) do update
set key = excluded.key, is_applied = excluded.is_applied, old_content = excluded.old_content, new_content = excluded.new_content,
    old_known_from = excluded.old_known_from, old_known_to = excluded.old_known_to, new_known_from = excluded.new_known_from,
    old_content_hash = excluded.old_content_hash, new_content_hash = excluded.new_content_hash, old_file_id = excluded.old_file_id,
    old_row_number = excluded.old_row_number, new_file_id = excluded.new_file_id, new_row_number = excluded.new_row_number,
    batch_id = excluded.batch_id, recorded_at = clock_timestamp()
"""


def _write(
    connection: psycopg.Connection,
    contract: Contract,
    changed: Sequence[tuple[bytes, int, Correction]],
    contents: Mapping[tuple[bytes, bytes], str],
    tenants: Mapping[bytes, str],
    batch_id: int,
) -> None:
    query = sql.SQL(_WRITE).format(
        table=sql.Identifier("raw", contract.stream),
        old_content=store.content_of(contract, sql.SQL("old_row")),
        new_content=store.content_of(contract, sql.SQL("new_row")),
    )
    parameters: dict[str, Any] = {"stream": contract.stream, "key": list(contract.key), "batch": batch_id}
    parameters |= {
        "tenants": [tenants[event_id] for event_id, _, _ in changed],
        "ids": [event_id for event_id, _, _ in changed],
        "steps": [step for _, step, _ in changed],
        "applied": [correction.is_applied for _, _, correction in changed],
        "old_to": [None if correction.known_to_us is None else store.moment_of(correction.known_to_us) for _, _, correction in changed],
    }
    for side in _SIDES:
        copies = [(event_id, getattr(correction, side)) for event_id, _, correction in changed]
        parameters |= {
            side: [contents[event_id, copy.content] for event_id, copy in copies],
            f"{side}_from": [store.moment_of(copy.known_us) for _, copy in copies],
            f"{side}_hash": [copy.content for _, copy in copies],
            f"{side}_file": [copy.file_id for _, copy in copies],
            f"{side}_number": [None if copy.file_id is None else copy.row_number for _, copy in copies],
        }
    connection.execute(query, parameters, prepare=False)


@dataclass(frozen=True)
class RecordedCorrection:
    """A row of `ops.correction`.

    Attributes:
        correction_id: Its number.
        stream: The stream.
        tenant_id: Whose event it is.
        event_id: Identity of the event, as hexadecimal digits.
        key: Key fields.
        is_applied: `new_content` took the place of `old_content`; else it came too late and the old one counts.
        old_content: Fields and `_extra` before.
        new_content: Fields and `_extra` of the copy that says something else.
        old_known_from: Since when the old content could have been known.
        old_known_to: Until when it was the best known, exclusive; not after `old_known_from`: it never was. None: it still counts.
        old_address: File that said the old content; None where that is not known any more.
        old_row_number: Row in that file.
        new_address: File that said the new content.
        new_row_number: Row in that file.
        batch_id: Batch that wrote this.
        recorded_at: When it was written.
    """

    correction_id: int
    stream: str
    tenant_id: str
    event_id: str
    key: dict[str, Any]
    is_applied: bool
    old_content: dict[str, Any]
    new_content: dict[str, Any]
    old_known_from: datetime
    old_known_to: datetime | None
    old_address: str | None
    old_row_number: int | None
    new_address: str | None
    new_row_number: int | None
    batch_id: int
    recorded_at: datetime

    @property
    def changes(self) -> Iterator[tuple[str, Any, Any]]:
        """Field, old and new value of what differs."""
        for name in [*self.new_content, *(name for name in self.old_content if name not in self.new_content)]:
            old, new = self.old_content.get(name), self.new_content.get(name)
            if old != new:
                yield name, old, new


def list_corrections(
    stream: str | None = None,
    *,
    key: Mapping[str, str] | None = None,
    event_id: bytes | None = None,
    since: datetime | None = None,
    batch_id: int | None = None,
    limit: int = 100,
) -> list[RecordedCorrection]:
    """Recorded corrections, newest first.

    Args:
        stream: Only of this stream.
        key: Only of events whose key fields have these values, as text.
        event_id: Only of this event.
        since: Only those written from then on.
        batch_id: Only those that this batch wrote.
        limit: At most so many.
    """
    query = """
    select c.correction_id, c.stream, c.tenant_id, encode(c.event_id, 'hex') as event_id, c.key, c.is_applied, c.old_content, c.new_content, c.old_known_from,
        c.old_known_to, o.address as old_address, c.old_row_number, n.address as new_address, c.new_row_number, c.batch_id, c.recorded_at
    from ops.correction as c
    left join ops.file as o on o.file_id = c.old_file_id
    left join ops.file as n on n.file_id = c.new_file_id
    where (%(stream)s::text is null or c.stream = %(stream)s) and (%(event_id)s::bytea is null or c.event_id = %(event_id)s)
        and (%(since)s::timestamptz is null or c.recorded_at >= %(since)s) and (%(batch)s::bigint is null or c.batch_id = %(batch)s)
        and not exists (select from jsonb_each_text(%(key)s) as wanted where c.key ->> wanted.key is distinct from wanted.value)
    order by c.recorded_at desc, c.correction_id desc limit %(limit)s
    """
    parameters = {"stream": stream, "key": Jsonb(dict(key or {})), "event_id": event_id, "since": since, "batch": batch_id, "limit": limit}
    with connect(Role.LOADER) as connection, connection.cursor(row_factory=class_row(RecordedCorrection)) as cursor:
        return cursor.execute(query, parameters).fetchall()
