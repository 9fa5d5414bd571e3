"""Commands about contracts: what is made from them, what sources send beyond them, and how they change."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from include.commands.console import console, errors, print_json, table
from include.commands.stack import Json
from include.stack.errors import StackError

app = typer.Typer(no_args_is_help=True, help="The contracts of the streams, what is made from them, and how they change.")


def _known(stream: str) -> str:
    from include.contracts import streams

    if stream not in streams():
        raise StackError(f"there is no stream {stream!r}", f"streams are {', '.join(streams())}")
    return stream


@app.command("compile")
def compile_them() -> None:
    """Write what is generated from the contracts: dbt sources and reference pages. Refused where a contract breaks its release.

    Example: tidemark contracts compile
    """
    from include.contracts import streams
    from include.contracts.compile import write_generated
    from include.contracts.release import unreleased_changes

    for stream in streams():
        unreleased_changes(stream)
    for path in write_generated():
        console.print(str(path))


@app.command("schema")
def schema(stream: Annotated[str, typer.Argument(help="The stream.")]) -> None:
    """Print the JSON Schema (2020-12) of a row of a stream: what senders may check before they send. docs/gateway.md says where landing differs.

    Example: tidemark contracts schema orders > orders.schema.json
    """
    from include.contracts import load_contract
    from include.contracts.json_schema import schema_document

    print_json(schema_document(load_contract(_known(stream))))


@app.command("openapi")
def openapi() -> None:
    """Print the OpenAPI document of the gateway, as it serves it at /openapi.json: for those who write a client.

    Example: tidemark contracts openapi > tidemark.openapi.json
    """
    from include.contracts import load_contract, streams
    from include.gateway.openapi import Limits, openapi_document
    from include.settings import get_settings

    settings = get_settings()
    limits = Limits(settings.gateway_body_bytes, settings.gateway_plain_bytes)
    print_json(openapi_document([load_contract(each) for each in streams()], limits))


@app.command("drift")
def drift(
    stream: Annotated[str | None, typer.Argument(help="Only this stream.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what the contract knows by now, and columns that have values again.")] = False,
    as_json: Json = False,
) -> None:
    """Fields that sources send and no contract knows, and columns that had values and have none any more; the latest first.

    Example: tidemark contracts drift orders
    """
    from include.landing.drift_report import list_drift

    lines = list_drift(_known(stream) if stream else None, everything=everything)
    if as_json:
        print_json([{**asdict(line), "state": line.state} for line in lines])
        return
    rows = [
        (
            line.stream,
            line.kind,
            line.field,
            line.inferred_type,
            line.row_count,
            line.first_seen_at,
            line.last_seen_at,
            line.sample,
            line.mapping,
            line.tenant_id,
        )
        for line in lines
    ]
    table("", ("stream", "what", "field", "type", "rows", "first seen (UTC)", "last seen", "sample", "mapping", "tenant"), rows)
    console.print("[dim]vanished: first seen is when it last had a value, rows are those since[/dim]")


@app.command("diff")
def diff(
    old: Annotated[str, typer.Argument(help="A contract file, a stream, STREAM@released or STREAM@MAJOR.")],
    new: Annotated[str, typer.Argument(help="The same; what OLD is to become.")],
    as_json: Json = False,
) -> None:
    """Compare two versions: every change, whether it is compatible or breaking, and why. Exit code 1 where it breaks.

    Examples: tidemark contracts diff orders@released orders; tidemark contracts diff old/orders.yaml orders
    """
    from include.contracts.changes import compare, raised, required_level
    from include.contracts.release import read_version

    before, after = read_version(old), read_version(new)
    changes = compare(before, after)
    level = required_level(changes)
    is_breaking = any(change.is_breaking for change in changes)
    needed = raised(before.version, level) if level is not None else before.version
    if as_json:
        print_json(
            {
                "old": before.version,
                "new": after.version,
                "is_breaking": is_breaking,
                "needed_version": needed,
                "changes": [asdict(change) | {"level": change.level.name.lower(), "is_breaking": change.is_breaking} for change in changes],
            }
        )
    elif not changes:
        console.print(f"{before.stream} {before.version} and {after.version} say the same")
    else:
        table("", ("", "where", "what", "why"), [("breaking" if each.is_breaking else "compatible", each.place, each.what, each.why) for each in changes])
        console.print(f"{'breaking' if is_breaking else 'compatible'}: {before.version} becomes {needed} or later; it is {after.version}")
    if is_breaking:
        raise typer.Exit(1)


@app.command("propose")
def propose(
    stream: Annotated[str, typer.Argument(help="The stream.")],
    field: Annotated[list[str] | None, typer.Option("--field", metavar="PATH", help="Only this field; may be given several times.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Into the contract file instead of to the screen.")] = False,
) -> None:
    """Write the contract with the fields that sources send beyond it, as optional ones, and the version raised by a minor.

    Descriptions, units and names are yours to mend before `tidemark contracts revision`. Columns of mapped files are the business of their mapping.

    Examples: tidemark contracts propose orders --write; tidemark contracts propose orders --field coupon
    """
    from include.contracts import CONTRACTS_FOLDER, LogicalType, load_contract
    from include.contracts.parse import parse_contract_text
    from include.contracts.propose import NewField, proposal
    from include.landing.drift_report import proposable

    contract = load_contract(_known(stream))
    fitting, others = proposable(stream)
    missing = sorted(set(field or ()) - {path for path, _ in fitting})
    if missing:
        raise StackError(f"{', '.join(missing)} cannot be proposed", f"fields that can are {', '.join(path for path, _ in fitting) or 'none'}")
    chosen = [NewField(path, LogicalType(kind)) for path, kind in fitting if not field or path in field]
    file = CONTRACTS_FOLDER / f"{stream}.yaml"
    text, left_out = proposal(file.read_text(encoding="utf-8"), contract, chosen)
    for path in field or ():
        if path in left_out:
            raise left_out[path]
    chosen = [each for each in chosen if each.path not in left_out]
    for line in [*others, *(f"{path}: {error.problem}" for path, error in left_out.items())]:
        errors.print(f"[yellow]left out:[/yellow] {escape(line)}", soft_wrap=True)
    if not chosen:
        raise StackError(f"sources of {stream} send nothing that could be proposed", f"`tidemark contracts drift {stream}` lists what they send")
    version = parse_contract_text(text, file.name).version
    if not write:
        sys.stdout.write(text)
        return
    file.write_text(text, encoding="utf-8")
    console.print(f"{file.name}: version {version} with {', '.join(each.path for each in chosen)}; mend names, units and descriptions", soft_wrap=True)


@app.command("revision")
def revision() -> None:
    """Release every contract that changed: write the migration that its table needs, the copy by which later changes are judged, and what is generated.

    Refused where a change breaks the released version without a new major, or the version was not raised.

    Example: tidemark contracts revision
    """
    from include.contracts.compile import write_generated
    from include.contracts.release import REPOSITORY, unreleased_streams, write_release

    names = unreleased_streams()
    if not names:
        console.print("every contract is released as it is")
        return
    migration = write_release(names)
    console.print(f"released {', '.join(names)}")
    for path in [*([migration.relative_to(REPOSITORY)] if migration else []), *write_generated()]:
        console.print(str(path))


@app.command("apply")
def apply(
    stream: Annotated[list[str] | None, typer.Argument(help="Streams; all where none is named.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Look at all rows once more: some may have landed meanwhile under an older contract.")] = False,
    as_json: Json = False,
) -> None:
    """Add new columns to the raw tables while they are in use, and move their values out of `_extra`. Run again, it goes on where it was interrupted.

    Example: tidemark contracts apply orders
    """
    from include.contracts import streams
    from include.landing.new_columns import Applied, apply_contract

    results: list[Applied] = []
    for name in [_known(each) for each in stream] if stream else streams():
        with console.status(f"{name} …") as status:
            results.append(apply_contract(name, again=again, progress=lambda done: status.update(f"{done.stream}: {done.moved:,} rows moved …")))
    if as_json:
        print_json([asdict(result) for result in results])
        return
    rows = [(each.stream, ", ".join(each.added) or None, ", ".join(each.loosened) or None, each.moved, each.kept, each.batches) for each in results]
    table("", ("stream", "columns added", "optional now", "rows moved", "rows that keep a value in _extra", "batches"), rows)
    if any(result.moved for result in results):
        console.print("[dim]the marts follow with the next build; `tidemark build` builds now[/dim]")
