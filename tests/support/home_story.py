"""A random life of two homes and a small fleet, told in files in any order: late, twice, removed, and with a registry that changes its mind."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from include.warehouse import Role, connect
from tests.support.marts import Snapshot, build_marts, snapshot
from tests.support.payloads import Payload, at, device_event, iso, position, registry, telemetry
from tests.support.removal import remove_event
from tests.support.scenario import File, land

HOMES = "dim_device dim_facility fct_device_window_1min fct_device_window_5min fct_device_window_15min int_maintenance__device_use+"
FLEET = "dim_device dim_facility int_maintenance__device_position+"
HOME_TABLES = [
    "intermediate.int_maintenance__device_use",
    "intermediate.int_maintenance__device_use_hourly",
    "intermediate.int_maintenance__type_use_hourly",
    "maintenance.fct_unusual_access",
    "maintenance.rpt_usage_profile",
]
FLEET_TABLES = [
    "intermediate.int_maintenance__device_leg",
    "intermediate.int_maintenance__device_position",
    "maintenance.fct_device_position_daily",
    "maintenance.fct_device_stop",
    "maintenance.rpt_device_last_position",
]
TYPES = {"lock1": "smart_lock", "lock2": "smart_lock", "warm": "thermostat", "cam": "security_camera", "t1": "gps_tracker", "t2": "gps_tracker"}
HOME_DEVICES = ("lock1", "lock2", "warm", "cam")
PLACES = (("home_w", "America/Los_Angeles", 37.0, -122.0), ("home_e", "Asia/Kathmandu", 27.7, 85.3), ("shed", None, 0.0, 0.0))
DAYS = 24
"""Days that the homes are told of, from 1 March 2026; clocks on the American west coast change on the 8th. The fleet drives on the last five."""


@dataclass
class Batch:
    """Files of one time by stream, then removals of what is stored."""

    files: dict[str, list[Payload]] = field(default_factory=dict)
    removals: list[tuple[str, str]] = field(default_factory=list)

    def add(self, stream: str, payload: Payload) -> None:
        """One more row of a stream's file."""
        self.files.setdefault(stream, []).append(payload)


def made_anew(names: list[str], selector: str) -> Snapshot:
    """The tables when they are made from nothing of what raw holds."""
    with connect(Role.OWNER) as connection:
        for name in names:
            connection.execute(f"drop table {name}")  # type: ignore[arg-type]
        connection.execute("delete from ops.model_state where model = any(%s)", (names,))
    build_marts(selector)
    return snapshot(names)


def _version(device: str, valid_from: datetime, dice: random.Random, written: datetime | None = None) -> Payload:
    place, zone, latitude, longitude = dice.choice(PLACES)
    more: dict[str, Any] = {"deviceType": TYPES[device] if dice.random() < 0.9 else "temperature_sensor"}
    if zone:
        more["timeZone"] = zone
    if dice.random() < 0.8:
        more["location"] = {"lat": latitude + dice.uniform(-0.1, 0.1), "lon": longitude}
    more["status"] = "retired" if dice.random() < 0.1 else "active"
    return registry(device, valid_from, facility=place, updated_at=written or valid_from, **more)


def _use(device: str, day: int, dice: random.Random) -> Payload:
    """Locks are used about 18:00 UTC and now and then at any time; the rest whenever it likes."""
    minute = 18 * 60 + dice.randrange(50) if dice.random() < 0.8 else dice.randrange(1440)
    when, kind = at(day, 0, minute), TYPES[device]
    choices = {
        "smart_lock": (("unlock", "app"), ("access", "denied"), ("lock", "auto"), ("lock", "key")),
        "thermostat": (("setpoint", "program"), ("setpoint", "manual")),
        "security_camera": (("controller_event", "motion"), ("restart", "update")),
    }
    event_type, code = dice.choice(choices[kind])
    actor = {"actor": f"resident_{dice.randrange(2)}"} if dice.random() < 0.5 else {}
    return device_event(device, when, event_type, code, deviceType=kind, **actor)


def _drive(device: str, dice: random.Random) -> list[Payload]:
    """Fixes of five days: on the way and standing in turn, through midnight, with a wrong fix now and then."""
    found, when = [], at(DAYS - 5, dice.uniform(0, 5))
    latitude, longitude = 37.0, -122.0
    while when < at(DAYS):
        stands = dice.random() < 0.5
        for _ in range(dice.randrange(1, 7)):
            if not stands:
                latitude, longitude = latitude + dice.uniform(-0.2, 0.2), longitude + dice.uniform(-0.2, 0.2)
            wrong = 30.0 if dice.random() < 0.05 else 0.0
            more = {"speed": round(dice.uniform(0, 90), 1)} if dice.random() < 0.7 else {}
            found.append(position(device, when, round(latitude + wrong + dice.uniform(-1e-4, 1e-4), 5), round(longitude, 5), **more))
            when += timedelta(minutes=dice.choice((1, 4, 10, 30)))
        when += timedelta(minutes=dice.choice((0, 0, 60, 700)))
    return found


def story(seed: int, batches: int) -> list[Batch]:
    """Batches in the order in which they are landed; same seed, same story."""
    dice = random.Random(seed)
    told = [Batch() for _ in range(batches)]
    rows: list[tuple[str, Payload]] = [
        *(
            ("device_events", _use(device, day, dice))
            for device in ("lock1", "lock2", "warm", "cam")
            for day in range(DAYS)
            for _ in range(dice.randrange(1, 4))
        ),
        *(("gps_positions", fix) for device in ("t1", "t2") for fix in _drive(device, dice)),
        *(
            ("device_telemetry", telemetry("warm", at(0, hour, 10)) | {"deviceType": "thermostat", "measurements": {"energy": dice.randrange(9) / 8}})
            for hour in range(0, DAYS * 24, 5)
        ),
    ]
    for stream, payload in rows:
        told[dice.randrange(batches)].add(stream, payload)
        if dice.random() < 0.05:  # the same again, or another telling of it, of which the earlier arrival counts
            again = payload | {"actor": "resident_9"} if stream == "device_events" else payload
            told[dice.randrange(batches)].add(stream, again)
    for device in TYPES:
        for valid_from in (at(-30), *(at(0, dice.uniform(0, DAYS * 24)) for _ in range(2))):
            told[dice.randrange(batches)].add("device_registry", _version(device, valid_from, dice))
            if dice.random() < 0.4:
                written = valid_from + timedelta(hours=dice.randrange(1, 99))
                told[dice.randrange(batches)].add("device_registry", _version(device, valid_from, dice, written))
            if dice.random() < 0.2:
                told[dice.randrange(batches)].removals.append(("device_registry", f"device_id = '{device}' and event_at = '{iso(valid_from)}'"))
    for stream, first_day in (("device_events", 0.0), ("gps_positions", DAYS - 5.0), ("gps_positions", DAYS - 5.0)):
        start = at(dice.uniform(first_day, DAYS))
        until = start + timedelta(hours=dice.choice((2, 40)))
        device = dice.choice([name for name, kind in TYPES.items() if (kind == "gps_tracker") == (stream == "gps_positions")])
        where = f"device_id = '{device}' and event_at >= '{iso(start)}' and event_at < '{iso(until)}'"
        told[dice.randrange(batches)].removals.append((stream, where))
    return told


def tell(told: list[Batch], build_after: set[int], build: Callable[[], None], seed: int) -> None:
    """Lands batch after batch, whose files have arrived in another order, and builds after some of them and at the end."""
    arrivals = random.Random(seed).sample(range(len(told)), len(told))
    for number, batch in enumerate(told):
        for stream, payloads in batch.files.items():
            land(File(stream, at(DAYS + 1, 0, arrivals[number]), tuple(payloads)))
        for stream, where in batch.removals:
            remove_event(stream, where, may_be_none=True)
        if number in build_after or number == len(told) - 1:
            build()
