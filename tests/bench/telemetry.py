"""Readings to load: made once by the simulator without faults, then kept under the benchmark's folder as Parquet and as NDJSON.gz of the same events.

A plant number is a company of its own with devices of its own, so events of two plants are never the same event.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from include.contracts import load_contract
from include.contracts.model import Contract, LogicalType
from include.simulator.clock import to_ms
from include.simulator.faults import FaultRates, displace
from include.simulator.telemetry import telemetry_rows
from include.simulator.world import make_world

STREAM = "device_telemetry"
SEED = 20_220_129
FIRST_DAY = datetime(2022, 1, 29, tzinfo=UTC)
DAYS = 6
"""29 January to 3 February: two partitions by month."""
ARRIVED_AT = FIRST_DAY + timedelta(days=DAYS, hours=1)
EVENTS_PER_MACHINE = 240
"""A machine with what watches it sends about 278 readings in six days at the cadence of history; fewer are counted on."""
_GENERATOR = 1
"""Raise it when the same arguments make other files."""


@dataclass(frozen=True)
class Dataset:
    """The same events in two formats.

    Attributes:
        plant: Number of the plant.
        events: Events in each file, all valid and distinct.
        devices: Number of devices.
        folder: Where the files are.
        parquet_bytes: Size of the Parquet file.
        ndjson_gz_bytes: Size of the NDJSON.gz file.
        ndjson_bytes: Size of its text.
    """

    plant: int
    events: int
    devices: int
    folder: Path
    parquet_bytes: int
    ndjson_gz_bytes: int
    ndjson_bytes: int

    @property
    def parquet(self) -> Path:
        """One row a reading, columns named and typed as in the contract's table, zstd."""
        return self.folder / "events.parquet"

    @property
    def ndjson_gz(self) -> Path:
        """One JSON object a reading, as devices send it, gzip level 6."""
        return self.folder / "events.ndjson.gz"

    def facts(self) -> dict[str, Any]:
        """What the report says about the data."""
        return {name: value for name, value in asdict(self).items() if name != "folder"} | {
            "stream": STREAM,
            "seed": SEED,
            "event_time": f"{FIRST_DAY:%Y-%m-%d} and the {DAYS - 1} days after it",
        }


def dataset(cache: Path, *, events: int, plant: int = 0, first_day: datetime = FIRST_DAY) -> Dataset:
    """The events of a plant in `DAYS` days; made in about half a minute a million where the cache does not hold them.

    Args:
        cache: Folder of all data sets.
        events: How many.
        plant: Which plant.
        first_day: First of the days.
    """
    version = hashlib.sha256(json.dumps([_GENERATOR, SEED, events, plant, load_contract(STREAM).version, str(first_day)]).encode()).hexdigest()[:12]
    folder = cache / f"{STREAM}-{events}-{plant}-{version}"
    facts = folder / "facts.json"
    if not facts.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = _make(folder, events, plant, first_day)
        facts.write_text(json.dumps({name: value for name, value in asdict(made).items() if name != "folder"}), encoding="utf-8")
    return Dataset(folder=folder, **json.loads(facts.read_text(encoding="utf-8")))


def _make(folder: Path, events: int, plant: int, first_day: datetime) -> Dataset:
    lines, devices = _lines(events, plant, first_day)
    text = ("\n".join(lines) + "\n").encode()
    (folder / "events.ndjson.gz").write_bytes(gzip.compress(text, 6, mtime=0))
    typed_frame(lines).write_parquet(folder / "events.parquet", compression="zstd")
    sizes = [(folder / name).stat().st_size for name in ("events.parquet", "events.ndjson.gz")]
    return Dataset(plant, events, devices, folder, sizes[0], sizes[1], len(text))


def _lines(events: int, plant: int, first_day: datetime) -> tuple[list[str], int]:
    """Readings in order of arrival, of which two in a hundred stand behind later ones, and the number of devices."""
    start = to_ms(first_day)
    end = start + DAYS * 86_400_000
    world = make_world(SEED + plant, math.ceil(events / EVENTS_PER_MACHINE), end)
    world = replace(world, devices=tuple(replace(device, device_id=f"p{plant}_{device.device_id}") for device in world.devices))
    rows = telemetry_rows(world, start, end, is_live=False)
    if len(rows) < events:
        raise RuntimeError(f"{world.machines} machines sent {len(rows)} readings, {events} are needed: lower EVENTS_PER_MACHINE in {__name__}")
    chosen = np.random.default_rng(SEED + plant).permutation(len(rows))[:events]
    rows = rows.take(chosen).arriving(0, 1 << 62)
    return displace(world.noise, rows, FaultRates(out_of_order=0.02)).lines, len({key.partition("|")[0] for key in rows.keys})


def typed_frame(lines: Sequence[str]) -> pl.DataFrame:
    """The readings as a typed table with the contract's column names, nested fields flattened."""
    contract = load_contract(STREAM)
    nested = pl.read_ndjson("\n".join(lines).encode(), schema=_schema(contract))
    columns = []
    for field in contract.fields:
        first, *inner = field.path
        value = pl.col(first)
        for name in inner:
            value = value.struct.field(name)
        if field.logical_type is LogicalType.TIMESTAMP:
            value = value.str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us").dt.replace_time_zone("UTC")
        columns.append(value.alias(field.name))
    return nested.select(columns)


def _schema(contract: Contract) -> dict[str, pl.DataType]:
    tree: dict[str, Any] = {}
    for field in contract.fields:
        branch = tree
        for name in field.path[:-1]:
            branch = branch.setdefault(name, {})
        branch[field.path[-1]] = pl.Float64() if field.logical_type is LogicalType.NUMBER else pl.String()
    return {name: _polars(value) for name, value in tree.items()}


def _polars(value: Any) -> pl.DataType:
    return pl.Struct({name: _polars(inner) for name, inner in value.items()}) if isinstance(value, dict) else value
