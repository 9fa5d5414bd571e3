"""A random life of a small plant, told in batches that come in any order: late, corrected and removed readings, and a registry that changes its mind."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from include.transform.invocation import load_manifest
from include.warehouse import Role, connect
from tests.support.marts import Snapshot, build_marts, snapshot
from tests.support.payloads import Payload, at, iso, registry, telemetry
from tests.support.removal import remove_event
from tests.support.scenario import File, land

WINDOWS = "dim_device dim_facility tag:windows"
FIRST_DAY = 4
"""The days begin on 5 March 2026; clocks on the American west coast change on the 8th."""
PLACES = (("plant_w", "America/Los_Angeles"), ("plant_e", "Asia/Kathmandu"), ("home", None))
TYPES = {"m1": "machine_controller", "m2": "machine_controller", "lock": "smart_lock", "cam": "security_camera", "new": "temperature_sensor"}


@dataclass
class Batch:
    """What comes at one time: files of readings and of the registry, then removals of what is stored."""

    readings: list[Payload] = field(default_factory=list)
    versions: list[Payload] = field(default_factory=list)
    removals: list[tuple[str, str]] = field(default_factory=list)


def window_tables() -> list[str]:
    """schema.name of the tables under test."""
    nodes = load_manifest().nodes.values()
    return sorted(f"{node.schema}.{node.alias}" for node in nodes if node.resource_type.value == "model" and "windows" in node.config.tags)


def full_refresh() -> Snapshot:
    """The tables when they are made anew, from nothing, of what raw holds."""
    names = window_tables()
    with connect(Role.OWNER) as connection:
        for name in names:
            connection.execute(f"drop table {name}")  # type: ignore[arg-type]
        connection.execute("delete from ops.model_state where model = any(%s)", (names,))
    build_marts(WINDOWS)
    return snapshot(names)


def _reading(device: str, when: datetime, dice: random.Random) -> Payload:
    values = {"temperature": round(dice.uniform(10, 90), 2)} if dice.random() < 0.8 else {}
    if device.startswith("m"):
        values |= {"energy": round(dice.uniform(0, 3), 3), "load": round(dice.uniform(0, 100), 1)}
    return telemetry(device, when) | {"measurements": values, "metadata": {"battery_level": dice.randrange(101)} if dice.random() < 0.2 else {}}


def _version(device: str, valid_from: datetime, dice: random.Random, written: datetime | None = None) -> Payload:
    place, zone = dice.choice(PLACES)
    more: dict[str, Any] = {"deviceType": TYPES[device] if dice.random() < 0.8 else "gps_tracker", "firmwareVersion": f"{dice.randrange(3)}.0"}
    if zone:
        more["timeZone"] = zone
    more["line"] = dice.choice(("line_a", "line_b"))
    more["status"] = "retired" if dice.random() < 0.1 else "active"
    return registry(device, valid_from, facility=place, interval_s=dice.choice((60, 900, 1800, 3600)), updated_at=written or valid_from, **more)


def _moments(days: int, dice: random.Random) -> list[datetime]:
    """Bursts of readings with silences between them, to the millisecond, some of them on the edges of windows."""
    found, when = [], at(FIRST_DAY, dice.uniform(0, 3))
    while when < at(FIRST_DAY + days):
        for _ in range(dice.randrange(1, 8)):
            found.append(when if dice.random() < 0.9 else when.replace(minute=when.minute // 5 * 5, second=0, microsecond=0))
            when += timedelta(seconds=dice.choice((7.25, 45, 290, 600, 890)))
        when += timedelta(minutes=dice.choice((14, 16, 40, 119, 121, 400)))
    return sorted({moment.replace(microsecond=moment.microsecond // 1000 * 1000) for moment in found})


def story(seed: int, batches: int, days: int) -> list[Batch]:
    """Batches in the order in which they come.

    Args:
        seed: Same seed, same story.
        batches: Number of batches.
        days: Days that readings are of.
    """
    dice = random.Random(seed)
    told = [Batch() for _ in range(batches)]
    for device in TYPES:
        for when in _moments(days, dice):
            due = min(batches - 1, int((when - at(FIRST_DAY)) / timedelta(days=days) * batches))
            first = due if dice.random() < 0.85 else dice.randrange(batches)
            told[first].readings.append(_reading(device, when, dice))
            if dice.random() < 0.08:
                told[dice.randrange(batches)].readings.append(_reading(device, when, dice))
        versions = [at(FIRST_DAY - 1)] if device != "new" else [at(FIRST_DAY + 1, 5.37)]
        versions += [at(FIRST_DAY, 0, dice.uniform(0, days * 24 * 60)) for _ in range(max(2, days // 4))]
        for valid_from in versions:
            told[dice.randrange(batches)].versions.append(_version(device, valid_from, dice))
            if dice.random() < 0.5:
                told[dice.randrange(batches)].versions.append(_version(device, valid_from, dice, written=valid_from + timedelta(hours=dice.randrange(1, 99))))
            if dice.random() < 0.3:
                told[dice.randrange(batches)].removals.append(("device_registry", f"device_id = '{device}' and event_at = '{iso(valid_from)}'"))
    for _ in range(max(3, batches // 4)):
        device, start = dice.choice(list(TYPES)), at(FIRST_DAY, 0, dice.uniform(0, days * 24 * 60))
        span = timedelta(minutes=dice.choice((1, 9, 200)))
        told[dice.randrange(batches)].removals.append(
            ("device_telemetry", f"device_id = '{device}' and event_at >= '{iso(start)}' and event_at < '{iso(start + span)}'")
        )
    dice.shuffle(told)
    return told


def tell(told: list[Batch], build_after: set[int], build: Callable[[], None]) -> None:
    """Lands batch after batch, and builds after some of them and at the end."""
    for number, batch in enumerate(told):
        arrived = at(15, 0, number)
        for stream, payloads in (("device_registry", batch.versions), ("device_telemetry", batch.readings)):
            if payloads:
                land(File(stream, arrived, tuple(payloads)))
        for stream, where in batch.removals:
            remove_event(stream, where, may_be_none=True)
        if number in build_after or number == len(told) - 1:
            build()
