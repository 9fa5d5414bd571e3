"""Whether the lake holds what its lines in `ops.file` say."""

from __future__ import annotations

from datetime import date

import psycopg

from include.lake.digest import Digest


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
    raise NotImplementedError
