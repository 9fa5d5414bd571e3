"""Memory follows the chunk and not the file: readers and a whole load, each in a process of its own."""

from __future__ import annotations

import json
import os
import platform
import time
from datetime import timedelta
from pathlib import Path

import pytest

from include.landing import load
from include.settings import REPOSITORY
from tests.conftest import Warehouse
from tests.support.landing import assert_balanced
from tests.support.large_files import STREAM, run_child, write_large
from tests.support.payloads import at

MEBIBYTE = 1 << 20
# Readers that take these files whole grow by 400 to 780 MiB, those that take chunks by 90 to 190.
PLAIN_BYTES = {"ndjson.gz": 128 * MEBIBYTE, "json.zst": 128 * MEBIBYTE, "csv": 64 * MEBIBYTE, "parquet.gz": 64 * MEBIBYTE}
GROWTH_BYTES = 300 * MEBIBYTE
ARRIVED_AT = at(1)
PROOF = {"ndjson": 2 << 30, "json.zst": 1 << 30}  # plain bytes
PROOF_LIMIT_BYTES = 1 << 30


@pytest.mark.parametrize("ending", PLAIN_BYTES)
def test_a_reader_takes_chunks_and_never_the_file(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"large.{ending}"
    rows = write_large(path, PLAIN_BYTES[ending])
    told = run_child("read", str(path))
    assert told["rows"] == rows > 100_000
    assert told["peak_bytes"] - told["at_start_bytes"] < GROWTH_BYTES


def land_large(warehouse: Warehouse, ending: str, plain_bytes: int) -> dict[str, object]:
    """Writes a large file straight into the zone and lands it in a process of its own."""
    folder = warehouse.zone_dir / STREAM / f"dt={ARRIVED_AT:%Y-%m-%d}" / f"hr={ARRIVED_AT:%H}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{ARRIVED_AT:%H%M%S%f}-large-0.{ending}"
    begun = time.monotonic()
    rows = write_large(path, plain_bytes)
    written_s, stored_bytes = time.monotonic() - begun, path.stat().st_size
    told = run_child("land", ARRIVED_AT.isoformat(), (ARRIVED_AT + timedelta(hours=1)).isoformat())
    path.unlink()
    return told | {"ending": ending, "plain_bytes": plain_bytes, "stored_bytes": stored_bytes, "rows": rows, "written_s": round(written_s, 1)}


def test_a_file_larger_than_a_batch_lands_in_one_transaction_without_being_held(warehouse: Warehouse) -> None:
    told = land_large(warehouse, "ndjson", load.BATCH_BYTES + MEBIBYTE)
    assert told["accepted"] == told["landed"] == told["rows"]
    assert told["batches"] == 1
    assert int(told["peak_bytes"]) < 500 * MEBIBYTE
    assert_balanced()


@pytest.mark.prove
def test_two_gibibytes_land_within_one_gibibyte_of_memory(warehouse: Warehouse) -> None:
    """Writes build/prove/large_file.json with the figures of each file."""
    figures = []
    for ending, plain_bytes in PROOF.items():
        figures.append(land_large(warehouse, ending, plain_bytes))
        assert_balanced()
        warehouse.execute(f"truncate raw.{STREAM}, ops.file, ops.batch, ops.stream_state cascade")
    is_met = all(int(told["peak_bytes"]) <= PROOF_LIMIT_BYTES and told["accepted"] == told["rows"] for told in figures)
    machine = {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
    target = REPOSITORY / "build" / "prove" / "large_file.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({"limit_bytes": PROOF_LIMIT_BYTES, "files": figures, "targets_met": is_met, "machine": machine}, indent=2) + "\n")
    for told in figures:
        assert told["accepted"] == told["landed"] == told["rows"], told
        assert int(told["peak_bytes"]) <= PROOF_LIMIT_BYTES, told
