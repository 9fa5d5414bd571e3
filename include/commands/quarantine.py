"""`tidemark quarantine`: rows that no table could take. All commands choose rows by the same options."""

from __future__ import annotations

import functools
import getpass
import inspect
from collections.abc import Callable
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.commands.console import console, errors, print_json, table
from include.commands.stack import Json
from include.stack.windows import moment

if TYPE_CHECKING:
    from include.landing.quarantine import Event, Filter, QuarantinedRow

app = typer.Typer(no_args_is_help=True, help="Rows that no table could take: which, why, and the ways back.")


class StateChoice(StrEnum):
    """States of a quarantined row, and all of them."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"
    ALL = "all"


By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who does it, for the history; the login name if not given.")]
All = Annotated[bool, typer.Option("--all", help="The whole quarantine; without it some option must say which rows.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for those who ask later.")]


def _selection(
    stream: Annotated[str | None, typer.Option("--stream", help="Rows of this stream.")] = None,
    code: Annotated[str | None, typer.Option("--code", help="Rows with this error code, by their newest verdict.")] = None,
    file: Annotated[str | None, typer.Option("--file", metavar="ADDRESS", help="Rows of this file of the zone; * stands for any text.")] = None,
    since: Annotated[str | None, typer.Option("--from", metavar="MOMENT", help="Rows quarantined from then on, UTC.")] = None,
    before: Annotated[str | None, typer.Option("--to", metavar="MOMENT", help="Rows quarantined before then, UTC.")] = None,
    state: Annotated[StateChoice | None, typer.Option("--state", help="Rows in this state; commands that change rows know theirs.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Rows of this tenant.")] = None,
    ids: Annotated[list[int] | None, typer.Option("--id", metavar="ID", help="This row; may be given several times.")] = None,
    exported: Annotated[
        Path | None, typer.Option("--exported", exists=True, dir_okay=False, help="Rows that this companion of an export (….errors.ndjson) names.")
    ] = None,
) -> tuple[Filter, StateChoice | None]:
    from include.contracts import streams
    from include.landing.export import exported_ids
    from include.landing.quarantine import Filter

    texts = {"--code": code, "--file": file, "--from": since, "--to": before, "--tenant": tenant}
    if blank := [option for option, text in texts.items() if text is not None and not text.strip()]:
        raise typer.BadParameter(f"{', '.join(blank)} is empty: say which rows, or leave it out")  # an unset variable of a script must not mean all rows
    if stream is not None and stream not in streams():
        raise typer.BadParameter(f"there is no stream {stream!r}; streams are {', '.join(streams())}")
    try:
        start, end = (moment(text, option) if text is not None else None for text, option in ((since, "--from"), (before, "--to")))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    numbers = (*(ids or ()), *(exported_ids(exported) if exported else ()))
    if exported and not numbers:
        raise typer.BadParameter(f"{exported} names no rows")
    return Filter(stream, code, file, start, end, None, tenant, numbers), state


def _chooses(usual: StateChoice, *, fixed: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of a filter and hands the filter over as `selection`.

    Args:
        usual: State of the rows where none is asked for.
        fixed: The command is about rows in this state only.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        options = inspect.signature(_selection, eval_str=True, globals={**globals(), "Filter": Any}).parameters.values()
        own = inspect.signature(command, eval_str=True, globals={**globals(), "Filter": Any}).parameters.values()

        @functools.wraps(command)
        def run(**values: Any) -> None:  # noqa: ANN401  whatever the command takes
            selection, state = _selection(**{option.name: values.pop(option.name) for option in options})
            if fixed and state not in {None, usual}:
                raise typer.BadParameter(f"this is about rows in state {usual.value}, not {state}")
            wanted = state or usual
            command(selection=replace(selection, state=_states()[wanted]), **values)

        parameters = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in (*own, *options) if option.name != "selection"]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Typer reads
        run.__annotations__ = {option.name: option.annotation for option in parameters}
        return run

    return decorate


def _states() -> dict[StateChoice, Any]:
    from include.landing.quarantine import State

    return {choice: None if choice is StateChoice.ALL else State(choice.value) for choice in StateChoice}


@app.command("list")
@_chooses(StateChoice.OPEN)
def list_rows(selection: Filter, limit: Annotated[int, typer.Option("--limit", min=1, max=10000)] = 50, as_json: Json = False) -> None:
    """Quarantined rows, newest first; open ones unless --state says otherwise.

    Example: tidemark quarantine list --stream orders --code out_of_range
    """
    from include.landing.quarantine import count_quarantined, list_quarantined

    rows = list_quarantined(selection, limit=limit)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    shown = [
        (str(row.quarantine_id), row.stream, row.address, str(row.row_number or "whole file"), ", ".join(row.codes), row.state, row.quarantined_at)
        for row in rows
    ]
    table("", ("id", "stream", "file", "row", "codes", "state", "quarantined at (UTC)"), shown)
    count = count_quarantined(selection) if len(rows) == limit else len(rows)
    console.print(f"[dim]{len(rows):,} of {count:,} rows; `tidemark quarantine show ID` shows one whole[/dim]")


@app.command("show")
@_chooses(StateChoice.ALL)
def show(
    selection: Filter,
    numbers: Annotated[list[int] | None, typer.Argument(metavar="ID…", help="The rows; or choose them by options.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000)] = 10,
    as_json: Json = False,
) -> None:
    """Rows with their original bytes, every reason, and everything that was tried. JSON is an object for one ID, else a list.

    Examples: tidemark quarantine show 17; tidemark quarantine show --file 'orders/dt=2026-11-20/*' --code malformed_json
    """
    from include.landing.quarantine import history, list_quarantined, show_quarantined

    rows = [show_quarantined(number, selection) for number in numbers] if numbers else list_quarantined(selection, limit=limit)
    documents = [{**asdict(row), "history": [asdict(event) for event in history(row.quarantine_id)]} for row in rows]
    if as_json:
        print_json(documents[0] if numbers and len(numbers) == 1 else documents)
        return
    for row in rows:
        _print_row(row, history(row.quarantine_id))


def _print_row(row: QuarantinedRow, events: list[Event]) -> None:
    place = f"row {row.row_number}" if row.row_number else "whole file"
    outcome = f" ({row.outcome} in batch {row.replay_batch_id})" if row.outcome else ""
    console.print(f"[bold]{row.quarantine_id}[/bold] {row.stream}, {row.address}, {place}, {row.state}{outcome}", soft_wrap=True)
    table("", ("code", "field", "value", "message"), [[str(error.get(name) or "") for name in ("code", "field", "value", "message")] for error in row.errors])
    table(
        "",
        ("when (UTC)", "what", "outcome", "by", "batch", "contract", "codes", "reason"),
        [
            (
                event.happened_at,
                event.action,
                event.outcome,
                event.done_by,
                event.batch_id and str(event.batch_id),
                event.contract_version,
                ", ".join(event.codes or ()) or None,
                event.reason,
            )
            for event in events
        ],
    )
    console.print(row.text, markup=False, soft_wrap=True)


@app.command("export")
@_chooses(StateChoice.OPEN)
def export_rows(
    selection: Filter, folder: Annotated[Path, typer.Argument(file_okay=False, help="A new folder; only you can read what is in it.")], as_json: Json = False
) -> None:
    """Write the originals to files that can be mended and put into the zone again, with a companion that says what is wrong, row by row.

    NDJSON lines as they stood, CSV records under their header, Parquet as Parquet, unreadable files whole. The quarantine stays as it is.

    Example: tidemark quarantine export mended --stream orders --code out_of_range
    """
    from include.landing.export import export
    from include.landing.zone import DEFAULT_TENANT

    done = export(selection, folder)
    if as_json:
        print_json({"files": [{**asdict(file), "errors": file.errors} for file in done.files], "missing": done.missing})
    else:
        table("", ("file", "rows"), [(str(file.path), file.rows) for file in done.files])
        for file in done.files:
            tenant = f" --tenant {file.tenant}" if file.tenant != DEFAULT_TENANT else ""
            target = f"--mapping {file.mapping}" if file.mapping else f"--stream {file.stream}"
            console.print(f"mended? tidemark import {file.path} {target}{tenant}", markup=False, soft_wrap=True)
            console.print(f'        tidemark quarantine discard --exported {file.errors} --reason "mended and sent again"', markup=False, soft_wrap=True)
    for address, rows in done.missing.items():
        errors.print(f"[yellow]not written:[/yellow] {rows:,} rows of {address}: the zone no longer holds that file as it landed", soft_wrap=True)
    if done.missing:
        raise typer.Exit(1)


@app.command("replay")
@_chooses(StateChoice.OPEN, fixed=True)
def replay_rows(
    selection: Filter,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do everything and keep nothing: says what would become of the rows.")] = False,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Try open rows again through today's contract and mapping. What passes lands once, what fails stays open with its history.

    Exit code 1 where a stream is on hold or a file could not be replayed.

    Examples: tidemark quarantine replay --stream orders --code out_of_range --dry-run; tidemark quarantine replay --id 17
    """
    from include.landing.replay import replay, streams_to_replay

    results = []
    for stream in streams_to_replay(selection):
        with console.status(f"replaying {stream} …"):
            results.append(replay(stream, selection, by=_who(by), dry_run=dry_run))
    if as_json:
        print_json([{**asdict(result), "tried": result.landed, "failed_again": result.quarantined, "is_dry_run": dry_run} for result in results])
    else:
        columns = ("stream", "tried", "accepted", "duplicate", "corrected", "failed again", "batches")
        rows = [(r.stream, r.landed, r.accepted, r.duplicate, r.corrected, r.quarantined, r.batches) for r in results]
        table("Nothing was kept: this is what a replay would do" if dry_run else "", columns, rows)
        if not dry_run and any(result.accepted + result.corrected for result in results):
            console.print("[dim]the marts follow with the next build; `tidemark build` builds now[/dim]")
    for result in results:
        if result.is_held:
            errors.print(f"{result.stream} is on hold; `tidemark land --release {result.stream}` lets it land again", soft_wrap=True)
        for address in result.failed_files:
            errors.print(f"[red]failed:[/red] {address}: its rows were left as they were", soft_wrap=True)
    if any(result.is_held or result.failed_files for result in results):
        raise typer.Exit(1)


@app.command("discard")
@_chooses(StateChoice.OPEN, fixed=True)
def discard_rows(selection: Filter, reason: Reason, everything: All = False, by: By = None) -> None:
    """Mark open rows as not to be landed. Nothing is deleted, and `reopen` takes it back.

    Example: tidemark quarantine discard --file 'orders/dt=2026-11-20/*' --reason "test till, not real sales"
    """
    from include.landing.quarantine import discard, require

    require(selection, everything=everything, action="discard")
    console.print(f"{discard(selection, by=_who(by), reason=reason):,} rows discarded")


@app.command("reopen")
@_chooses(StateChoice.DISCARDED, fixed=True)
def reopen_rows(selection: Filter, reason: Reason, everything: All = False, by: By = None) -> None:
    """Take back a discard: the rows are open again.

    Example: tidemark quarantine reopen --id 17 --reason "was a real sale"
    """
    from include.landing.quarantine import reopen, require

    require(selection, everything=everything, action="reopen")
    console.print(f"{reopen(selection, by=_who(by), reason=reason):,} rows are open again")


def _who(name: str | None) -> str:
    return name or getpass.getuser()
