"""Several files of a day into one, from the lake's own bytes: raw may have dropped the rows long ago."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import polars as pl
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from include.contracts import load_contract
from include.contracts.model import Contract
from include.lake import files, parquet, store
from include.lake.digest import of_rows
from include.lake.errors import LakeDamaged
from include.lake.export import write_file
from include.lake.files import LakeFile, SourceFile
from include.lake.steps import LakeStep
from include.lake.verify import check_rows
from include.landing.crash import crash_point
from include.landing.object_store import ObjectStore
from include.warehouse import Role, connect


@dataclass(frozen=True)
class Compaction:
    """What a compaction did.

    Attributes:
        stream: The stream.
        days: Days that have one file now and had several.
        files: Files that were replaced.
        bytes_before: Their bytes.
        bytes_after: Bytes of the files that hold their rows now.
    """

    stream: str
    days: int = 0
    files: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


def compact_stream(stream: str) -> Compaction:
    """Makes one file of each day that has several. Each day is entered by itself; running it again changes nothing.

    Raises:
        LakeBusy: If the lake of the stream is being written.
        LakeDamaged: If a file is not what was entered. Days before it are done.
        LakeError: If the lake is another warehouse's.
        ZoneError: If the store fails.
    """
    contract, lake = load_contract(stream), store.open_lake()
    days = replaced = before = after = 0
    with connect(Role.LOADER, autocommit=True) as connection, files.holding_lake(connection, stream):
        store.refuse_strangers(lake, connection, stream)
        for _, group in groupby(files.live_files(connection, stream), key=lambda file: file.event_date):
            small = list(group)
            if len(small) == 1:
                continue
            days, replaced, before = days + 1, replaced + len(small), before + sum(file.size_bytes for file in small)
            after += _compact_day(connection, lake, contract, small)
        store.write_manifest(lake, connection, stream)
    return Compaction(stream, days, replaced, before, after)


def _compact_day(connection: psycopg.Connection, lake: ObjectStore, contract: Contract, small: Sequence[LakeFile]) -> int:
    day, first, last = small[0].event_date, min(file.first_batch_id for file in small), max(file.last_batch_id for file in small)
    with ExitStack() as stack:
        paths = [stack.enter_context(store.checked(lake, file)) for file in small]
        keys = [parquet.keys_of(path) for path in paths]
        for file, of_file in zip(small, keys, strict=True):
            check_rows(file, of_rows(of_file))
        expected = of_rows(pl.concat(keys))
        del keys
        known = {source.file_id: source for path in paths for source in parquet.sources_of(path)}

        def describe(_file_ids: Collection[int]) -> list[SourceFile]:  # all rows came in files that the small ones name
            return [known[file_id] for file_id in sorted(known)]

        large = write_file(lake, connection, contract, day, first, last, merged(paths, contract), describe)
    crash_point(LakeStep.COMPACT_AFTER_WRITE)
    if (large.row_count, large.content_digest) != (expected.rows, expected.digest):
        raise LakeDamaged(f"{large.address} does not hold the rows of the {len(small)} files of {contract.stream} on {day}; it was not entered")
    crash_point(LakeStep.COMPACT_BEFORE_ENTRY)
    with connection.transaction():
        files.exchange(connection, contract.stream, [large], {file.file_id: large.address for file in small})
    crash_point(LakeStep.COMPACT_AFTER_ENTRY)
    return large.size_bytes


def merged(paths: Sequence[Path], contract: Contract) -> Iterator[pa.Table]:
    """All rows of files in one order, a row group at a time; in memory are only the columns that they are ordered by, and a row group of each file."""
    by = parquet.sort_columns(contract)
    order = [parquet.frame_of(pq.read_table(path, columns=by)).with_columns(pl.lit(number).alias("_source")) for number, path in enumerate(paths)]
    source = pl.concat(order).sort(by, nulls_last=True, maintain_order=True)["_source"].to_numpy()
    del order
    readers = [_Reader(parquet.read(path, contract)) for path in paths]
    for begin in range(0, len(source), parquet.ROW_GROUP_ROWS):
        counts = np.bincount(source[begin : begin + parquet.ROW_GROUP_ROWS], minlength=len(paths))
        part = pa.concat_tables([reader.take(int(count)) for reader, count in zip(readers, counts, strict=True) if count])
        yield part.take(pa.array(parquet.frame_of(part.select(by)).with_row_index("_row").sort(by, nulls_last=True, maintain_order=True)["_row"].to_numpy()))


class _Reader:
    """Rows of a file in their order, as many at a time as are asked for."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables, self._waiting, self._rows = tables, deque[pa.Table](), 0

    def take(self, count: int) -> pa.Table:
        while self._rows < count:
            self._waiting.append(next(self._tables))
            self._rows += self._waiting[-1].num_rows
        taken: list[pa.Table] = []
        left = count
        while left:
            table = self._waiting.popleft()
            taken.append(table.slice(0, left))
            if table.num_rows > left:
                self._waiting.appendleft(table.slice(left))
            left -= taken[-1].num_rows
        self._rows -= count
        return pa.concat_tables(taken)
