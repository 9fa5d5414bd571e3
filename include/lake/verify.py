"""Whether the lake holds what its lines in `ops.file` say."""

from __future__ import annotations

from datetime import date
from itertools import groupby

import polars as pl
import psycopg

from include.lake import files, parquet, store
from include.lake.digest import Digest, of_rows
from include.lake.errors import LakeDamaged
from include.lake.files import LakeFile


def verify(connection: psycopg.Connection, stream: str, first: date | None = None, last: date | None = None) -> dict[date, Digest]:
    """Reads every live file of a span of days and compares bytes (SHA-256, size) and rows (number, digest) with its line.

    Args:
        connection: Of any role that reads `ops.file`.
        stream: The stream.
        first: First day, inclusive; None: from the beginning.
        last: Last day, inclusive; None: to the end.

    Returns:
        Digest of all rows of each day, as `digest.of_raw` gives it for the same rows in raw. An event that stands in two files of a day counts twice.

    Raises:
        LakeDamaged: If a file is gone or differs; the message names all of them.
        ZoneError: If the store fails.
    """
    lake = store.open_lake()
    digests: dict[date, Digest] = {}
    damages: list[str] = []
    for day, group in groupby(files.live_files(connection, stream, first, last), key=lambda file: file.event_date):
        of_day = list(group)
        keys: list[pl.DataFrame] = []
        for file in of_day:
            try:
                with store.checked(lake, file) as path:
                    keys.append(parquet.keys_of(path))
                check_rows(file, of_rows(keys[-1]))
            except LakeDamaged as error:
                damages.append(str(error))
        # One file is its day.
        digests[day] = of_rows(pl.concat(keys)) if len(keys) > 1 else Digest(of_day[0].row_count, of_day[0].content_digest)
    if damages:
        raise LakeDamaged("; ".join(damages))
    return digests


def check_rows(file: LakeFile, found: Digest) -> None:
    """Compares the rows that a file holds with its line.

    Raises:
        LakeDamaged: If they differ.
    """
    if found != Digest(file.row_count, file.content_digest):
        raise LakeDamaged(f"{file.address} holds {found.rows:,} rows that are not the {file.row_count:,} that were entered")
