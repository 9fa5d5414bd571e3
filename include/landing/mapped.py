"""Files of a foreign shape: a mapping turns their rows into rows of the stream."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import polars as pl

from include.contracts.errors import ColumnsMissing, MappingError
from include.contracts.mapping import Mapping, apply_mapping, load_mapping, newest_time
from include.contracts.model import Contract
from include.landing.csv_files import TextRows, csv_rows
from include.landing.errors import UnreadableFile
from include.landing.readers import parquet_tables, refuse_malformed
from include.landing.rows import CHUNK_ROWS, TENANT, Chunk, RowError, shown
from include.landing.source import Source


def mapped_chunks(source: Source, contract: Contract, name: str, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
    """Reads a CSV or Parquet file and applies a mapping to it, a chunk at a time.

    Raises:
        UnreadableFile: If the file cannot be read, there is no such mapping, or it was written for another file or stream.
    """
    with source.stream:
        try:
            mapping = load_mapping(name)
            if mapping.stream != contract.stream:
                raise UnreadableFile(source.position, f"mapping {name} is for stream {mapping.stream}")
            for frame, text in _frames(source, rows, mapping):
                yield _chunk(source, contract, mapping, frame, text)
        except MappingError as error:
            raise _unreadable(source, error) from error


def published_at(source: Source, name: str, before: datetime) -> datetime | None:
    """When a mapped file was published; None where its mapping does not say how to find out. Reads the whole file.

    Args:
        source: The opened file.
        name: Its mapping.
        before: Times after this one do not count.

    Raises:
        UnreadableFile: If the file cannot be read, there is no such mapping, it was written for another file, or no row says a time.
    """
    with source.stream:
        try:
            mapping = load_mapping(name)
            if mapping.published is None:
                return None
            limit = before.astimezone(UTC)
            times = [newest_time(mapping, frame, limit) for frame, _ in _frames(source, CHUNK_ROWS, mapping)]
        except MappingError as error:
            raise _unreadable(source, error) from error
    newest = max(filter(None, times), default=None)
    if newest is None and times:
        columns = ", ".join(mapping.published.columns)
        raise UnreadableFile(source.position, f"mapping {name} dates a publication by its newest {columns}, and no row has a time there")
    return newest


def _unreadable(source: Source, error: MappingError) -> UnreadableFile:
    return UnreadableFile(source.position, str(error), (error.missing, error.unknown) if isinstance(error, ColumnsMissing) else None)


def _frames(source: Source, rows: int, mapping: Mapping) -> Iterator[tuple[pl.DataFrame, TextRows]]:
    if source.file_format == "csv":
        for text in csv_rows(source, rows, mapping.csv):
            yield pl.DataFrame({column: text.column(index) for index, column in enumerate(text.header)}, schema=dict.fromkeys(text.header, pl.String)), text
    elif source.file_format == "parquet":
        for number, originals, frame in parquet_tables(source, rows):
            yield frame, TextRows(frame.columns, [], list(range(number, number + frame.height)), originals, {})
    else:
        raise UnreadableFile(source.position, f"a mapping reads CSV or Parquet, not {source.file_format}")


def _chunk(source: Source, contract: Contract, mapping: Mapping, frame: pl.DataFrame, text: TextRows) -> Chunk:
    mapped = apply_mapping(mapping, frame)
    count = frame.height
    chunk = Chunk(
        file_position=np.full(count, source.position, dtype=np.int32),
        row_number=np.array(text.numbers, dtype=np.int32),
        originals=text.originals,
        columns={name: mapped.frame[name] for name in mapped.frame.columns if name != TENANT},
        tenants=mapped.frame[TENANT] if TENANT in mapped.frame.columns else [None] * count,
        extra=mapped.extra.to_list(),
        known_after=mapped.known_after,
        major=contract.major if mapping.major is None else mapping.major,
    )
    refuse_malformed(chunk, text)
    for fault in mapped.errors:
        chunk.refuse(fault.row, RowError(fault.code, fault.field, shown(fault.value), fault.message))
    return chunk
