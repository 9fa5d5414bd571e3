"""`make bench-landing`: how fast files become rows of the warehouse, beside the floor that COPY sets and beside other loaders.

Everything is measured side by side on one server in interleaved rounds. docs/benchmarks.md says how, and what the figures mean.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from include.settings import REPOSITORY
from tests.bench.loaders import COPY_FORMS, Bench
from tests.bench.report import Figure, Report, console, interleaved, ratio_target
from tests.bench.server import BenchmarkError, bench_server
from tests.bench.telemetry import dataset

WARM_UP_EVENTS = 1000
TRIALS = 2
"""Runs of each form before the rounds, of which the fastest counts, to find the form that takes part."""
WHAT = {
    "tidemark_parquet": "Tidemark: Parquet in the zone → validated, deduplicated, committed with ledger",
    "tidemark_ndjson_gz": "Tidemark: NDJSON.gz in the zone → validated, deduplicated, committed with ledger",
    "floor": "COPY of the same rows, prepared in memory, into the same table",
}
GROUPS = {"tidemark": ("tidemark_parquet", "tidemark_ndjson_gz"), "floor": ("floor",)}


def contestants(only: str) -> list[str]:
    """Contestants of a comma-separated list of groups.

    Raises:
        BenchmarkError: If there is no such group.
    """
    groups = [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in groups if name not in GROUPS]
    if unknown or not groups:
        raise BenchmarkError(f"--only takes some of {', '.join(GROUPS)}, separated by commas; got {only!r}")
    return [contestant for group in GROUPS if group in groups for contestant in GROUPS[group]]


def fastest(bench: Bench, title: str, forms: Sequence[str], run: Any) -> tuple[str, dict[str, float]]:
    """Tries forms in turns and returns the fastest, and the best seconds of each."""
    best: dict[str, float] = {}
    for _, form in interleaved(forms, TRIALS):
        seconds = run(form)
        best[form] = min(seconds, best.get(form, seconds))
        console.print(f"  [dim]trial: {title} {form:<12} {seconds:8.2f} s[/dim]")
    return min(best, key=lambda form: best[form]), {form: round(seconds, 4) for form, seconds in best.items()}


def measure(bench: Bench, names: Sequence[str], repeats: int, report: Report) -> None:
    """Runs the rounds and adds their figures."""
    trials: dict[str, Any] = {}
    runs = {
        "tidemark_parquet": lambda: bench.land_into_empty("parquet"),
        "tidemark_ndjson_gz": lambda: bench.land_into_empty("ndjson_gz"),
    }
    notes: dict[str, str] = {}
    if "floor" in names:
        bench.prepare_rows()
        form, trials["floor"] = fastest(bench, "COPY", COPY_FORMS, bench.copy)
        runs["floor"] = lambda: bench.copy(form)
        notes["floor"] = f"format {form}, the fastest of {', '.join(COPY_FORMS)}"
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number, name in interleaved(names, repeats):
        took = runs[name]()
        seconds[name].append(took)
        console.print(f"  round {number + 1} of {repeats}: {name:<20} {took:8.2f} s {bench.data.events / took:12,.0f} events/s")
    report.facts["trials"] = trials
    report.figures += [Figure(name, WHAT[name], bench.data.events, tuple(seconds[name]), notes.get(name, "")) for name in names]


def set_targets(report: Report) -> None:
    """The targets of this benchmark; those whose figures are missing count as not measured."""
    parquet, floor = report.figure("tidemark_parquet"), report.figure("floor")
    merge = "Tidemark from Parquet ÷ dlt merge from the same Parquet"
    report.targets = [
        ratio_target("parquet_to_floor", "Tidemark from Parquet ÷ COPY floor", parquet, floor, at_least=0.8),
        ratio_target("ndjson_gz_to_floor", "Tidemark from NDJSON.gz ÷ COPY floor", report.figure("tidemark_ndjson_gz"), floor, at_least=0.6),
        ratio_target("parquet_to_dlt_merge", merge, parquet, report.figure("dlt_merge"), at_least=4),
        ratio_target(
            "big_to_empty", "Tidemark beside stored rows ÷ into an empty table", report.figure("big_stored"), report.figure("big_empty"), at_least=0.9
        ),
    ]


def main(
    events: Annotated[int, typer.Option(min=WARM_UP_EVENTS, help="Events in the file.")] = 1_000_000,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 5,
    only: Annotated[str, typer.Option(help=f"Some of {', '.join(GROUPS)}, separated by commas.")] = ",".join(GROUPS),
    work: Annotated[Path, typer.Option(help="Folder for data sets and the server's home.")] = REPOSITORY / "build" / "bench",
    output: Annotated[Path | None, typer.Option(help="The JSON file; <work>/landing.json when not given.")] = None,
) -> None:
    """Measures landing beside the floor of COPY and beside other loaders.

    Example: python -m tests.bench.landing --only tidemark,floor --repeats 3
    """
    report = Report("landing", {"events": events, "repeats": repeats, "only": only})
    try:
        names = contestants(only)
        data, warm_up = (dataset(work / "data", events=count) for count in (events, WARM_UP_EVENTS))
        run = work / "run"
        with bench_server(run / "home") as server:
            report.facts |= {"server": server.facts(), "data": data.facts()}
            console.print(f"{server.facts()}")
            try:
                measure(Bench(server, run, data, warm_up), names, repeats, report)
            finally:
                shutil.rmtree(run, ignore_errors=True)
    except BenchmarkError as error:
        console.print(f"[red]✗[/red] {error}", markup=True)
        raise typer.Exit(1) from None
    set_targets(report)
    report.show()
    report.write(output or work / "landing.json")
    console.print(f"[dim]{output or work / 'landing.json'}[/dim]", soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
