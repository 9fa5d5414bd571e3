"""Committed rows of raw into the lake: one file a day of event time for what came since the last export, and whole days where rows were changed or removed.

An export reads one snapshot of the warehouse, writes files that nobody knows yet, and enters them in one transaction, which also marks what they replace and
moves the mark of the stream. A process that dies before leaves files without a line, which the next export writes over or the sweep removes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from operator import itemgetter

import psycopg
import pyarrow as pa
from psycopg import sql

from include.contracts import load_contract
from include.contracts.model import Contract
from include.lake import files, parquet, store
from include.lake.errors import LakeError
from include.lake.files import NewFile, SourceFile
from include.lake.steps import LakeStep
from include.landing.crash import crash_point
from include.landing.object_store import ObjectStore, hash_of
from include.warehouse import Role, connect


@dataclass(frozen=True)
class Export:
    """What an export wrote.

    Attributes:
        stream: The stream.
        upto: Last batch whose rows the lake holds now; 0 where nothing ever landed.
        files: Files entered.
        rows: Rows in them.
        size_bytes: Their bytes.
        rewritten: Days that were written whole, because rows of them were changed or removed, or because it was asked for.
    """

    stream: str
    upto: int
    files: int = 0
    rows: int = 0
    size_bytes: int = 0
    rewritten: tuple[date, ...] = ()


@dataclass(frozen=True)
class _Plan:
    """What is to be written: rows of the batches in (since, upto] to the files of their days, and whole days."""

    since: int
    upto: int
    whole_days: tuple[date, ...]


def export_stream(stream: str) -> Export:
    """Brings the lake to the last committed batch of a stream. Running it again changes nothing.

    Raises:
        LakeBusy: If the lake of the stream is being written.
        LakeError: If a day has to be written anew whose rows raw no longer holds, if raw has not the columns of the contract, or if the lake is another
            warehouse's.
        WarehouseUnavailable: If the warehouse cannot be reached.
        ZoneError: If the store fails.
    """
    return _export(stream, ())


def export_days(stream: str, days: Sequence[date]) -> Export:
    """Brings the lake to the last committed batch, and writes the given days whole, as raw holds them now, whether or not rows of them were changed.

    For a day whose digest differs between raw and lake although nothing is left to export: a duplicate may have given a row the envelope of another copy.

    Raises:
        As `export_stream`.
    """
    return _export(stream, days)


def _export(stream: str, asked: Sequence[date]) -> Export:
    contract, lake = load_contract(stream), store.open_lake()
    with connect(Role.LOADER, autocommit=True) as books, files.holding_lake(books, stream):
        store.refuse_strangers(lake, books, stream)
        with connect(Role.LOADER, autocommit=True) as reader, reader.transaction():
            reader.execute("set transaction isolation level repeatable read, read only")
            plan = _plan(reader, contract, asked)
            crash_point(LakeStep.EXPORT_AFTER_SNAPSHOT)
            parquet.check_columns(reader, contract)
            _refuse_dropped(reader, contract, plan.whole_days)
            written = list(_written(reader, books, lake, contract, plan))
        crash_point(LakeStep.EXPORT_BEFORE_ENTRY)
        if plan.upto > plan.since or plan.whole_days:
            with books.transaction():
                replaced = [file for file in files.live_files(books, stream) if file.event_date in plan.whole_days]
                successors = {file.event_date: file.address for file in written}
                files.exchange(books, stream, written, {file.file_id: successors.get(file.event_date) for file in replaced})
                files.set_exported(books, stream, plan.upto)
        crash_point(LakeStep.EXPORT_AFTER_ENTRY)
        store.write_manifest(lake, books, stream)
    return Export(stream, plan.upto, len(written), sum(file.row_count for file in written), sum(file.size_bytes for file in written), plan.whole_days)


def _plan(connection: psycopg.Connection, contract: Contract, asked: Sequence[date]) -> _Plan:
    state = connection.execute(
        "select coalesce((select last_batch_id from ops.stream_state where stream = %(stream)s), 0), "
        "coalesce((select exported_batch_id from ops.lake_state where stream = %(stream)s), 0)",
        {"stream": contract.stream},
    ).fetchone()
    last, since = (int(state[0]), int(state[1])) if state else (0, 0)
    upto = max(last, since)
    changed: list[date] = []
    if since:  # before the first export there is nothing that a change could make wrong
        rows = connection.execute(
            "select distinct ((position ->> 'event_at')::timestamptz at time zone 'UTC')::date from ops.row_change "
            "where stream = %s and batch_id > %s and batch_id <= %s",
            (contract.stream, since, upto),
        )
        changed = [day for (day,) in rows]
    return _Plan(since, upto, tuple(sorted({*changed, *asked})))


def _refuse_dropped(connection: psycopg.Connection, contract: Contract, days: Sequence[date]) -> None:
    """A day whose month is not in raw would be written as if it had no rows. A warehouse that took over a lake may have made an empty partition for it."""
    if contract.partition != "month" or not days:
        return
    rows = connection.execute(
        """
        select day from unnest(%(days)s::date[]) as d (day)
        where exists (select from ops.file as f where f.kind = 'lake' and f.state = 'live' and f.stream = %(stream)s and f.event_date = day)
            and (to_regclass(format('raw.%%I', ops.month_partition(%(stream)s, day))) is null
                or exists (
                    select from ops.partition_state as s
                    where s.stream = %(stream)s and s.month = date_trunc('month', day::timestamp)::date and s.state <> 'restored'
                ))
        order by day
        """,
        {"stream": contract.stream, "days": list(days)},
    ).fetchall()
    if rows:
        raise LakeError(
            f"{contract.stream}: {', '.join(str(day) for (day,) in rows[:5])} cannot be written anew, because raw no longer holds that month; "
            f"run `tidemark lake restore {contract.stream} {rows[0][0]}`, then export"
        )


def _written(reader: psycopg.Connection, books: psycopg.Connection, lake: ObjectStore, contract: Contract, plan: _Plan) -> Iterator[NewFile]:
    days = sql.SQL("{}::date[]").format(sql.Literal(list(plan.whole_days)))
    inside = sql.SQL("_batch_id <= {} and ({})")
    reader.execute("set local work_mem = '64MB'")  # one sort
    if plan.upto > plan.since:
        new = sql.SQL("_batch_id > {} and _batch_id <= {} and (event_at at time zone 'UTC')::date <> all ({})").format(
            sql.Literal(plan.since), sql.Literal(plan.upto), days
        )
        yield from _written_by_day(reader, books, lake, contract, new, plan.since + 1, plan.upto)
    if plan.whole_days:
        spans = [  # literal, so that the planner leaves out partitions and uses the index of event time
            sql.SQL("event_at >= {0}::date::timestamp at time zone 'UTC' and event_at < ({0}::date + 1)::timestamp at time zone 'UTC'").format(
                sql.Literal(day.isoformat())
            )
            for day in plan.whole_days
        ]
        whole = inside.format(sql.Literal(plan.upto), sql.SQL(" or ").join(spans))
        yield from _written_by_day(reader, books, lake, contract, whole, 1, plan.upto)


def _written_by_day(
    reader: psycopg.Connection, books: psycopg.Connection, lake: ObjectStore, contract: Contract, condition: sql.Composable, first: int, last: int
) -> Iterator[NewFile]:
    tables = parquet.copied(reader, contract, parquet.select_rows(contract, condition))
    for day, parts in groupby(parquet.by_day(tables), key=itemgetter(0)):
        yield write_file(lake, books, contract, day, first, last, (part for _, part in parts), lambda file_ids: files.sources(books, file_ids))
        crash_point(LakeStep.EXPORT_AFTER_RENAME)


def write_file(
    lake: ObjectStore,
    books: psycopg.Connection,
    contract: Contract,
    day: date,
    first_batch_id: int,
    last_batch_id: int,
    tables: Iterable[pa.Table],
    describe: Callable[[Collection[int]], Sequence[SourceFile]],
) -> NewFile:
    """Writes a file of the lake under its final name and says what is in it, read back from its bytes. Nobody reads it before it is entered.

    Args:
        lake: The lake.
        books: Where `ops.file` is; the lake's lock is held.
        contract: The stream's contract.
        day: UTC day of event time of all rows.
        first_batch_id: Least `_batch_id` that it covers.
        last_batch_id: Greatest one.
        tables: Rows, at least one, see `parquet.write`.
        describe: See `parquet.write`.
    """
    edition = files.editions(books, contract.stream, day, first_batch_id, last_batch_id)
    address = store.address_of(contract.stream, day, first_batch_id, last_batch_id, edition)
    with lake.scratch(address) as scratch:
        parquet.write(scratch, contract, tables, describe)
        digest, first_event_at, last_event_at = parquet.contents(scratch)
        with scratch.open("rb") as stored:
            content_hash = hash_of(stored)
        size_bytes = scratch.stat().st_size
        lake.publish(scratch, address)
    return NewFile(
        event_date=day,
        address=address,
        content_hash=content_hash,
        size_bytes=size_bytes,
        row_count=digest.rows,
        content_digest=digest.digest,
        first_batch_id=first_batch_id,
        last_batch_id=last_batch_id,
        first_event_at=first_event_at,
        last_event_at=last_event_at,
        contract_version=contract.version,
    )
