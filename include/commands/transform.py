"""Commands about marts: where a number comes from, and building by hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from include.commands.console import console, print_json, table

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for scripts.")]


def trace(
    mart: Annotated[str, typer.Argument(metavar="TABLE", help="schema.name of a mart.")],
    key: Annotated[list[str] | None, typer.Argument(metavar="KEY…", help="The row: values in the order of its grain, or column=value.")] = None,
    originals: Annotated[int, typer.Option("--originals", min=0, help="For how many raw rows to show the original bytes.")] = 5,
    as_json: Json = False,
) -> None:
    """Follow a number down: from a mart row to its inputs, raw rows, files and original bytes.

    Examples: tidemark trace customers.fct_order o0001234; tidemark trace maintenance.fct_device_reading_hourly machine_001 "2026-11-20 10:00+00"
    """
    from include.transform.trace import trace as follow

    found = follow(mart, key or [], originals=originals)
    if as_json:
        print_json(asdict(found))
        return
    table(found.table, ("column", "value"), [(name, value) for name, value in found.row.items()])
    table("Made of", ("rows", "of", "make up"), [(step.rows, step.relation, step.made) for step in found.steps])
    table(
        f"{len(found.raw)} raw rows of {len(found.files)} files" + (f", the first {originals} here" if len(found.raw) > originals else ""),
        ("stream", "event time", "batch", "file", "row", "original"),
        [(row.stream, row.event_at, row.batch_id, row.address, row.row_number, row.original or "") for row in found.raw[: max(originals, 1)]],
    )
    for remark in found.remarks:
        console.print(remark)


def build(
    selector: Annotated[str, typer.Argument(help="dbt's selection syntax.")] = "tag:micro_batch tag:hourly tag:priorities",
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Recompute every bucket, in place and in one transaction a model.")] = False,
    tests: Annotated[bool, typer.Option("--tests/--no-tests", help="Run the data tests behind each model.")] = True,
) -> None:
    """Build marts now, without Airflow, up to what has landed.

    Examples: tidemark build; tidemark build fct_order --rebuild
    """
    from include.transform import build as build_marts
    from include.transform import deploy, fix_horizon

    deploy()
    with console.status("building …"):
        result = build_marts(selector, fix_horizon(), rebuild=rebuild, run_tests=tests, full_tests=rebuild)
    console.print(f"{result.models} models built, {result.tests} data tests passed, {len(result.warnings)} ask for a look")
    for warning in result.warnings:
        console.print(f"[yellow]look:[/yellow] {warning.unique_id}: {warning.message}")
