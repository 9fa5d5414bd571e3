"""Commands about what leaves raw, lake, marts and zone, and the ways back: retention, lake restore, rebuild."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from include.commands.console import console, print_json, table
from include.commands.stack import Json
from include.stack.errors import StackError
from include.stack.windows import moment

if TYPE_CHECKING:
    from include.lake.rebuild import Rebuilt
    from include.lake.retention import Item

app = typer.Typer(no_args_is_help=True, help="What leaves raw, lake, marts and zone when it is older than its contract keeps it.")

Streams = Annotated[list[str] | None, typer.Option("--stream", help="Only this stream; may be given several times.")]
At = Annotated[str | None, typer.Option("--at", metavar="MOMENT", help="The time that counts as now, UTC; the present if not given.")]


@app.command()
def plan(stream: Streams = None, at: At = None, as_json: Json = False) -> None:
    """Say what is due, and what has to wait for what. Changes nothing.

    Examples: tidemark retention plan; tidemark retention plan --at 2027-01-01
    """
    from include.lake.retention import plan as due

    _print(due(_now(at), _known(stream)), as_json, done=False)


@app.command()
def run(stream: Streams = None, as_json: Json = False) -> None:
    """Do what is due, as the DAG apply_retention does every day. A month leaves raw only once the lake holds exactly its rows and every model has read them;
    marts about persons forget what is deleted from the lake.

    Example: tidemark retention run --stream device_telemetry
    """
    from include.lake.retention import run as apply

    with console.status("comparing raw with the lake …"):
        items = apply(_now(), _known(stream))
    _print(items, as_json, done=True)


def restore(
    stream: Annotated[str, typer.Argument(help="The stream.")],
    day: Annotated[str, typer.Argument(metavar="DAY", help="A day of event time, UTC, such as 2026-01-31; its whole month comes back.")],
    keep_days: Annotated[int, typer.Option("--keep-days", min=1, max=366, help="How long the month stays in raw before retention drops it again.")] = 7,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who does it, for the history of the quarantine; the login name if not given.")] = None,
    as_json: Json = False,
) -> None:
    """Bring back the month that holds a day from the lake, and replay the rows that are in quarantine because it was gone (partition_expired).

    Example: tidemark lake restore device_telemetry 2026-01-31
    """
    from include.lake.recall import recall

    _known([stream])
    try:
        wanted = date.fromisoformat(day)
    except ValueError:
        raise typer.BadParameter(f"DAY must be a day like 2026-01-31, got {day!r}") from None
    with console.status(f"restoring {wanted:%B %Y} of {stream} …"):
        found = recall(stream, wanted, keep_until=_now() + timedelta(days=keep_days), by=by or getpass.getuser())
    replayed = found.replayed.counts()
    if as_json:
        print_json({**asdict(found), "replayed": replayed})
        return
    what = f"{found.rows:,} rows of {found.month:%B %Y} are back in raw" if found.rows else f"{found.month:%B %Y} was in raw already"
    console.print(f"{what}; they stay until {found.keep_until:%Y-%m-%d %H:%M} UTC at least")
    if found.replayed.is_held:
        console.print(f"{stream} is on hold, so nothing was replayed: `tidemark land --release {stream}`, then run this again")
    elif replayed["landed"]:
        names = ("accepted", "duplicate", "corrected", "quarantined")
        console.print(f"{replayed['landed']:,} rows of the quarantine replayed: " + ", ".join(f"{replayed[name]:,} {name}" for name in names))
    else:
        console.print("no row in quarantine was waiting for it")


def rebuild(
    select: Annotated[str | None, typer.Option("--select", metavar="MODELS", help="dbt's selection syntax; every table if not given.")] = None,
    from_lake: Annotated[bool, typer.Option("--from-lake", help="Fill an empty warehouse from the lake, tables and marts.")] = False,
    as_json: Json = False,
) -> None:
    """Recompute models over raw and the lake, month by month where months have left raw. After a crash the same command goes on where it stopped.

    Examples: tidemark rebuild; tidemark rebuild --select fct_device_reading_hourly+; tidemark rebuild --from-lake
    """
    from include.lake import rebuild as rebuilding
    from include.transform import deploy

    if from_lake and select:
        raise StackError("--from-lake fills everything", "leave --select out")
    deploy()

    def say(line: str) -> None:
        if not as_json:
            console.print(line)

    now = _now()
    result = rebuilding.rebuild_from_lake(now, say) if from_lake else rebuilding.rebuild(select or rebuilding.EVERYTHING, now, say)
    if as_json:
        print_json(asdict(result))
        return
    _print_rebuilt(result)


def _print_rebuilt(result: Rebuilt) -> None:
    console.print(f"rebuilt over raw and {len(result.months)} months of the lake")
    if result.kept:
        console.print(f"kept as they were, because raw and lake hold nothing of them any more: {', '.join(f'{month:%Y-%m}' for month in result.kept)}")
    for line in result.in_raw:
        console.print(f"[yellow]look:[/yellow] {line}; the next retention run drops it")


def _print(items: list[Item], as_json: bool, *, done: bool) -> None:
    if as_json:
        print_json([asdict(item) for item in items])
        return
    if not items:
        console.print("nothing is due")
        return
    rows = [
        (
            item.stream,
            item.table or item.place,
            f"{item.month:%Y-%m}" if item.month else None,
            item.rows,
            item.files,
            item.size_bytes,
            f"waits: {item.waits_for}" if item.waits_for else "left" if done else "due",
        )
        for item in items
    ]
    table("", ("stream", "from", "month", "rows", "files", "bytes", "state"), rows)


def _now(at: str | None = None) -> datetime:
    try:
        return datetime.now(UTC) if at is None else moment(at, "--at")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _known(names: list[str] | None) -> list[str]:
    from include.contracts import streams

    for name in names or ():
        if name not in streams():
            raise typer.BadParameter(f"there is no stream {name!r}; streams are {', '.join(streams())}")
    return names or []
