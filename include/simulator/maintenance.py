"""The crew's maintenance log, as copies of entries: some are written at once and completed later."""

from __future__ import annotations

import json

import numpy as np

from include.simulator.clock import MINUTE, iso
from include.simulator.noise import Noise
from include.simulator.rows import Rows, new_rows
from include.simulator.wear import COMPONENTS, LogEntry
from include.simulator.world import World

COMPLETED_LATER_SHARE = 0.3
"""Share of failures whose downtime is not known when they are first logged; the entry is written again when the machine runs."""


def maintenance_rows(world: World, start_ms: int, end_ms: int) -> Rows:
    """Every copy of entries that occurred in [start_ms, end_ms); the last copies are written, and arrive, up to three days after."""
    keys: list[str] = []
    lines: list[str] = []
    times: list[tuple[int, int]] = []
    flags: list[tuple[bool, bool]] = []
    for machine, life in enumerate(world.lives):
        device = world.devices[machine]
        for number, entry in enumerate(life.log):
            if not start_ms <= entry.at_ms < end_ms:
                continue
            log_id = f"log-{machine + 1:03d}-{number + 1:05d}"
            copies = _copies(world.noise, machine, entry)
            for position, (written_ms, knows_downtime) in enumerate(copies):
                keys.append(log_id)
                lines.append(_line(log_id, device.device_id, entry, written_ms, knows_downtime=knows_downtime))
                times.append((entry.at_ms, written_ms + 5_000 + int(world.noise.integers(50_000, "log delay", machine, written_ms))))
                flags.append((position == 0, len(copies) == 1))
    columns = np.array(times, dtype=np.int64).reshape(-1, 2)
    marks = np.array(flags, dtype=np.bool_).reshape(-1, 2)
    return new_rows("maintenance_log", keys, lines, columns[:, 0], arrived_ms=columns[:, 1], is_first=marks[:, 0], is_only=marks[:, 1])


def _copies(noise: Noise, machine: int, entry: LogEntry) -> list[tuple[int, bool]]:
    """When an entry is written, and whether the downtime is known by then."""
    soon = entry.at_ms + int(noise.between(4.0, 40.0, "written after", machine, entry.at_ms) * MINUTE)
    if entry.kind == "failure":
        if noise.uniform("completed later", machine, entry.at_ms) < COMPLETED_LATER_SHARE:
            return [(soon, False), (max(entry.finished_ms, soon) + 25 * MINUTE, True)]
        return [(soon, True)]
    return [(max(entry.finished_ms, soon), True)]


def _line(log_id: str, device_id: str, entry: LogEntry, written_ms: int, *, knows_downtime: bool) -> str:
    occurred, updated = iso([entry.at_ms, written_ms])
    payload: dict[str, object] = {
        "logId": log_id,
        "deviceId": device_id,
        "occurredAt": occurred,
        "updatedAt": updated,
        "type": entry.kind,
        "component": None if entry.component is None else COMPONENTS[entry.component].code,
        "errorCode": entry.error_code,
        "downtimeMinutes": round((entry.finished_ms - entry.at_ms) / MINUTE, 1) if knows_downtime else None,
        "costUsd": entry.cost_usd if knows_downtime else None,
        "notes": entry.notes,
    }
    return json.dumps({name: value for name, value in payload.items() if value is not None}, separators=(",", ":"))
