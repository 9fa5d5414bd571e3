"""Which rebuild over months that have left raw is unfinished, and how far it has come: `ops.rebuild` and `ops.rebuild_month`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import psycopg
from psycopg.rows import class_row

from include.lake.errors import LakeBusy


@dataclass(frozen=True)
class Rebuild:
    """A rebuild.

    Attributes:
        rebuild_id: Its number.
        selector: Models that it builds, in dbt's selection syntax.
        project: Fingerprint of the project that it builds with.
        is_from_lake: It fills an empty warehouse from the lake.
        whole_done_at: When what raw held was through; of one from the lake, when the lake was taken over.
    """

    rebuild_id: int
    selector: str
    project: str
    is_from_lake: bool
    whole_done_at: datetime | None

    @property
    def command(self) -> str:
        """The command that goes on with it."""
        return "tidemark rebuild --from-lake" if self.is_from_lake else f'tidemark rebuild --select "{self.selector}"'


def be_the_only_one(connection: psycopg.Connection) -> None:
    """Takes the lock of rebuilds for as long as the connection lives; a process that dies gives it back.

    Raises:
        LakeBusy: If another process has it.
    """
    row = connection.execute("select pg_try_advisory_lock(hashtextextended('tidemark.rebuild', 0))").fetchone()
    if row != (True,):
        raise LakeBusy("a rebuild is under way in another process")


def unfinished(connection: psycopg.Connection) -> Rebuild | None:
    """The rebuild that is not finished, if any."""
    query = "select rebuild_id, selector, project, is_from_lake, whole_done_at from ops.rebuild where finished_at is null"
    with connection.cursor(row_factory=class_row(Rebuild)) as cursor:
        return cursor.execute(query).fetchone()


def begin(connection: psycopg.Connection, selector: str, project: str, *, is_from_lake: bool) -> Rebuild:
    """Enters a rebuild that begins."""
    query = "insert into ops.rebuild (selector, project, is_from_lake) values (%s, %s, %s) returning rebuild_id, selector, project, is_from_lake, whole_done_at"
    with connection.cursor(row_factory=class_row(Rebuild)) as cursor:
        row = cursor.execute(query, (selector, project, is_from_lake)).fetchone()
    assert row is not None
    return row


def set_whole_done(connection: psycopg.Connection, rebuild_id: int) -> None:
    """Enters that only months remain."""
    connection.execute("update ops.rebuild set whole_done_at = clock_timestamp() where rebuild_id = %s", (rebuild_id,))


def finish(connection: psycopg.Connection, rebuild_id: int) -> None:
    """Enters that a rebuild is finished, or that another one takes its place."""
    connection.execute("update ops.rebuild set finished_at = clock_timestamp() where rebuild_id = %s", (rebuild_id,))


def months_done(connection: psycopg.Connection, rebuild_id: int) -> set[date]:
    """Months that it is through with."""
    return {month for (month,) in connection.execute("select month from ops.rebuild_month where rebuild_id = %s", (rebuild_id,))}


def set_month_done(connection: psycopg.Connection, rebuild_id: int, month: date) -> None:
    """Enters that it is through with a month."""
    connection.execute("insert into ops.rebuild_month (rebuild_id, month) values (%s, %s) on conflict do nothing", (rebuild_id, month))
