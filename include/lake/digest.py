"""Digests by which two places can be compared that are to hold exactly the same rows: a day of a raw table, and files of the lake.

The digest of rows is SHA-256 over their UTC hours in order: hour since 1970, number of rows, and SHA-256 over the rows of that hour in order of `event_id`,
each as `event_id ‖ _content_hash ‖ _known_at ‖ _batch_id ‖ _file_id ‖ _row_number`. Numbers are big-endian, times microseconds since 2000 as PostgreSQL sends
them. By hours, because a value of PostgreSQL may not be larger than a gigabyte.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl
import psycopg


@dataclass(frozen=True)
class Digest:
    """How many rows, and which.

    Attributes:
        rows: Number of rows.
        digest: SHA-256, 32 bytes.
    """

    rows: int
    digest: bytes


COLUMNS = ("event_id", "event_at", "_content_hash", "_known_at", "_batch_id", "_file_id", "_row_number")
"""What `of_rows` looks at."""


def of_raw(connection: psycopg.Connection, stream: str, first: date, last: date) -> dict[date, Digest]:
    """Digests of a raw table by UTC day of event time, from the first to the last day, both inclusive. Days without rows are left out."""
    raise NotImplementedError


def of_rows(rows: pl.DataFrame) -> Digest:
    """Digest of rows with `COLUMNS`, in any order."""
    raise NotImplementedError
