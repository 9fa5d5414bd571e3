"""`tidemark files`: where data lies today, file by file, and what models were trained on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from include.commands.console import console, errors, print_json, table
from include.commands.stack import Json
from include.file_index.kinds import FileState, Kind

if TYPE_CHECKING:
    from include.file_index.datasets import StoredDataset
    from include.file_index.detail import FileDetail
    from include.file_index.find import IndexedFile

app = typer.Typer(no_args_is_help=True, help="Files of zone and lake: which there are, what is in them, and which ones a model was trained on.")

Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many.")]
COLUMNS = ("id", "kind", "state", "stream", "address", "rows", "bytes", "event time (UTC)", "to", "arrived (UTC)")


@app.command("find")
def find(
    stream: Annotated[str | None, typer.Option("--stream", help="Files of this stream.")] = None,
    event_from: Annotated[str | None, typer.Option("--from", metavar="MOMENT", help="Files with rows from then on, by event time, UTC.")] = None,
    event_before: Annotated[str | None, typer.Option("--to", metavar="MOMENT", help="Files with rows from before then, by event time, UTC.")] = None,
    arrived_from: Annotated[str | None, typer.Option("--arrived-from", metavar="MOMENT", help="Files that arrived from then on, UTC.")] = None,
    arrived_before: Annotated[str | None, typer.Option("--arrived-to", metavar="MOMENT", help="Files that arrived before then, UTC.")] = None,
    state: Annotated[FileState | None, typer.Option("--state", help="Files in this state.")] = None,
    kind: Annotated[Kind | None, typer.Option("--kind", help="Arrivals in the zone, or files of the lake.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Files of this tenant, and lake files that hold several.")] = None,
    limit: Limit = 100,
    as_json: Json = False,
) -> None:
    """Files, newest arrival first. A lake file arrives when it is written.

    Examples: tidemark files find --stream orders --from 2026-01-31 --to 2026-02-01; tidemark files find --state failed --json
    """
    from include.contracts import streams
    from include.file_index.find import FileFilter, find_files
    from include.stack.windows import moment

    if stream is not None and stream not in streams():
        raise typer.BadParameter(f"there is no stream {stream!r}; streams are {', '.join(streams())}")
    given = {"--from": event_from, "--to": event_before, "--arrived-from": arrived_from, "--arrived-to": arrived_before}
    try:
        start, end, first, last = (moment(text, option) if text is not None else None for option, text in given.items())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    files = find_files(FileFilter(stream, kind, state, tenant, start, end, first, last), limit=limit)
    if as_json:
        print_json([asdict(file) for file in files])
        return
    table("", COLUMNS, [_row(file) for file in files])
    more = "; there may be more: --limit" if len(files) == limit else ""
    console.print(f"[dim]{len(files):,} files{more}; `tidemark files show ID` says where the rows of one lie today[/dim]")


@app.command("show")
def show(name: Annotated[str, typer.Argument(metavar="ID|ADDRESS", help="Number or address of a file.")], as_json: Json = False) -> None:
    """One file in full: its rows, where they lie today in zone, raw and lake, and the data sets that name it. An address may have had several contents.

    Examples: tidemark files show 17; tidemark files show orders/dt=2026-01-31/hr=10/103000000000-shop-0.ndjson.gz
    """
    from include.file_index.detail import show_files

    details = show_files(name)
    if as_json:
        print_json([asdict(detail) for detail in details])
        return
    for detail in details:
        _print_detail(detail)


def _print_detail(detail: FileDetail) -> None:
    file = detail.file
    console.print(f"[bold]{file.file_id}[/bold] {file.kind}, {file.state}, {file.stream}, {file.address}", soft_wrap=True, highlight=False)
    facts: list[tuple[str, object]] = [
        ("bytes", "there" if detail.is_there else f"deleted {file.expired_at:%Y-%m-%d %H:%M}" if file.expired_at else "not there"),
        ("size", f"{file.size_bytes:,} bytes, {file.file_format}, SHA-256 {file.content_hash}"),
        ("tenant", file.tenant_id or "several"),
        ("contract", file.contract_version and f"{file.contract_version}{f', mapping {file.mapping}' if file.mapping else ''}"),
        ("rows", ", ".join([f"{file.row_count:,}", *(f"{count:,} {name}" for name, count in detail.counts.items() if count)])),
        ("event time", file.first_event_at and f"{file.first_event_at:%Y-%m-%d %H:%M:%S} to {file.last_event_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("arrived" if file.kind == Kind.ARRIVAL else "written", f"{file.arrived_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("batches", file.first_batch_id and (f"{file.first_batch_id} to {file.last_batch_id}" if file.kind == Kind.LAKE else str(file.first_batch_id))),
        ("replays", ", ".join(f"batch {batch}: {rows:,} rows" for batch, rows in detail.replays.items())),
        ("quarantine", ", ".join(f"{count:,} {state}" for state, count in detail.quarantine.items())),
        ("raw", ", ".join(f"{partition}: {rows:,} rows of its batch" for partition, rows in detail.raw.items())),
        ("replaced by", file.replaced_by and str(file.replaced_by)),
        ("data sets", ", ".join(f"{number} ({name})" for number, name in detail.datasets.items())),
        ("error", file.error),
    ]
    table("", ("", ""), [(name, str(value)) for name, value in facts if value])
    if detail.lake:
        table("In the lake" if file.kind == Kind.ARRIVAL else "It took the place of", COLUMNS, [_row(other) for other in detail.lake])


@app.command("dataset")
def dataset(
    number: Annotated[int | None, typer.Argument(metavar="ID", help="Number of a data set, as a training report names it; all of them if left out.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file and compare its SHA-256, instead of asking the stores whether it is there.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="At most so many data sets; of one, files shown (--json has all).")] = 100,
    as_json: Json = False,
) -> None:
    """What a model was trained on: the files that hold its rows today, and whether all of their bytes are there. Exit code 1 where they are not.

    Examples: tidemark files dataset; tidemark files dataset 3 --verify
    """
    from include.file_index.datasets import files_of_dataset, list_datasets

    if number is None:
        if verify:
            raise typer.BadParameter("--verify needs the number of a data set")
        listed = list_datasets(limit=limit)
        if as_json:
            print_json([asdict(entry) for entry in listed])
            return
        columns = ("id", "use case", "first day", "last day", "rows", "files", "read (UTC)", "horizon")
        table("", columns, [(str(e.dataset_id), e.name, e.first_date, e.last_date, e.row_count, e.file_count, e.created_at, _horizon(e)) for e in listed])
        return
    found = files_of_dataset(number, by_content=verify)
    lost = [held for held in found.files if not held.is_there]
    if as_json:
        print_json({**asdict(found), "is_complete": found.is_complete})
    else:
        entry = found.dataset
        console.print(
            f"[bold]Data set {entry.dataset_id}[/bold] of {entry.name}: {entry.row_count:,} rows, {entry.first_date} to {entry.last_date}", soft_wrap=True
        )
        console.print(f"features {entry.feature_relation}, outcomes {entry.outcome_relation} until {entry.event_until:%Y-%m-%d %H:%M} UTC", soft_wrap=True)
        console.print(f"rows up to batch {_horizon(entry)}; hash {entry.content_hash}", soft_wrap=True)
        shown = found.files[:limit]
        table("", (*COLUMNS[:-1], "there"), [(*_row(held.file)[:-1], held.is_there) for held in shown])
        more = f", the first {len(shown):,} here" if len(shown) < len(found.files) else ""
        console.print(f"{entry.file_count:,} files were named, {len(found.files):,} hold their rows today{more}")
        for stream, count in found.corrected.items():
            console.print(
                f"{count:,} events of {stream} were corrected since: what they said then is in `tidemark corrections list --stream {stream}`", soft_wrap=True
            )
        if found.is_complete:
            console.print("[green]●[/green] all bytes are there" + (", and they are the same" if verify else ""))
    for held in lost:
        errors.print(f"[red]gone:[/red] {held.file.address} ({held.file.row_count:,} rows): it cannot be read again whole", soft_wrap=True)
    if lost:
        raise typer.Exit(1)


@app.command("rebuild")
def rebuild(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What `tidemark files dataset ID --json` wrote in the warehouse that knows it.")],
    as_json: Json = False,
) -> None:
    """Read a data set again, in an empty warehouse: its rows from the lake, the marts up to its horizon, the same question.

    Exit code 1 where it is another one.

    Example: tidemark files dataset 3 --json > dataset.json, then in an empty warehouse with the same TIDEMARK_LAKE_URL: tidemark files rebuild dataset.json
    """
    import json

    from ml.lifecycle.reread import read_again

    try:
        answer = json.loads(file.read_text(encoding="utf-8"))
        wanted, lost = answer["dataset"], sum(not held["is_there"] for held in answer["files"])
        name, horizon, content_hash = str(wanted["name"]), {str(key): int(batch) for key, batch in wanted["horizon"].items()}, str(wanted["content_hash"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise typer.BadParameter(f"{file} is not what `tidemark files dataset ID --json` writes ({type(error).__name__}: {error})") from None
    found = read_again(name, horizon, lambda title: errors.print(f"[dim]{title} …[/dim]"))
    is_same = found.content_hash == content_hash
    if as_json:
        print_json({**asdict(found), "is_same": is_same})
    else:
        console.print(f"{found.restored:,} rows restored, {found.models} models built, {found.rows:,} rows in the data set")
        why = f"{lost:,} of its files were gone" if lost else "the project or corrections changed it since"
        console.print("[green]●[/green] it is the same data set" if is_same else f"[red]●[/red] it is another data set: {why}")
    if not is_same:
        raise typer.Exit(1)


def _horizon(entry: StoredDataset) -> str:
    return ", ".join(f"{stream} {batch}" for stream, batch in entry.horizon.items())


def _row(file: IndexedFile) -> tuple[object, ...]:
    return (
        str(file.file_id),
        file.kind,
        file.state,
        file.stream,
        file.address,
        file.row_count,
        file.size_bytes,
        file.first_event_at,
        file.last_event_at,
        file.arrived_at,
    )
