"""`make bench-landing`: how fast files become rows of the warehouse, beside the floor that COPY sets and beside other loaders.

Everything is measured side by side on one server in interleaved rounds. docs/benchmarks.md says how, and what the figures mean.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from psycopg import sql

from include.landing.zone import Zone
from include.settings import REPOSITORY
from include.warehouse import Role, connect
from tests.bench.report import Figure, Report, console, interleaved, ratio_target
from tests.bench.server import BenchmarkError, BenchServer, bench_server
from tests.bench.telemetry import ARRIVED_AT, FIRST_DAY, DAYS, STREAM, Dataset, dataset
from tests.bench.worker import export

DATABASE, WARM_UP_DATABASE = "bench", "bench_warm_up"
WARM_UP_EVENTS = 1000
COPY_FORMS = ("binary", "text", "csv")
FORMATS = {"parquet": "parquet", "ndjson_gz": "ndjson.gz"}
CONTESTANTS = {"tidemark": ("tidemark_parquet", "tidemark_ndjson_gz"), "floor": ("floor",)}


@dataclass
class Bench:
    """A running benchmark: the server, where files are, and what was measured so far."""

    server: BenchServer
    work: Path
    data: Dataset
    warm_up: Dataset
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, contestant: str, run: Callable[[], float]) -> None:
        """Runs a contestant once and keeps its seconds."""
        self.server.settle()
        seconds = run()
        self.seconds.setdefault(contestant, []).append(seconds)
        console.print(f"  {contestant:<22} {seconds:8.2f} s {self.data.events / seconds:12,.0f} events/s")

    def zone(self, data: Dataset, file_format: str) -> Path:
        """A zone that holds one file of the data, made where it is not there yet."""
        folder = self.work / "zones" / f"{data.folder.name}-{file_format}"
        if not folder.exists():
            source = data.parquet if file_format == "parquet" else data.ndjson_gz
            Zone(folder.resolve().as_uri()).put(STREAM, source.read_bytes(), arrived_at=ARRIVED_AT, source="bench", ext=FORMATS[file_format])
        return folder

    def land(self, file_format: str, data: Dataset, database: str = DATABASE) -> float:
        """Lands a file of the data and returns the seconds from its bytes in the zone to the commit.

        Raises:
            BenchmarkError: If not every event was accepted.
        """
        self.server.fresh(WARM_UP_DATABASE)
        warm_up = self.server.environment(WARM_UP_DATABASE, self.zone(self.warm_up, file_format))
        job = {
            "do": "land",
            "arrived_from": (ARRIVED_AT - timedelta(hours=1)).isoformat(),
            "arrived_before": (ARRIVED_AT + timedelta(hours=1)).isoformat(),
            "warm_up": {name: value for name, value in warm_up.items() if name in {"TIDEMARK_WAREHOUSE_URL", "TIDEMARK_LANDING_URL"}},
        }
        outcome = self.work_process([sys.executable, "-m", "tests.bench.worker"], job, self.server.environment(database, self.zone(data, file_format)))
        if outcome["accepted"] != data.events or outcome["landed"] != data.events:
            raise BenchmarkError(f"{data.events} valid and distinct events were to be accepted, the result is {outcome}")
        return float(outcome["seconds"])

    def copy(self, form: str) -> float:
        """Copies the prepared rows in a form of COPY and returns its seconds."""
        self.fresh_with_partitions(DATABASE)
        self.fresh_with_partitions(WARM_UP_DATABASE)
        self.server.settle()
        rows = {"rows": str(self.rows(form)), "warm_up_rows": str(self.rows(form, is_few=True))}
        job = {"do": "copy", "form": form, "warm_up_database": WARM_UP_DATABASE, **rows}
        outcome = self.work_process([sys.executable, "-m", "tests.bench.worker"], job, self.server.environment(DATABASE, self.work))
        if outcome["accepted"] != self.data.events:
            raise BenchmarkError(f"{self.data.events} rows were to be copied, the server counts {outcome['accepted']}")
        return float(outcome["seconds"])

    def rows(self, form: str, *, is_few: bool = False) -> Path:
        """File of the rows prepared for COPY."""
        return self.work / "rows" / f"{'few' if is_few else 'all'}.{form}"

    def prepare_rows(self) -> None:
        """Lands the Parquet file once and writes out what was stored, in every form of COPY."""
        self.server.fresh(DATABASE)
        self.land("parquet", self.data)
        self.rows("binary").parent.mkdir(parents=True, exist_ok=True)
        with connect(Role.LOADER, database=DATABASE) as connection:
            for form in COPY_FORMS:
                export(connection, form, self.rows(form))
                export(connection, form, self.rows(form, is_few=True), limit=WARM_UP_EVENTS)

    def fresh_with_partitions(self, database: str) -> None:
        """An empty warehouse whose raw table has the partitions of the data."""
        self.server.fresh(database)
        with connect(Role.LOADER, database=database) as connection:
            connection.execute("select ops.ensure_partitions(%s, %s, %s)", (STREAM, FIRST_DAY, FIRST_DAY + timedelta(days=DAYS)))

    def work_process(self, command: Sequence[str], job: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
        """Runs a measurement in a process of its own.

        Raises:
            BenchmarkError: If it fails.
        """
        done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, env=environment, cwd=REPOSITORY)
        if done.returncode != 0:
            raise BenchmarkError(f"{' '.join(map(str, command))} failed:\n{done.stderr.strip()}")
        return dict(json.loads(done.stdout.splitlines()[-1]))
