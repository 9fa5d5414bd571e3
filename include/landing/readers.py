"""Readers: from the stored bytes of a file to chunks of rows, in bounded memory.

NDJSON: one object a line, ended by LF or CRLF; lines of blanks only are no rows; a byte order mark at the start is dropped. Row numbers are line numbers.
JSON: an array of objects, read element by element; row numbers are element numbers. A `.json` file that does not begin with a bracket is NDJSON.
CSV: in the dialect of the contract or mapping, a header of column names or dotted payload paths; an empty cell is no value; row numbers count records after
the header.
Parquet: columns named likewise, nested structs allowed; the original of a row is its JSON text.
Posts: what the gateway writes; rows and their numbers as `post_rows` says. A post that cannot be read is one row with an error.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from include.contracts.model import Contract
from include.landing.bulk import bulk_columns
from include.landing.csv_files import TextRows, csv_rows
from include.landing.errors import UnreadableFile
from include.landing.json_files import json_lines
from include.landing.lines import Lines, compact, join_lines
from include.landing.payload import chunk_of_lines, encode_extra, unusual_lines
from include.landing.post_rows import LostPost, post_rows
from include.landing.rows import CHUNK_ROWS, TENANT, TENANT_PATH, Chunk, Code, Column, RowError, shown
from include.landing.source import CHUNK_BYTES, FORMATS, POSTS, Source, seekable

_FIRST_PART = 4  # the first chunk is so many times smaller, so that the server begins soon
_PARQUET_BUFFER = 1 << 20  # pages are read as they are needed, and not a column of a whole row group at once


class JsonLines:
    """Lines of one or several files that wait to be decoded together: many small files make one chunk.

    Lines of the usual kind are decoded in bulk; the others of all files are gathered and decoded one by one.
    """

    def __init__(self, contract: Contract, rows: int) -> None:
        self._contract, self._rows = contract, rows
        self._wanted = max(1, rows // _FIRST_PART)
        self._waiting: list[tuple[Lines, NDArray[np.int32], NDArray[np.int32]]] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._unusual: list[tuple[bytes, int, int]] = []
        self._unusual_bytes = 0
        self._lost: list[tuple[LostPost, int]] = []
        self._lost_bytes = 0

    def add(self, lines: Lines, numbers: NDArray[np.int32], position: int) -> Iterator[Chunk]:
        """Takes lines of a file and gives chunks that are full."""
        self._waiting.append((lines, np.full(len(lines), position, dtype=np.int32), numbers))
        self._waiting_rows += len(lines)
        self._waiting_bytes += len(lines.text)
        if self._waiting_rows >= self._wanted or self._waiting_bytes >= CHUNK_BYTES:
            yield from self._flush()
        if len(self._unusual) >= self._rows or self._unusual_bytes >= CHUNK_BYTES:
            yield self._unusual_chunk()

    def lose(self, post: LostPost, position: int) -> Iterator[Chunk]:
        """Takes a post that cannot be read and gives a chunk of them that is full."""
        self._lost.append((post, position))
        self._lost_bytes += len(post.body)
        if self._lost_bytes >= CHUNK_BYTES or len(self._lost) >= self._rows:
            yield self._lost_chunk()

    def finish(self) -> Iterator[Chunk]:
        """Gives what is left."""
        yield from self._flush()
        if self._unusual:
            yield self._unusual_chunk()
        if self._lost:
            yield self._lost_chunk()

    def _flush(self) -> Iterator[Chunk]:
        if not self._waiting_rows:
            return
        lines = join_lines([lines for lines, _, _ in self._waiting])
        positions, numbers = (np.concatenate([part[place] for part in self._waiting]) for place in (1, 2))
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        parts = max(1, round(len(lines) / self._rows))
        self._wanted = self._rows
        for start, end in itertools.pairwise(np.linspace(0, len(lines), parts + 1, dtype=int).tolist()):
            span = slice(start, end)
            yield from self._chunks(lines[span], positions[span], numbers[span])

    def _chunks(self, lines: Lines, positions: NDArray[np.int32], numbers: NDArray[np.int32]) -> Iterator[Chunk]:
        columns = bulk_columns(self._contract, lines)
        if columns is None:
            unusual = unusual_lines(self._contract, lines)
            if 0 < len(unusual) < len(lines) / 2:
                is_usual = np.ones(len(lines), dtype=bool)
                is_usual[unusual] = False
                self._unusual += [(lines[row], int(positions[row]), int(numbers[row])) for row in unusual]
                self._unusual_bytes += int((lines.ends - lines.starts)[unusual].sum())
                lines, positions, numbers = compact(lines, is_usual), positions[is_usual], numbers[is_usual]
                columns = bulk_columns(self._contract, lines)
        if columns is None:
            yield chunk_of_lines(self._contract, list(lines), positions, numbers)
            return
        tenants = columns.pop(TENANT) if TENANT not in self._contract.by_name else columns[TENANT]
        yield Chunk(positions, numbers, lines, dict(columns), tenants, [None] * len(lines))

    def _unusual_chunk(self) -> Chunk:
        lines, positions, numbers = zip(*self._unusual, strict=True)
        self._unusual, self._unusual_bytes = [], 0
        return chunk_of_lines(self._contract, lines, np.array(positions, dtype=np.int32), np.array(numbers, dtype=np.int32))

    def _lost_chunk(self) -> Chunk:
        lost, self._lost, self._lost_bytes = self._lost, [], 0
        return _lost_chunk(self._contract, lost)


def read_chunks(sources: Iterator[Source], contract: Contract, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
    """Reads files of a stream in its own shape.

    Raises:
        UnreadableFile: If a file cannot be read at all; chunks given before may hold rows of it.
    """
    waiting = JsonLines(contract, rows)
    for source in sources:
        with source.stream:
            if source.file_format in ("ndjson", "json"):
                for lines, numbers in json_lines(source):
                    yield from waiting.add(lines, numbers, source.position)
            elif source.file_format == POSTS:
                for part in post_rows(source):
                    yield from waiting.lose(part, source.position) if isinstance(part, LostPost) else waiting.add(*part, source.position)
            elif source.file_format == "csv":
                yield from _csv_chunks(source, contract, rows)
            elif source.file_format == "parquet":
                yield from _parquet_chunks(source, contract, rows)
            else:
                raise UnreadableFile(source.position, f"unknown file format: use {', '.join(FORMATS)}, plain or with .gz or .zst")
    yield from waiting.finish()


def _lost_chunk(contract: Contract, lost: Sequence[tuple[LostPost, int]]) -> Chunk:
    positions, numbers = np.array([position for _, position in lost], dtype=np.int32), np.array([post.number for post, _ in lost], dtype=np.int32)
    chunk = chunk_of_lines(contract, [b"{}"] * len(lost), positions, numbers)
    chunk.originals = [post.body for post, _ in lost]
    for row, (post, _) in enumerate(lost):
        chunk.give_up(row, RowError(Code.MALFORMED_JSON, None, None, post.reason))
    chunk.again = lambda older, wanted: _lost_chunk(older, [lost[row] for row in wanted])
    return chunk


def refuse_malformed(chunk: Chunk, text: TextRows) -> None:
    """Marks the rows of a CSV chunk whose record is malformed."""
    for row, problem in text.malformed.items():
        chunk.give_up(row, RowError(Code.MALFORMED_CSV, None, shown(text.originals[row].decode(text.encoding, "replace")), problem))


def _csv_chunks(source: Source, contract: Contract, rows: int) -> Iterator[Chunk]:
    for text in csv_rows(source, rows, contract.csv):
        yield _csv_chunk(source, text, contract)


def _csv_chunk(source: Source, text: TextRows, contract: Contract) -> Chunk:
    known, unknown = _match_header(text.header, contract)
    count = len(text.records)
    columns: dict[str, Column] = {name: [None] * count for name in contract.by_name}
    tenants: Column = [None] * count
    for name, index in known.items():
        if name == TENANT and TENANT not in contract.by_name:
            tenants = text.column(index)
        else:
            columns[name] = text.column(index)
    chunk = Chunk(_positions(source, count), np.array(text.numbers, dtype=np.int32), text.originals, columns, tenants, [None] * count, is_text=True)
    refuse_malformed(chunk, text)
    # Of a file without a header the first row stands for its names, which drift would show to everyone. No row of it is accepted.
    unknown = unknown if known or not contract.personal_fields else {}
    for row, record in enumerate(text.records):
        extra = {name: record[index] for name, index in unknown.items() if record[index]}
        if extra:
            keep_extra(chunk, row, extra)
    if contract.older:
        chunk.again = lambda older, wanted: _csv_chunk(source, text, older).only(wanted)
    return chunk


def keep_extra(chunk: Chunk, row: int, extra: dict[str, Any]) -> None:
    """Keeps unknown fields of a row, or refuses the row where they cannot be stored."""
    try:
        text = encode_extra(extra)
    except (ValueError, TypeError) as error:
        chunk.refuse(row, RowError(Code.NON_FINITE, next(iter(extra)), shown(extra), f"cannot be stored as JSON: {error}"))
        return
    if "\\u0000" in text and any("\x00" in str(part) for item in extra.items() for part in item):
        chunk.refuse(row, RowError(Code.NUL_CHARACTER, next(iter(extra)), shown(extra), "the character NUL cannot be stored"))
        return
    chunk.extra[row] = text


def _match_header(header: Sequence[str], contract: Contract) -> tuple[dict[str, int], dict[str, int]]:
    """Columns of the contract (by payload path or column name) and the rest, each with its place. Where both names stand, the path counts."""
    known: dict[str, int] = {}
    unknown: dict[str, int] = {}
    for index, name in enumerate(header):
        field = contract.paths.get(name)
        column = field.name if field else TENANT if name == TENANT_PATH else None
        if column is not None:
            known[column] = index
    for index, name in enumerate(header):
        if index in known.values():
            continue
        if (name in contract.by_name or name == TENANT) and name not in known:
            known[name] = index
        else:
            unknown[name] = index
    return known, unknown


def _positions(source: Source, count: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.full(count, source.position, dtype=np.int32)


class _JsonOriginals(Sequence[bytes]):
    """Originals of a Parquet chunk, made only for rows that need them."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, row: Any) -> Any:  # noqa: ANN401 - a sequence is indexed by int or slice
        values = self._table.slice(row, 1).to_pylist()[0]
        return json.dumps(values, ensure_ascii=False, default=_as_text).encode("utf-8", "surrogatepass")


def _as_text(value: object) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)


def parquet_tables(source: Source, rows: int = CHUNK_ROWS) -> Iterator[tuple[int, Sequence[bytes], pl.DataFrame]]:
    """Reads a Parquet file in pieces: number of the first row, originals, and columns; fields of structs stand under dotted names.

    Raises:
        UnreadableFile: If it is not a readable Parquet file.
    """
    number = 1
    for table in parquet_batches(source, rows):
        flat: dict[str, pl.Series] = {}
        _flatten(cast(pl.DataFrame, pl.from_arrow(table)), "", flat)
        yield number, _JsonOriginals(table), pl.DataFrame([series.alias(name) for name, series in flat.items()])
        number += table.num_rows


def parquet_batches(source: Source, rows: int = CHUNK_ROWS) -> Iterator[pa.Table]:
    """Reads a Parquet file in pieces, as it is.

    Raises:
        UnreadableFile: If it is not a readable Parquet file.
    """
    try:
        with seekable(source) as plain, pq.ParquetFile(plain, buffer_size=_PARQUET_BUFFER) as file:
            for number, batch in enumerate(file.iter_batches(batch_size=_batch_rows(file.metadata, rows))):
                part = rows if number else max(1, rows // _FIRST_PART)
                for start in range(0, batch.num_rows, part):
                    yield pa.Table.from_batches([batch.slice(start, part)])
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(source.position, f"not a readable Parquet file: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error


def _batch_rows(metadata: pq.FileMetaData, rows: int) -> int:
    """`rows`, or fewer where rows are so large that a chunk of them would be."""
    largest = max((group.total_byte_size // max(group.num_rows, 1) for group in map(metadata.row_group, range(metadata.num_row_groups))), default=0)
    return max(1, min(rows, CHUNK_BYTES // max(largest, 1)))


def _parquet_chunks(source: Source, contract: Contract, rows: int) -> Iterator[Chunk]:
    for number, originals, frame in parquet_tables(source, rows):
        yield _parquet_chunk(source, number, originals, frame, contract)


def _parquet_chunk(source: Source, number: int, originals: Sequence[bytes], frame: pl.DataFrame, contract: Contract) -> Chunk:
    count, names = frame.height, frame.columns
    known, unknown = _match_header(names, contract)
    columns: dict[str, Column] = {name: [None] * count for name in contract.by_name}
    columns |= {name: frame[names[index]] for name, index in known.items()}
    tenants: Column = [None] * count if TENANT in contract.by_name else columns.pop(TENANT, [None] * count)
    chunk = Chunk(_positions(source, count), np.arange(number, number + count, dtype=np.int32), originals, columns, tenants, [None] * count)
    for row, values in enumerate(frame.select(list(unknown)).iter_rows(named=True) if unknown else ()):
        extra = {key: _plain(value) for key, value in values.items() if value is not None}
        if extra:
            keep_extra(chunk, row, extra)
    if contract.older:
        chunk.again = lambda older, wanted: _parquet_chunk(source, number, originals, frame, older).only(wanted)
    return chunk


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | int | float | bool) else _as_text(value)


def _flatten(frame: pl.DataFrame, prefix: str, out: dict[str, pl.Series]) -> None:
    for series in frame:
        name = f"{prefix}{series.name}"
        if isinstance(series.dtype, pl.Struct):
            _flatten(series.struct.unnest(), f"{name}.", out)
        else:
            out[name] = series
