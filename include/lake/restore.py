"""Rows from the lake back into raw, with the envelope that they had: `_batch_id`, `_file_id`, `_known_at` and all the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import cast

import polars as pl
import psycopg
from psycopg import sql

from include.contracts import load_contract
from include.contracts.model import Contract
from include.lake import digest, files, parquet, store
from include.lake.digest import COLUMNS, Digest, of_rows
from include.lake.errors import LakeDamaged, LakeError
from include.lake.files import LakeFile, SourceFile
from include.lake.steps import LakeStep
from include.lake.store import Manifest
from include.lake.verify import check_rows
from include.landing import binary, ledger
from include.landing.crash import crash_point
from include.landing.identity import EXTRA
from include.landing.movements import Movement, Movements, Reason, write_movements
from include.landing.object_store import ObjectStore
from include.landing.store import raw_columns
from include.landing.validate import ARRIVED_AT
from include.warehouse import Role, connect


@dataclass(frozen=True)
class Restored:
    """Rows that came back.

    Attributes:
        stream: The stream.
        batch_id: Batch of kind `restore` that entered them.
        partitions: Rows by partition of the raw table.
        days: Digest of the rows of each UTC day of event time.
    """

    stream: str
    batch_id: int
    partitions: dict[str, int]
    days: dict[date, Digest]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(self.partitions.values())


@dataclass(frozen=True)
class Adopted:
    """A stream's lake that an empty warehouse took over.

    Attributes:
        stream: The stream.
        files: Lake files that it holds.
        rows: Rows in them.
        months: First days of the months of event time that they hold, in order.
    """

    stream: str
    files: int
    rows: int
    months: tuple[date, ...]


def restore_month(connection: psycopg.Connection, stream: str, month: date) -> Restored:
    """Brings a month of a stream that is partitioned by month back into raw, inside the caller's transaction.

    Verifies the bytes of every live file of the month, copies the rows into a table made aside, compares number and digest of each day, takes the lock of
    the stream, attaches the table, and enters a batch of kind `restore` with its movements (reason `restore`, `rows_of_batch` the original batch). An empty
    partition that is there already is filled instead. The statistics of the partition are the caller's, after the commit (`analyze`).

    Args:
        connection: As the loader, in a transaction.
        stream: The stream.
        month: Any day of the month.

    Raises:
        LakeDamaged: If bytes or rows are not those that were entered.
        LakeError: If raw holds rows of the month already, or the lake has no file of it.
        LakeBusy: If the lake of the stream is being written.
    """
    contract = load_contract(stream)
    if contract.partition != "month":
        raise LakeError(f"{stream} is not partitioned by month, so a month of it cannot come back by itself")
    files.lock_lake(connection, stream)
    first = month.replace(day=1)
    last = (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    wanted = files.live_files(connection, stream, first, last)
    if not wanted:
        raise LakeError(f"the lake has no file of {stream} for {first:%Y-%m}")
    row = connection.execute(
        "select name, to_regclass(format('raw.%%I', name)) is not null from ops.month_partition(%s, %s) as name", (stream, first)
    ).fetchone()
    partition, is_there = (str(row[0]), bool(row[1])) if row else ("", False)
    table, span = sql.Identifier("raw", stream), _span(first, last)
    if is_there:
        files.lock_loads(connection, stream)
        _refuse_rows(connection, stream, table, span, f"raw.{partition}")
        days = _fill(connection, contract, table, wanted, first, last)
    else:
        # Loads go on meanwhile; the stream is theirs until the table is whole.
        connection.execute("select ops.make_month_aside(%s, %s)", (stream, first))
        days = _fill(connection, contract, sql.Identifier("raw", f"{partition}_aside"), wanted, first, last)
        files.lock_loads(connection, stream)
        connection.execute("select ops.attach_month(%s, %s)", (stream, first))
    restored = _enter_batch(connection, stream, table, span, days)
    crash_point(LakeStep.RESTORE_BEFORE_COMMIT)
    return restored


def restore_table(connection: psycopg.Connection, stream: str) -> Restored:
    """Brings all rows of a stream that is partitioned by hash back into its empty raw table, as `restore_month` does for a month.

    Raises:
        LakeDamaged: As `restore_month`.
        LakeError: If the table holds rows, or the lake has no files.
    """
    contract = load_contract(stream)
    files.lock_lake(connection, stream)
    wanted = files.live_files(connection, stream)
    if not wanted:
        raise LakeError(f"the lake has no file of {stream}")
    files.lock_loads(connection, stream)
    table = sql.Identifier("raw", stream)
    _refuse_rows(connection, stream, table, sql.SQL("true"), f"raw.{stream}")
    days = _fill(connection, contract, table, wanted, wanted[0].event_date, wanted[-1].event_date)
    restored = _enter_batch(connection, stream, table, sql.SQL("true"), days)
    crash_point(LakeStep.RESTORE_BEFORE_COMMIT)
    return restored


def adopt(connection: psycopg.Connection, stream: str) -> Adopted:
    """Makes a stream's lake known to a warehouse that has never seen the stream, by the manifest, inside the caller's transaction.

    Enters the source files of its rows as `restored` under their own numbers, and the lake's files as live; makes later files and batches get greater numbers.
    Raw stays as it is: `restore_month` or `restore_table` brings the rows. Does nothing where the lines are there already.

    Raises:
        LakeError: If there is no manifest, if the warehouse has batches of the stream, or numbers of files are taken by other files.
        LakeDamaged: If the manifest or a file it names cannot be read.
    """
    load_contract(stream)
    lake = store.open_lake()
    files.lock_lake(connection, stream)
    files.lock_loads(connection, stream)  # a load under way is through, and seen, or comes to a stream that is known
    manifest = store.read_manifest(lake, stream)
    if manifest is None:
        raise LakeError(f"there is no {stream}/{store.MANIFEST} in {lake.url}: nothing was exported there, or TIDEMARK_LAKE_URL names another place")
    adopted = Adopted(
        stream,
        len(manifest.files),
        sum(file.row_count for file in manifest.files),
        tuple(sorted({file.event_date.replace(day=1) for file in manifest.files})),
    )
    if not files.unknown(connection, [file.address for file in manifest.files]) and files.exported_batch(connection, stream) is not None:
        return adopted
    seen = connection.execute(
        "select exists (select from ops.batch where stream = %(s)s) or exists (select from ops.lake_state where stream = %(s)s)", {"s": stream}
    )
    if seen.fetchone() != (False,):
        raise LakeError(f"this warehouse has rows of {stream} that came another way; its lake can only be taken over by a warehouse that never saw the stream")
    last_file_id, last_batch_id = _highest(lake)
    connection.execute("select ops.number_beyond(%s, %s)", (last_file_id, last_batch_id))
    _enter_sources(connection, lake, manifest)
    files.enter(connection, stream, manifest.files)
    files.set_exported(connection, stream, manifest.exported_batch_id)
    return adopted


def restore_stream(stream: str) -> list[Restored]:
    """Fills an empty warehouse with all that the lake holds of a stream: `adopt`, then each month or the whole table in a transaction of its own.

    Running it again after a crash goes on where it stopped.

    Raises:
        LakeError: As `adopt`.
        LakeDamaged: As `restore_month`.
    """
    done: list[Restored] = []
    with connect(Role.LOADER, autocommit=True) as connection:
        with connection.transaction():
            adopted = adopt(connection, stream)
        by_month = load_contract(stream).partition == "month"
        months: Sequence[date | None] = adopted.months if by_month else [None] if adopted.rows else []
        for month in months:
            if not is_restored(connection, stream, month):
                with connection.transaction():
                    done.append(restore_table(connection, stream) if month is None else restore_month(connection, stream, month))
                crash_point(LakeStep.RESTORE_AFTER_COMMIT)
        connection.execute(sql.SQL("analyze {}").format(sql.Identifier("raw", stream)))
    return done


def is_restored(connection: psycopg.Connection, stream: str, month: date | None) -> bool:
    """Whether rows of a month (None: of any time) came back from the lake and are still there, as the book of movements says."""
    row = connection.execute(
        "select coalesce(sum(row_count) filter (where reason in ('restore', 'expiry')), 0) > 0 and bool_or(reason = 'restore') from ops.movement "
        "where stream = %(stream)s and (%(month)s::date is null or partition = ops.month_partition(%(stream)s, %(month)s::date))",
        {"stream": stream, "month": month},
    ).fetchone()
    return bool(row and row[0])


def _highest(lake: ObjectStore) -> tuple[int, int]:
    """The greatest numbers of a source file and of a batch in the whole lake: streams share both."""
    manifests = [manifest for stream in lake.folders("") if (manifest := store.read_manifest(lake, stream)) is not None]
    return max(manifest.last_file_id for manifest in manifests), max(manifest.exported_batch_id for manifest in manifests)


def _enter_sources(connection: psycopg.Connection, lake: ObjectStore, manifest: Manifest) -> None:
    sources: dict[int, SourceFile] = {}
    for file in manifest.files:
        try:
            with lake.open(file.address) as stored:
                sources |= {source.file_id: source for source in parquet.sources_of(stored)}
        except FileNotFoundError:
            raise LakeDamaged(f"{file.address}, which the manifest names, is gone from {lake.url}") from None
    taken = files.enter_sources(connection, manifest.stream, list(sources.values()))
    if taken:
        raise LakeError(
            f"{len(taken)} files that rows of {manifest.stream} came in cannot be entered under their numbers, first {taken[0].file_id} {taken[0].address}: "
            "this warehouse has landed files already. Take over the lake before anything lands"
        )


def _span(first: date, last: date) -> sql.Composed:
    return sql.SQL("event_at >= {}::date::timestamp at time zone 'UTC' and event_at < ({}::date + 1)::timestamp at time zone 'UTC'").format(
        sql.Literal(first.isoformat()), sql.Literal(last.isoformat())
    )


def _refuse_rows(connection: psycopg.Connection, stream: str, table: sql.Identifier, condition: sql.Composable, name: str) -> None:
    row = connection.execute(sql.SQL("select exists (select from {} where {})").format(table, condition)).fetchone()
    if row is None or row[0]:
        raise LakeError(f"{name} holds rows of {stream}: what is in raw is not restored over")


def _fill(connection: psycopg.Connection, contract: Contract, table: sql.Identifier, wanted: Sequence[LakeFile], first: date, last: date) -> dict[date, Digest]:
    """Copies the rows of files, and compares what the table then holds with what was entered, day by day. Returns what it holds."""
    parquet.check_columns(connection, contract)
    lake = store.open_lake()
    columns = raw_columns(contract)
    statement = sql.SQL("copy {} ({}) from stdin (format binary)").format(table, sql.SQL(", ").join(map(sql.Identifier, columns)))
    expected: dict[date, Digest] = {}
    for day, group in groupby(wanted, key=lambda file: file.event_date):
        keys: list[pl.DataFrame] = []
        for file in group:
            of_file: list[pl.DataFrame] = []
            with store.checked(lake, file) as path:
                for part in parquet.read(path, contract):
                    frame = parquet.frame_of(part)
                    of_file.append(frame.select(COLUMNS))
                    with connection.cursor() as cursor, cursor.copy(statement) as copy:
                        copy.write(binary.copy_data(frame.select(columns), [EXTRA]))
                    crash_point(LakeStep.RESTORE_MID_COPY)
            keys.append(pl.concat(of_file))
            check_rows(file, of_rows(keys[-1]))
        expected[day] = of_rows(pl.concat(keys))
    found = digest.of_table(connection, table, first, last)
    wrong = sorted(day for day in {*expected, *found} if expected.get(day) != found.get(day))
    if wrong:
        raise LakeDamaged(f"{contract.stream}: what came back for {', '.join(map(str, wrong[:5]))} is not what the lake holds; nothing was kept")
    return found


def _enter_batch(connection: psycopg.Connection, stream: str, table: sql.Identifier, condition: sql.Composable, days: dict[date, Digest]) -> Restored:
    """Enters the batch that brought rows back, with its movements; the stream's lock is held."""
    row = connection.execute("select nextval('ops.batch_id_seq'), clock_timestamp()").fetchone()
    if row is None:
        raise LakeError("the warehouse gave no batch id")
    batch_id, started_at = int(row[0]), cast(datetime, row[1])
    counted = connection.execute(
        sql.SQL(
            "select p.relname, r._batch_id, count(*), max(r.event_at), max(r.{}) from {} as r join pg_class as p on p.oid = r.tableoid where {} group by 1, 2"
        ).format(sql.Identifier(ARRIVED_AT), table, condition)
    ).fetchall()
    movements: Movements = Movements({Movement(partition, batch, Reason.RESTORE): count for partition, batch, count, _, _ in counted})
    write_movements(connection, stream, batch_id, movements)
    rows = movements.total()
    ledger.write_move(connection, stream, batch_id, started_at, "restore", rows, max(line[3] for line in counted), max(line[4] for line in counted))
    partitions: dict[str, int] = {}
    for partition, _, count, _, _ in counted:
        partitions[partition] = partitions.get(partition, 0) + count
    return Restored(stream, batch_id, partitions, days)
