"""Rows from the lake back into raw, with the envelope that they had: `_batch_id`, `_file_id`, `_known_at` and all the rest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import psycopg


@dataclass(frozen=True)
class Restored:
    """Rows that came back.

    Attributes:
        stream: The stream.
        batch_id: Batch of kind `restore` that entered them.
        partitions: Rows by partition of the raw table.
    """

    stream: str
    batch_id: int
    partitions: dict[str, int]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(self.partitions.values())


@dataclass(frozen=True)
class Adopted:
    """A stream's lake that an empty warehouse took over.

    Attributes:
        stream: The stream.
        files: Lake files entered.
        rows: Rows in them.
        months: First days of the months of event time that they hold, in order.
    """

    stream: str
    files: int
    rows: int
    months: tuple[date, ...]


def restore_month(connection: psycopg.Connection, stream: str, month: date) -> Restored:
    """Brings a month of a stream that is partitioned by month back into raw, inside the caller's transaction.

    Verifies the bytes of every live file of the month, copies the rows into a table made aside, compares number and digest of each day, takes the stream's lock,
    attaches the table, and enters a batch of kind `restore` with its movements (reason `restore`, `rows_of_batch` the original batch). The statistics of the
    new partition are the caller's, after the commit (`analyze`).

    Args:
        connection: As the loader, in a transaction.
        stream: The stream.
        month: Any day of the month.

    Raises:
        LakeDamaged: If bytes or rows are not those that were entered.
        LakeError: If raw holds a partition of the month already, or the lake has no file of it.
        LakeBusy: If the lake of the stream is being written.
    """
    raise NotImplementedError


def adopt(connection: psycopg.Connection, stream: str) -> Adopted:
    """Makes a stream's lake known to a warehouse that has never seen the stream, by the manifest, inside the caller's transaction.

    Enters the source files of its rows as `restored` under their own numbers, and the lake's files as live; makes later files and batches get greater numbers.
    Raw stays as it is: `restore_month` or `restore_table` brings the rows. Does nothing where the lines are there already.

    Raises:
        LakeError: If there is no manifest, if the warehouse has rows or batches of the stream, or numbers of files are taken by other files.
        LakeDamaged: If the manifest or a file it names cannot be read.
    """
    raise NotImplementedError


def restore_table(connection: psycopg.Connection, stream: str) -> Restored:
    """Brings all rows of a stream that is partitioned by hash back into its empty raw table, as `restore_month` does for a month.

    Raises:
        LakeDamaged: As `restore_month`.
        LakeError: If the table holds rows.
    """
    raise NotImplementedError


def restore_stream(stream: str) -> list[Restored]:
    """Fills an empty warehouse with all that the lake holds of a stream: `adopt`, then each month or the whole table in a transaction of its own.

    Running it again after a crash goes on where it stopped.

    Raises:
        LakeError: As `adopt`.
        LakeDamaged: As `restore_month`.
    """
    raise NotImplementedError
