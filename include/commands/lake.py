"""Commands about the lake: export, compaction, sweep, and what it holds."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated, Any

import typer

from include.commands.console import console, print_json, table
from include.commands.stack import Json
from include.stack.errors import StackError

app = typer.Typer(no_args_is_help=True, help="Rows that landed, as Parquet by day of event time: raw forgets them, the lake does not.")
Streams = Annotated[list[str] | None, typer.Argument(metavar="[STREAM]...", help="Streams; all of them if none is named.")]
From = Annotated[str | None, typer.Option("--from", metavar="DAY", help="First day of event time, inclusive.")]
To = Annotated[str | None, typer.Option("--to", metavar="DAY", help="Last day of event time, inclusive.")]


@app.command()
def export(
    streams: Streams = None,
    days: Annotated[list[str] | None, typer.Option("--day", metavar="DAY", help="Write this day anew, as raw holds it; may be given more than once.")] = None,
    as_json: Json = False,
) -> None:
    """Writes what landed since the last export, and days whose rows were changed. The DAG export_lake does so every hour.

    Examples: tidemark lake export; tidemark lake export orders --day 2026-01-31
    """
    from include.lake import export_days

    anew = [day for text in days or () if (day := _day(text, "--day")) is not None]
    done = [export_days(stream, anew) for stream in _streams(streams)]
    if as_json:
        print_json([vars(each) for each in done])
        return
    rows = [(each.stream, each.files, each.rows, each.size_bytes, len(each.rewritten), str(each.upto)) for each in done]
    table("", ("stream", "files", "rows", "bytes", "days written anew", "up to batch"), rows)


@app.command()
def compact(streams: Streams = None, as_json: Json = False) -> None:
    """Makes one file of each day that has several. The DAG keep_lake does so every day."""
    from include.lake.compact import compact_stream

    done = [compact_stream(stream) for stream in _streams(streams)]
    if as_json:
        print_json([vars(each) for each in done])
        return
    table(
        "", ("stream", "days", "files", "bytes before", "after"), [(each.stream, each.days, each.files, each.bytes_before, each.bytes_after) for each in done]
    )


@app.command()
def sweep(
    streams: Streams = None,
    grace: Annotated[float, typer.Option("--grace-hours", min=0, help="Leave alone what was replaced or written less than so many hours ago.")] = 24,
    as_json: Json = False,
) -> None:
    """Removes files that others replaced, and files that no export ever entered. The DAG keep_lake does so every day."""
    from include.lake.sweep import sweep_stream

    done = [sweep_stream(stream, grace=timedelta(hours=grace)) for stream in _streams(streams)]
    if as_json:
        print_json([vars(each) for each in done])
        return
    table("", ("stream", "replaced", "never entered", "bytes"), [(each.stream, each.replaced, each.strangers, each.size_bytes) for each in done])


@app.command("list")
def list_them(streams: Streams = None, first: From = None, last: To = None, as_json: Json = False) -> None:
    """The files that hold the rows now.

    Example: tidemark lake list device_telemetry --from 2026-01-01 --to 2026-01-31 --json
    """
    from include.lake import live_files
    from include.warehouse import Role, connect

    begin, end = _day(first, "--from"), _day(last, "--to")
    with connect(Role.ANALYST) as connection:
        found = [file for stream in _streams(streams) for file in live_files(connection, stream, begin, end)]
    if as_json:
        print_json([vars(file) | {"content_hash": file.content_hash.hex(), "content_digest": file.content_digest.hex()} for file in found])
        return
    table(
        "",
        ("address", "rows", "bytes", "contract"),
        [(file.address, file.row_count, file.size_bytes, file.contract_version) for file in found],
        unbroken="address",
    )
    console.print(f"[dim]{len(found)} files, {sum(file.row_count for file in found):,} rows, {sum(file.size_bytes for file in found):,} bytes[/dim]")


@app.command()
def verify(
    streams: Streams = None,
    first: From = None,
    last: To = None,
    raw: Annotated[bool, typer.Option("--raw", help="Compare each day with raw too, where raw has rows of it.")] = False,
    as_json: Json = False,
) -> None:
    """Reads files again: their bytes and rows must be those that were entered. Exit code 1 where anything differs."""
    from include.lake import digest, verify
    from include.warehouse import Role, connect

    begin, end = _day(first, "--from"), _day(last, "--to")
    report: list[dict[str, Any]] = []
    differ: list[str] = []
    for stream in _streams(streams):
        with connect(Role.LOADER) as connection:
            days = verify(connection, stream, begin, end)
            stored = digest.of_raw(connection, stream, begin or min(days), end or max(days)) if raw and days else {}
        report.append({"stream": stream, "days": len(days), "rows": sum(day.rows for day in days.values()), "compared_with_raw": len(stored)})
        differ += [f"{stream} on {day}" for day, there in sorted(stored.items()) if days.get(day) != there]
    if as_json:
        print_json(report)
    else:
        table("", ("stream", "days", "rows", "days compared with raw"), [tuple(each.values()) for each in report])
    if differ:
        raise StackError(
            f"raw and lake do not hold the same rows: {', '.join(differ[:5])}{' …' if len(differ) > 5 else ''}",
            "run `tidemark lake export --day` for a day that differs although nothing is left to export",
        )


def _streams(named: list[str] | None) -> list[str]:
    from include.contracts import streams

    unknown = [stream for stream in named or () if stream not in streams()]
    if unknown:
        raise StackError(f"there is no stream {unknown[0]!r}", f"streams are {', '.join(streams())}")
    return named or list(streams())


def _day(text: str | None, option: str) -> date | None:
    try:
        return date.fromisoformat(text) if text is not None else None
    except ValueError:
        raise StackError(f"{option} {text!r} is no day", "write it as 2026-01-31") from None
