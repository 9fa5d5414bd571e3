"""Quarantined rows as files that can be mended and put into the zone again.

Rows go into one file for each shape: lines of NDJSON as they stood, records of CSV under the header of their file, rows of Parquet as Parquet. Beside each
file stands a companion that says what is wrong, row by row in the same order. A file that was quarantined whole is copied as it is.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql
from psycopg.rows import class_row

from include.landing.csv_files import csv_head
from include.landing.errors import LandingError, UnreadableFile
from include.landing.originals import csv_dialect, find_landed
from include.landing.quarantine import QUARANTINED, Filter
from include.landing.readers import parquet_batches
from include.landing.source import Source
from include.landing.zone import DEFAULT_TENANT, Zone
from include.settings import get_settings
from include.warehouse import Role, connect

ERRORS_SUFFIX = ".errors.ndjson"
_FETCH_ROWS = 5000


@dataclass
class Exported:
    """A file that was written.

    Attributes:
        path: The file.
        stream: Stream of its rows.
        tenant: Tenant of the files that they came in.
        mapping: Mapping that these files need; None for rows in the stream's own shape.
        rows: Number of rows; 1 for a file copied whole.
    """

    path: Path
    stream: str
    tenant: str
    mapping: str | None
    rows: int = 0

    @property
    def errors(self) -> Path:
        """Its companion: one JSON object a row, in the same order, with quarantine_id, file, row_number, codes and errors."""
        return self.path.with_name(f"{self.path.name}{ERRORS_SUFFIX}")


@dataclass(frozen=True)
class Export:
    """What an export wrote.

    Attributes:
        files: The files.
        missing: Number of rows by address, for files whose rows could not be written: the zone no longer holds them, and their format needs the file.
    """

    files: tuple[Exported, ...]
    missing: dict[str, int]


@dataclass(frozen=True)
class _Row:
    quarantine_id: int
    file_id: int
    stream: str
    tenant: str
    mapping: str | None
    file_format: str
    address: str
    version_tag: str
    content_hash: bytes
    row_number: int | None
    codes: list[str]
    errors: list[dict[str, Any]]
    original: bytes


# Records torn by a broken quote come last: whatever stood behind one in the same file could be taken for a part of it.
_SELECT = sql.SQL("""
select q.quarantine_id, f.file_id, q.stream, f.tenant_id as tenant, f.mapping, split_part(f.file_format, '.', 1) as file_format, f.address, f.version_tag,
    f.content_hash, q.row_number, coalesce(latest.codes, q.codes) as codes, coalesce(latest.errors, q.errors) as errors, coalesce(q.original, '') as original
{} where {} order by q.stream, 'malformed_csv' = any(q.codes), f.arrived_at, f.address, f.file_id, q.row_number
""")


def export(selection: Filter, folder: Path) -> Export:
    """Writes the originals of quarantined rows. The quarantine stays as it is.

    Args:
        selection: Which rows.
        folder: Where to; made if it is not there. Its files are readable by their owner only, because originals may hold personal data.

    Raises:
        LandingError: If the folder holds something already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise LandingError(f"{folder} is not empty: name a new folder, so that nothing is written over")
    zone = Zone(get_settings().zone_url)
    where, parameters = selection.where()
    missing: dict[str, int] = {}
    with connect(Role.LOADER) as connection, connection.cursor("export", row_factory=class_row(_Row)) as cursor, ExitStack() as stack:
        cursor.itersize = _FETCH_ROWS
        shapes = _Shapes(folder, stack)
        rows = cursor.execute(_SELECT.format(QUARANTINED, where), parameters)
        for _, of_file in groupby(rows, key=lambda row: row.file_id):
            left = iter(of_file)
            first = next(left)
            left = chain([first], left)
            try:
                _export_file(zone, shapes, first, left)
            except (FileNotFoundError, UnreadableFile):
                missing[first.address] = missing.get(first.address, 0) + sum(1 for _ in left)
    return Export(tuple(shapes.files), missing)


def _export_file(zone: Zone, shapes: _Shapes, first: _Row, rows: Iterator[_Row]) -> None:
    if first.row_number is not None and first.file_format not in {"csv", "parquet"}:
        for row in rows:
            # One line a row. Only an element of a JSON array holds line breaks, and only between its tokens.
            shapes.add_line(row, "ndjson", b"", row.original.replace(b"\n", b" ") + b"\n")
        return
    file = find_landed(zone, first.address, first.version_tag, first.content_hash)
    if file is None:
        raise FileNotFoundError(first.address)
    with zone.open(file) as stream:
        source = Source(0, stream, file.file_format, file.compression)
        if first.row_number is None:
            shapes.copy(next(rows), stream)
        elif first.file_format == "csv":
            head, line_end = csv_head(source, csv_dialect(file.stream, file.mapping))
            for row in rows:
                shapes.add_line(row, "csv", head, row.original + line_end)
        else:
            _export_tables(shapes, parquet_batches(source), rows)


def _export_tables(shapes: _Shapes, tables: Iterable[pa.Table], rows: Iterator[_Row]) -> None:
    row, begin = next(rows, None), 1
    for table in tables:
        wanted = []
        while row is not None and row.row_number is not None and row.row_number < begin + table.num_rows:
            wanted.append(row)
            row = next(rows, None)
        if wanted:
            shapes.add_table(wanted, table.take([(row.row_number or 0) - begin for row in wanted]))
        begin += table.num_rows
        if row is None:
            return


class _Shapes:
    """The files of an export, one for each stream, tenant, mapping and header or schema."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.files: list[Exported] = []
        self._folder, self._stack = folder, stack
        self._open: dict[tuple[object, ...], tuple[Exported, Any, BinaryIO]] = {}

    def add_line(self, row: _Row, form: str, header: bytes, line: bytes) -> None:
        key = (row.stream, row.tenant, row.mapping, form, header)
        if key not in self._open:
            file = self._new(row, f".{form}")
            self._open[key] = file, self._create(file.path), self._create(file.errors)
            self._open[key][1].write(header)
        file, out, errors = self._open[key]
        out.write(line)
        self._explain(file, errors, row)

    def add_table(self, rows: list[_Row], table: pa.Table) -> None:
        key = (rows[0].stream, rows[0].tenant, rows[0].mapping, "parquet", table.schema.serialize().to_pybytes())
        if key not in self._open:
            file = self._new(rows[0], ".parquet")
            writer = self._stack.enter_context(pq.ParquetWriter(self._create(file.path), table.schema))
            self._open[key] = file, writer, self._create(file.errors)
        file, out, errors = self._open[key]
        out.write_table(table)
        for row in rows:
            self._explain(file, errors, row)

    def copy(self, row: _Row, stream: BinaryIO) -> None:
        file = self._new(row, "".join(Path(row.address).suffixes))
        shutil.copyfileobj(stream, self._create(file.path))
        self._explain(file, self._create(file.errors), row)

    def _new(self, row: _Row, suffix: str) -> Exported:
        parts = [row.stream, *([row.tenant] if row.tenant != DEFAULT_TENANT else []), *([row.mapping] if row.mapping else [])]
        file = Exported(self._folder / f"{'.'.join(parts)}-{len(self.files) + 1}{suffix}", row.stream, row.tenant, row.mapping)
        self.files.append(file)
        return file

    def _create(self, path: Path) -> BinaryIO:
        return self._stack.enter_context(open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)))

    @staticmethod
    def _explain(file: Exported, errors: BinaryIO, row: _Row) -> None:
        file.rows += 1
        line = {"row": file.rows, "quarantine_id": row.quarantine_id, "file": row.address, "row_number": row.row_number}
        errors.write(json.dumps({**line, "codes": row.codes, "errors": row.errors}, ensure_ascii=False).encode() + b"\n")


def exported_ids(companion: Path) -> tuple[int, ...]:
    """Numbers of the rows that a companion of an export names.

    Raises:
        LandingError: If it is not such a file.
    """
    try:
        with companion.open("rb") as lines:
            return tuple(int(json.loads(line)["quarantine_id"]) for line in lines)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LandingError(f"{companion} is not a companion of an export (…{ERRORS_SUFFIX}): {error}") from error
