"""A month that has left raw comes back for some days, with the rows that arrived for it meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import psycopg
from psycopg import sql

from include.contracts import load_contract
from include.contracts.model import Contract
from include.lake.errors import LakeBusy, LakeDamaged, LakeError
from include.lake.files import lock_lake
from include.lake.months import MonthState, digest_of_days, keep_longer, month_of, months, next_month, set_restored, start_of
from include.lake.restore import restore_month
from include.lake.steps import LakeStep
from include.landing import store
from include.landing.crash import crash_point
from include.landing.load import LandingResult
from include.landing.new_columns import fill_restored
from include.landing.quarantine import Filter
from include.landing.replay import replay
from include.warehouse import Role, connect


@dataclass(frozen=True)
class Recalled:
    """A month that is in raw again.

    Attributes:
        stream: The stream.
        month: Its first day.
        rows: Rows that came back from the lake; 0 where the month was in raw already.
        keep_until: Until when it stays.
        replayed: What became of rows of the quarantine that had arrived for it.
    """

    stream: str
    month: date
    rows: int
    keep_until: datetime
    replayed: LandingResult


def recall(stream: str, day: date, *, keep_until: datetime, by: str) -> Recalled:
    """Restores the month that holds a day, then replays the rows that are in quarantine because the month was gone. Running it again does what is left.

    The whole month, because models that recompute a bucket of it read all of its rows. Values of columns that were added since it left are moved there.

    Args:
        stream: The stream.
        day: UTC day of event time.
        keep_until: The month stays in raw at least until then.
        by: Who does it, for the history of the quarantine.

    Raises:
        LakeError: If the month never left raw, or was deleted from the lake too.
        LakeDamaged: If the lake does not hold the month as it left raw.
        LakeBusy: If a lock was not free within 30 seconds. Run it again.
        LandingBusy: If columns or the replay could not lock the stream. The month is in raw; run it again.
    """
    month = month_of(day)
    contract = load_contract(stream)
    if not contract.expires:
        raise LakeError(f"rows of {stream} never leave raw: there is nothing to restore")
    with connect(Role.LOADER, autocommit=True) as connection:
        known = months(connection, stream).get(month)
        if known is None:
            raise LakeError(
                f"{month:%Y-%m} of {stream} has never left raw; `tidemark retention plan` shows what is due, `tidemark lake list` what the lake holds"
            )
        if known.state is MonthState.DELETED:
            raise LakeError(f"{month:%Y-%m} of {stream} was deleted from the lake too, as its contract says; its {known.row_count:,} rows are gone for good")
        rows = bring_back(connection, stream, month, keep_until)
        fill_restored(stream, (start_of(month), start_of(next_month(month))))
        keep_until = months(connection, stream)[month].keep_until or keep_until
    replayed = replay(stream, Filter(month=f"{month:%Y-%m}"), by=by)
    return Recalled(stream, month, rows, keep_until, replayed)


def bring_back(connection: psycopg.Connection, stream: str, month: date, keep_until: datetime) -> int:
    """Restores an expired month in one transaction and analyses the table; one that is in raw again only stays longer.

    Args:
        connection: As the loader, in autocommit.
        stream: The stream.
        month: First day of the month.
        keep_until: Until when it stays at least.

    Returns:
        Rows that came back; 0 where the month was in raw already.

    Raises:
        LakeDamaged: If the lake does not hold the rows that left raw, or a file of it is not what was entered.
        LakeBusy: If a lock was not free in time.
    """
    try:
        with connection.transaction():
            lock_lake(connection, stream)  # whoever drops a month holds it: what its state is now, it stays
            if keep_longer(connection, stream, month, keep_until):
                return 0
            restored = restore_month(connection, stream, month)
            known = months(connection, stream)[month]
            if restored.rows != known.row_count or known.content_digest not in (b"", digest_of_days(restored.days)):
                raise LakeDamaged(
                    f"the lake holds {restored.rows:,} rows of {month:%Y-%m} of {stream} that are not the {known.row_count:,} that left raw; "
                    "nothing was restored"
                )
            set_restored(connection, stream, month, keep_until)
    except psycopg.errors.LockNotAvailable as error:
        raise LakeBusy(f"{month:%Y-%m} of {stream} was not restored: a lock was not free within 30 s; run it again") from error
    crash_point(LakeStep.RESTORE_AFTER_COMMIT)
    analyze(connection, load_contract(stream))
    return restored.rows


def analyze(connection: psycopg.Connection, contract: Contract) -> None:
    """Lets the server look at the columns that plans are made by: a build that starts now would plan for an empty table."""
    columns = sql.SQL(", ").join(map(sql.Identifier, store.planned_columns(contract)))
    connection.execute(sql.SQL("analyze {} ({})").format(sql.Identifier("raw", contract.stream), columns))
