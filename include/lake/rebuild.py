"""Rebuild: models from raw and lake together. What raw holds first, then month by month what has left it; or a warehouse that was empty from the lake alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import psycopg

from include.contracts import load_contract, streams
from include.lake import rebuild_state, store
from include.lake.errors import LakeError
from include.lake.expire import MonthHeldBack, expire_month
from include.lake.months import MonthState, months, next_month, set_adopted, start_of
from include.lake.rebuild_state import Rebuild
from include.lake.recall import analyze, bring_back
from include.lake.restore import adopt, is_restored, restore_table
from include.lake.steps import LakeStep
from include.landing.crash import crash_point
from include.landing.new_columns import apply_contract, fill_restored
from include.transform import ALL_TABLES, build, fix_horizon
from include.transform.expiring import consumers, expiring_streams
from include.transform.invocation import project_fingerprint
from include.warehouse import Role, connect

EVERYTHING = " ".join(ALL_TABLES)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did.

    Attributes:
        months: Months of the lake that it built, those of a run that was cut short included.
        kept: Months of which raw and lake hold nothing any more: models keep what they have of them.
        in_raw: Months that are still in raw because something has yet to read them; the next retention run drops them.
    """

    months: tuple[date, ...]
    kept: tuple[date, ...]
    in_raw: tuple[str, ...]


Progress = Callable[[str], None]


def rebuild(selector: str, at: datetime, progress: Progress = log.info) -> Rebuilt:
    """Recomputes every bucket of models, in place, over raw and lake.

    First what raw holds, in one transaction a model. Then each month that has left raw, oldest first: it is restored, its buckets are recomputed, and it is
    dropped again; so disk holds one month more at a time. A process that is killed goes on behind the months that are through. Buckets of months that are gone
    from the lake too stay as they are.

    Args:
        selector: Models, in dbt's selection syntax.
        at: The time that counts as now.
        progress: Told what is done.

    Raises:
        LakeError: If another rebuild is unfinished, or the lake is not what it should be.
        TransformFailed: If a model or a data test failed; run it again once it is mended.
    """
    with connect(Role.LOADER, autocommit=True) as connection:
        rebuild_state.be_the_only_one(connection)
        work = _begin(connection, selector, is_from_lake=False)
        if work.whole_done_at is None:
            progress("rebuilding what raw holds")
            build(selector, fix_horizon(), rebuild=True, in_raw_only=True, run_tests=False)  # months in the lake are still as they were
            rebuild_state.set_whole_done(connection, work.rebuild_id)
        return _month_by_month(connection, work, at, progress)


def rebuild_from_lake(at: datetime, progress: Progress = log.info) -> Rebuilt:
    """Fills an empty warehouse from the lake: streams that are kept whole first, then month by month with builds in between.

    Months that are older than raw keeps them are dropped again once they are built. Gives the marts that were there, for the time that the lake covers.

    Args:
        at: The time that counts as now.
        progress: Told what is done.

    Raises:
        LakeError: If the warehouse is not empty, or the lake has no manifest of any stream.
        LakeDamaged: If a file is not what the manifest says.
        TransformFailed: If a model or a data test failed.
    """
    with connect(Role.LOADER, autocommit=True) as connection:
        rebuild_state.be_the_only_one(connection)
        work = _begin(connection, EVERYTHING, is_from_lake=True)
        if work.whole_done_at is None:
            for stream in _in_lake():
                _take_over(connection, stream, progress)
            progress("building what raw holds")
            build(EVERYTHING, fix_horizon(), in_raw_only=True, run_tests=False)
            rebuild_state.set_whole_done(connection, work.rebuild_id)
        return _month_by_month(connection, work, at, progress)


def _in_lake() -> list[str]:
    """Streams that were ever exported to the lake."""
    lake = store.open_lake()
    found = [stream for stream in streams() if store.read_manifest(lake, stream) is not None]
    if not found:
        raise LakeError(f"{lake.url} has no {store.MANIFEST} of any stream: nothing was exported there, or TIDEMARK_LAKE_URL names another place")
    return found


def _take_over(connection: psycopg.Connection, stream: str, progress: Progress) -> None:
    """Makes a stream's lake known, months as expired in the same transaction: from then on a late event waits for its month as it does elsewhere. Does what is
    left where a process was killed, or a build failed, behind it.
    """
    contract = load_contract(stream)
    apply_contract(stream)  # the lake's rows may have columns that came about without a migration
    with connection.transaction():
        adopted = adopt(connection, stream)
        if contract.expires:
            set_adopted(connection, stream, adopted.months)
        elif adopted.rows and not is_restored(connection, stream, None):
            restore_table(connection, stream)
            analyze(connection, contract)
    if not contract.expires:
        fill_restored(stream)
    crash_point(LakeStep.REBUILD_AFTER_TAKE_OVER)
    progress(f"{stream}: {adopted.rows:,} rows in {adopted.files:,} files of the lake")


def _month_by_month(connection: psycopg.Connection, work: Rebuild, at: datetime, progress: Progress) -> Rebuilt:
    done = rebuild_state.months_done(connection, work.rebuild_id)
    left = {(stream, month.month): month.state for stream in expiring_streams() for month in months(connection, stream).values()}
    # A month that somebody restored was in raw when the whole was built; one that this rebuild restored and did not get through with is built (again).
    due = sorted({month for (_, month), state in left.items() if state is not MonthState.DELETED and month not in done})
    in_raw: list[str] = []
    for month in due:
        for stream in expiring_streams():
            if left.get((stream, month)) is MonthState.EXPIRED:
                bring_back(connection, stream, month, _stays_until(stream, month, at, work))
            if (stream, month) in left:  # also where a process that was killed had brought it back
                fill_restored(stream, (start_of(month), start_of(next_month(month))))
        crash_point(LakeStep.REBUILD_AFTER_RESTORE)
        progress(f"building {month:%Y-%m}")
        build(work.selector, fix_horizon(), months=[month], in_raw_only=True)
        rebuild_state.set_month_done(connection, work.rebuild_id, month)
        crash_point(LakeStep.REBUILD_BETWEEN_MONTHS)
        in_raw += _drop_again(connection, month, at)
    progress("testing")
    build(work.selector, fix_horizon(), in_raw_only=True, full_tests=True)
    rebuild_state.finish(connection, work.rebuild_id)
    kept = sorted({month for (_, month), state in left.items() if state is MonthState.DELETED})
    return Rebuilt(tuple(sorted({*done, *due})), tuple(kept), tuple(in_raw))


def _stays_until(stream: str, month: date, at: datetime, work: Rebuild) -> datetime:
    """A month that an empty warehouse gets back stays in raw for as long as its contract says, any other goes at once."""
    hot = load_contract(stream).hot_retention
    return max(at, start_of(next_month(month)) + hot) if work.is_from_lake and hot is not None else at


def _drop_again(connection: psycopg.Connection, month: date, at: datetime) -> list[str]:
    """Drops what is in raw past its time. Returns what has to wait, and for what."""
    waiting = []
    for stream in expiring_streams():
        state = months(connection, stream).get(month)
        if state is None or state.keep_until is None or state.keep_until > at:
            continue
        try:
            expire_month(connection, stream, month, consumers(stream), at)
        except MonthHeldBack as error:
            waiting.append(str(error))
    return waiting


def _begin(connection: psycopg.Connection, selector: str, *, is_from_lake: bool) -> Rebuild:
    """The rebuild that was cut short, or a new one. With another project the months that are through are of no use."""
    project = project_fingerprint()
    before = rebuild_state.unfinished(connection)
    if before is not None:
        if (before.selector, before.is_from_lake) != (selector, is_from_lake):
            raise LakeError(f"rebuild {before.rebuild_id} is not finished: run `{before.command}` first, which goes on where it stopped")
        if before.project == project or is_from_lake:
            return before
        rebuild_state.finish(connection, before.rebuild_id)
    elif is_from_lake:
        _require_empty(connection)
    return rebuild_state.begin(connection, selector, project, is_from_lake=is_from_lake)


def _require_empty(connection: psycopg.Connection) -> None:
    rows: Sequence[tuple[str]] = connection.execute("select distinct stream from ops.batch order by 1").fetchall()
    if rows:
        names = ", ".join(stream for (stream,) in rows)
        raise LakeError(f"this warehouse has batches of {names}: --from-lake fills an empty one. `tidemark rebuild` builds over raw and lake of this one")
