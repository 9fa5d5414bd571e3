"""A few files that hold every way in which data arrives wrong: late, twice, corrected, moved to another day, in between, from two tenants."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from include.landing import land_pending
from tests.support.payloads import (
    DAY_0,
    Payload,
    at,
    customer,
    desired_state,
    device_event,
    feedback,
    iso,
    maintenance,
    order,
    position,
    put,
    registry,
    telemetry,
    unit_reading,
)


@dataclass(frozen=True)
class File:
    """One arrival."""

    stream: str
    arrived_at: datetime
    payloads: tuple[Payload | str, ...]
    tenant: str | None = None


def _readings(device: str, day: int, step_minutes: int = 120, **more: object) -> tuple[Payload, ...]:
    return tuple(
        telemetry(device, at(day, 0, minute), temperature=50 + 0.1 * day + minute / 97, vibration=1 + minute / 701, **more)  # type: ignore[arg-type]
        for minute in range(0, 24 * 60, step_minutes)
    )


def files() -> list[File]:
    """The files, in order of arrival."""
    machines = ("m1", "m2", "m3")
    by_day = [File("device_telemetry", at(day, 24, 5), tuple(reading for machine in machines for reading in _readings(machine, day))) for day in range(5)]
    return sorted(
        [
            *by_day,
            # The same bytes again, a late half day, and a file that mixes duplicates, a corrected value and broken rows.
            File("device_telemetry", at(2, 2), by_day[0].payloads),
            File("device_telemetry", at(4, 6), _readings("m4", 1, 240)),
            File(
                "device_telemetry",
                at(4, 7),
                (
                    *by_day[3].payloads[:5],
                    telemetry("m1", at(2, 2), temperature=99.0),
                    telemetry("m1", at(3, 1), temperature=1e6),
                    '{"deviceId": "m1", "timestamp": ',
                    telemetry("m9", at(3, 3, 30)),
                ),
            ),
            File("device_telemetry", at(5, 1), _readings("m1", 2, 180, firmwareNote="unknown field"), tenant="acme"),
            File(
                "device_telemetry",
                at(5, 3),
                (
                    telemetry("m2", at(0, 23, 59)),
                    telemetry(
                        "m2",
                        at(
                            1,
                            0,
                            0,
                        ),
                        temperature=61.5,
                    ),
                ),
            ),
            # Registry: two versions, one inserted between them later, one replaced by a newer statement about the same period; another tenant.
            File("device_registry", at(0, 1), tuple(registry(machine, DAY_0 - timedelta(days=30)) for machine in ("m1", "m2", "m3", "m4"))),
            File("device_registry", at(3, 1), (registry("m1", at(3), facility="factory_02", interval_s=900),)),
            File(
                "device_registry",
                at(4, 8),
                (
                    registry("m1", at(1, 12), facility="factory_03", interval_s=3600),
                    registry("m2", DAY_0 - timedelta(days=30), updated_at=at(4), facility="factory_04"),
                ),
            ),
            File("device_registry", at(4, 9), (registry("m1", DAY_0 - timedelta(days=10), facility="acme_works"),), tenant="acme"),
            # Maintenance: a failure whose time is corrected to another day, a service, a repair that arrives days late.
            File("maintenance_log", at(1, 3), (maintenance("w1", "m1", at(1, 2)), maintenance("w2", "m2", at(0, 20), kind="service"))),
            File("maintenance_log", at(4, 2), (maintenance("w1", "m1", at(0, 22), updated_at=at(4, 1)), maintenance("w3", "m3", at(1, 5), kind="repair"))),
            # Answers to work orders: one that was moved to another day and made a false alarm of, and one that came late.
            File("work_order_feedback", at(2, 9), (feedback("wo-1", "m1", at(2, 8)), feedback("wo-2", "m2", at(2, 8), verdict="false_alarm"))),
            File(
                "work_order_feedback", at(4, 9), (feedback("wo-1", "m1", at(1, 8), verdict="false_alarm", updated_at=at(4)), feedback("wo-3", "m3", at(0, 9)))
            ),
            # A table that somebody brought, its middle last, a row of it told anew, and the life of a unit whose rows break off.
            File(
                "unit_readings",
                at(2, 10),
                (
                    *(unit_reading("u1", cycle, at(cycle - 9), heat=cycle * 1.5, maker="x", runsToFailure=True) for cycle in (1, 2, 6, 7)),
                    unit_reading("u2", 1, at(-5), heat=7),
                ),
            ),
            File(
                "unit_readings",
                at(3, 10),
                (*(unit_reading("u1", cycle, at(cycle - 9), heat=9.25 - cycle) for cycle in (3, 4, 5)), unit_reading("u2", 1, at(-4))),
            ),
            File("unit_lives", at(3, 11), ({"unitId": "u2", "statedAt": iso(at(-4)), "remainingCycles": 3},)),
            # What happened to machines: an error that came back after a restart, told in two files the wrong way round, and states.
            File(
                "device_events",
                at(1, 5),
                (
                    device_event("m1", at(1, 1), "state_change", "running"),
                    device_event("m1", at(1, 2), "error", "E110"),
                    device_event("m1", at(1, 2, 8), "error", "E110"),
                    device_event("t1", at(1, 3), "setpoint", "program", deviceType="thermostat", setPoint=21.0),
                ),
            ),
            File(
                "device_events",
                at(3, 5),
                (
                    device_event("m1", at(1, 2, 4), "restart", "watchdog"),
                    device_event("m1", at(1, 2, 8), "error", "E110"),
                    device_event("m1", at(0, 22), "state_change", "fault"),
                    device_event("m2", at(2, 2), "state_change", "idle", severity="info"),
                ),
            ),
            # A home: ten working days of evenings, of which the last came late, and a night; and a thermostat that somebody turned.
            File("device_events", at(1, 6), tuple(device_event("l1", at(day, 18), "unlock", "key", deviceType="smart_lock") for day in range(-13, -2))),
            File(
                "device_events",
                at(3, 7),
                (
                    device_event("l1", at(2, 3), "access", "denied", deviceType="smart_lock", actor="resident_1"),
                    device_event("l1", at(-2, 18), "unlock", "key", deviceType="smart_lock"),
                    device_event("t1", at(2, 18), "setpoint", "manual", deviceType="thermostat", setPoint=22.5),
                ),
            ),
            # A truck that drives, stands and drives on, with the fixes between in another file.
            File("gps_positions", at(2, 5), tuple(position("g1", at(1, 8, minute), 37 + minute / 100, -122.0) for minute in (0, 10, 30))),
            File("gps_positions", at(3, 8), tuple(position("g1", at(1, 8, minute), 37.1, -122.0) for minute in (14, 20))),
            # What devices are meant to be: a version that is written anew, and one that comes late.
            File("device_desired_state", at(2, 3), (desired_state("m1", at(2), firmwareVersion="1.3.0", reportingIntervalSeconds=900),)),
            File(
                "device_desired_state",
                at(3, 6),
                (
                    desired_state("m1", at(1), firmwareVersion="1.3.0"),
                    desired_state("t1", at(1), setPoint=20.0),
                    desired_state("m1", at(2), updated_at=at(3), firmwareVersion="1.3.0", reportingIntervalSeconds=1800),
                ),
            ),
            # Shop: an order with three states of which the newest may arrive first, one moved to another day, and its customers.
            File("orders", at(1, 4), (order("o1", "c1", at(1)), order("o2", "c2", at(1, 2), gross=250.0), order("o3", "c1", at(1, 3)))),
            File(
                "orders",
                at(3, 4),
                (
                    order("o1", "c1", at(1), status="delivered", updated_at=at(3)),
                    order("o3", "c1", at(2, 3), updated_at=at(3, 1), gross=40.0),
                    order("o1", "c1", at(1)),
                ),
            ),
            File("customers", at(0, 5), (customer("c1", at(0)), customer("c2", at(0)), customer("c1", at(0)))),
            File(
                "customers",
                at(4, 5),
                (customer("c1", at(4), country="FR"), customer("c2", at(2), country="AT"), {**customer("c3", at(4)), "updatedAt": iso(at(4))}),
            ),
        ],
        key=lambda file: file.arrived_at,
    )


def land(file: File) -> None:
    """Puts a file into the zone and lands what is pending of its stream."""
    put(file.stream, file.payloads, arrived_at=file.arrived_at, tenant=file.tenant)
    land_stream(file.stream)


def land_stream(stream: str) -> None:
    """Lands every file of the scenario's time that the ledger does not know."""
    land_pending(stream, arrived_from=DAY_0 - timedelta(days=1), arrived_before=DAY_0 + timedelta(days=30))


def land_in_order() -> None:
    """Lands the whole scenario as if every file had been there on time: one load a stream."""
    for file in files():
        put(file.stream, file.payloads, arrived_at=file.arrived_at, tenant=file.tenant)
    for stream in sorted({file.stream for file in files()}):
        land_stream(stream)
