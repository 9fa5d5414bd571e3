"""`make bench-landing`: how fast files become rows of the warehouse, beside the floor that COPY sets and beside other loaders.

Everything is measured side by side on one server in interleaved rounds. docs/benchmarks.md says how, and what the figures mean.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from include.settings import REPOSITORY
from tests.bench.big import LATE_FIRST_DAY, fill
from tests.bench.loaders import COPY_FORMS, DLT_FORMS, DLT_STRATEGIES, Bench
from tests.bench.report import Figure, Report, console, interleaved, ratio_target
from tests.bench.server import BenchmarkError, bench_server, scratch_folder
from tests.bench.telemetry import dataset

WARM_UP_EVENTS = 1000
BIG_DATABASE = "bench_big"
DLT_STORED_FILES = 5
Trials = dict[str, Any]


@dataclass(frozen=True)
class Contestant:
    """One line of the table.

    Attributes:
        name: Name in table and JSON.
        what: What it does, for a reader.
        events: Events that a run loads.
        run: Loads once; takes the round, gives seconds.
        note: What a reader must know to compare it.
    """

    name: str
    what: str
    events: int
    run: Callable[[int], float]
    note: str = ""


def _each_round(run: Callable[..., float], *arguments: Any) -> Callable[[int], float]:
    """The same in every round."""
    return lambda _: run(*arguments)


def tidemark(bench: Bench, _trials: Trials) -> list[Contestant]:
    """The product, from both formats."""
    what = "Tidemark: {} in the zone → validated, deduplicated, committed with ledger"
    return [
        Contestant("tidemark_parquet", what.format("Parquet"), bench.data.events, _each_round(bench.land_into_empty, "parquet")),
        Contestant("tidemark_ndjson_gz", what.format("NDJSON.gz"), bench.data.events, _each_round(bench.land_into_empty, "ndjson_gz")),
    ]


def floor(bench: Bench, trials: Trials) -> list[Contestant]:
    """COPY of the rows that the product stored, in the form that is fastest here."""
    bench.prepare_rows()
    form, trials["floor"] = fastest("COPY", {form: partial(bench.copy, form) for form in COPY_FORMS}, turns=2)
    what = "COPY of the same rows, prepared in memory, into the same table with its keys, indexes and partitions"
    return [Contestant("floor", what, bench.data.events, _each_round(bench.copy, form), f"{form}, the fastest of {', '.join(COPY_FORMS)}")]


def dlt(bench: Bench, trials: Trials) -> list[Contestant]:
    """dlt from the same Parquet, each in its fastest form: append, merge that counts an event once, merge that does so only if each file holds it once."""
    form, trials["dlt_append"] = fastest("dlt append", {form: partial(bench.dlt, None, form) for form in DLT_FORMS})
    remark = f"{form}; no key, no index, no duplicate found"
    found = [Contestant("dlt_append", "dlt: append", bench.data.events, _each_round(bench.dlt, None, form), remark)]
    counts_once = {strategy: bench.dlt_counts_once(strategy) for strategy in DLT_STRATEGIES}
    trials["dlt_counts_an_event_once_that_a_file_holds_twice"] = counts_once
    for name, wanted, remark in (("dlt_merge", True, "no unique index"), ("dlt_merge_unchecked", False, "keeps both copies where a file holds an event twice")):
        ways = {f"{strategy}/{form}": (strategy, form) for strategy in DLT_STRATEGIES if counts_once[strategy] is wanted for form in DLT_FORMS}
        if ways:
            best, trials[name] = fastest("dlt merge", {label: partial(bench.dlt, *way) for label, way in ways.items()})
            found.append(Contestant(name, "dlt: merge on device_id and event_at", bench.data.events, _each_round(bench.dlt, *ways[best]), f"{best}; {remark}"))
            if wanted:
                what = f"dlt: the same merge beside {sum(each.events for each in bench.stored):,} rows that it appended before"
                found.append(Contestant("dlt_merge_stored", what, bench.data.events, _each_round(bench.dlt, *ways[best], bench.stored), best))
    return found


def pandas(bench: Bench, _trials: Trials) -> list[Contestant]:
    """What many a script does, on a tenth of the events."""
    note = f"on {bench.tenth.events:,} events, the whole takes ten times as long; no key, no index, nothing validated"
    return [Contestant("pandas", 'pandas: read_json, to_sql(method="multi") from NDJSON.gz', bench.tenth.events, _each_round(bench.pandas), note)]


GROUPS: dict[str, Callable[[Bench, Trials], list[Contestant]]] = {"tidemark": tidemark, "floor": floor, "dlt": dlt, "pandas": pandas}


def big(bench: Bench, stored: int, repeats: int, cache: Path, report: Report) -> list[Contestant]:
    """The product beside stored rows and into an empty table, in each round from Parquet files of another plant: one on time, one a month late."""
    plants = [dataset(cache, events=bench.data.events, plant=number + 1) for number in range(repeats)]
    late = [dataset(cache, events=bench.data.events, plant=number + 1, first_day=LATE_FIRST_DAY) for number in range(repeats)]
    devices = pl.concat([pl.read_parquet(plant.parquet, columns=["device_id"]) for plant in plants])["device_id"].unique().sort().to_list()
    bench.server.fresh(BIG_DATABASE)
    bench.land(bench.warm_up, "parquet", BIG_DATABASE)
    report.facts["stored"] = fill(BIG_DATABASE, stored, devices)
    what, events = "Tidemark: Parquet in the zone, ", bench.data.events
    return [
        Contestant("big_empty", f"{what}into an empty table", events, lambda number: bench.land_into_empty("parquet", plants[number])),
        Contestant("big_stored", f"{what}on time, beside {stored:,} stored rows", events, lambda n: bench.land(plants[n], "parquet", BIG_DATABASE)),
        Contestant("big_late", f"{what}a month late, in the midst of {stored:,} stored rows", events, lambda n: bench.land(late[n], "parquet", BIG_DATABASE)),
    ]


def fastest(title: str, ways: dict[str, Callable[[], float]], turns: int = 1) -> tuple[str, dict[str, float]]:
    """Tries ways in turns.

    Returns:
        The fastest, and the best seconds of each.
    """
    best: dict[str, float] = {}
    for _, name in interleaved(list(ways), turns):
        seconds = ways[name]()
        best[name] = min(seconds, best.get(name, seconds))
        console.print(f"  [dim]trial: {title} {name:<28} {seconds:8.2f} s[/dim]")
    return min(best, key=lambda name: best[name]), {name: round(seconds, 4) for name, seconds in best.items()}


def play(contestants: Sequence[Contestant], repeats: int) -> list[Figure]:
    """Runs interleaved rounds."""
    by_name = {contestant.name: contestant for contestant in contestants}
    seconds: dict[str, list[float]] = {name: [] for name in by_name}
    for number, name in interleaved(list(by_name), repeats):
        took = by_name[name].run(number)
        seconds[name].append(took)
        console.print(f"  round {number + 1} of {repeats}: {name:<20} {took:8.2f} s {by_name[name].events / took:12,.0f} events/s")
    return [Figure(each.name, each.what, each.events, tuple(seconds[each.name]), each.note) for each in contestants]


def set_targets(report: Report) -> None:
    """The targets of this benchmark; those whose figures are missing count as not measured."""
    parquet, ndjson, copy = report.figure("tidemark_parquet"), report.figure("tidemark_ndjson_gz"), report.figure("floor")
    merge, stored, empty = report.figure("dlt_merge"), report.figure("big_stored"), report.figure("big_empty")
    report.targets = [
        ratio_target("parquet_to_floor", "Tidemark from Parquet ÷ COPY floor", parquet, copy, at_least=0.8),
        ratio_target("ndjson_gz_to_floor", "Tidemark from NDJSON.gz ÷ COPY floor", ndjson, copy, at_least=0.6),
        ratio_target("parquet_to_dlt_merge", "Tidemark from Parquet ÷ dlt merge from the same Parquet", parquet, merge, at_least=4),
        ratio_target("big_to_empty", "Tidemark beside stored rows ÷ into an empty table (--big)", stored, empty, at_least=0.9),
    ]


def chosen_groups(only: str) -> list[str]:
    """Groups of a comma-separated list, in the order of the table.

    Raises:
        BenchmarkError: If there is no such group.
    """
    names = {name.strip() for name in only.split(",")} - {""}
    if not names or names - set(GROUPS) - {"big"}:
        raise BenchmarkError(f"--only takes some of {', '.join(GROUPS)} and big, separated by commas; got {only!r}")
    return [name for name in (*GROUPS, "big") if name in names]


def main(
    events: Annotated[int, typer.Option(min=WARM_UP_EVENTS, help="Events in the file.")] = 1_000_000,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 5,
    only: Annotated[str, typer.Option(help=f"Some of {', '.join(GROUPS)} and big, separated by commas.")] = ",".join(GROUPS),
    is_big: Annotated[bool, typer.Option("--big", help="Also the rate beside stored rows; takes some ten minutes and 35 GB more.")] = False,
    stored: Annotated[int, typer.Option(min=1000, help="Rows stored for --big.")] = 50_000_000,
    work: Annotated[Path, typer.Option(help="Folder for data sets, the server's home and the JSON file.")] = REPOSITORY / "build" / "bench",
    output: Annotated[Path | None, typer.Option(help="The JSON file; <work>/landing.json when not given.")] = None,
) -> None:
    """Measures landing beside the floor of COPY and beside other loaders.

    Example: python -m tests.bench.landing --only tidemark,floor --repeats 3
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the server goes too
    report = Report("landing", {"events": events, "repeats": repeats, "only": only, "big": is_big, "stored": stored})
    run, target = work / "run", output or work / "landing.json"
    with scratch_folder(run):
        groups = chosen_groups(f"{only},big" if is_big else only)
        peers = work / "venv" / "bin" / "python"
        if {"dlt", "pandas"} & set(groups) and not peers.exists():
            raise BenchmarkError(f"{peers} is missing: `make bench-landing` makes the environment of other loaders, or leave them out with --only")
        data, warm_up, tenth = (dataset(work / "data", events=count) for count in (events, WARM_UP_EVENTS, events // 10))
        with bench_server(run / "home") as server:
            report.facts |= {"server": server.facts(), "data": data.facts(), "trials": {}}
            report.show_facts()
            stored_by_dlt = [dataset(work / "data", events=events, plant=number + 1) for number in range(DLT_STORED_FILES)] if "dlt" in groups else []
            bench = Bench(server, run, data, warm_up, tenth, stored_by_dlt, peers)
            contestants = [each for group in groups if group in GROUPS for each in GROUPS[group](bench, report.facts["trials"])]
            report.figures = play(contestants, repeats) if contestants else []
            if "big" in groups:
                report.figures += play(big(bench, stored, repeats, work / "data", report), repeats)
    set_targets(report)
    report.finish(target)


if __name__ == "__main__":
    typer.run(main)
