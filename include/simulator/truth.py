"""Ground truth: what was made up, kept outside of the zone so that nothing that learns or counts can see it.

simulation.json        seed, size, time, rates
expected.json          per stream: what landing must count
files.ndjson           per file: rows, and rows with each fault
failures.parquet       per failure: machine, component, time, whether there were symptoms
wear.parquet           per machine and day (end of day, UTC): true damage, age and remaining life of each component
planted.parquet        per pattern, unusual access, or what only looks like one: device, start, end, events
tours.parquet          per tour of a truck: local day, departure, return, customers, kilometres
twins.parquet          per device at the end: firmware, interval and set point as they are and as they are meant to be
live/<time>.json       per live interval: the same counts, and what was planted in it; -2, -3 … where an interval was posted again
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from include.simulator.clock import DAY, to_datetime
from include.simulator.desired import twin_truth
from include.simulator.device_events import planted
from include.simulator.positions import tour_truth
from include.simulator.rows import INVALID, Fault, Rows
from include.simulator.wear import COMPONENTS
from include.simulator.world import World


@dataclass(frozen=True)
class Expected:
    """What landing counts of a stream when every file is landed, in any order.

    `landed = accepted + quarantined + duplicate + corrected`.
    """

    landed: int = 0
    accepted: int = 0
    quarantined: int = 0
    duplicate: int = 0
    corrected: int = 0

    def __add__(self, other: Expected) -> Expected:
        return Expected(*(mine + theirs for mine, theirs in zip(asdict(self).values(), asdict(other).values(), strict=True)))


@dataclass(frozen=True)
class FileTruth:
    """One file, or one post with its receipt as address: its rows, and how many of them carry each fault (a row may carry several)."""

    address: str
    stream: str
    rows: int
    faults: dict[str, int]


def file_truth(address: str, rows: Rows) -> FileTruth:
    """Counts the faults of a file's rows."""
    faults = {kind.name.lower(): int(np.count_nonzero(rows.faults & np.uint8(kind))) for kind in Fault if kind.name}
    return FileTruth(address, rows.stream, len(rows), faults)


def count_faults(files: list[FileTruth]) -> dict[str, int]:
    """Faults of all files together."""
    return {kind.name.lower(): sum(file.faults[kind.name.lower()] for file in files) for kind in Fault if kind.name}


@dataclass
class Ledger:
    """Counts rows by landing's own rule: invalid → quarantined; first of its key → accepted; content seen before → duplicate; else corrected."""

    counts: dict[str, Expected] = field(default_factory=dict)
    _seen: dict[str, dict[str, set[int]]] = field(default_factory=dict)

    def add(self, rows: Rows) -> None:
        """Counts the rows of a file."""
        seen = self._seen.setdefault(rows.stream, {})
        accepted = quarantined = duplicate = corrected = 0
        for key, content, is_invalid in zip(rows.keys, rows.content, (rows.faults & np.uint8(INVALID)).tolist(), strict=True):
            if is_invalid:
                quarantined += 1
                continue
            mark = hash(content)
            copies = seen.get(key)
            if copies is None:
                seen[key] = {mark}
                accepted += 1
            elif mark in copies:
                duplicate += 1
            else:
                copies.add(mark)
                corrected += 1
        self.counts[rows.stream] = self.counts.get(rows.stream, Expected()) + Expected(len(rows), accepted, quarantined, duplicate, corrected)


def expected_of_arrivals(rows: Rows) -> Expected:
    """Counts of rows when all that arrived before them has been landed: what each row is follows from the row."""
    invalid = (rows.faults & np.uint8(INVALID)) > 0
    repeated = ~invalid & ((rows.faults & np.uint8(Fault.DUPLICATE)) > 0)
    first = ~invalid & ~repeated & rows.is_first
    accepted, quarantined, duplicate = (int(np.count_nonzero(mask)) for mask in (first, invalid, repeated))
    return Expected(len(rows), accepted, quarantined, duplicate, len(rows) - accepted - quarantined - duplicate)


def expected_of_repetition(rows: Rows) -> Expected:
    """Counts of rows that were stored before: what is no error is a duplicate, whatever it was the first time."""
    invalid = int(np.count_nonzero(rows.faults & np.uint8(INVALID)))
    return Expected(landed=len(rows), quarantined=invalid, duplicate=len(rows) - invalid)


def failures(world: World, start_ms: int, end_ms: int) -> list[dict[str, Any]]:
    """Failures in [start_ms, end_ms), in order of time."""
    found = []
    for machine, life in enumerate(world.lives):
        for component, part in enumerate(COMPONENTS):
            for onset, fails, ends in zip(life.onsets_ms[component], life.fails_ms[component], life.ends_ms[component], strict=True):
                if ends == fails and start_ms <= int(fails) < end_ms:
                    found.append(
                        {
                            "device_id": world.devices[machine].device_id,
                            "component_code": part.code,
                            "failed_at": to_datetime(int(fails)),
                            "symptom_days": round((fails - onset) / DAY, 3),
                        }
                    )
    return sorted(found, key=lambda failure: (failure["failed_at"], failure["device_id"]))


def wear_table(world: World, start_ms: int, end_ms: int) -> pl.DataFrame:
    """True state of every machine at the end of every day in [start_ms, end_ms)."""
    days = np.arange(start_ms // DAY + 1, end_ms // DAY + 1, dtype=np.int64) * DAY - 1
    tables = []
    for machine, life in enumerate(world.lives):
        columns: dict[str, Any] = {
            "device_id": [world.devices[machine].device_id] * len(days),
            "wear_date": [to_datetime(day).date() for day in days.tolist()],
        }
        for component, part in enumerate(COMPONENTS):
            columns[f"{part.code}_damage"] = life.damage(component, days)
            columns[f"{part.code}_age_days"] = life.age_days(component, days)
            columns[f"{part.code}_remaining_days"] = life.remaining_days(component, days)
        tables.append(pl.DataFrame(columns))
    return pl.concat(tables)


def write_json(path: Path, content: object) -> None:
    """Writes readable JSON, making folders as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_truth(folder: Path, world: World, start_ms: int, end_ms: int, files: list[FileTruth], counts: dict[str, Expected], told: dict[str, Any]) -> None:
    """Writes the truth about a history. What live intervals wrote for an earlier history is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (folder / "live").glob("*.json"):
        stale.unlink()
    write_json(folder / "simulation.json", told)
    write_json(folder / "expected.json", {stream: asdict(expected) for stream, expected in counts.items()})
    (folder / "files.ndjson").write_text("".join(json.dumps(asdict(file)) + "\n" for file in files), encoding="utf-8")
    made = failures(world, start_ms, end_ms)
    shape: dict[str, Any] = {"device_id": pl.String, "component_code": pl.String, "failed_at": pl.Datetime("ms", "UTC"), "symptom_days": pl.Float64}
    pl.DataFrame(made, schema=shape).write_parquet(folder / "failures.parquet")
    wear_table(world, start_ms, end_ms).write_parquet(folder / "wear.parquet")
    _table([each.truth() for each in planted(world, start_ms, end_ms)], _PLANTED).write_parquet(folder / "planted.parquet")
    _table(tour_truth(world.noise, world.devices, start_ms, end_ms), _TOURS).write_parquet(folder / "tours.parquet")
    _table(twin_truth(world.noise, world.devices, end_ms), _TWINS).write_parquet(folder / "twins.parquet")


_PLANTED = {"kind": pl.String, "variant": pl.String, "is_match": pl.Boolean, "device_id": pl.String}
_PLANTED |= {"started_ms": pl.Int64, "ended_ms": pl.Int64, "event_count": pl.Int64}
_TOURS = {"device_id": pl.String, "local_day": pl.Int32, "departed_ms": pl.Int64, "returned_ms": pl.Int64, "stop_count": pl.Int64, "distance_km": pl.Float64}
_TWINS = {"device_id": pl.String, "firmware_version": pl.String, "target_firmware_version": pl.String, "firmware_drift_since_ms": pl.Int64}
_TWINS |= {"reporting_interval_s": pl.Int64, "target_reporting_interval_s": pl.Int64, "setpoint_c": pl.Float64, "target_setpoint_c": pl.Float64}


def _table(rows: list[dict[str, Any]], shape: dict[str, Any]) -> pl.DataFrame:
    """Truth as a table: milliseconds become moments (UTC), numbers of days become dates."""
    frame = pl.DataFrame(rows, schema=shape)
    moments = [pl.from_epoch(name, "ms").dt.replace_time_zone("UTC").alias(f"{name.removesuffix('_ms')}_at") for name in shape if name.endswith("_ms")]
    dates = [pl.col(name).cast(pl.Date).alias(f"{name.removesuffix('_day')}_date") for name in shape if name.endswith("_day")]
    return frame.with_columns(*moments, *dates).drop(name for name in shape if name.endswith(("_ms", "_day")))
