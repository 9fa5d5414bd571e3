"""Rows of a raw table as Parquet and back: types, order, compression, and what a file says about itself.

A file holds all columns of its raw table as they were when it was written, in order of tenant, bucket columns and event time, so that what a device says stands
together. Empty texts and missing values stay apart, doubles are the same to the bit, `_extra` is JSON text. Its key-value metadata names stream and contract
version, and in `tidemark.files` the ledger lines of the files that its rows came in: with them it can be understood without a warehouse.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from psycopg import sql

from include.contracts.ddl import table_columns
from include.contracts.model import EVENT_AT, Contract
from include.lake.digest import COLUMNS, Digest, of_rows
from include.lake.errors import LakeDamaged, LakeError
from include.lake.files import SourceFile
from include.lake.steps import LakeStep
from include.landing.crash import crash_point
from include.landing.identity import CONTENT_HASH, EVENT_ID, ID_BYTES
from include.landing.rows import TENANT
from include.landing.store import FILE_ID
from include.landing.validate import ROW_NUMBER

ROW_GROUP_ROWS = 128 << 10
SOURCES = "tidemark.files"
_ZSTD_LEVEL = 9
_BLOCK_BYTES = 8 << 20
_DAY_US = 86_400_000_000
_HASHES = (EVENT_ID, CONTENT_HASH)
_HASH = pa.binary(ID_BYTES)
_TYPES: Mapping[str, pa.DataType] = {
    "text": pa.string(),
    "bytea": _HASH,
    "bigint": pa.int64(),
    "integer": pa.int32(),
    "double precision": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp with time zone": pa.timestamp("us", tz="UTC"),
    "date": pa.date32(),
    "jsonb": pa.string(),
}
_NIBBLES = np.zeros(256, dtype=np.uint8)
_NIBBLES[[*b"0123456789abcdef"]] = np.arange(16, dtype=np.uint8)


def schema_of(contract: Contract) -> pa.Schema:
    """Columns of a stream's files."""
    return pa.schema([pa.field(name, _TYPES[pg_type], nullable) for name, pg_type, nullable in table_columns(contract)])


def check_columns(connection: psycopg.Connection, contract: Contract) -> None:
    """Refuses a raw table that has other columns than its contract. What an older contract does not know it would leave behind, and no digest would tell:
    it covers the content hash that a row has.

    Raises:
        LakeError: If columns are missing on either side.
    """
    rows = connection.execute(
        "select attname::text from pg_attribute where attrelid = to_regclass('raw.' || quote_ident(%s)) and attnum > 0 and not attisdropped", (contract.stream,)
    )
    there, wanted = {name for (name,) in rows}, {name for name, _, _ in table_columns(contract)}
    if wanted - there:
        raise LakeError(
            f"raw.{contract.stream} lacks columns of its contract {contract.version}: {', '.join(sorted(wanted - there))}; "
            f"`tidemark contracts apply {contract.stream}` adds them"
        )
    if there - wanted:
        raise LakeError(
            f"raw.{contract.stream} has columns that its contract {contract.version} does not have: {', '.join(sorted(there - wanted))}; "
            "the lake would not hold their values. Bring back the contract that has them"
        )


def sort_columns(contract: Contract) -> list[str]:
    """Columns that rows of a file are in order of, missing values last."""
    return list(dict.fromkeys([TENANT, *contract.bucket_columns, EVENT_AT, EVENT_ID]))


def select_rows(contract: Contract, condition: sql.Composable) -> sql.Composed:
    """COPY statement for rows of a raw table in order of UTC day and then of a file; what it sends is what `copied` reads."""
    texts = {name for name, pg_type, _ in table_columns(contract) if pg_type == "text"}
    columns = [sql.SQL("encode({}, 'hex')").format(sql.Identifier(name)) if name in _HASHES else sql.Identifier(name) for name, _, _ in table_columns(contract)]
    order = [sql.SQL('{} collate "C"' if name in texts else "{}").format(sql.Identifier(name)) for name in sort_columns(contract)]
    return sql.SQL("copy (select {} from {} where {} order by date_trunc('day', event_at, 'UTC'), {}) to stdout (format csv)").format(
        sql.SQL(", ").join(columns), sql.Identifier("raw", contract.stream), condition, sql.SQL(", ").join(order)
    )


def copied(connection: psycopg.Connection, contract: Contract, statement: sql.Composed) -> Iterator[pa.Table]:
    """Rows that a statement of `select_rows` sends, some thousands at a time."""
    schema = schema_of(contract)
    read = pa.schema([field.with_type(pa.string()) if field.type == _HASH else field for field in schema])
    options = {
        "parse_options": pa.csv.ParseOptions(newlines_in_values=True),
        "convert_options": pa.csv.ConvertOptions(
            column_types=read,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,  # COPY quotes an empty text and leaves a missing value bare
            true_values=["t"],
            false_values=["f"],
        ),
    }
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for block in _blocks(copy):
            table = pa.csv.read_csv(pa.BufferReader(block), read_options=pa.csv.ReadOptions(column_names=read.names, block_size=len(block) + 1), **options)
            columns = [_unhexed(table[name]) if name in _HASHES else table[name] for name in schema.names]
            yield pa.Table.from_arrays(columns, schema=schema)


def _blocks(copy: Iterable[Any]) -> Iterator[bytes]:
    """Whole rows of COPY, some megabytes at a time: the server sends a row a message."""
    rows: list[bytes] = []
    size = 0
    for row in copy:
        rows.append(bytes(row))
        size += len(rows[-1])
        if size >= _BLOCK_BYTES:
            yield b"".join(rows)
            rows, size = [], 0
    if rows:
        yield b"".join(rows)


def _unhexed(column: pa.ChunkedArray) -> pa.Array:
    """Hashes from their hexadecimal digits; none is missing."""
    digits = np.frombuffer("".join(column.to_pylist()).encode(), dtype=np.uint8)
    nibbles = _NIBBLES[digits].reshape(-1, 2)
    return pa.FixedSizeBinaryArray.from_buffers(_HASH, len(column), [None, pa.py_buffer((nibbles[:, 0] << 4 | nibbles[:, 1]).tobytes())])


def by_day(tables: Iterable[pa.Table]) -> Iterator[tuple[date, pa.Table]]:
    """Rows that come in order of UTC day, cut where a day begins."""
    for table in tables:
        days = table[EVENT_AT].cast(pa.int64()).to_numpy() // _DAY_US
        cuts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), table.num_rows]
        for begin, end in pairwise(cuts):
            if begin < end:
                yield date(1970, 1, 1) + timedelta(days=int(days[begin])), table.slice(begin, end - begin)


def write_options(schema: pa.Schema) -> dict[str, Any]:
    """How files are encoded and compressed, by measuring every column of telemetry (docs/benchmarks.md).

    Values of sensors have few digits, so a dictionary of a row group's values beats splitting doubles into bytes. Times and row numbers hardly repeat: the
    bytes of each position stand together instead. Hashes cannot be made smaller; zstd would only lose time on them.
    """
    split = (EVENT_AT, ROW_NUMBER)
    packed = [name for name in schema.names if name not in _HASHES]
    return {
        "compression": dict.fromkeys(packed, "ZSTD") | dict.fromkeys(_HASHES, "NONE"),
        "compression_level": dict.fromkeys(packed, _ZSTD_LEVEL),
        "use_dictionary": [name for name in packed if name not in split],
        "column_encoding": dict.fromkeys(split, "BYTE_STREAM_SPLIT") | dict.fromkeys(_HASHES, "PLAIN"),
    }


def write(path: Path, contract: Contract, tables: Iterable[pa.Table], describe: Callable[[Collection[int]], Sequence[SourceFile]]) -> None:
    """Writes a file.

    Args:
        path: Where to.
        contract: The stream's contract.
        tables: Rows with `schema_of` the contract, in their order.
        describe: Gives the ledger lines of files that rows came in.
    """
    file_ids: set[int] = set()
    schema = schema_of(contract)
    with pq.ParquetWriter(path, schema, **write_options(schema)) as writer:
        for group in _row_groups(tables):
            writer.write_table(group)
            file_ids.update(pc.unique(group[FILE_ID]).to_pylist())
            crash_point(LakeStep.EXPORT_MID_WRITE)
        sources = [source.as_dict() for source in describe(file_ids)]
        if len(sources) != len(file_ids):
            raise LakeError(f"{len(file_ids) - len(sources)} files that rows of {contract.stream} came in have no line in ops.file")
        writer.add_key_value_metadata(
            {"tidemark.stream": contract.stream, "tidemark.contract_version": contract.version, SOURCES: json.dumps(sources, ensure_ascii=False)}
        )


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        while rows >= ROW_GROUP_ROWS:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, ROW_GROUP_ROWS)
            waiting, rows = [whole.slice(ROW_GROUP_ROWS)], rows - ROW_GROUP_ROWS
    if rows:
        yield pa.concat_tables(waiting)


def keys_of(path: Path) -> pl.DataFrame:
    """What a file holds of `digest.COLUMNS`.

    Raises:
        LakeDamaged: If it cannot be read.
    """
    with _told(path):
        return frame_of(pq.read_table(path, columns=list(COLUMNS)))


def contents(path: Path) -> tuple[Digest, datetime, datetime]:
    """Digest of the rows of a file, and their least and greatest event time, UTC."""
    keys = keys_of(path)
    first, last = (cast(datetime, moment).replace(tzinfo=UTC) for moment in (keys[EVENT_AT].min(), keys[EVENT_AT].max()))
    return of_rows(keys), first, last


def sources_of(file: Any) -> list[SourceFile]:  # noqa: ANN401  a path, or an open file of a store
    """Ledger lines of the files that rows of a file came in.

    Raises:
        LakeDamaged: If it cannot be read.
    """
    with _told(file):
        metadata = pq.read_metadata(file).metadata or {}
        return [SourceFile.of(document) for document in json.loads(metadata[SOURCES.encode()])]


def read(path: Path, contract: Contract, rows: int = ROW_GROUP_ROWS) -> Iterator[pa.Table]:
    """Rows of a file in their order, with `schema_of` the contract: a column that the file does not have yet has no values.

    Raises:
        LakeDamaged: If it cannot be read.
        LakeError: If it has a column that the contract does not have.
    """
    schema = schema_of(contract)
    with _told(path), pq.ParquetFile(path) as file:
        strange = [name for name in file.schema_arrow.names if name not in schema.names]
        if strange:
            raise LakeError(f"{path.name} has columns that the contract of {contract.stream} {contract.version} does not have: {', '.join(strange)}")
        for batch in file.iter_batches(batch_size=rows):
            columns = [batch[field.name] if field.name in batch.schema.names else pa.nulls(batch.num_rows, field.type) for field in schema]
            yield pa.Table.from_arrays(columns, schema=schema)


def frame_of(table: pa.Table) -> pl.DataFrame:
    """A table as landing's COPY takes it: hashes as bytes, times as naive UTC microseconds."""
    columns = {
        name: column.cast(pa.binary()) if column.type == _HASH else column.cast(pa.timestamp("us")) if pa.types.is_timestamp(column.type) else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return cast(pl.DataFrame, pl.from_arrow(pa.table(columns)))


@contextmanager
def _told(file: Any) -> Iterator[None]:  # noqa: ANN401  a path, or an open file of a store
    """Turns what Parquet's reader raises into a `LakeDamaged` with the name of the file."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        name = file.name if isinstance(file, Path) else str(file)
        raise LakeDamaged(f"{name} is no Parquet file of the lake: {str(error).splitlines()[0] if str(error) else repr(error)}") from error
