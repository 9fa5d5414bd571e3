"""A small plant whose readings span three months, of which two are older than raw keeps them at `LATER`."""

from __future__ import annotations

from datetime import UTC, date, datetime

from include.lake.expire import expire_month
from include.warehouse import Role, connect
from tests.support.payloads import Payload, at, customer, maintenance, order, registry, telemetry
from tests.support.scenario import File, land

STREAM = "device_telemetry"
JANUARY, FEBRUARY, MARCH = date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)
LATER = datetime(2026, 6, 5, tzinfo=UTC)
"""More than 90 days after the end of February, fewer after the end of March."""
ARRIVED = at(5)


def readings(device: str, first_day: int, days: int) -> tuple[Payload, ...]:
    """A reading every six hours, counted from 1 March."""
    return tuple(
        telemetry(device, at(day, hour), temperature=50 + 0.1 * day + hour / 97, vibration=1 + hour / 701)
        for day in range(first_day, first_day + days)
        for hour in range(0, 24, 6)
    )


def land_history() -> None:
    """Lands readings of January, February and March, and something of every other stream."""
    for number, machine in enumerate(("m1", "m2")):
        land(File(STREAM, at(5, 0, number), (*readings(machine, -40, 4), *readings(machine, -20, 12), *readings(machine, 1, 3))))
    land(File("device_registry", ARRIVED, tuple(registry(machine, at(-90)) for machine in ("m1", "m2"))))
    land(File("maintenance_log", ARRIVED, (maintenance("w1", "m1", at(-39, 7)), maintenance("w2", "m2", at(2, 7), kind="repair"))))
    land(File("orders", ARRIVED, (order("o1", "c1", at(-50)), order("o2", "c1", at(1)))))
    land(File("customers", ARRIVED, (customer("c1", at(-50)),)))


def leave(*months: date) -> None:
    """Drops months of readings that no model has to read."""
    with connect(Role.LOADER, autocommit=True) as connection:
        for month in months:
            expire_month(connection, STREAM, month, ())


def rows_in_raw(month: date | None = None) -> int:
    """Readings that raw holds, of a month or in all."""
    with connect(Role.LOADER) as connection:
        row = connection.execute(
            "select count(*) from raw.device_telemetry where %(month)s::date is null or date_trunc('month', event_at at time zone 'UTC')::date = %(month)s",
            {"month": month},
        ).fetchone()
    assert row is not None
    return int(row[0])


def states() -> dict[date, str]:
    """State of each month that ever left raw."""
    with connect(Role.LOADER) as connection:
        return dict(connection.execute("select month, state from ops.partition_state order by month").fetchall())
