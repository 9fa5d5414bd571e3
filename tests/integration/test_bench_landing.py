"""The harness of `make bench-landing` in small: that it measures what it says, on a server of its own, and does not call unmeasured targets met."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from include.contracts import load_contract
from include.landing import land_pending
from include.settings import REPOSITORY
from tests.bench.big import fill, span
from tests.bench.telemetry import ARRIVED_AT, STREAM, dataset
from tests.conftest import Warehouse
from tests.support.landing import assert_balanced
from tests.support.payloads import zone


def bench(work: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the benchmark as `make bench-landing` does, with nothing of this process's warehouse around it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    command = [sys.executable, "-m", "tests.bench.landing", "--work", str(work), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a tiny run of everything but other loaders."""
    work = tmp_path_factory.mktemp("bench")
    done = bench(work, "--events", "3000", "--repeats", "1", "--only", "tidemark,floor", "--big", "--stored", "5000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (work / "run").exists(), "server, zones and prepared rows are removed at the end"
    written: dict[str, Any] = json.loads((work / "landing.json").read_text(encoding="utf-8"))
    return written


def test_every_contestant_asked_for_has_a_figure(outcome: dict[str, Any]) -> None:
    assert [figure["name"] for figure in outcome["figures"]] == ["tidemark_parquet", "tidemark_ndjson_gz", "floor", "big_empty", "big_stored", "big_late"]
    assert all(figure["events"] == 3000 and len(figure["seconds"]) == 1 for figure in outcome["figures"])
    assert set(outcome["trials"]["floor"]) == {"binary", "text", "csv"}


def test_a_target_that_was_not_measured_is_not_met(outcome: dict[str, Any]) -> None:
    measured = {target["name"]: target["measured"] is not None for target in outcome["targets"]}
    assert measured == {"parquet_to_floor": True, "ndjson_gz_to_floor": True, "parquet_to_dlt_merge": False, "big_to_empty": True}
    assert outcome["targets_met"] is False


def test_durability_stays_on_and_the_settings_are_reported(outcome: dict[str, Any]) -> None:
    settings = outcome["server"]["settings"]
    assert [settings[name] for name in ("fsync", "full_page_writes", "synchronous_commit")] == ["on", "on", "on"]
    assert outcome["server"]["version"].startswith("PostgreSQL 18")


def test_stored_rows_of_the_big_run_are_reported_with_the_ledgers_sum(outcome: dict[str, Any]) -> None:
    assert outcome["stored"]["rows"] == 5000 + 1000


def test_an_unknown_group_is_refused_before_anything_starts(tmp_path: Path) -> None:
    done = bench(tmp_path, "--only", "tidemark,sqoop")
    assert done.returncode == 1
    assert "--only takes some of tidemark, floor, dlt, pandas and big" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_other_loaders_without_their_environment_say_what_to_do(tmp_path: Path) -> None:
    done = bench(tmp_path, "--only", "dlt")
    assert done.returncode == 1
    assert "make bench-landing" in " ".join(done.stdout.split())
    assert list(tmp_path.iterdir()) == []


def test_both_formats_hold_the_same_valid_and_distinct_events(warehouse: Warehouse, tmp_path: Path) -> None:
    data = dataset(tmp_path, events=2000)
    for path, extension in ((data.ndjson_gz, "ndjson.gz"), (data.parquet, "parquet")):
        zone().put(STREAM, path.read_bytes(), arrived_at=ARRIVED_AT, source="bench", ext=extension)
    result = land_pending(STREAM, arrived_before=ARRIVED_AT.replace(hour=ARRIVED_AT.hour + 1))
    assert (result.landed, result.accepted, result.duplicate) == (4000, 2000, 2000)
    partitions = warehouse.rows(f"select tableoid::regclass::text, count(*) from raw.{STREAM} group by 1 order by 1")
    assert [name for name, _ in partitions] == ["raw.device_telemetry_y2022m01", "raw.device_telemetry_y2022m02"]


def test_the_same_arguments_make_the_same_bytes_and_other_plants_other_events(tmp_path: Path) -> None:
    first, again, other = dataset(tmp_path / "a", events=1000), dataset(tmp_path / "b", events=1000), dataset(tmp_path / "a", events=1000, plant=1)
    assert first.ndjson_gz.read_bytes() == again.ndjson_gz.read_bytes()
    assert first.devices > 1
    assert other.ndjson_gz.read_bytes() != first.ndjson_gz.read_bytes()
    made_at = first.parquet.stat().st_mtime_ns
    dataset(tmp_path / "a", events=1000)
    assert first.parquet.stat().st_mtime_ns == made_at, "a second call takes what is there"


def test_made_rows_have_the_identity_that_landing_would_give_and_a_ledger_that_adds_up(warehouse: Warehouse, tmp_path: Path) -> None:
    import polars as pl

    from include.landing.identity import event_ids

    zone().put(STREAM, dataset(tmp_path, events=1000).parquet.read_bytes(), arrived_at=ARRIVED_AT, source="bench", ext="parquet")
    land_pending(STREAM, arrived_before=ARRIVED_AT.replace(hour=ARRIVED_AT.hour + 1))
    indexes = sql.SQL("select indexname, indexdef from pg_indexes where schemaname = 'raw' and tablename = {} order by 1").format(STREAM).as_string()
    before = warehouse.rows(indexes)
    facts = fill(warehouse.url.rsplit("/", 1)[1], 3000, ["p1_machine_001", "p1_überwacht", "p2_temp_001"])
    assert facts["rows"] == 4000
    assert_balanced()
    assert warehouse.rows(indexes) == before
    made = warehouse.rows(f"select tenant_id, device_id, event_at at time zone 'UTC', event_id, temperature_c from raw.{STREAM} where device_id !~ '^p0_'")
    assert len(made) == 3000
    frame = pl.DataFrame(
        {"tenant_id": [row[0] for row in made], "device_id": [row[1] for row in made], "event_at": [row[2] for row in made]},
        schema={"tenant_id": pl.String, "device_id": pl.String, "event_at": pl.Datetime("us")},
    )
    assert event_ids(frame, load_contract(STREAM), None).to_list() == [bytes(row[3]) for row in made]
    since, until = span()
    moments = [row[2] for row in made]
    assert since.replace(tzinfo=None) <= min(moments)
    assert max(moments) < until.replace(tzinfo=None)
    assert (max(moments) - min(moments)).days > 50, "spread over eight weeks"
    assert len({row[4] for row in made}) > 100, "values are those of real readings"
