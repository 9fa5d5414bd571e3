"""Replay: quarantined rows once more, through today's contract and mapping, by the code that lands files.

Rows of NDJSON and JSON files and of posts are taken from the quarantine, which holds them whole; rows of other formats, and files that were quarantined
whole, are read again from the zone. A row that passes now lands with its own arrival, file and row number; it was known at the time of the replay.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.types.json import Jsonb

from include.contracts import load_contract
from include.contracts.model import Contract
from include.landing import ledger, store
from include.landing.batch import Attempt, Held, commit_batch
from include.landing.columns import MICROSECONDS
from include.landing.conflicts import Entry
from include.landing.crash import ReplayStep, crash_point
from include.landing.culprits import Culprits
from include.landing.drift import Drift
from include.landing.errors import LandingUnbalanced
from include.landing.identity import Keys
from include.landing.ledger import Arrival, FileCounts
from include.landing.load import BATCH_FILES, PSEUDONYM_KEY, LandingResult, Progress, ProgressListener, land_apart
from include.landing.mapped import mapped_chunks
from include.landing.originals import find_landed
from include.landing.payload import chunk_of_lines
from include.landing.prepared import Prepared, Settled, Stamp
from include.landing.quarantine import QUARANTINED, Filter, State
from include.landing.readers import read_chunks
from include.landing.rows import CHUNK_ROWS, Chunk, Code, RowError
from include.landing.source import Source
from include.landing.validate import FILE_POSITION, ROW_NUMBER, RejectedRow
from include.landing.winner import Copy, Refused, Verdict
from include.landing.zone import Zone, ZoneFile
from include.settings import get_settings, secret
from include.warehouse import Role, connect

REPLAY_ROWS = 200_000
_WHOLE_ORIGINALS = ("ndjson", "json", "posts")  # of which the quarantine has the whole row, to be decoded by itself
_SHIFT = 32  # a row number has 31 bits
_GONE = "the zone no longer holds the file with the bytes that landed, and rows of this format can only be read from their file"


@dataclass(frozen=True)
class _Candidate:
    """A file with rows to replay.

    Attributes:
        file_id: Its line of the ledger.
        arrival: The file as it arrived.
        rows: Number of its rows that the filter names.
        is_whole: It was quarantined whole.
    """

    file_id: int
    arrival: Arrival
    rows: int
    is_whole: bool


def replay(stream: str, selection: Filter, *, by: str, dry_run: bool = False, progress: ProgressListener | None = None) -> LandingResult:
    """Tries open rows of a stream again. What passes lands exactly once, however often this runs and however many run at the same time.

    Whole files together up to `REPLAY_ROWS` rows, or one larger file, are a transaction: rows, their marks in the quarantine, history and batch commit
    together or not at all. Rows that come to the quarantine meanwhile are not tried.

    Args:
        stream: The stream.
        selection: Which of its rows; of these the open ones.
        by: Who does it, for the history.
        dry_run: Do everything and keep nothing: the result says what would become of the rows, each batch by itself.
        progress: Called after each batch.

    Returns:
        Counts as of a load: `landed` is the number of rows tried, `quarantined` those that failed again.

    Raises:
        LandingBusy: If a lock was not free within 30 seconds. Earlier batches are kept; run it again.
        LandingUnbalanced: If rows do not add up. Nothing of the batch was kept.
    """
    contract = load_contract(stream)
    zone = Zone(get_settings().zone_url)
    keys = Keys(secret(PSEUDONYM_KEY).encode() if contract.personal_fields else None)
    selection = replace(selection, stream=stream, state=State.OPEN)
    result = LandingResult(stream)
    with connect(Role.LOADER, autocommit=True) as connection, connect(Role.LOADER, autocommit=True) as originals:
        newest = _newest(connection)
        candidates = _candidates(connection, selection, newest)
        by_arrival = {(candidate.arrival.file.address, candidate.arrival.content_hash): candidate for candidate in candidates}
        work = _Work(connection, originals, zone, contract, keys, selection, newest, by)

        def land(arrivals: Sequence[Arrival]) -> list[FileCounts]:
            files = [by_arrival[arrival.file.address, arrival.content_hash] for arrival in arrivals]
            return commit_batch(connection, lambda culprits: ReplayAttempt(work, files, culprits), keep=not dry_run)

        done = 0
        for files in _batches(candidates):
            try:
                arrivals = [file.arrival for file in files]
                result = land_apart(connection, arrivals, result, land=land, give_up=lambda *_: "left in the quarantine as it was")
            except Held:
                return LandingResult(**{**vars(result), "is_held": True})
            done += len(files)
            if progress:
                progress(Progress(stream, done, len(candidates), result.landed))
    return result


def streams_to_replay(selection: Filter) -> list[str]:
    """Streams with open rows among the selection, in alphabetical order."""
    where, parameters = replace(selection, state=State.OPEN).where()
    with connect(Role.LOADER) as connection:
        rows = connection.execute(sql.SQL("select distinct q.stream {} where {} order by 1").format(QUARANTINED, where), parameters).fetchall()
    return [str(stream) for (stream,) in rows]


def _newest(connection: psycopg.Connection) -> int:
    row = connection.execute("select coalesce(max(quarantine_id), 0) from ops.quarantine").fetchone()
    return int(row[0]) if row else 0


def _candidates(connection: psycopg.Connection, selection: Filter, newest: int) -> list[_Candidate]:
    """Files with open rows, in order of arrival and address."""
    where, parameters = selection.where()
    query = sql.SQL(
        "select f.file_id, f.address, f.stream, f.tenant_id, f.content_hash, f.version_tag, f.size_bytes, f.file_format, f.mapping, f.arrived_at, "
        "f.published_at, count(*), bool_or(q.row_number is null) {} where {} and q.quarantine_id <= %(newest)s "
        "group by f.file_id order by f.arrived_at, f.address, f.file_id"
    ).format(QUARANTINED, where)
    found = []
    for file_id, address, stream, tenant, content_hash, tag, size, form, mapping, arrived_at, published_at, rows, is_whole in connection.execute(
        query, {**parameters, "newest": newest}
    ):
        file_format, _, packed = form.partition(".")
        file = ZoneFile(address, stream, arrived_at, arrived_at, size, tag, tenant, mapping, file_format, packed or None)
        found.append(_Candidate(file_id, Arrival(file, bytes(content_hash), None, arrived_at, published_at), rows, is_whole))
    return found


def _batches(candidates: Sequence[_Candidate]) -> Iterator[list[_Candidate]]:
    """Whole files up to `REPLAY_ROWS` rows, or one larger file; a file that was quarantined whole is a batch of its own, because nobody knows its rows."""
    batch: list[_Candidate] = []
    rows = 0
    for candidate in candidates:
        if candidate.is_whole:
            yield [candidate]
            continue
        if batch and (rows + candidate.rows > REPLAY_ROWS or len(batch) >= BATCH_FILES):
            yield batch
            batch, rows = [], 0
        batch.append(candidate)
        rows += candidate.rows
    if batch:
        yield batch


@dataclass(frozen=True)
class _Work:
    """What all batches of a replay share; `originals` is a connection of its own, because rows are read while the other one writes."""

    connection: psycopg.Connection
    originals: psycopg.Connection
    zone: Zone
    contract: Contract
    keys: Keys
    selection: Filter
    newest: int
    by: str


class ReplayAttempt(Attempt):
    """One attempt at replaying rows of some files."""

    _kind = "replay"

    def __init__(self, work: _Work, files: Sequence[_Candidate], culprits: Culprits) -> None:
        super().__init__(work.connection, work.zone, work.contract, [file.arrival for file in files], work.keys, culprits)
        self._work, self._files = work, files
        self._places = np.empty(0, dtype=np.int64)  # file position and row number in one, ascending
        self._ids = np.empty(0, dtype=np.int64)  # quarantine_id of each
        self._whole: dict[int, int] = {}  # quarantine_id by position of files quarantined whole
        self._gone: dict[int, str] = {}
        self._lost: list[int] = []  # places that today's reader does not find in their file
        self._verdicts: list[tuple[Verdict, pl.DataFrame]] = []
        self._again: list[tuple[int, tuple[RowError, ...]]] = []
        self._settled = 0

    def _wanted(self) -> list[int]:
        """Positions of files with open rows. Selected under the stream's lock, so that of two replays the second finds nothing to do."""
        where, parameters = self._work.selection.where()
        query = sql.SQL("select q.file_id, q.row_number, q.quarantine_id {} where {} and q.file_id = any(%(files)s) and q.quarantine_id <= %(newest)s").format(
            QUARANTINED, where
        )
        positions = {file.file_id: position for position, file in enumerate(self._files)}
        places, ids = array("q"), array("q")
        with self._connection.cursor(name="replay") as cursor:
            cursor.itersize = CHUNK_ROWS
            for file_id, row_number, quarantine_id in cursor.execute(query, {**parameters, "files": list(positions), "newest": self._work.newest}):
                if row_number is None:
                    self._whole[positions[file_id]] = quarantine_id
                else:
                    places.append(positions[file_id] << _SHIFT | row_number)
                    ids.append(quarantine_id)
        order = np.argsort(np.array(places, dtype=np.int64))
        self._places, self._ids = np.array(places, dtype=np.int64)[order], np.array(ids, dtype=np.int64)[order]
        crash_point(ReplayStep.AFTER_SELECTION)
        return sorted({*np.unique(self._places >> _SHIFT).tolist(), *self._whole})

    def _register(self, wanted: Sequence[int]) -> NDArray[np.int64]:
        file_ids = np.zeros(len(self._files), dtype=np.int64)
        file_ids[list(wanted)] = [self._files[position].file_id for position in wanted]
        for position in self._whole:
            published_at = self._arrivals[position].published_at
            if published_at is not None:
                ledger.note_publication(self._connection, self._files[position].file_id, published_at)
        return file_ids

    def _source_to_date(self, position: int) -> Source | None:
        """A file quarantined whole could not be dated when it landed."""
        file = self._landed(position) if position in self._whole else None
        return None if file is None else self._source(position, file, self._zone.open(file))

    def _refused_copies(self, copies: dict[bytes, list[Copy]], held: dict[bytes, Copy]) -> dict[bytes, list[Refused]]:  # noqa: ARG002  they are the ones tried
        return {}

    def _conflict_entries(self, settled: Settled, prepared: Prepared) -> list[Entry]:
        """Rows of a file quarantined whole are new here; the others failed again and stay what they are."""
        entries = super()._conflict_entries(settled, prepared)
        positions = {file.file_id: position for position, file in enumerate(self._files)}
        again = [entry for entry in entries if positions[entry.file_id] not in self._whole]
        ids = self._ids_of(np.array([positions[entry.file_id] << _SHIFT | entry.row_number for entry in again], dtype=np.int64))
        self._again += zip(ids.tolist(), [tuple(entry.errors) for entry in again], strict=True)
        return [entry for entry in entries if positions[entry.file_id] in self._whole]

    def _chunks(self, wanted: Sequence[int]) -> Iterator[Chunk]:
        readable = [position for position in wanted if position not in self._culprits.unreadable]
        in_lines = [position for position in readable if position not in self._whole and self._files[position].arrival.file.file_format in _WHOLE_ORIGINALS]
        yield from self._chunks_of_lines(np.isin(self._places >> _SHIFT, in_lines))
        for position in readable:
            if position not in in_lines:
                yield from self._chunks_of_file(position)

    def _chunks_of_lines(self, chosen: NDArray[np.bool_]) -> Iterator[Chunk]:
        places, ids = self._places[chosen], self._ids[chosen]
        for start in range(0, len(ids), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            rows = self._work.originals.execute(
                "select quarantine_id, coalesce(original, '') from ops.quarantine where quarantine_id = any(%s)", (ids[part].tolist(),), binary=True
            )
            lines: dict[int, bytes] = dict(rows.fetchall())
            positions, numbers = _split(places[part])
            yield chunk_of_lines(self._contract, [lines[number] for number in ids[part].tolist()], positions, numbers)

    def _chunks_of_file(self, position: int) -> Iterator[Chunk]:
        file = self._landed(position)
        if file is None:
            self._gone[position] = _GONE
            return
        self._reread.append(file)
        source = self._source(position, file, self._zone.open(file))
        chunks = read_chunks(iter([source]), self._contract) if file.mapping is None else mapped_chunks(source, self._contract, file.mapping)
        if position in self._whole:
            yield from chunks
            return
        numbers = self._numbers(position)
        found = np.zeros(len(numbers), dtype=bool)
        for chunk in chunks:
            rows = np.flatnonzero(np.isin(chunk.row_number, numbers))
            if len(rows):
                found[np.searchsorted(numbers, chunk.row_number[rows])] = True
                yield chunk.only(rows.tolist())
        self._lost += (position << _SHIFT | numbers[~found].astype(np.int64)).tolist()

    def _landed(self, position: int) -> ZoneFile | None:
        arrival = self._arrivals[position]
        return find_landed(self._zone, arrival.file.address, arrival.file.version_tag, arrival.content_hash)

    def _known_at(self, frame: pl.DataFrame, chunk: Chunk, stamp: Stamp) -> pl.Series:  # noqa: ARG002  the delay of a mapping is that of rows that came through
        return pl.Series([stamp.started_at.astimezone(UTC).replace(tzinfo=None)], dtype=MICROSECONDS).new_from_index(0, frame.height)

    def _load(self, prepared: Prepared, batch_id: int, file_ids: NDArray[np.int64]) -> None:
        if not self._whole.keys() >= set(np.flatnonzero(prepared.read).tolist()):
            prepared = replace(prepared, drift=Drift())  # these rows were counted when their file landed
        super()._load(prepared, batch_id, file_ids)
        self._mark(batch_id)

    def _count(self, verdict: Verdict, places: pl.DataFrame) -> None:
        super()._count(verdict, places)
        if verdict is not Verdict.QUARANTINED:  # such a row fails again
            self._verdicts.append((verdict, places))

    def _reject(self, rows: Sequence[RejectedRow], batch_id: int, file_ids: NDArray[np.int64]) -> None:
        """Rows of a file quarantined whole are new here; the others failed again and stay what they are."""
        new = [row for row in rows if row.file_position in self._whole]
        if new:
            super()._reject(new, batch_id, file_ids)
        again = [row for row in rows if row.file_position not in self._whole]
        ids = self._ids_of(np.array([row.file_position << _SHIFT | row.row_number for row in again], dtype=np.int64))
        self._again += zip(ids.tolist(), [row.errors for row in again], strict=True)

    def _quarantine_unreadable(self, wanted: Sequence[int], batch_id: int, file_ids: NDArray[np.int64]) -> None:  # noqa: ARG002  nothing new is quarantined
        """What could not be read fails again; a file quarantined whole that could be read is settled."""
        reasons = {position: reason for position, reason in (self._culprits.unreadable | self._gone).items() if position in wanted}
        for position, reason in reasons.items():
            ids = [self._whole[position]] if position in self._whole else self._ids[self._places >> _SHIFT == position].tolist()
            self._fail(position, ids, RowError(Code.UNREADABLE_FILE, None, None, reason))
            self._counts[position].unreadable = reason
        for place in self._lost:
            ids = self._ids_of(np.array([place], dtype=np.int64)).tolist()
            self._fail(place >> _SHIFT, ids, RowError(Code.ROW_NOT_FOUND, None, None, "today's reader finds no such row in the file"))
        read = [quarantine_id for position, quarantine_id in self._whole.items() if position not in reasons]
        self._settled += self._close_rows(read, ["read"] * len(read), batch_id)
        self._mark(batch_id)

    def _fail(self, position: int, ids: Sequence[int], error: RowError) -> None:
        self._counts[position].landed += len(ids)
        self._counts[position].quarantined += len(ids)
        self._again += [(quarantine_id, (error,)) for quarantine_id in ids]

    def _mark(self, batch_id: int) -> None:
        """Writes the verdicts of a chunk into the quarantine and its history."""
        ids: list[int] = []
        outcomes: list[str] = []
        for verdict, places in self._verdicts:
            found = self._ids_of(places[FILE_POSITION].to_numpy().astype(np.int64) << _SHIFT | places[ROW_NUMBER].to_numpy())
            ids += found.tolist()
            outcomes += [verdict.value] * len(found)
        self._settled += self._close_rows(ids, outcomes, batch_id)
        failed = self._write_failures(batch_id)
        self._settled += failed
        self._quarantined += failed
        self._verdicts, self._again = [], []
        crash_point(ReplayStep.AFTER_MARKING)

    def _close_rows(self, ids: Sequence[int], outcomes: Sequence[str], batch_id: int) -> int:
        return self._connection.execute(
            "with closed as (update ops.quarantine as q set state = 'replayed', replay_batch_id = %(batch)s, outcome = verdict.outcome "
            "from unnest(%(ids)s::bigint[], %(outcomes)s::text[]) as verdict (quarantine_id, outcome) "
            "where q.quarantine_id = verdict.quarantine_id and q.state = 'open' returning q.quarantine_id, q.outcome) "
            "insert into ops.quarantine_event (quarantine_id, action, outcome, done_by, batch_id, contract_version) "
            "select quarantine_id, 'replay', outcome, %(by)s, %(batch)s, %(version)s from closed",
            {"ids": list(ids), "outcomes": list(outcomes), "batch": batch_id, "by": self._work.by, "version": self._contract.version},
        ).rowcount

    def _write_failures(self, batch_id: int) -> int:
        statement = "copy ops.quarantine_event (quarantine_id, action, outcome, done_by, batch_id, contract_version, codes, errors) from stdin (format binary)"
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(["int8", "text", "text", "text", "int8", "text", "text[]", "jsonb"])
            for quarantine_id, errors in self._again:
                codes, document = store.codes_and_errors(errors)
                copy.write_row((quarantine_id, "replay", "failed", self._work.by, batch_id, self._contract.version, codes, Jsonb(document)))
        return len(self._again)

    def _check_balance(self, wanted: Sequence[int]) -> None:
        super()._check_balance(wanted)
        selected = len(self._ids) + len(self._whole)
        if self._settled != selected:
            raise LandingUnbalanced(
                f"{self._contract.stream}: {selected} rows of the quarantine were chosen, but {self._settled} have a verdict; nothing of the batch was kept"
            )

    def _close_files(self, file_ids: Sequence[int], counts: Sequence[FileCounts], batch_id: int, started_at: datetime) -> None:  # noqa: ARG002  it is in the batch
        whole = {self._files[position].file_id for position in self._whole}
        read = [file_id in whole and count.unreadable is None for file_id, count in zip(file_ids, counts, strict=True)]
        ledger.write_replays(self._connection, batch_id, self._contract.version, file_ids, read, counts)

    def _read_whole(self, wanted: Sequence[int]) -> list[int]:
        return [position for position in super()._read_whole(wanted) if position in self._whole]

    def _numbers(self, position: int) -> NDArray[np.int64]:
        return self._places[self._places >> _SHIFT == position] & ((1 << _SHIFT) - 1)

    def _ids_of(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """quarantine_id of rows; rows of files quarantined whole have none and are left out."""
        if not len(self._places):
            return np.empty(0, dtype=np.int64)
        at = np.searchsorted(self._places, places)
        at = np.minimum(at, len(self._places) - 1)
        return self._ids[at[self._places[at] == places]]


def _split(places: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return (places >> _SHIFT).astype(np.int32), (places & ((1 << _SHIFT) - 1)).astype(np.int32)
