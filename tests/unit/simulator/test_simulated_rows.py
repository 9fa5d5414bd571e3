"""What simulated rows look like, and that landing's own validator and identity count them as the truth says."""

from __future__ import annotations

import ast
import json
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from include.contracts import load_contract
from include.landing.identity import content_hashes, event_ids
from include.landing.readers import Source, read_chunks
from include.landing.validate import validate
from include.landing.zone import Zone
from include.settings import REPOSITORY
from include.simulator import Expected, FaultRates, Files, write_history, write_interval
from tests.support.simulated import UNTIL, Written

GOLDEN = json.loads(
    """{"deviceId":"sensor_12345","deviceType":"temperature_sensor","timestamp":"2024-01-15T10:30:00.000Z",
    "location":{"facility":"factory_01","line":"assembly_line_A","station":"station_05","coordinates":{"lat":37.7749,"lon":-122.4194}},
    "measurements":{"temperature":72.5,"humidity":45.2,"pressure":1013.25,"vibration":{"x":0.02,"y":0.01,"z":0.03}},
    "metadata":{"firmware_version":"1.2.3","battery_level":85,"signal_strength":-45,"last_maintenance":"2024-01-10T08:00:00.000Z"},
    "quality":{"accuracy":99.5,"calibration_date":"2024-01-01T00:00:00.000Z","status":"operational"}}"""
)


def paths(payload: dict[str, Any], prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for name, value in payload.items():
        found |= paths(value, (*prefix, name)) if isinstance(value, dict) else {(*prefix, name): value}
    return found


def test_payloads_have_the_golden_shape(small: Written):
    golden = paths(GOLDEN)
    known = {field.path for field in load_contract("device_telemetry").fields}
    seen: dict[tuple[str, ...], Any] = {}
    unknown = 0
    for _, payload in small.zone.payloads("device_telemetry"):
        found = paths(payload)
        unknown += bool(set(found) - known)
        seen |= {path: value for path, value in found.items() if path not in seen}
    assert set(golden) <= set(seen)
    assert 0 < unknown < 0.02 * small.summary.events
    assert {("measurements", name) for name in ("energy", "load", "runtimeHours", "errorCode", "machineStatus", "dewPoint")} <= set(seen)
    for path in golden:
        assert isinstance(seen[path], str) == isinstance(golden[path], str), path


def test_every_device_type_of_the_contract_reports(small: Written):
    (device_type,) = (field for field in load_contract("device_telemetry").fields if field.name == "device_type")
    types = {payload.get("deviceType") for _, payload in small.zone.payloads("device_telemetry")}
    assert set(device_type.enum or ()) <= types


def counted(zone: Zone, stream: str) -> Expected:
    """Counts a stream's files by landing's parser, validator and identity, and the rule of the ledger."""
    contract = load_contract(stream)
    files = zone.list(stream, None, None)
    arrivals = np.array([round(file.arrived_at.timestamp() * 1_000_000) for file in files], dtype=np.int64)
    landed = quarantined = 0
    copies: list[tuple[bytes, bytes]] = []
    for chunk in read_chunks((Source(i, zone.open(file), file.file_format, file.compression) for i, file in enumerate(files)), contract):
        landed += len(chunk)
        result = validate(chunk, contract, arrivals[chunk.file_position])
        quarantined += len(result.rejected)
        if not result.accepted.height:
            continue  # as landing does: rows that are refused have no identity
        frame = result.accepted.with_columns(pl.lit("default").alias("tenant_id"))
        copies += zip(event_ids(frame, contract, b"k" * 32).to_list(), content_hashes(frame, contract.fields).to_list(), strict=True)
    events = {event for event, _ in copies}
    accepted, corrected = len(events), len(set(copies)) - len(events)
    return Expected(landed, accepted, quarantined, len(copies) - len(set(copies)), corrected)


@pytest.mark.parametrize("rates", [FaultRates(), FaultRates(late=0.1, duplicate=0.1, out_of_order=0.2, unknown_field=0.1, malformed=0.05, impossible=0.2)])
def test_landing_counts_what_the_truth_expects(tmp_path: Path, rates: FaultRates):
    """A history and six live hours after it, at documented and at absurd rates of faults."""
    zone = Zone((tmp_path / "zone").as_uri())
    expected = dict(write_history(zone, until=UNTIL, days=10, machines=4, rates=rates, truth_dir=tmp_path / "truth").expected)
    for hour in range(6):
        start = UNTIL + timedelta(hours=hour)
        interval = {"interval_start": start, "interval_end": start + timedelta(hours=1)}
        summary = write_interval(Files(zone), **interval, machines=4, live_since=UNTIL, rates=rates, truth_dir=tmp_path / "truth")
        for stream, counts in summary.expected.items():
            expected[stream] += counts
    assert {stream: counted(zone, stream) for stream in expected} == expected
    assert all(file.arrived_at.tzinfo is UTC for file in zone.list("orders", None, None))


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}


def test_nothing_that_runs_in_production_imports_the_simulator():
    """There is one door: how the stack runs its simulated sources. Commands and the DAG that simulate go through it."""
    allowed = {"include/simulator", "include/stack/sources.py"}
    rooms = [path for room in ("include", "ml", "plugins", "dags") for path in (REPOSITORY / room).rglob("*.py")]
    assert len(rooms) > 20
    for path in rooms:
        relative = path.relative_to(REPOSITORY).as_posix()
        if not any(relative.startswith(name) for name in allowed):
            assert not any(name.startswith("include.simulator") for name in imported(path)), relative


def test_the_simulator_knows_nothing_of_contracts_landing_or_warehouse():
    files = list((REPOSITORY / "include" / "simulator").glob("*.py"))
    assert len(files) > 10
    for path in files:
        strangers = {name for name in imported(path) if name.startswith("include.") and not name.startswith(("include.simulator", "include.settings"))}
        assert not strangers, path.name
