"""What the sources send in the chaos: made from a seed, with every way in which data arrives wrong, and known row by row.

Nothing here uses the code of landing: files are written with `os.replace`, and what must become of each row follows from how it was made.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.payloads import DAY_0, Payload, customer, iso, maintenance, order, registry, telemetry

DAYS = 40
BIG_FILE_ROWS = 21_000  # more than one chunk of the readers, several slices of a COPY

# Rows a file, as quarters of `Size.rows_a_file`, at most.
_ROWS_A_FILE = {"device_telemetry": 8, "orders": 4, "customers": 4}

Columns = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of a file.

    Attributes:
        line: Its text.
        key: Values of the key fields; None for a row that no table can take.
        version: Value of the version field, for streams that have one.
        columns: Some columns of the raw table by which the copies of an event can be told apart.
    """

    line: str
    key: tuple[str, ...] | None
    version: datetime | None = None
    columns: Columns = field(default_factory=dict)


@dataclass(frozen=True)
class Delivery:
    """One write of a file into the zone.

    Attributes:
        stream: The stream.
        address: Path in the zone.
        tenant: Tenant of the rows.
        arrived_at: When these bytes arrived: the stamp in the name, or for a rewritten file its time of modification.
        data: The bytes.
        rows: What is in it; empty for a file that cannot be read, and for one that was only touched.
        replaces: The bytes that stood under this address before; the file must have been landed by then.
    """

    stream: str
    address: str
    tenant: str
    arrived_at: datetime
    data: bytes
    rows: tuple[Row, ...]
    replaces: bytes | None = None

    @cached_property
    def sha(self) -> bytes:
        """SHA-256 of the bytes."""
        return hashlib.sha256(self.data).digest()

    @property
    def is_touch(self) -> bool:
        """The same bytes written anew."""
        return self.data == self.replaces

    def write(self, zone: Path) -> None:
        """Puts the file in place in one step, with its time of modification."""
        target = zone / self.address
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.part")
        scratch.write_bytes(self.data)
        os.utime(scratch, (self.arrived_at.timestamp(), self.arrived_at.timestamp()))
        scratch.replace(target)


@dataclass(frozen=True)
class Size:
    """How much is sent: the figures are rows before faults."""

    devices: int
    readings_a_day: int
    days: int
    orders: int
    customers: int
    rows_a_file: int
    has_big_file: bool


SHORT = Size(devices=6, readings_a_day=24, days=24, orders=600, customers=120, rows_a_file=60, has_big_file=False)
LONG = Size(devices=24, readings_a_day=36, days=DAYS, orders=4_000, customers=700, rows_a_file=120, has_big_file=True)


def storm(seed: int, size: Size) -> list[Delivery]:
    """Everything that is sent, roughly in order of arrival: some files come to light before ones that arrived earlier."""
    return _Storm(seed, size).deliveries()


class _Storm:
    def __init__(self, seed: int, size: Size) -> None:
        self._dice = random.Random(seed)
        self._size = size
        self._number = 0

    def deliveries(self) -> list[Delivery]:
        sent: list[Delivery] = []
        streams: dict[str, Callable[[], Iterator[tuple[datetime, Row]]]] = {
            "device_telemetry": self._readings,
            "device_registry": self._versions_of_devices,
            "maintenance_log": self._log_entries,
            "orders": self._orders,
            "customers": self._customers,
        }
        for stream, rows in streams.items():
            sent += self._files(stream, self._with_faults(stream, rows()))
        if self._size.has_big_file:
            sent.append(self._big_file())
        sent += [self._unreadable(number) for number in range(6)]
        sent += [self._resent(delivery) for delivery in self._dice.sample(sent, len(sent) // 20)]
        sent.sort(key=lambda delivery: (delivery.arrived_at, delivery.address))
        readable = [delivery for delivery in sent if delivery.rows]
        later = self._dice.sample(readable, len(readable) // 8)
        half = len(later) // 2
        again = [self._rewritten(delivery) for delivery in later[:half]] + [self._touched(delivery) for delivery in later[half:]]
        places = {delivery.address: float(place) for place, delivery in enumerate(sent)}
        order = {id(delivery): places[delivery.address] + self._dice.uniform(-12, 12) for delivery in sent}
        order |= {id(delivery): places[delivery.address] + self._dice.uniform(20, 60) for delivery in again}
        return sorted([*sent, *again], key=lambda delivery: order[id(delivery)])

    # --- what happens --------------------------------------------------------------------------------------------------------------------------

    def _readings(self) -> Iterator[tuple[datetime, Row]]:
        step = timedelta(days=1) / self._size.readings_a_day
        for number in range(self._size.devices):
            for turn in range(self._size.readings_a_day * self._size.days):
                when = DAY_0 + turn * step + timedelta(seconds=7 * number)
                if self._dice.random() < 0.004:  # a clock that runs years behind: partitions of months long gone
                    when -= timedelta(days=self._dice.randrange(60, 3_000))
                yield DAY_0 + (turn + 1) * step, self._reading(f"m{number}", when, self._dice.uniform(40, 90))

    def _reading(self, device: str, when: datetime, temperature: float) -> Row:
        when = when.replace(microsecond=when.microsecond // 1000 * 1000)
        temperature = round(temperature, 3)
        payload = telemetry(device, when, temperature=temperature, vibration=round(self._dice.uniform(1, 4), 3))
        payload["measurements"]["runtimeHours"] = 5_000.0
        return Row(json.dumps(payload), (device, iso(when)), None, {"temperature_c": temperature})

    def _versions_of_devices(self) -> Iterator[tuple[datetime, Row]]:
        for number in range(self._size.devices):
            first = DAY_0 - timedelta(days=30)
            starts = [first, *(DAY_0 + timedelta(hours=self._dice.randrange(24 * self._size.days)) for _ in range(5))]
            for valid_from in dict.fromkeys(starts):
                for told in range(1 + (self._dice.random() < 0.3)):
                    updated_at = max(valid_from, DAY_0) + timedelta(hours=9 * told, minutes=number)
                    facility = f"factory_{self._dice.randrange(1, 5):02d}"
                    payload = registry(f"m{number}", valid_from, facility=facility, interval_s=self._dice.choice((900, 1800, 3600)), updated_at=updated_at)
                    row = Row(json.dumps(payload), (f"m{number}", iso(valid_from)), updated_at, {"facility_id": facility, "updated_at": updated_at})
                    yield max(updated_at, DAY_0), row

    def _log_entries(self) -> Iterator[tuple[datetime, Row]]:
        for number in range(self._size.orders // 10):
            device, kind = f"m{self._dice.randrange(self._size.devices)}", self._dice.choice(("failure", "repair", "service", "inspection"))
            when = self._moment()
            for told in range(1 + (self._dice.random() < 0.4)):
                updated_at = when + timedelta(hours=2 + 20 * told)
                happened = when - timedelta(hours=self._dice.randrange(1, 40)) * told  # a correction moves it to another hour, often another day
                downtime = float(self._dice.randrange(5, 400))
                payload = {**maintenance(f"w{number}", device, happened, kind=kind, updated_at=updated_at), "downtimeMinutes": downtime}
                columns = {"event_at": happened, "updated_at": updated_at, "downtime_min": downtime}
                yield updated_at, Row(json.dumps(payload), (f"w{number}",), updated_at, columns)

    def _orders(self) -> Iterator[tuple[datetime, Row]]:
        for number in range(self._size.orders):
            buyer, ordered_at, gross = f"c{self._dice.randrange(self._size.customers)}", self._moment(), round(self._dice.uniform(20, 400), 2)
            for state in range(self._dice.choice((1, 1, 2, 3))):
                updated_at = ordered_at + timedelta(hours=1 + 30 * state)
                if state and self._dice.random() < 0.1:
                    ordered_at -= timedelta(hours=30)  # moved to another day
                status = ("paid", "shipped", "delivered")[state]
                payload = {**order(f"o{number}", buyer, ordered_at, gross=gross, status=status, updated_at=updated_at), "netAmount": round(gross - 5.0, 2)}
                columns = {"event_at": ordered_at, "updated_at": updated_at, "order_status": status, "gross_usd": gross}
                yield updated_at, Row(json.dumps(payload), (f"o{number}",), updated_at, columns)

    def _customers(self) -> Iterator[tuple[datetime, Row]]:
        for number in range(self._size.customers):
            for change in range(self._dice.choice((1, 2, 3))):
                updated_at = DAY_0 + timedelta(days=change * self._size.days / 4, minutes=number)
                country = self._dice.choice(("DE", "FR", "AT", "IT"))
                key = (f"c{number}", iso(updated_at))
                yield updated_at, Row(json.dumps(customer(f"c{number}", updated_at, country=country)), key, None, {"country_code": country})

    def _moment(self) -> datetime:
        return DAY_0 + timedelta(minutes=self._dice.randrange(60 * 24 * self._size.days))

    # --- what goes wrong -----------------------------------------------------------------------------------------------------------------------

    def _with_faults(self, stream: str, rows: Iterable[tuple[datetime, Row]]) -> list[tuple[datetime, Row]]:
        """Rows with the time at which each is sent: on time, late, again, with another content, or spoilt."""
        sent: list[tuple[datetime, Row]] = []
        for moment, row in rows:
            arrived = moment + timedelta(minutes=self._dice.randrange(1, 30))
            if self._dice.random() < 0.05:
                arrived += timedelta(hours=self._dice.randrange(6, 72))
            sent.append((arrived, row))
            if self._dice.random() < 0.04:
                sent.append((arrived + timedelta(hours=self._dice.randrange(0, 60)), self._rewritten_line(row)))
            if self._dice.random() < 0.02:
                sent.append((arrived + timedelta(hours=self._dice.randrange(0, 60)), self._other_content(stream, row)))
            if self._dice.random() < 0.01:
                sent.append((arrived, self._spoilt(stream, row)))
        return sorted(sent, key=lambda item: item[0])

    def _rewritten_line(self, row: Row) -> Row:
        """The same content, every second time with another order of fields and other white space."""
        return row if self._dice.random() < 0.5 else replace(row, line=json.dumps(json.loads(row.line), sort_keys=True, separators=(" ,", " : ")))

    def _other_content(self, stream: str, row: Row) -> Row:
        """The same event told otherwise, without a newer version: the contract's rule says which copy counts."""
        payload: Payload = json.loads(row.line)
        match stream:
            case "device_telemetry":
                value = round(self._dice.uniform(40, 90), 3)
                payload["measurements"]["temperature"] = value
                columns = {"temperature_c": value}
            case "device_registry":
                payload["facility"] = value = "factory_09"
                columns = {"facility_id": value}
            case "maintenance_log":
                payload["downtimeMinutes"] = value = 401.0
                columns = {"downtime_min": value}
            case "orders":
                payload["status"] = value = "cancelled"
                columns = {"order_status": value}
            case _:
                payload["country"] = value = "PT"
                columns = {"country_code": value}
        return replace(row, line=json.dumps(payload), columns=row.columns | columns)

    def _spoilt(self, stream: str, row: Row) -> Row:
        payload: Payload = json.loads(row.line)
        identity = {"maintenance_log": "logId", "orders": "orderId", "customers": "customerId"}.get(stream, "deviceId")
        match self._dice.randrange(4):
            case 0:
                line = row.line[: len(row.line) // 2]
            case 1:
                line = '["unexpected", "array"]'
            case 2:
                line = json.dumps({name: value for name, value in payload.items() if name != identity})
            case _:
                line = json.dumps({**payload, identity: f"  {payload[identity]}"})  # the contracts refuse blanks around an identifier
        return Row(line, None)

    # --- files ---------------------------------------------------------------------------------------------------------------------------------

    def _files(self, stream: str, rows: Sequence[tuple[datetime, Row]]) -> Iterator[Delivery]:
        """Rows into files, one tenant a file; a file arrives after its last row was sent."""
        start = 0
        while start < len(rows):
            count = self._dice.randrange(1, _ROWS_A_FILE.get(stream, 1) * self._size.rows_a_file // 4)
            part = rows[start : start + count]
            start += count
            tenant = "acme" if self._dice.random() < 0.1 else "default"
            extension = self._dice.choice(("ndjson", "ndjson", "ndjson.gz"))
            yield self._file(stream, part[-1][0], tuple(row for _, row in part), tenant, extension)

    def _file(self, stream: str, moment: datetime, rows: tuple[Row, ...], tenant: str, extension: str) -> Delivery:
        self._number += 1
        arrived_at = moment.replace(microsecond=0) + timedelta(seconds=1)
        name = f"{arrived_at:%H%M%S%f}-chaos-{self._number}.{extension}"
        return Delivery(stream, _address(stream, arrived_at, tenant, name), tenant, arrived_at, _encoded(rows, extension), rows)

    def _big_file(self) -> Delivery:
        rows = tuple(self._reading("m_big", DAY_0 + number * timedelta(seconds=40), self._dice.uniform(40, 90)) for number in range(BIG_FILE_ROWS))
        return self._file("device_telemetry", DAY_0 + timedelta(days=self._size.days / 3), rows, "default", "ndjson.gz")

    def _unreadable(self, number: int) -> Delivery:
        """A file cut off in the middle of its compressed bytes, or one that is not what its name says."""
        stream = ("device_telemetry", "orders", "customers")[number % 3]
        whole = self._file(stream, self._moment(), (Row(f'{{"cut": {number}}}', None),) * 200, "default", "ndjson.gz")
        if number % 2:
            return replace(whole, data=whole.data[:-12], rows=())
        return replace(whole, address=whole.address.replace(".ndjson.gz", ".parquet"), data=f"no parquet {number}".encode(), rows=())

    def _resent(self, delivery: Delivery) -> Delivery:
        """The same bytes as a file of their own, hours later."""
        self._number += 1
        arrived_at = delivery.arrived_at + timedelta(hours=self._dice.randrange(1, 50))
        name = f"{arrived_at:%H%M%S%f}-again-{self._number}.{delivery.address.split('.', 1)[1]}"
        return replace(delivery, address=_address(delivery.stream, arrived_at, delivery.tenant, name), arrived_at=arrived_at)

    def _rewritten(self, delivery: Delivery) -> Delivery:
        """The file as its source writes it anew: some rows are told otherwise, some are gone, one is spoilt."""
        kept = [row for row in delivery.rows if self._dice.random() < 0.9]
        rows = [self._other_content(delivery.stream, row) if row.key and self._dice.random() < 0.2 else row for row in kept]
        rows.append(Row("[]", None))
        extension = delivery.address.split(".", 1)[1]
        moment = delivery.arrived_at + timedelta(hours=self._dice.randrange(1, 30))
        return replace(delivery, arrived_at=moment, data=_encoded(tuple(rows), extension), rows=tuple(rows), replaces=delivery.data)

    def _touched(self, delivery: Delivery) -> Delivery:
        return replace(delivery, arrived_at=delivery.arrived_at + timedelta(hours=5), rows=(), replaces=delivery.data)


def _address(stream: str, arrived_at: datetime, tenant: str, name: str) -> str:
    at = arrived_at.astimezone(UTC)
    folder = f"{stream}/dt={at:%Y-%m-%d}/hr={at:%H}"
    return f"{folder}/{name}" if tenant == "default" else f"{folder}/tenant={tenant}/{name}"


def _encoded(rows: Sequence[Row], extension: str) -> bytes:
    data = ("\n".join(row.line for row in rows) + "\n").encode()
    return gzip.compress(data, mtime=0) if extension.endswith(".gz") else data
