"""Commands about data on its way in: simulate, import, land, backfill; and sql to look at what came of it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from include.commands.console import console, print_json, progress_bars, table
from include.commands.stack import Json
from include.stack.errors import StackError
from include.stack.rest import AirflowApi
from include.stack.sources import Way
from include.stack.windows import moment

if TYPE_CHECKING:
    from include.landing import LandingResult

FURTHER_ENDINGS = {".tsv": "csv", ".txt": "csv"}  # of CSV outside of the zone
MAPPED_FORMATS = ("csv", "parquet")


def _required(text: str, option: str) -> datetime:
    try:
        return moment(text, option)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def import_file(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="CSV, Parquet, NDJSON or JSON, plain, .gz or .zst.")],
    mapping: Annotated[str | None, typer.Option("--mapping", help="Name of a mapping in include/contracts/mappings; it reads CSV or Parquet.")] = None,
    stream: Annotated[str | None, typer.Option("--stream", help="Stream of a file in the stream's own shape, which needs no mapping.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Whose data it is; `default` where nobody says.")] = None,
    land_now: Annotated[bool, typer.Option("--land/--no-land", help="Land it now instead of with the next scheduled run.")] = True,
) -> None:
    """Put a file into the landing zone, byte by byte; landing applies the mapping.

    Examples: tidemark import orders.csv --mapping ecommerce_consumer_orders --tenant shop_7; tidemark import mended/orders-1.ndjson --stream orders
    """
    from include.contracts import load_contract
    from include.contracts.mapping import load_mapping
    from include.landing import land_pending
    from include.landing.source import COMPRESSIONS, FORMATS, POSTS_ENDING, stored_format
    from include.landing.zone import Zone
    from include.settings import get_settings

    suffixes = [suffix.lower() for suffix in file.suffixes]
    compression = COMPRESSIONS.get(suffixes.pop()) if suffixes and suffixes[-1] in COMPRESSIONS else None
    if suffixes and suffixes[-1] == POSTS_ENDING:
        raise StackError(f"{file.name} is a file of the gateway, whose receipts hold for its own address only", "post its bodies again: tidemark post")
    endings = FORMATS | FURTHER_ENDINGS
    kind = endings.get(suffixes[-1]) if suffixes else None
    if kind is None:
        raise StackError(f"{file.name} has no ending that says its format", f"rename it to end with one of {', '.join(endings)} (.gz or .zst may follow)")
    if (mapping is None) == (stream is None):
        raise StackError("a file needs its mapping or its stream", "name one of --mapping and --stream")
    if mapping is not None and kind not in MAPPED_FORMATS:
        raise StackError(f"a mapping reads CSV or Parquet, and {file.name} is neither", "if it is in the stream's own shape, import it with --stream")
    name = load_mapping(mapping).stream if mapping is not None else load_contract(str(stream)).stream
    arrived_at = datetime.now(UTC)
    ending = stored_format(kind, compression)
    stored = Zone(get_settings().zone_url).put(name, file, source="import", arrived_at=arrived_at, ext=ending, tenant=tenant, mapping=mapping)
    console.print(f"stored as {stored.address}", soft_wrap=True)
    if land_now:
        _print_results([land_pending(name, arrived_from=arrived_at - timedelta(hours=1))])


def land(
    stream: Annotated[list[str] | None, typer.Argument(help="Streams; all where none is named.")] = None,
    hold: Annotated[str | None, typer.Option("--hold", metavar="STREAM", help="Stop landing one stream; the others go on.")] = None,
    release: Annotated[str | None, typer.Option("--release", metavar="STREAM", help="Land a held stream again.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why it is held; shown in `tidemark status`.")] = "held by hand",
    everything: Annotated[bool, typer.Option("--everything", help="Look at the whole zone, not the last 48 hours.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Also try files again that were set aside after failing three times.")] = False,
) -> None:
    """Land what is pending, now and without Airflow; or hold and release a stream.

    Examples: tidemark land; tidemark land orders --everything; tidemark land --hold orders --reason "new till software"
    """
    from include import landing
    from include.contracts import streams

    for name in (*(stream or ()), *filter(None, (hold, release))):
        if name not in streams():
            raise StackError(f"there is no stream {name!r}", f"streams are {', '.join(streams())}")
    if hold or release:
        if stream or everything or retry:
            raise StackError("--hold and --release land nothing", "leave out streams, --everything and --retry, or land afterwards")
        if hold:
            landing.hold(hold, reason)
            console.print(f"{hold} is held: nothing of it lands until `tidemark land --release {hold}`")
        if release:
            landing.release(release)
            console.print(f"{release} lands again with the next run")
        return
    run = landing.land_everything if everything else landing.land_pending
    results = []
    for name in stream or streams():
        if retry:
            landing.retry_failed(name)
        with console.status(f"landing {name} …"):
            results.append(run(name))
    _print_results(results)


def _print_results(results: list[LandingResult]) -> None:
    names = ("files", "landed", "accepted", "quarantined", "duplicate", "corrected", "failed_files")
    rows = [(result.stream, *[_count(getattr(result, name)) for name in names]) for result in results]
    table("", ("stream", "files", "landed", "accepted", "quarantined", "duplicate", "corrected", "failed files"), rows)


def _count(value: int | tuple[str, ...]) -> int:
    return value if isinstance(value, int) else len(value)


def backfill(
    first: Annotated[str, typer.Option("--from", metavar="DAY", help="First day, for example 2026-01-31.")],
    last: Annotated[str, typer.Option("--to", metavar="DAY", help="Last day, included.")],
    again: Annotated[bool, typer.Option("--again", help="Also days that were backfilled before (repairs falsified marts).")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the days have landed and the marts are built.")] = True,
) -> None:
    """Make days as they would be had everything been on time: land what arrived then, recompute what happened then.

    The same as `tidemark airflow backfill create --dag-id backfill_history …`, with a progress bar.

    Example: tidemark backfill --from 2026-01-01 --to 2026-01-03 --again
    """
    start, end = _required(first, "--from"), _required(last, "--to")
    if start > end:
        raise StackError(f"--from {first} is after --to {last}")
    begun = time.monotonic()
    with AirflowApi() as api:
        run_backfill(api, start, end, again=again, wait=wait)
        if wait:
            wait_for_builds(api)
    console.print(f"done in {time.monotonic() - begun:.0f} s" if wait else "started; `tidemark status` and the Airflow UI show how it goes")


def run_backfill(api: AirflowApi, start: datetime, end: datetime, *, again: bool, wait: bool, timeout_s: float = 1800) -> None:
    """Creates the backfill, switches its DAG on and waits for its runs with a bar of days."""
    days = (end - start).days + 1
    begun = datetime.now(UTC) - timedelta(seconds=5)
    backfill_id = api.create_backfill("backfill_history", start, end, again=again)
    api.switch("backfill_history", on=True)
    if not wait:
        return
    deadline = time.monotonic() + timeout_s
    with progress_bars() as bars:
        bar = bars.add_task("days backfilled", total=days)
        while not api.backfill_is_complete(backfill_id):
            runs = [run for run in api.runs("backfill_history", run_type="backfill", limit=100) if run.logical_date and start <= run.logical_date <= end]
            bars.update(bar, completed=sum(1 for run in runs if run.state == "success" and run.ended_at and run.ended_at > begun))
            if any(run.state == "failed" and run.ended_at and run.ended_at > begun for run in runs):
                raise StackError("a day of the backfill failed", "see backfill_history in the Airflow UI; clear its failed task")
            if time.monotonic() > deadline:
                raise StackError(f"the backfill did not end within {timeout_s:.0f} s", "see backfill_history in the Airflow UI")
            time.sleep(0.5)


def wait_for_builds(api: AirflowApi, timeout_s: float = 1800) -> None:
    """Waits until no build of the marts is queued or running."""
    deadline = time.monotonic() + timeout_s
    quiet = 0
    with console.status("building marts …"):
        while quiet < 6:  # three seconds: the scheduler turns an asset event into a run within one or two
            busy = any(run.state in {"queued", "running"} for run in api.runs("build_marts", limit=5))
            quiet = 0 if busy else quiet + 1
            if time.monotonic() > deadline:
                raise StackError(f"the marts were not built within {timeout_s:.0f} s", "is build_marts switched on?")
            time.sleep(0.5)


def _identifier(value: object) -> object:
    return str(value) if isinstance(value, int) else value


def sql(
    statement: Annotated[str, typer.Argument(help="One statement.")],
    as_json: Json = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most rows to show.")] = 1000,
) -> None:
    """Ask the warehouse as the analyst: marts, predictions and the ledger, read only.

    Examples: tidemark sql "select * from maintenance.rpt_maintenance_priority limit 5"; tidemark sql --json "select count(*) from customers.fct_order"
    """
    import psycopg

    from include.warehouse import Role, connect

    with connect(Role.ANALYST) as connection:
        try:
            cursor = connection.execute(statement.encode())
        except psycopg.Error as error:
            raise StackError(str(error).strip().replace("\n", " ")) from None
        if cursor.description is None:
            console.print(cursor.statusmessage)
            return
        columns = [column.name for column in cursor.description]
        rows = cursor.fetchmany(limit + 1)
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows[:limit]])
        return
    table(
        "",
        columns,
        [[_identifier(value) if name.endswith(("_id", "_number")) else value for name, value in zip(columns, row, strict=True)] for row in rows[:limit]],
    )
    if len(rows) > limit:
        console.print(f"[dim]only the first {limit} rows; --limit shows more[/dim]")


simulate_app = typer.Typer(
    no_args_is_help=True, help="Made-up sources, with the faults that real ones have: files in the landing zone, or posts to the gateway (--via http)."
)


@simulate_app.command("history")
def simulate_history(
    days: Annotated[int, typer.Option("--days", min=4, max=720, help="How long the plant, homes and shop have existed.")] = 180,
) -> None:
    """Write the history of a small company into the zone, and what was made up into the truth folder.

    History is always files: what is posted arrives when it is posted.

    Example: tidemark simulate history --days 30
    """
    from include.commands.demo import write_history

    history = write_history(datetime.now(UTC).replace(microsecond=0), days)
    console.print(f"history from {history.since} to {history.until}; `tidemark land --everything` lands it")


@simulate_app.command("interval")
def simulate_interval(
    start: Annotated[str, typer.Option("--from", metavar="MOMENT", help="Start of the interval, UTC.")],
    end: Annotated[str, typer.Option("--to", metavar="MOMENT", help="End of the interval, not included.")],
    via: Annotated[Way, typer.Option("--via", help="`files`, dropped into the zone; or `http`, posted to the gateway as NDJSON.")] = Way.FILES,
) -> None:
    """Send what the sources would have sent in an interval, at their real cadence.

    The gateway takes NDJSON and JSON; CSV and Parquet reach the zone as files only (`tidemark import`).

    Examples: tidemark simulate interval --from 2026-01-31T10:00 --to 2026-01-31T10:05; tidemark simulate interval --from … --to … --via http
    """
    from include.stack.sources import simulate_interval as send

    first, last = _required(start, "--from"), _required(end, "--to")
    if first >= last:
        raise StackError(f"the interval {start} to {end} is empty")
    console.print(f"{send(first, last, via):,} events from {start} to {end}")
