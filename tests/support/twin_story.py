"""A random life of three devices, told in batches that come in any order: events, readings, what they are meant to be, what the crew and the registry write."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta

from tests.support.payloads import Payload, at, desired_state, device_event, iso, maintenance, registry, telemetry
from tests.support.removal import remove_event
from tests.support.scenario import File, land

TWINS = "+rpt_device_twin,tag:micro_batch +fct_machine_state_5min,tag:micro_batch fct_pattern_match"
TABLES = [
    "core.dim_device_desired_state",
    "intermediate.int_maintenance__device_firmware_hourly",
    "intermediate.int_maintenance__device_reported_change",
    "maintenance.fct_device_event",
    "maintenance.fct_machine_state_5min",
    "maintenance.fct_pattern_match",
    "maintenance.rpt_device_twin",
]
MACHINES = ("m1", "m2")
STATES = ("running", "idle", "fault", "maintenance", "off", "being_cleaned")
FIRMWARE = ("1.0", "1.1", "2.0")


def _moment(days: float, dice: random.Random) -> datetime:
    """A time to the second; one of five on the edge of a window."""
    moment = at(0, 0, dice.uniform(0, days * 24 * 60)).replace(microsecond=0)
    return moment.replace(minute=moment.minute // 5 * 5, second=0) if dice.random() < 0.2 else moment


def happenings(device: str, days: float, dice: random.Random) -> list[Payload]:
    """Events of a machine: single ones, and bursts of those that patterns are made of."""
    found = [device_event(device, _moment(days, dice), "state_change", dice.choice(STATES)) for _ in range(int(8 * days))]
    for _ in range(int(10 * days)):
        when = _moment(days, dice)
        for _ in range(dice.randrange(1, 7)):
            kind, code = dice.choice((("error", "E1"), ("error", "E1"), ("error", "E2"), ("restart", "watchdog"), ("restart", "power_cycle")))
            state = ("state_change", dice.choice(("fault", "running")))
            kind, code = dice.choice(((kind, code), (kind, code), state, ("controller_event", "overheating"), ("controller_event", "load_drop")))
            found.append(device_event(device, when, kind, code))
            when += timedelta(seconds=dice.choice((0, 1, 70, 180, 299, 300, 600, 899, 900)))
    return found


def story(seed: int, batches: int, days: int) -> list[list[tuple[str, list[Payload]] | tuple[str, str]]]:
    """Batches: files as (stream, payloads), and removals as (stream, condition).

    Args:
        seed: Same seed, same story.
        batches: Number of batches.
        days: Days that it is about.
    """
    dice = random.Random(seed)
    files: dict[tuple[int, str], list[Payload]] = {}

    def tell_of(stream: str, payload: Payload) -> None:
        files.setdefault((dice.randrange(batches), stream), []).append(payload)

    for machine in MACHINES:
        for event in happenings(machine, days, dice):
            tell_of("device_events", event)
            if dice.random() < 0.05:
                tell_of("device_events", event)
        for number in range(6):
            began, log = _moment(days, dice), f"{machine}-{number}"
            for version in range(dice.choice((1, 1, 2))):
                moved = began + timedelta(minutes=dice.choice((0, 0, 90)) * version)
                more = {"downtimeMinutes": dice.choice((0, 7, 90, 2000))}
                written = began + timedelta(hours=version)
                tell_of("maintenance_log", maintenance(log, machine, moved, kind=dice.choice(("failure", "repair", "service")), updated_at=written, **more))
    for _ in range(12 * days):
        event = device_event("t1", _moment(days, dice), "setpoint", dice.choice(("program", "manual")), deviceType="thermostat")
        tell_of("device_events", event | dice.choice(({"setPoint": 19.5}, {"setPoint": 20.0}, {"setPoint": 21.0}, {})))
    for device in (*MACHINES, "t1"):
        for _ in range(20 * days):
            metadata = {"firmware_version": dice.choice(FIRMWARE)} if dice.random() < 0.5 else {}
            tell_of("device_telemetry", telemetry(device, _moment(days, dice)) | {"metadata": metadata})
        for _ in range(3):
            since = _moment(days, dice)
            for version in range(dice.choice((1, 2))):
                targets = {"firmwareVersion": dice.choice(FIRMWARE), "reportingIntervalSeconds": dice.choice((60, 900)), "setPoint": dice.choice((20.0, 21.0))}
                kept = {name: value for name, value in targets.items() if dice.random() < 0.8}
                tell_of("device_desired_state", desired_state(device, since, updated_at=since + timedelta(hours=version), **kept))
            kind = "thermostat" if device == "t1" else dice.choice(("machine_controller", "machine_controller", "gps_tracker"))
            tell_of("device_registry", registry(device, _moment(days, dice), interval_s=dice.choice((60, 900)), deviceType=kind, line=dice.choice("ab")))
    told: list[list[tuple[str, list[Payload]] | tuple[str, str]]] = [[] for _ in range(batches)]
    for (number, stream), payloads in files.items():
        told[number].append((stream, payloads))
    for _ in range(6):
        start = _moment(days, dice)
        span = f"event_at >= '{iso(start)}' and event_at < '{iso(start + timedelta(hours=dice.choice((1, 5))))}'"
        stream = dice.choice(("device_events", "device_events", "device_telemetry", "device_registry", "device_desired_state", "maintenance_log"))
        told[dice.randrange(batches)].append((stream, span))
    return told


def tell(told: list[list[tuple[str, list[Payload]] | tuple[str, str]]], build_after: set[int], build: Callable[[], None]) -> None:
    """Lands batch after batch, and builds after some of them and at the end."""
    for number, batch in enumerate(told):
        for stream, what in batch:
            if isinstance(what, str):
                remove_event(stream, what, may_be_none=True)
            else:
                land(File(stream, at(20, 0, number), tuple(what)))
        if number in build_after or number == len(told) - 1:
            build()
