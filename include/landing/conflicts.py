"""`onConflict: quarantine`: copies that say something else than the one that arrived first, on their way to the quarantine."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from include.contracts.model import Contract
from include.landing import ledger, store
from include.landing.errors import LandingError, UnreadableFile
from include.landing.history import PAST
from include.landing.identity import EXTRA
from include.landing.originals import find_landed, read_originals
from include.landing.rows import Code, RowError
from include.landing.store import StoredRow
from include.landing.winner import Copy, Refused, Verdict
from include.landing.zone import Zone

log = logging.getLogger(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PROBLEM = "says something else about this event_id than the copy that arrived first, which counts"


@dataclass(frozen=True)
class Entry:
    """A copy on its way to the quarantine.

    Attributes:
        event_id: Its event.
        content_hash: What it says.
        tenant_id: Whose event it is.
        file_id: Ledger line of its file.
        row_number: Row in the file.
        arrived_at: When the file arrived.
        original: The row as it stood in the file.
        is_rebuilt: The file is not in the zone any more, so the original was made from the stored row.
    """

    event_id: bytes
    content_hash: bytes
    tenant_id: str
    file_id: int
    row_number: int
    arrived_at: datetime
    original: bytes
    is_rebuilt: bool = False

    @property
    def errors(self) -> list[RowError]:
        """Why it is in quarantine; names the event, so that the copy that counts can be found in the raw table."""
        problem = RowError(Code.CONFLICT, None, f"\\x{self.event_id.hex()}", _PROBLEM)
        made = RowError(Code.CONFLICT, None, None, "its file is not in the zone any more: the original is rebuilt from the stored row, as JSON")
        return [problem, made] if self.is_rebuilt else [problem]


def refused_copies(connection: psycopg.Connection, contract: Contract, event_ids: Sequence[bytes]) -> dict[bytes, list[Refused]]:
    """Copies of events that are in quarantine because they say something else than the first one, by event."""
    found: dict[bytes, list[Refused]] = {}
    rows = connection.execute(
        """
        select q.event_id, q.quarantine_id,
            q.state = 'open' and not exists (select from ops.quarantine_event as e where e.quarantine_id = q.quarantine_id)
                and not exists (select from ops.file_replay as r where r.file_id = q.file_id and r.is_whole),
            q.content_hash, q.arrived_at, f.content_hash, q.row_number, f.published_at, f.file_id
        from unnest(%(ids)s::bytea[]) as k (event_id)
        join ops.quarantine as q on q.stream = %(stream)s and q.event_id = k.event_id and q.state in ('open', 'discarded')
        join ops.file as f on f.file_id = q.file_id
        """,
        {"ids": list(event_ids), "stream": contract.stream},
        prepare=False,
    )
    for event_id, quarantine_id, is_untouched, content, arrived_at, file_hash, row_number, published_at, file_id in rows:
        arrived_us = (arrived_at - _EPOCH) // _MICROSECOND
        published_us = None if published_at is None else (published_at - _EPOCH) // _MICROSECOND
        copy = Copy(PAST, bytes(content), None, arrived_us, bytes(file_hash), row_number, arrived_us, published_us, file_id)
        found.setdefault(bytes(event_id), []).append(Refused(quarantine_id, copy, is_untouched))
    return found


@dataclass(frozen=True)
class LostRow:
    """A stored row that an earlier arrival takes the place of.

    Attributes:
        event_id: Its event.
        copy: The row.
        verdict: What it counts as from now on: quarantined, or duplicate where the earlier arrival says the same.
        replay_batch_id: Batch of the replay that it came through; None where it landed with its file.
        quarantine_id: Its line in the quarantine, where it came from one.
        entry: What goes to the quarantine; None for a duplicate, and where it has a line there.
    """

    event_id: bytes
    copy: Copy
    verdict: Verdict
    replay_batch_id: int | None
    quarantine_id: int | None
    entry: Entry | None


def lost_rows(connection: psycopg.Connection, zone: Zone, contract: Contract, events: Mapping[bytes, tuple[Copy, datetime, Verdict]]) -> list[LostRow]:
    """Stored rows that lose their place, those that go to the quarantine with their originals.

    Where the zone does not have the file in that form any more, the original is rebuilt from the row: a JSON object of the stream's own shape.

    Args:
        connection: In a transaction, before the rows are replaced.
        zone: The landing zone.
        contract: The stream's contract.
        events: The stored copy, its event time and what it counts as, by event_id.
    """
    if not events:
        return []
    replays = _replays(connection, [copy for copy, _, _ in events.values()])
    quarantined = {event_id: (copy, event_at) for event_id, (copy, event_at, verdict) in events.items() if verdict is Verdict.QUARANTINED}
    entries = _entries(connection, zone, contract, {key: one for key, one in quarantined.items() if replays.get(_place(one[0]), (0, None))[1] is None})
    found = []
    for event_id, (copy, _, verdict) in events.items():
        batch_id, quarantine_id = replays.get(_place(copy), (None, None))
        found.append(LostRow(event_id, copy, verdict, batch_id, quarantine_id, entries.get(event_id)))
    return found


def _place(copy: Copy) -> tuple[int | None, int]:
    return copy.file_id, copy.row_number


def _replays(connection: psycopg.Connection, copies: Sequence[Copy]) -> dict[tuple[int | None, int], tuple[int, int | None]]:
    """Batch of the replay, and line in the quarantine, of rows that came through one; a row of a file that was quarantined whole has no line."""
    rows = connection.execute(
        """
        select k.file_id, k.row_number, coalesce(q.replay_batch_id, r.batch_id), q.quarantine_id
        from unnest(%s::bigint[], %s::int[]) as k (file_id, row_number)
        left join ops.quarantine as q on q.file_id = k.file_id and q.row_number = k.row_number and q.state = 'replayed'
        left join ops.file_replay as r on r.file_id = k.file_id and r.is_whole
        where q.quarantine_id is not null or r.batch_id is not null
        """,
        ([copy.file_id for copy in copies], [copy.row_number for copy in copies]),
    )
    return {(file_id, row_number): (batch_id, quarantine_id) for file_id, row_number, batch_id, quarantine_id in rows}


def _entries(connection: psycopg.Connection, zone: Zone, contract: Contract, events: Mapping[bytes, tuple[Copy, datetime]]) -> dict[bytes, Entry]:
    rows = store.stored_rows(connection, contract, {event_id: event_at for event_id, (_, event_at) in events.items()})
    originals: dict[int, dict[int, bytes]] = {}
    for file_id, (address, version_tag, content_hash) in ledger.addresses(connection, {row.file_id for row in rows.values()}).items():
        wanted = {row.row_number for row in rows.values() if row.file_id == file_id}
        originals[file_id] = _in_zone(zone, address, version_tag, content_hash, wanted)
    found = {}
    for event_id, row in rows.items():
        original = originals.get(row.file_id, {}).get(row.row_number)
        place = (event_id, events[event_id][0].content, row.tenant_id, row.file_id, row.row_number, row.arrived_at)
        found[event_id] = Entry(*place, rebuilt(row, contract) if original is None else original, original is None)
    return found


def judge_replays_anew(connection: psycopg.Connection, contract_version: str, lost: Sequence[LostRow]) -> int:
    """Says in the quarantine and its history what became of replayed rows that lost their place: a conflict is open again, a duplicate stays closed.

    Returns:
        How many lines are open again.
    """
    reopened = 0
    for row in lost:
        if row.quarantine_id is None:
            continue
        is_open = row.verdict is Verdict.QUARANTINED
        errors = Jsonb([RowError(Code.CONFLICT, None, None, _PROBLEM).as_dict()])
        outcome, codes = ("failed", [Code.CONFLICT.value]) if is_open else ("duplicate", None)
        connection.execute(
            "insert into ops.quarantine_event (quarantine_id, action, outcome, done_by, batch_id, contract_version, codes, errors) "
            "values (%s, 'replay', %s, 'landing', %s, %s, %s, %s)",
            (row.quarantine_id, outcome, row.replay_batch_id, contract_version, codes, errors if is_open else None),
        )
        connection.execute(
            "update ops.quarantine set state = 'open', replay_batch_id = null, outcome = null where quarantine_id = %s"
            if is_open
            else "update ops.quarantine set outcome = 'duplicate' where quarantine_id = %s",
            (row.quarantine_id,),
        )
        reopened += is_open
    return reopened


def quarantine(
    connection: psycopg.Connection, stream: str, batch_id: int, entries: Sequence[Entry], released: Mapping[bytes, Sequence[Refused]]
) -> tuple[int, list[Refused]]:
    """Writes entries; they take the lines of released copies of their event, so that the quarantine holds each content of an event once.

    A released copy whose line nobody needs keeps it, because nothing is deleted: what lost its place had come through a replay and has a line of its own. A
    replay makes a duplicate of it.

    Args:
        connection: In a transaction.
        stream: The stream.
        batch_id: The batch.
        entries: What goes to the quarantine.
        released: By event, copies that leave it.

    Returns:
        By how many lines the quarantine grew, and the copies that left it.
    """
    free = {event_id: list(refused) for event_id, refused in released.items()}
    lines = []
    left: list[Refused] = []
    for entry in sorted(entries, key=lambda entry: entry.row_number):
        waiting = free.get(entry.event_id, [])
        waiting.sort(key=lambda refused: refused.copy.content == entry.content_hash)
        left += waiting[-1:]
        lines.append((waiting.pop().quarantine_id if waiting else None, entry))
    values = [
        {
            "line": line,
            "stream": stream,
            "tenant": entry.tenant_id,
            "file": entry.file_id,
            "row": entry.row_number,
            "batch": batch_id,
            "codes": [Code.CONFLICT.value],
            "errors": Jsonb([error.as_dict() for error in entry.errors]),
            "original": entry.original,
            "arrived": entry.arrived_at,
            "event": entry.event_id,
            "content": entry.content_hash,
        }
        for line, entry in lines
    ]
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            update ops.quarantine set tenant_id = %(tenant)s, file_id = %(file)s, row_number = %(row)s, batch_id = %(batch)s, codes = %(codes)s,
                errors = %(errors)s, original = %(original)s, arrived_at = %(arrived)s, event_id = %(event)s, content_hash = %(content)s,
                quarantined_at = clock_timestamp()
            where quarantine_id = %(line)s
            """,
            [value for value in values if value["line"] is not None],
        )
        cursor.executemany(
            """
            insert into ops.quarantine (stream, tenant_id, file_id, row_number, batch_id, codes, errors, original, arrived_at, event_id, content_hash)
            values (%(stream)s, %(tenant)s, %(file)s, %(row)s, %(batch)s, %(codes)s, %(errors)s, %(original)s, %(arrived)s, %(event)s, %(content)s)
            """,
            [value for value in values if value["line"] is None],
        )
    return sum(1 for line, _ in lines if line is None), left


def rebuilt(row: StoredRow, contract: Contract) -> bytes:
    """A stored row as a payload that the major it follows reads again: fields under their paths, unknown ones beside them, and the tenant."""
    content = json.loads(row.content)
    own = contract.written_by(content)
    payload: dict[str, Any] = dict(content.get(EXTRA) or {})
    payload["tenantId"] = row.tenant_id
    # A row that has values of two majors keeps those of the other one where nothing else stands.
    for field in (*own.fields, *(field for name, field in contract.column_by_name.items() if name not in own.by_name)):
        if content[field.name] is not None:
            group = payload
            for part in field.path[:-1]:
                group = group.setdefault(part, {})
            group.setdefault(field.path[-1], content[field.name])
    return json.dumps(payload, ensure_ascii=False).encode()


def _in_zone(zone: Zone, address: str, version_tag: str, content_hash: bytes, row_numbers: set[int]) -> dict[int, bytes]:
    """Originals of a file's rows; none where the zone holds no file, or other bytes, under its address."""
    try:
        file = find_landed(zone, address, version_tag, content_hash)
        return read_originals(zone, file, row_numbers) if file is not None else {}
    except (OSError, LandingError, UnreadableFile) as error:
        log.warning("%s cannot be read any more, so originals of displaced rows are rebuilt: %s", address, error)
        return {}
