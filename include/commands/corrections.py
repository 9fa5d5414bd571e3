"""Commands about corrections: what was said before, and what was refused."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from include.commands.console import console, print_json, table
from include.commands.stack import Json
from include.stack.errors import StackError
from include.stack.windows import moment

app = typer.Typer(no_args_is_help=True, help="What events said before they were corrected, and corrections that came too late.")


@app.callback()
def _corrections() -> None:
    """Keeps `list` a command of its own, however many there are."""


@app.command("list")
def list_them(
    stream: Annotated[str | None, typer.Option("--stream", help="Only this stream.")] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", metavar="FIELD=VALUE", help="Only events with this value in a key field; may be given more than once.")
    ] = None,
    event: Annotated[str | None, typer.Option("--event", metavar="HEX", help="Only this event_id, 32 hexadecimal digits.")] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="MOMENT", help="Only what was recorded from then on, UTC.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Only what this batch recorded.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100000)] = 50,
    as_json: Json = False,
) -> None:
    """Newest first: what changed, since when and until when the old content counted, and whether the new one was applied.

    Examples: tidemark corrections list --stream orders --key order_id=o-17; tidemark corrections list --since 2026-01-31 --json
    """
    from include.contracts import streams
    from include.landing.corrections import list_corrections

    if stream is not None and stream not in streams():
        raise StackError(f"there is no stream {stream!r}", f"streams are {', '.join(streams())}")
    wanted = dict(_pair(text) for text in key or ())
    try:
        event_id = bytes.fromhex(event.removeprefix("\\x")) if event is not None else None
    except ValueError:
        raise StackError(f"{event!r} is no event_id", "give 32 hexadecimal digits, as --json shows them") from None
    try:
        begin = moment(since, "--since") if since is not None else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    rows = list_corrections(stream, key=wanted, event_id=event_id, since=begin, batch_id=batch, limit=limit)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    shown = [
        (
            row.stream,
            ", ".join(f"{name}={value}" for name, value in row.key.items()),
            "\n".join(f"{name}: {_text(old)} → {_text(new)}" for name, old, new in row.changes),
            "applied" if row.is_applied else "too late",
            row.old_known_from,
            row.old_known_to,
            str(row.batch_id),
        )
        for row in rows
    ]
    table("", ("stream", "key", "old → new", "outcome", "old known from (UTC)", "to", "batch"), shown)
    console.print(f"[dim]{len(rows)} corrections; --json shows both contents whole, with their files[/dim]")


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise StackError(f"--key {text!r} is no pair", "write --key FIELD=VALUE, such as --key order_id=o-17")
    return name, value


def _text(value: object) -> str:
    return "–" if value is None else str(value)
