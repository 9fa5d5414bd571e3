"""Landing as the rest of the house calls it: land what is pending, land everything, hold and release a stream."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg import sql

from include.contracts import load_contract
from include.contracts.model import Contract
from include.landing import ledger, store
from include.landing.batch import Held, land_batch
from include.landing.crash import Step, crash_point
from include.landing.errors import LandingBusy, LandingError, LandingUnbalanced, ZoneError
from include.landing.identity import Keys
from include.landing.ledger import Arrival, FileCounts
from include.landing.zone import Zone, ZoneFile
from include.settings import get_settings, secret
from include.warehouse import Role, connect

LOOK_BACK = timedelta(hours=48)
BATCH_BYTES = 64 << 20
BATCH_FILES = 2000
ANALYZE_AFTER = 50_000
_STALE_GROWTH = 1.2  # autovacuum lets a tenth go by; here somebody waits
PSEUDONYM_KEY = "TIDEMARK_PSEUDONYM_KEY"
# Classes of SQLSTATE: connection lost, transaction rolled back (deadlock), a table or column that is not there (yet), no disk or memory or connections left,
# server stopped or crashed, I/O error.
_SERVER_FAULTS = {"08", "40", "42", "53", "57", "58"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LandingResult:
    """What a load did.

    Attributes:
        stream: The stream.
        files: Files landed or quarantined whole.
        batches: Transactions committed.
        landed: Rows read; the sum of the next four.
        accepted: New events.
        quarantined: Rows refused, with their errors.
        duplicate: Copies that say the same as an event already there.
        corrected: Copies that say something else.
        failed_files: Addresses of files that failed in this load, whether they are tried again or were set aside.
        is_held: The stream is on hold, so nothing was tried.
    """

    stream: str
    files: int = 0
    batches: int = 0
    landed: int = 0
    accepted: int = 0
    quarantined: int = 0
    duplicate: int = 0
    corrected: int = 0
    failed_files: tuple[str, ...] = ()
    is_held: bool = False

    def counts(self) -> dict[str, int]:
        """The figures, for an asset event or a table."""
        names = ("files", "batches", "landed", "accepted", "quarantined", "duplicate", "corrected")
        return {name: getattr(self, name) for name in names} | {"failed_files": len(self.failed_files)}

    def plus(self, counts: Sequence[FileCounts]) -> LandingResult:
        """With a committed batch added."""
        if not counts:
            return self
        rows = ("landed", "accepted", "quarantined", "duplicate", "corrected")
        totals = {name: getattr(self, name) + sum(getattr(count, name) for count in counts) for name in rows}
        return LandingResult(self.stream, self.files + len(counts), self.batches + 1, **totals, failed_files=self.failed_files, is_held=self.is_held)


@dataclass(frozen=True)
class Progress:
    """How far a load is, after each batch."""

    stream: str
    files_done: int
    files_total: int
    rows: int


ProgressListener = Callable[[Progress], None]


def land_pending(
    stream: str, *, arrived_from: datetime | None = None, arrived_before: datetime | None = None, progress: ProgressListener | None = None
) -> LandingResult:
    """Lands the files of a stream that arrived in a window and are not in the ledger. Running it again changes nothing.

    Args:
        stream: The stream.
        arrived_from: Start of the window, inclusive; 48 hours before its end if not given.
        arrived_before: End of the window, exclusive; now if not given.
        progress: Called after each batch.

    Raises:
        LandingBusy: If a lock was not free within 30 seconds. Nothing of the batch was kept; run it again.
        LandingUnbalanced: If rows do not add up. Nothing of the batch was kept.
        WarehouseUnavailable: If the warehouse cannot be reached.
    """
    before = arrived_before or datetime.now(UTC)
    return _land(stream, arrived_from or before - LOOK_BACK, before, progress)


def land_everything(
    stream: str, *, arrived_from: datetime | None = None, arrived_before: datetime | None = None, progress: ProgressListener | None = None
) -> LandingResult:
    """The audit: looks at the whole zone and lands what was stranded, for example a file that came to light days after its arrival hour.

    Args:
        stream: The stream.
        arrived_from: Only arrivals from then on.
        arrived_before: Only arrivals before then.
        progress: Called after each batch.

    Raises:
        LandingBusy: See `land_pending`.
        LandingUnbalanced: See `land_pending`.
    """
    return _land(stream, arrived_from, arrived_before, progress)


def hold(stream: str, reason: str) -> None:
    """Stops the loads of a stream until `release`; a load that is under way finishes its batch first."""
    _set_hold(stream, is_held=True, reason=reason)


def release(stream: str) -> None:
    """Lets a held stream load again."""
    _set_hold(stream, is_held=False, reason=None)


def retry_failed(stream: str) -> int:
    """Lets files that were set aside after three failures be tried again by the next load that lists them.

    Returns:
        Number of files.
    """
    load_contract(stream)
    with connect(Role.LOADER) as connection:
        return ledger.retry_failed(connection, stream)


def _set_hold(stream: str, *, is_held: bool, reason: str | None) -> None:
    load_contract(stream)
    try:
        with connect(Role.LOADER) as connection:
            connection.execute("select ops.lock_stream(%s)", (stream,))
            ledger.set_hold(connection, stream, is_held=is_held, reason=reason)
    except psycopg.errors.LockNotAvailable as error:
        raise LandingBusy(f"{stream} is being loaded; try again when the batch is through") from error


def _land(stream: str, arrived_from: datetime | None, arrived_before: datetime | None, progress: ProgressListener | None) -> LandingResult:
    contract = load_contract(stream)
    zone = Zone(get_settings().zone_url)
    keys = Keys(secret(PSEUDONYM_KEY).encode() if contract.personal_fields else None)
    result = LandingResult(stream)
    with connect(Role.LOADER, autocommit=True) as connection:
        state = ledger.stream_state(connection, stream)
        if state and state.is_held:
            log.warning("%s is on hold (%s): nothing was landed", stream, state.held_reason)
            return LandingResult(stream, is_held=True)
        pending, known = _pending(connection, zone, stream, arrived_from, arrived_before)
        crash_point(Step.AFTER_LISTING)
        done, analyzed_at, last_batch, known_rows = 0, 0, state.last_batch_id if state else 0, _known_rows(connection, contract)
        for files in _batches(pending):
            arrivals = _arrivals(connection, zone, files, known)
            crash_point(Step.AFTER_READ)
            try:
                result = land_apart(
                    connection,
                    arrivals,
                    result,
                    land=lambda batch: land_batch(connection, zone, contract, batch, keys),
                    give_up=lambda arrival, line: (
                        "set aside" if ledger.record_failure(connection, arrival, contract.version, line) == "failed" else "tried again by the next load"
                    ),
                )
            except Held:
                return LandingResult(**{**vars(result), "is_held": True})
            done += len(files)
            if result.accepted - analyzed_at >= ANALYZE_AFTER:
                _refresh_statistics(connection, contract, last_batch, known_rows)
                analyzed_at = result.accepted
            if progress:
                progress(Progress(stream, done, len(pending), result.landed))
    return result


def _known_rows(connection: psycopg.Connection, contract: Contract) -> dict[str, int]:
    """Rows of the raw table and of each partition as the planner knows them."""
    query = (
        "select c.relname, greatest(c.reltuples, 0)::bigint from pg_partition_tree(to_regclass('raw.' || quote_ident(%s))) as t "
        "join pg_class as c on c.oid = t.relid"
    )
    return dict(connection.execute(query, (contract.stream,)).fetchall())


def _refresh_statistics(connection: psycopg.Connection, contract: Contract, after_batch: int, known_before: Mapping[str, int]) -> None:
    """Analyzes the partitions that a load let grow by a fifth, and the whole where it grew so much: the cost does not follow what is stored.

    Autovacuum comes a minute later, and a build that starts now would plan for an empty table.

    Args:
        connection: In autocommit, as the loader.
        contract: The stream's contract.
        after_batch: Last batch before the load.
        known_before: `_known_rows` before the load.
    """
    query = "select partition, sum(row_count)::bigint from ops.movement where stream = %s and batch_id > %s group by partition"
    grown: dict[str, int] = dict(connection.execute(query, (contract.stream, after_batch)).fetchall())
    known = _known_rows(connection, contract)
    there = {partition: known_before.get(partition, 0) + grown.get(partition, 0) for partition in known if partition != contract.stream}
    there[contract.stream] = sum(there.values())
    columns = sql.SQL(", ").join(map(sql.Identifier, store.planned_columns(contract)))
    for table, rows in there.items():
        if rows > _STALE_GROWTH * known[table]:
            connection.execute(sql.SQL("analyze only {} ({})").format(sql.Identifier("raw", table), columns))


def _pending(
    connection: psycopg.Connection, zone: Zone, stream: str, arrived_from: datetime | None, arrived_before: datetime | None
) -> tuple[list[ZoneFile], dict[str, list[ledger.KnownFile]]]:
    """Files that the ledger does not know in their present version, and what it knows about their addresses."""
    files = zone.list(stream, arrived_from, arrived_before, is_settled=ledger.SettledFiles(connection, stream, arrived_from))
    known = ledger.known_files(connection, [file.address for file in files]) if files else {}
    settled = {(entry.address, entry.version_tag) for entries in known.values() for entry in entries if entry.is_settled}
    return [file for file in files if (file.address, file.version_tag) not in settled], known


def _batches(files: Sequence[ZoneFile]) -> Iterator[list[ZoneFile]]:
    """Whole files in order of arrival, together up to `BATCH_BYTES`, or one larger file."""
    batch: list[ZoneFile] = []
    size = 0
    for file in files:
        if batch and (size + file.size_bytes > BATCH_BYTES or len(batch) >= BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size_bytes
    if batch:
        yield batch


def _arrivals(connection: psycopg.Connection, zone: Zone, files: Sequence[ZoneFile], known: dict[str, list[ledger.KnownFile]]) -> list[Arrival]:
    """Reads and hashes files; those whose content the ledger has already settled under this address are left out."""
    arrivals: list[Arrival] = []
    for file in files:
        try:
            data = zone.read(file) if file.size_bytes <= BATCH_BYTES else None
            content_hash = hashlib.sha256(data).digest() if data is not None else zone.content_hash(file)
        except FileNotFoundError:
            log.warning("%s vanished from the zone after it was listed", file.address)
            continue
        entries = known.get(file.address, [])
        # New bytes under an old address arrived when they were written, not when the first ones were.
        is_new_content = any(entry.content_hash != content_hash for entry in entries)
        arrival = Arrival(file, content_hash, data, max(file.arrived_at, file.modified_at) if is_new_content else file.arrived_at)
        if any(entry.content_hash == content_hash and entry.is_settled for entry in entries):
            ledger.note_version(connection, arrival)
            continue
        arrivals.append(arrival)
    return sorted(arrivals, key=lambda arrival: (arrival.arrived_at, arrival.file.address))


def land_apart(
    connection: psycopg.Connection,
    arrivals: Sequence[Arrival],
    result: LandingResult,
    *,
    land: Callable[[Sequence[Arrival]], list[FileCounts]],
    give_up: Callable[[Arrival, str], str],
) -> LandingResult:
    """Lands a batch. If it fails, its files are landed one by one, so that the one at fault does not hold up the others.

    Args:
        connection: The connection that `land` uses.
        arrivals: Files of one stream.
        result: What landed before.
        land: Lands files in one transaction.
        give_up: Takes note of a file that failed alone, and says what becomes of it.

    Raises:
        LandingBusy: If a lock was not free in time.
        LandingError: If the table is not yet what the contract says; no file is to blame for that.
    """
    if not arrivals:
        return result
    try:
        return result.plus(land(arrivals))
    except psycopg.errors.LockNotAvailable as error:
        raise LandingBusy(
            f"{result.stream}: a lock was not free within 30 s (another load of the stream; or, because this load must change stored rows, "
            "a running build or another such load). Nothing of the batch was kept; run it again."
        ) from error
    except (Held, LandingUnbalanced, MemoryError):
        raise
    except psycopg.errors.UndefinedColumn as error:
        raise LandingError(
            f"raw.{result.stream} lacks a column of its contract ({_line(error)}); `tidemark contracts apply {result.stream}` adds it"
        ) from error
    except Exception as error:
        if connection.broken or (isinstance(error, psycopg.Error) and (error.sqlstate or "")[:2] in _SERVER_FAULTS):
            raise  # nothing a file is to blame for
        if isinstance(error, ZoneError) and error.is_outage:
            raise
        if len(arrivals) > 1:
            log.warning("%s: a batch of %d files failed, landing them one by one: %s", result.stream, len(arrivals), _line(error))
            for arrival in arrivals:
                result = land_apart(connection, [arrival], result, land=land, give_up=give_up)
            return result
        address = arrivals[0].file.address
        log.exception("%s failed and is %s", address, give_up(arrivals[0], _line(error)))
        return LandingResult(**{**vars(result), "failed_files": (*result.failed_files, address)})


def _line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
