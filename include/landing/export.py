"""Quarantined rows as files that can be mended and dropped into the zone again.

Rows go into one file for each shape: lines of NDJSON as they stood, records of CSV under the header of their file, rows of Parquet as Parquet. Beside each
file stands a companion that says, row by row in the same order, what is wrong. A file that was quarantined whole is copied as it is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql
from psycopg.rows import class_row

from include.landing.errors import LandingError, UnreadableFile
from include.landing.originals import read_header, read_rows
from include.landing.quarantine import QUARANTINED, Filter
from include.landing.readers import Source
from include.landing.zone import Zone
from include.settings import get_settings
from include.warehouse import Role, connect

ERRORS_SUFFIX = ".errors.ndjson"
_READ_ROWS = 5000


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: The file.
        errors: Its companion: one line a row, in the same order, with quarantine_id, file, row number, codes and errors.
        stream: Stream of its rows.
        tenant: Tenant of the files they came in.
        mapping: Mapping that these files need; None for rows in the stream's own shape.
        rows: Number of rows; 1 for a file copied whole.
    """

    path: Path
    errors: Path
    stream: str
    tenant: str
    mapping: str | None
    rows: int


@dataclass(frozen=True)
class Export:
    """What an export wrote, and the files of the zone whose rows it could not write because the file is gone or unreadable, each with the number of rows."""

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
    row_number: int | None
    codes: list[str]
    errors: list[dict[str, Any]]
    original: bytes


# Records that a broken quote may have torn come last: whatever stands behind them in the same file could be taken for a part of them.
_SELECT = """
select q.quarantine_id, f.file_id, q.stream, f.tenant_id as tenant, f.mapping, f.file_format, f.address, q.row_number,
    coalesce(latest.codes, q.codes) as codes, coalesce(latest.errors, q.errors) as errors,
    case when q.row_number is null then ''::bytea else coalesce(q.original, '') end as original
{} where {} order by q.stream, 'malformed_csv' = any(q.codes), f.arrived_at, f.address, f.file_id, q.row_number
"""


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
        raise LandingError(f"{folder} is not empty: name a new folder, so that nothing in it is written over")
    zone = Zone(get_settings().zone_url)
    where, parameters = selection.where()
    missing: dict[str, int] = {}
    with connect(Role.LOADER) as connection, connection.cursor("export", row_factory=class_row(_Row)) as cursor, ExitStack() as stack:
        cursor.itersize = _READ_ROWS
        shapes = _Shapes(folder, stack)
        rows = cursor.execute(sql.SQL(_SELECT).format(QUARANTINED, where), parameters)
        for _, of_file in groupby(rows, key=lambda row: row.file_id):
            for row, problem in _write_file(zone, shapes, of_file):
                if problem:
                    missing[row.address] = missing.get(row.address, 0) + 1
        exported = shapes.exported()
    return Export(exported, missing)


def _write_file(zone: Zone, shapes: _Shapes, rows: Iterator[_Row]) -> Iterator[tuple[_Row, bool]]:
    """Writes rows of one file and says of each whether it could not be written."""
    first = next(rows)
    form = first.file_format.partition(".")[0]
    file = zone.find(first.address)
    rows = _with(first, rows)
    if first.row_number is None:
        for row in rows:
            if file is not None:
                with zone.open(file) as stream:
                    shapes.copy(row, stream)
            yield row, file is None
    elif form in {"csv", "parquet"}:
        header: bytes | pa.Schema | None = None
        if file is not None:
            with zone.open(file) as stream:
                try:
                    header = read_header(Source(0, stream, file.file_format, file.compression))
                except UnreadableFile:
                    header = None
        if header is None:
            yield from ((row, True) for row in rows)
        elif isinstance(header, pa.Schema) and file is not None:
            found = list(rows)
            with zone.open(file) as stream:
                for row, table in zip(found, read_rows(Source(0, stream, file.file_format, file.compression), [row.row_number or 0 for row in found]), strict=True):
                    shapes.table(row, table)
                    yield row, False
        elif isinstance(header, bytes):
            for row in rows:
                shapes.line(row, "csv", header)
                yield row, False
    else:
        for row in rows:
            shapes.line(row, "ndjson", None)
            yield row, False
