"""Who is measured by `bench-landing`, each in a process of its own and into a database made anew."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from include.landing.zone import Zone
from include.settings import REPOSITORY
from include.warehouse import Role, connect
from tests.bench.server import BenchmarkError, BenchServer
from tests.bench.telemetry import ARRIVED_AT, DAYS, FIRST_DAY, STREAM, Dataset
from tests.bench.worker import export

DATABASE, WARM_UP_DATABASE = "bench", "bench_warm_up"
COPY_FORMS = ("binary", "text", "csv")
DLT_STRATEGIES = ("delete-insert", "upsert", "insert-only")
DLT_FORMS = ("parquet/whole", "parquet/pieces", "csv/whole", "csv/pieces")
"""How Arrow reaches PostgreSQL (parquet: by ADBC's binary COPY), and whether dlt works on one file or on ten, several at once."""
PANDAS_CHUNK_ROWS = 500
"""Rows of one insert; larger statements take SQLAlchemy longer than they save."""
_WORKER = (sys.executable, "-m", "tests.bench.worker")


@dataclass(frozen=True)
class Bench:
    """A running benchmark.

    Attributes:
        server: Its server.
        folder: For zones and prepared rows; removed at the end.
        data: What is loaded.
        warm_up: The same in small, loaded by each process before its clock starts.
        tenth: A tenth of the events, for loaders that would take too long.
        stored: What a peer's table holds already where it is to find its place in a history.
        peers: Python of the environment of other loaders.
    """

    server: BenchServer
    folder: Path
    data: Dataset
    warm_up: Dataset
    tenth: Dataset
    stored: Sequence[Dataset]
    peers: Path

    def land_into_empty(self, file_format: str, data: Dataset | None = None) -> float:
        """Lands data (the benchmark's where none are given) into an empty warehouse; seconds from the bytes in the zone to the commit."""
        self.server.fresh(DATABASE)
        return self.land(data or self.data, file_format, DATABASE)

    def land(self, data: Dataset, file_format: str, database: str) -> float:
        """Lands a file (`parquet` or `ndjson_gz`) into a database; seconds from its bytes in the zone to the commit.

        Raises:
            BenchmarkError: If not every event was accepted.
        """
        self.server.fresh(WARM_UP_DATABASE)
        warm_up = self.server.environment(WARM_UP_DATABASE, self._zone(self.warm_up, file_format))
        job = {
            "do": "land",
            "arrived_from": (ARRIVED_AT - timedelta(hours=1)).isoformat(),
            "arrived_before": (ARRIVED_AT + timedelta(hours=1)).isoformat(),
            "warm_up": {name: warm_up[name] for name in ("TIDEMARK_WAREHOUSE_URL", "TIDEMARK_LANDING_URL")},
        }
        outcome = self.run(_WORKER, job, self.server.environment(database, self._zone(data, file_format)))
        if (outcome["landed"], outcome["accepted"]) != (data.events, data.events):
            raise BenchmarkError(f"{data.events} valid and distinct events were to be accepted, the result is {outcome}")
        return float(outcome["seconds"])

    def copy(self, form: str) -> float:
        """Copies the prepared rows in a form of COPY; seconds from memory to the commit.

        Raises:
            BenchmarkError: If the server counts other rows.
        """
        for database in (DATABASE, WARM_UP_DATABASE):
            self.server.fresh(database)
            with connect(Role.LOADER, database=database) as connection:
                connection.execute("select ops.ensure_partitions(%s, %s, %s)", (STREAM, FIRST_DAY, FIRST_DAY + timedelta(days=DAYS)))
        rows = {"rows": str(self._rows(form)), "warm_up_rows": str(self._rows(form, is_few=True))}
        job = {"do": "copy", "form": form, "warm_up_database": WARM_UP_DATABASE, **rows}
        outcome = self.run(_WORKER, job, self.server.environment(DATABASE, self.folder))
        if outcome["accepted"] != self.data.events:
            raise BenchmarkError(f"{self.data.events} rows were to be copied, the server counts {outcome['accepted']}")
        return float(outcome["seconds"])

    def prepare_rows(self) -> None:
        """Lands the Parquet file once and writes out what was stored, in every form of COPY."""
        self.land_into_empty("parquet")
        self._rows("").parent.mkdir(parents=True, exist_ok=True)
        with connect(Role.LOADER, database=DATABASE) as connection:
            for form in COPY_FORMS:
                export(connection, form, self._rows(form))
                export(connection, form, self._rows(form, is_few=True), limit=self.warm_up.events)

    def dlt(self, strategy: str | None, form: str, stored: Sequence[Dataset] = ()) -> float:
        """Loads the Parquet file by dlt into a table of its own making; seconds from the file to the end of its run.

        Args:
            strategy: How it merges on the key; None to append.
            form: One of `DLT_FORMS`.
            stored: What it appended to the table before, in runs that are not counted.

        Raises:
            BenchmarkError: If the table does not hold every event once.
        """
        outcome = self._run_dlt(self.data, strategy, form, copies=1, stored=stored)
        expected = self.data.events + sum(each.events for each in stored)
        if outcome["rows"] != expected:
            raise BenchmarkError(f"dlt's table was to hold {expected} events, it holds {outcome['rows']}")
        return float(outcome["seconds"])

    def dlt_counts_once(self, strategy: str) -> bool:
        """Whether a merge strategy of dlt counts events once that a file holds twice."""
        return bool(self._run_dlt(self.warm_up, strategy, DLT_FORMS[0], copies=2)["rows"] == self.warm_up.events)

    def pandas(self) -> float:
        """Loads a tenth of the events by pandas into a table without any key; seconds.

        Raises:
            BenchmarkError: If the table does not hold every event.
        """
        outcome = self._run_peer(
            "pandas_load", {"chunk_rows": PANDAS_CHUNK_ROWS, "file": str(self.tenth.ndjson_gz), "warm_up": str(self.warm_up.ndjson_gz)}, {}
        )
        if outcome["rows"] != self.tenth.events:
            raise BenchmarkError(f"pandas was to load {self.tenth.events} events, its table holds {outcome['rows']}")
        return float(outcome["seconds"])

    def run(self, command: Sequence[str], job: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
        """Runs a measurement in a process of its own, once the server has written out what earlier work left behind.

        Raises:
            BenchmarkError: If it fails.
        """
        self.server.settle()
        done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, env=environment, cwd=REPOSITORY)
        if done.returncode != 0:
            raise BenchmarkError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def _run_dlt(self, data: Dataset, strategy: str | None, form: str, *, copies: int, stored: Sequence[Dataset] = ()) -> dict[str, Any]:
        file_format, pieces = form.split("/")
        piece_rows = max(1, data.events // 10) if pieces == "pieces" else data.events
        settings = {
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "RUNTIME__LOG_LEVEL": "ERROR",
            "DATA_WRITER__DISABLE_COMPRESSION": "true",
            "EXTRACT__DATA_WRITER__FILE_MAX_ITEMS": str(piece_rows),
            "NORMALIZE__DATA_WRITER__FILE_MAX_ITEMS": str(piece_rows),
            "NORMALIZE__WORKERS": str(os.cpu_count() or 1) if pieces == "pieces" else "1",
        }
        folder = self.folder / "dlt"
        shutil.rmtree(folder, ignore_errors=True)
        job = {"strategy": strategy, "file_format": file_format, "piece_rows": piece_rows, "copies": copies, "folder": str(folder)}
        job["stored"] = [str(each.parquet) for each in stored]
        return self._run_peer("dlt_load", job | {"file": str(data.parquet), "warm_up": str(self.warm_up.parquet)}, settings)

    def _run_peer(self, script: str, job: dict[str, Any], settings: dict[str, str]) -> dict[str, Any]:
        self.server.fresh(DATABASE)
        job |= {"url": self.server.owner_url(DATABASE)}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
        return self.run((str(self.peers), "-m", f"tests.bench.peers.{script}"), job, environment | settings)

    def _zone(self, data: Dataset, file_format: str) -> Path:
        """A zone that holds one file of the data, made where it is not there yet."""
        folder = self.folder / "zones" / f"{data.folder.name}-{file_format}"
        if not folder.exists():
            path, extension = (data.parquet, "parquet") if file_format == "parquet" else (data.ndjson_gz, "ndjson.gz")
            Zone(folder.resolve().as_uri()).put(STREAM, path.read_bytes(), arrived_at=ARRIVED_AT, source="bench", ext=extension)
        return folder

    def _rows(self, form: str, *, is_few: bool = False) -> Path:
        return self.folder / "rows" / f"{'few' if is_few else 'all'}.{form}"
