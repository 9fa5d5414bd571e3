"""One batch: whole files of one stream in one transaction, ledger included, or nothing at all."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import BinaryIO

import numpy as np
import polars as pl
import psycopg
from numpy.typing import NDArray

from include.contracts.model import EVENT_AT, Contract, OnConflict
from include.landing import conflicts, corrections, ledger, post_results, store
from include.landing.conflicts import Entry, LostRow
from include.landing.crash import Step, crash_point
from include.landing.culprits import Culprits
from include.landing.drift import Drift, chunk_drift, lost_columns, write_drift
from include.landing.errors import LandingUnbalanced, RowsRefused, UnreadableFile, ZoneError
from include.landing.history import is_disputed
from include.landing.identity import CONTENT_HASH, EVENT_ID, Keys, content_hashes, event_ids, pseudonyms
from include.landing.ledger import Arrival, FileCounts
from include.landing.majors import judge
from include.landing.mapped import mapped_chunks, published_at
from include.landing.movements import Movement, Movements, Reason, identities, rows_by_partition, write_movements
from include.landing.post_results import PostCounts
from include.landing.prefetch import prefetched
from include.landing.prepared import Prepared, Settled, Stamp
from include.landing.readers import read_chunks
from include.landing.rows import TENANT, Chunk, Code, RowError
from include.landing.source import POSTS, Source
from include.landing.validate import ARRIVED_AT, FILE_POSITION, ROW_NUMBER, RejectedRow
from include.landing.winner import Copy, Refused, Verdict, settle
from include.landing.zone import Zone, ZoneFile

HEAD_BYTES = 64 << 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MONTH = pl.col(EVENT_AT).dt.truncate("1mo")


class Held(Exception):
    """The stream was put on hold before the batch began."""


def land_batch(connection: psycopg.Connection, zone: Zone, contract: Contract, arrivals: Sequence[Arrival], keys: Keys) -> list[FileCounts]:
    """Lands files in one transaction.

    Args:
        connection: In autocommit, as the loader.
        zone: The landing zone.
        contract: The stream's contract.
        arrivals: The files, in order of arrival and address.
        keys: Secrets.

    Returns:
        What became of the rows of each file that was still to be landed once the stream's lock was held; empty if another load had landed them all.

    Raises:
        Held: If the stream is on hold.
        LandingUnbalanced: If rows do not add up.
    """
    return commit_batch(connection, lambda culprits: Attempt(connection, zone, contract, arrivals, keys, culprits))


def commit_batch(connection: psycopg.Connection, make_attempt: Callable[[Culprits], Attempt], *, keep: bool = True) -> list[FileCounts]:
    """Tries a batch until no row or file of it stops the others, and commits it.

    Args:
        connection: In autocommit, as the loader.
        make_attempt: Makes an attempt that knows what earlier ones found out.
        keep: Whether to commit; otherwise the batch is rolled back once it is known what it would have done.
    """
    culprits = Culprits()
    while True:
        try:
            with connection.transaction(force_rollback=not keep):
                counts = make_attempt(culprits).run()
                crash_point(Step.BEFORE_COMMIT)
            crash_point(Step.AFTER_COMMIT)
            return counts
        except UnreadableFile as error:
            culprits.unreadable[error.position] = error.reason
            if error.columns is not None:
                culprits.columns[error.position] = error.columns
        except RowsRefused as error:
            culprits.refused |= error.reasons


class Attempt:
    """One attempt at a batch of files. A replay (`include.landing.replay`) is one of quarantined rows: it overrides what differs."""

    _kind = "load"

    def __init__(self, connection: psycopg.Connection, zone: Zone, contract: Contract, arrivals: Sequence[Arrival], keys: Keys, culprits: Culprits) -> None:
        self._connection, self._zone, self._contract, self._arrivals, self._keys, self._culprits = connection, zone, contract, list(arrivals), keys, culprits
        self._arrived = np.array([(arrival.arrived_at - _EPOCH) // _MICROSECOND for arrival in arrivals], dtype=np.int64)
        self._issued = np.array([((arrival.published_at or arrival.arrived_at) - _EPOCH) // _MICROSECOND for arrival in arrivals], dtype=np.int64)
        self._counts = [FileCounts() for _ in arrivals]
        self._posts = PostCounts(arrivals)
        self._owners = pl.Series([arrival.tenant_id if arrival.file.file_format == POSTS else None for arrival in arrivals], dtype=pl.String)
        self._months: set[datetime] = set()
        self._holds_raw_changes = False
        self._grown = 0
        self._movements: Movements = Counter()
        self._quarantined = 0
        self._drift = Drift()
        self._elsewhere = FileCounts()  # how counts of earlier batches changed
        self._reread: list[ZoneFile] = []
        self._expired: frozenset[date] = frozenset()  # months that have left the raw table

    def run(self) -> list[FileCounts]:
        """Lands the files inside the caller's transaction and says what became of each that was still to be landed.

        Raises:
            Held: If the stream is on hold.
            LandingUnbalanced: If rows do not add up.
            RowsRefused: If the server refuses rows; the next attempt is to know of them.
            UnreadableFile: If a file cannot be read; the same.
        """
        connection, contract = self._connection, self._contract
        connection.execute("select ops.lock_stream(%s)", (contract.stream,))
        crash_point(Step.AFTER_STREAM_LOCK)
        state = ledger.stream_state(connection, contract.stream)
        if state and state.is_held:
            raise Held
        if contract.expires:
            self._expired = ledger.expired_months(connection, contract.stream)
        wanted = self._wanted()
        if not wanted:
            return []
        store.prefer_index_probes(connection)
        row = connection.execute("select nextval('ops.batch_id_seq'), clock_timestamp()").fetchone()
        if row is None:
            raise LandingUnbalanced("the warehouse gave no batch id")
        batch_id, started_at = int(row[0]), row[1]
        self._date_publications(wanted)
        file_ids = self._register(wanted)
        with prefetched(self._prepared(wanted, Stamp(batch_id, started_at, file_ids))) as chunks:
            for prepared in chunks:
                crash_point(Step.AFTER_VALIDATION)
                self._load(prepared, batch_id, file_ids)
        self._quarantine_unreadable(wanted, batch_id, file_ids)
        crash_point(Step.BEFORE_LEDGER)
        self._check_balance(wanted)
        self._check_unchanged()
        counts = [self._counts[position] for position in wanted]
        last_arrived_at = max(self._arrivals[position].arrived_at for position in wanted)
        write_movements(connection, contract.stream, batch_id, self._movements)
        ledger.write_batch(connection, contract.stream, batch_id, started_at, counts, last_arrived_at, self._kind)
        self._drift.add(lost_columns(self._culprits.columns, contract, self._arrivals))
        write_drift(connection, contract, batch_id, started_at, self._drift, is_load=self._kind == "load")
        self._close_files(file_ids[wanted].tolist(), counts, batch_id, started_at)
        self._posts.write(connection, {at: int(file_ids[at]) for at in self._read_whole(wanted)}, self._counts)
        return counts

    def _wanted(self) -> list[int]:
        """Positions of the files that are still to be landed; looked up under the stream's lock."""
        settled = {
            (known.address, known.content_hash)
            for entries in ledger.known_files(self._connection, [arrival.file.address for arrival in self._arrivals]).values()
            for known in entries
            if known.is_settled
        }
        return [position for position, arrival in enumerate(self._arrivals) if (arrival.file.address, arrival.content_hash) not in settled]

    def _date_publications(self, wanted: Sequence[int]) -> None:
        """Finds out when mapped files were published, where their mapping says how: among copies that counts for the arrival."""
        for position in wanted:
            arrival = self._arrivals[position]
            source = None if arrival.file.mapping is None or position in self._culprits.unreadable else self._source_to_date(position)
            if source is None or arrival.file.mapping is None:
                continue
            moment = published_at(source, arrival.file.mapping, arrival.arrived_at + self._contract.future_tolerance)
            if moment is not None:
                self._arrivals[position] = replace(arrival, published_at=moment)
                self._issued[position] = (moment - _EPOCH) // _MICROSECOND

    def _source_to_date(self, position: int) -> Source | None:
        return self._open(position)

    def _register(self, wanted: Sequence[int]) -> NDArray[np.int64]:
        """file_id by position."""
        file_ids = np.zeros(len(self._arrivals), dtype=np.int64)
        file_ids[list(wanted)] = ledger.register(self._connection, [self._arrivals[at] for at in wanted], self._contract.version)
        return file_ids

    def _close_files(self, file_ids: Sequence[int], counts: Sequence[FileCounts], batch_id: int, started_at: datetime) -> None:
        ledger.settle(self._connection, file_ids, counts, batch_id, started_at)

    def _read_whole(self, wanted: Sequence[int]) -> list[int]:
        """Positions of files of which all rows are counted here."""
        return [position for position in wanted if self._counts[position].unreadable is None]

    def _prepared(self, wanted: Sequence[int], stamp: Stamp) -> Iterator[Prepared]:
        """Reads, validates, identifies and encodes; runs beside the server's work and does not touch the connection."""
        for chunk in self._chunks(wanted):
            yield self._prepare(chunk, stamp)

    def _chunks(self, wanted: Sequence[int]) -> Iterator[Chunk]:
        readable = [position for position in wanted if position not in self._culprits.unreadable]
        yield from read_chunks((self._open(position) for position in readable if self._arrivals[position].file.mapping is None), self._contract)
        for position in readable:
            mapping = self._arrivals[position].file.mapping
            if mapping is not None:
                yield from mapped_chunks(self._open(position), self._contract, mapping)

    def _open(self, position: int) -> Source:
        arrival = self._arrivals[position]
        if arrival.data is None:
            self._reread.append(arrival.file)
        stream = io.BytesIO(arrival.data) if arrival.data is not None else self._zone.open(arrival.file)
        return self._source(position, arrival.file, stream)

    def _source(self, position: int, file: ZoneFile, stream: BinaryIO) -> Source:
        return Source(position, stream, file.file_format, file.compression, self._owners[position], self._posts.first_rows.get(position, []))

    def _prepare(self, chunk: Chunk, stamp: Stamp) -> Prepared:
        contract = self._contract
        for row in self._refused_rows(chunk):
            reason = self._culprits.refused[int(chunk.file_position[row]), int(chunk.row_number[row])]
            chunk.refuse(row, RowError(Code.COPY_REFUSED, None, None, f"the server refused the row: {reason}"))
        owners = self._owners.gather(chunk.file_position) if self._posts.first_rows else None
        validated = judge(chunk, contract, self._arrived[chunk.file_position], self._expired, owners)
        frame = validated.accepted
        if frame.height:
            tenants = pl.Series([arrival.tenant_id for arrival in self._arrivals])
            frame = frame.with_columns(pl.coalesce(pl.col(TENANT), tenants.gather(frame[FILE_POSITION])).alias(TENANT))
            known = self._known_at(frame, chunk, stamp)
            frame = frame.with_columns(event_ids(frame, contract, self._keys.pseudonym), content_hashes(frame, contract.columns), known.alias(store.KNOWN_AT))
            if self._keys.pseudonym is not None:
                key = self._keys.pseudonym
                frame = frame.with_columns([pseudonyms(frame[field.name], key).alias(str(field.pseudonym)) for field in contract.personal_fields])
            # Nearly every chunk is stored as it is, so it is put in order and encoded here; in order of time, because so stand the pages of the index.
            frame = stamp.on(frame).sort(EVENT_AT, maintain_order=True)
        data = store.encoded(contract, frame) if frame.height else b""
        kept = chunk if contract.on_conflict is OnConflict.QUARANTINE else None
        repeated = frame[EVENT_ID].is_duplicated() if frame.height else pl.Series([], dtype=pl.Boolean)
        drift = chunk_drift(chunk, frame, validated.rejected, contract, self._arrivals)
        return Prepared(frame, repeated, data, validated.rejected, np.bincount(chunk.file_position, minlength=len(self._arrivals)), kept, drift)

    def _known_at(self, frame: pl.DataFrame, chunk: Chunk, stamp: Stamp) -> pl.Series:  # noqa: ARG002  a replay looks at it
        if chunk.known_after is not None:
            return frame[EVENT_AT] + chunk.known_after
        return pl.Series(self._issued[frame[FILE_POSITION].to_numpy()]).cast(pl.Datetime("us"))

    def _refused_rows(self, chunk: Chunk) -> list[int]:
        if not self._culprits.refused:
            return []
        places = zip(chunk.file_position.tolist(), chunk.row_number.tolist(), strict=True)
        return [row for row, place in enumerate(places) if place in self._culprits.refused]

    def _load(self, prepared: Prepared, batch_id: int, file_ids: NDArray[np.int64]) -> None:
        """Writes a chunk: decides between copies, replaces stored rows that lost, copies the rest, quarantines what was rejected."""
        for position, count in enumerate(prepared.read.tolist()):
            self._counts[position].landed += count
        self._drift.add(prepared.drift)
        frame = prepared.frame
        if frame.height:
            self._note_span(frame)
            stored = store.stored_copies(self._connection, self._contract, frame)
            crash_point(Step.AFTER_LOOKUP)
            settled = self._settle(prepared, stored, batch_id)
            changed = {*settled.replaced, *(event_id for event_id, (copy, _) in settled.restated.items() if copy.known_us != stored[event_id][0].known_us)}
            if any(stored[event_id][2] != batch_id for event_id in changed) and not self._holds_raw_changes:
                self._connection.execute("select ops.lock_raw_changes()")
                self._holds_raw_changes = True
            if settled.conflicts or settled.displaced:
                self._quarantine_conflicts(settled, prepared, stored, batch_id, file_ids)
            if settled.restated:
                store.restate(self._connection, self._contract, settled.restated, batch_id)
            rows = settled.rows
            self._ensure_partitions(rows)
            data = prepared.data if rows is frame else store.encoded(self._contract, rows)
            self._grown += store.write_rows(self._connection, self._contract, rows, data, settled.replaced, batch_id)
            self._note_movements(settled, stored, changed, batch_id)
            crash_point(Step.AFTER_COPY)
        if prepared.rejected:
            self._reject(prepared.rejected, batch_id, file_ids)
            for row in prepared.rejected:
                self._counts[row.file_position].quarantined += 1
            places = np.array([(row.file_position, row.row_number) for row in prepared.rejected], dtype=np.int64)
            self._posts.count(Verdict.QUARANTINED, places[:, 0], places[:, 1])

    def _reject(self, rows: Sequence[RejectedRow], batch_id: int, file_ids: NDArray[np.int64]) -> None:
        rejected = [
            (int(file_ids[row.file_position]), self._arrivals[row.file_position].tenant_id, self._arrivals[row.file_position].arrived_at, row) for row in rows
        ]
        self._quarantined += store.write_quarantine(self._connection, self._contract.stream, batch_id, rejected, [])

    def _settle(self, prepared: Prepared, stored: dict[bytes, tuple[Copy, datetime, int]], batch_id: int) -> Settled:
        """Counts every row, records corrections, and picks the rows to write."""
        frame, contested = prepared.frame, prepared.repeated
        if stored:
            contested = contested | frame[EVENT_ID].is_in(list(stored))
        places = frame.select(FILE_POSITION, ROW_NUMBER)
        self._count(Verdict.ACCEPTED, places.filter(~contested))
        settled = Settled(frame)
        if not contested.any():
            return settled
        copies: dict[bytes, list[Copy]] = {}
        for event_id, copy in self._copies(frame, contested.arg_true()):
            copies.setdefault(event_id, []).append(copy)
        for group in copies.values():
            group.sort(key=lambda copy: (copy.arrived_us, copy.file_id, copy.row_number))  # chunks are in order of event time
        held = {event_id: stored[event_id][0] for event_id in copies if event_id in stored}
        refused = self._refused_copies(copies, held)
        verdicts: dict[Verdict, list[int]] = {verdict: [] for verdict in Verdict}
        winners: dict[bytes, Copy] = {}
        for event_id, group in copies.items():
            outcome = settle(group, held.get(event_id), self._contract, refused.get(event_id, ()))
            winners[event_id] = outcome.winner
            for copy, verdict in zip(group, outcome.verdicts, strict=True):
                verdicts[verdict].append(copy.row)
                if verdict is Verdict.QUARANTINED:
                    settled.conflicts.append((event_id, copy))
            if outcome.displaced is not None:
                settled.displaced[event_id] = outcome.displaced
            if outcome.released:
                settled.released[event_id] = outcome.released
        for verdict, rows in verdicts.items():
            if rows:
                self._count(verdict, places[rows])
        disputes = {event_id: group for event_id, group in copies.items() if is_disputed(group, held.get(event_id), self._contract)}
        if disputes:
            lasting = corrections.record(self._connection, self._contract, frame, disputes, stored, batch_id)
            winners |= {event_id: replace(winners[event_id], known_us=statement.known_us) for event_id, statement in lasting.items()}
        keep = (~contested).to_numpy().copy()
        known = frame[store.KNOWN_AT].to_physical().to_numpy().copy()
        for event_id, winner in winners.items():
            holder = held.get(event_id)
            if holder is not None and winner.content == holder.content:
                if (winner.place, winner.known_us) != (holder.place, holder.known_us):
                    settled.restated[event_id] = (winner, stored[event_id][1])
            else:
                keep[winner.row] = True
                known[winner.row] = winner.known_us
                if holder is not None:
                    settled.replaced[event_id] = stored[event_id][1]
        known_at = pl.Series(store.KNOWN_AT, known).cast(pl.Datetime("us"))
        settled.rows = frame.with_columns(known_at).filter(pl.Series(keep))
        return settled

    def _refused_copies(self, copies: dict[bytes, list[Copy]], held: dict[bytes, Copy]) -> dict[bytes, list[Refused]]:
        """What the quarantine holds of events whose copies differ."""
        if self._contract.on_conflict is not OnConflict.QUARANTINE:
            return {}
        differing = [event_id for event_id, group in copies.items() if len({copy.content for copy in (*group, held.get(event_id, group[0]))}) > 1]
        return conflicts.refused_copies(self._connection, self._contract, differing) if differing else {}

    def _quarantine_conflicts(
        self, settled: Settled, prepared: Prepared, stored: dict[bytes, tuple[Copy, datetime, int]], batch_id: int, file_ids: NDArray[np.int64]
    ) -> None:
        """Quarantines what says something else than the first arrival; what lost its place to an earlier one is counted anew where it was counted."""
        displaced = {event_id: (*stored[event_id][:2], verdict) for event_id, verdict in settled.displaced.items()}
        lost = conflicts.lost_rows(self._connection, self._zone, self._contract, displaced)
        entries = [*self._conflict_entries(settled, prepared), *(row.entry for row in lost if row.entry is not None)]
        grown, left = conflicts.quarantine(self._connection, self._contract.stream, batch_id, entries, settled.released)
        self._quarantined += grown + conflicts.judge_replays_anew(self._connection, self._contract.version, lost)
        positions = {int(file_id): position for position, file_id in enumerate(file_ids) if file_id}
        given: dict[tuple[int, int], list[LostRow]] = {}
        for row in lost:
            origin = stored[row.event_id][2]
            position = positions.get(row.copy.file_id or 0) if origin == batch_id else None
            counted_in = self._recount(row.copy, position, row.replay_batch_id, Verdict.ACCEPTED, row.verdict)
            if counted_in is not None:
                given.setdefault((counted_in, origin), []).append(row)
        for (counted_in, origin), rows in given.items():
            self._give_rows(counted_in, origin, {row.event_id: stored[row.event_id][1] for row in rows})
        for refused in left:
            self._recount(refused.copy, positions.get(refused.copy.file_id or 0), None, Verdict.QUARANTINED, Verdict.DUPLICATE)

    def _recount(self, copy: Copy, position: int | None, replay_batch_id: int | None, before: Verdict, after: Verdict) -> int | None:
        """Counts a row anew: in this batch where its file has a position here, else in the batch that counted it, which is given."""
        change = FileCounts()
        setattr(change, before.value, -1)
        setattr(change, after.value, 1)
        if position is not None:
            self._counts[position].add(change)
            place = np.array([position]), np.array([copy.row_number])
            self._posts.count(before, *place, by=-1)
            self._posts.count(after, *place)
            return None
        self._elsewhere.add(change)
        post_results.recount(self._connection, copy.file_id, replay_batch_id, copy.row_number, change)
        return ledger.recount(self._connection, copy.file_id, replay_batch_id, change)

    def _give_rows(self, counted_in: int, origin: int, events: dict[bytes, datetime]) -> None:
        """Enters rows that an earlier batch had accepted, and this one accepts in their place, under this batch instead of that one."""
        partitions = rows_by_partition(self._connection, self._contract, identities(events))
        given = {Movement(partition, origin, Reason.CORRECTION): count for partition, count in partitions.items()}
        self._movements.update(given)
        write_movements(self._connection, self._contract.stream, counted_in, Counter({movement: -count for movement, count in given.items()}))

    def _conflict_entries(self, settled: Settled, prepared: Prepared) -> list[Entry]:
        entries = []
        for event_id, copy in settled.conflicts:
            row = prepared.frame.row(copy.row, named=True)
            position = row[FILE_POSITION]
            place = (event_id, copy.content, row[TENANT], row[store.FILE_ID], copy.row_number, self._arrivals[position].arrived_at)
            entries.append(Entry(*place, prepared.original(position, copy.row_number)))
        return entries

    def _copies(self, frame: pl.DataFrame, rows: pl.Series) -> Iterator[tuple[bytes, Copy]]:
        part = frame[rows]
        version = self._contract.version_field
        versions = part[version].to_physical().to_list() if version else [None] * part.height
        columns = (
            part[EVENT_ID].to_list(),
            rows.to_list(),
            part[CONTENT_HASH].to_list(),
            versions,
            part[ARRIVED_AT].to_physical().to_list(),
            part[FILE_POSITION].to_list(),
            part[ROW_NUMBER].to_list(),
            part[store.KNOWN_AT].to_physical().to_list(),
            part[store.FILE_ID].to_list(),
        )
        for event_id, row, content, value, arrived, position, number, known, file_id in zip(*columns, strict=True):
            arrival = self._arrivals[position]
            published = None if arrival.published_at is None else int(self._issued[position])
            yield event_id, Copy(row, content, value, arrived, arrival.content_hash, number, known, published, file_id)

    def _count(self, verdict: Verdict, places: pl.DataFrame) -> None:
        """Counts rows, given by file position and row number."""
        self._posts.count(verdict, places[FILE_POSITION].to_numpy(), places[ROW_NUMBER].to_numpy())
        for position, count in enumerate(np.bincount(places[FILE_POSITION].to_numpy(), minlength=1).tolist()):
            if count:
                counts = self._counts[position]
                setattr(counts, verdict.value, getattr(counts, verdict.value) + count)

    def _note_span(self, frame: pl.DataFrame) -> None:
        spans = frame.group_by(FILE_POSITION).agg(pl.col(EVENT_AT).min().alias("first"), pl.col(EVENT_AT).max().alias("last"))
        for position, first, last in spans.iter_rows():
            counts, first, last = self._counts[position], first.replace(tzinfo=UTC), last.replace(tzinfo=UTC)
            counts.first_event_at = min(first, counts.first_event_at or first)
            counts.last_event_at = max(last, counts.last_event_at or last)

    def _ensure_partitions(self, rows: pl.DataFrame) -> None:
        if self._contract.partition != "month" or not rows.height:
            return
        months = set(rows.select(_MONTH.unique()).to_series().to_list()) - self._months
        for month in sorted(months):
            moment = month.replace(tzinfo=UTC)
            self._connection.execute("select ops.ensure_partitions(%s, %s, %s)", (self._contract.stream, moment, moment))
        self._months |= months

    def _note_movements(self, settled: Settled, stored: dict[bytes, tuple[Copy, datetime, int]], changed: Set[bytes], batch_id: int) -> None:
        """Counts what came and what left, by partition. A row that replaces a stored one, or was dated anew, leaves the batch that had written it."""
        new = settled.rows.filter(~pl.col(EVENT_ID).is_in(list(settled.replaced))) if settled.replaced else settled.rows
        for partition, count in rows_by_partition(self._connection, self._contract, new).items():
            self._movements[Movement(partition, batch_id, Reason(self._kind))] += count
        for origin in {stored[event_id][2] for event_id in changed}:
            taken = identities({event_id: stored[event_id][1] for event_id in changed if stored[event_id][2] == origin})
            for partition, count in rows_by_partition(self._connection, self._contract, taken).items():
                self._movements[Movement(partition, batch_id, Reason.CORRECTION)] += count
                self._movements[Movement(partition, origin, Reason.CORRECTION)] -= count

    def _quarantine_unreadable(self, wanted: Sequence[int], batch_id: int, file_ids: NDArray[np.int64]) -> None:
        unreadable = []
        for position, reason in sorted(self._culprits.unreadable.items()):
            if position not in wanted:
                continue
            arrival, counts = self._arrivals[position], self._counts[position]
            counts.landed, counts.quarantined, counts.unreadable = 1, 1, reason
            with io.BytesIO(arrival.data) if arrival.data is not None else self._zone.open(arrival.file) as stream:
                head = stream.read(HEAD_BYTES)
            unreadable.append((int(file_ids[position]), arrival.tenant_id, arrival.arrived_at, reason, head))
        if unreadable:
            self._quarantined += store.write_quarantine(self._connection, self._contract.stream, batch_id, [], unreadable)

    def _check_unchanged(self) -> None:
        """A file that is not kept in memory is read twice, for its hash and for its rows: both must have seen the same bytes."""
        for file in self._reread:
            now = self._zone.find(file.address)
            if now is None or now.version_tag != file.version_tag:
                raise ZoneError(f"{file.address} was {'written anew' if now else 'removed'} while it was read; nothing of the batch was kept")

    def _check_balance(self, wanted: Sequence[int]) -> None:
        for position in wanted:
            counts = self._counts[position]
            if not counts.is_balanced:
                raise LandingUnbalanced(f"{self._arrivals[position].file.address}: {counts} does not add up; nothing of the batch was kept")
        accepted, quarantined = (sum(getattr(self._counts[position], name) for position in wanted) for name in ("accepted", "quarantined"))
        moved, elsewhere = self._movements.total(), self._elsewhere
        if (self._grown, moved, self._quarantined) != (accepted + elsewhere.accepted, accepted, quarantined + elsewhere.quarantined):
            raise LandingUnbalanced(
                f"{self._contract.stream}: the raw table grew by {self._grown} rows, its partitions by {moved} and the quarantine by {self._quarantined}, "
                f"but {accepted} rows were accepted and {quarantined} rejected; nothing of the batch was kept"
            )
