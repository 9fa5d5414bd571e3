"""`make bench-lake`: how small the lake is beside what arrived, and how long export, verification and restoring take. docs/benchmarks.md says how."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import typer
from psycopg import sql

from include.contracts import load_contract
from include.lake import export_stream, live_files, restore_month, verify
from include.lake.store import open_lake
from include.landing import land_pending
from include.landing.store import raw_columns
from include.landing.zone import Zone
from include.settings import REPOSITORY, get_settings
from include.warehouse import Role, connect
from tests.bench.report import Figure, Report, Target, console
from tests.bench.server import BenchmarkError, BenchServer, bench_server, scratch_folder
from tests.bench.telemetry import ARRIVED_AT, FIRST_DAY, STREAM, Dataset, dataset

DATABASE = "bench_lake"


@contextmanager
def warehouse_of(server: BenchServer, folder: Path) -> Iterator[None]:
    """A fresh database with a zone and a lake of its own, as this process's warehouse."""
    server.fresh(DATABASE)
    before = dict(os.environ)
    os.environ.update(server.environment(DATABASE, folder / "zone") | {"TIDEMARK_LAKE_URL": (folder / "lake").resolve().as_uri()})
    get_settings.cache_clear()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        get_settings.cache_clear()
        shutil.rmtree(folder, ignore_errors=True)


def land(data: Dataset) -> None:
    """Lands the NDJSON of the data set.

    Raises:
        BenchmarkError: If not every event was accepted.
    """
    Zone(get_settings().zone_url).put(STREAM, data.ndjson_gz, arrived_at=ARRIVED_AT, source="bench", ext="ndjson.gz")
    result = land_pending(STREAM, arrived_from=ARRIVED_AT - timedelta(hours=1), arrived_before=ARRIVED_AT + timedelta(hours=1))
    if result.accepted != data.events:
        raise BenchmarkError(f"{data.events} valid and distinct events were to be accepted, the result is {result.counts()}")


def timed(work: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def round_trip(data: Dataset) -> dict[str, float]:
    """Exports everything, reads it again, drops the months from raw and brings them back. Seconds by name.

    Raises:
        BenchmarkError: If a step gives other rows than went in.
    """
    land(data)
    seconds = {"export": timed(lambda: export_stream(STREAM))}
    with connect(Role.LOADER) as connection:
        seconds["verify"] = timed(lambda: verify(connection, STREAM))
        months = sorted({file.event_date.replace(day=1) for file in live_files(connection, STREAM)})
    _drop(months)

    def restore() -> None:
        for month in months:
            with connect(Role.LOADER) as connection:
                restore_month(connection, STREAM, month)

    seconds["restore"] = timed(restore)
    with connect(Role.LOADER) as connection:
        row = connection.execute(sql.SQL("select count(*) from {}").format(sql.Identifier("raw", STREAM))).fetchone()
    if row is None or row[0] != data.events:
        raise BenchmarkError(f"{data.events} rows were to come back, raw holds {row}")
    return seconds


def _drop(months: list[date]) -> None:
    with connect(Role.OWNER) as connection:
        for month in months:
            connection.execute(sql.SQL("drop table {}").format(sql.Identifier("raw", f"{STREAM}_y{month:%Y}m{month:%m}")))


def sizes(data: Dataset) -> dict[str, Any]:
    """Bytes of the lake beside those of what arrived, in all and by column."""
    lake = open_lake()
    with connect(Role.ANALYST) as connection:
        files = live_files(connection, STREAM)
    columns = dict.fromkeys(raw_columns(load_contract(STREAM)), 0)
    for file in files:
        with lake.open(file.address) as stored:
            metadata = pq.read_metadata(stored)
        for group in range(metadata.num_row_groups):
            for number in range(metadata.num_columns):
                column = metadata.row_group(group).column(number)
                columns[column.path_in_schema] += column.total_compressed_size
    total = sum(file.size_bytes for file in files)
    return {
        "rows": sum(file.row_count for file in files),
        "files": len(files),
        "lake_bytes": total,
        "ndjson_bytes": data.ndjson_bytes,
        "ndjson_gz_bytes": data.ndjson_gz_bytes,
        "ndjson_to_lake": round(data.ndjson_bytes / total, 2),
        "ndjson_gz_to_lake": round(data.ndjson_gz_bytes / total, 2),
        "bytes_a_row": round(total / data.events, 1),
        "column_bytes": dict(sorted(columns.items(), key=lambda item: -item[1])),
    }


def main(
    events: Annotated[int, typer.Option(min=1000, help="Rows.")] = 1_000_000,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 3,
    work: Annotated[Path, typer.Option(help="Folder for data sets, the server's home and the JSON file.")] = REPOSITORY / "build" / "bench",
    output: Annotated[Path | None, typer.Option(help="The JSON file; <work>/lake.json when not given.")] = None,
) -> None:
    """Measures the lake against raw NDJSON and its gzip.

    Example: python -m tests.bench.lake --events 100000 --repeats 1
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the server goes too
    report = Report("lake", {"events": events, "repeats": repeats})
    run, target = work / "run-lake", output or work / "lake.json"
    seconds: dict[str, list[float]] = {"export": [], "verify": [], "restore": []}
    with scratch_folder(run):
        data = dataset(work / "data", events=events)
        with bench_server(run / "home") as server:
            report.facts |= {"server": server.facts(), "data": data.facts() | {"first_day": str(FIRST_DAY.date())}}
            report.show_facts()
            for number in range(repeats):
                with warehouse_of(server, run / str(number)):
                    for name, took in round_trip(data).items():
                        seconds[name].append(took)
                        console.print(f"  round {number + 1} of {repeats}: {name:<10} {took:8.2f} s {events / took:12,.0f} rows/s")
                    report.facts["lake"] = sizes(data)
    what = {
        "export": "rows of raw → Parquet by day, entered",
        "verify": "every file read again: bytes, number and digest of rows",
        "restore": "files → month partitions with their indexes, digests compared with raw",
    }
    report.figures = [Figure(name, what[name], events, tuple(each)) for name, each in seconds.items()]
    lake = report.facts["lake"]
    report.targets = [
        Target("ndjson_to_lake", "Bytes of raw NDJSON ÷ bytes of the lake", lake["ndjson_bytes"] / lake["lake_bytes"], at_least=8),
    ]
    console.print(lake)
    report.finish(target)


if __name__ == "__main__":
    typer.run(main)
