"""What goes wrong between a source and the landing zone, at stated rates. docs/simulator.md lists the same numbers."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from include.simulator.clock import DAY, HOUR, MINUTE
from include.simulator.noise import Longs, Noise
from include.simulator.rows import INVALID, Fault, Rows, join_rows

Payload = dict[str, Any]
LONGEST_LATENESS_MS = 3 * DAY


@dataclass(frozen=True)
class FaultRates:
    """Shares of rows.

    Attributes:
        late: Kept by a source that was offline and sent when it reconnects, at most three days after the event.
        duplicate: Sent again later. A third of them is written with other white space and order of fields.
        out_of_order: Moved backwards within their file.
        unknown_field: With a field that the contract does not know.
        malformed: Not a JSON object: truncated, garbled, or a proxy's error page.
        impossible: JSON with a value that cannot be: out of range, wrong type, unknown code, missing identity, an event in the future, amounts that do not
            add up.
    """

    late: float = 0.01
    duplicate: float = 0.01
    out_of_order: float = 0.02
    unknown_field: float = 0.005
    malformed: float = 0.0015
    impossible: float = 0.0035

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0.0 <= value <= 0.5:
                raise ValueError(f"fault rate {name} must be between 0 and 0.5, got {value}")


@dataclass(frozen=True)
class Delays:
    """How sources fail in time.

    Attributes:
        offline_ms: How long a source stays offline; what it measured meanwhile is late together.
        repeated_after_ms: Shortest and longest time until a row is sent again.
    """

    offline_ms: int
    repeated_after_ms: tuple[int, int]


SLOW = Delays(offline_ms=6 * HOUR, repeated_after_ms=(6 * HOUR, 30 * HOUR))
FAST = Delays(offline_ms=10 * MINUTE, repeated_after_ms=(2 * MINUTE, 10 * MINUTE))
"""Of live telemetry, where six hours of one sensor would be thousands of rows at once."""


def crc(keys: list[str]) -> Longs:
    """A counter for noise from each text."""
    return np.array([zlib.crc32(key.encode()) for key in keys], dtype=np.int64)


def offline_until(noise: Noise, source: Longs, event_ms: Longs, rates: FaultRates, delays: Delays) -> Longs:
    """When a source that was offline at an event reconnects; 0 where it was online."""
    block = event_ms // delays.offline_ms
    offline = noise.uniform("offline", source, block) < rates.late
    wait = noise.between(float(HOUR), float(LONGEST_LATENESS_MS - delays.offline_ms - MINUTE), "reconnects", source, block)
    return np.where(offline, (block + 1) * delays.offline_ms + wait.astype(np.int64), 0)


def apply_faults(noise: Noise, rows: Rows, rates: FaultRates, delays: Delays, *, keeps_good_row: bool, may_be_late: bool) -> Rows:
    """Makes rows arrive late, again, garbled or impossible. What happens to a row depends on the row alone.

    Args:
        noise: The world's noise.
        rows: Faultless rows of one stream.
        rates: Shares.
        delays: How sources fail in time.
        keeps_good_row: A garbled or impossible row is sent besides the good one (the source tries again); else the good one is lost.
        may_be_late: Whether rows of this stream can be late.
    """
    if not len(rows):
        return rows
    source = crc([key.partition("|")[0] for key in rows.keys])
    draw = (source, rows.event_ms, rows.arrived_ms)
    arrived, faults, lines, content = rows.arrived_ms.copy(), rows.faults.copy(), list(rows.lines), list(rows.content)
    if may_be_late:
        back = offline_until(noise, source, rows.event_ms, rates, delays)
        # A later state never overtakes an earlier one: only rows that are the single copy of their key are held back.
        late = (back > 0) & rows.is_only & (arrived - rows.event_ms < HOUR) & (arrived >= rows.event_ms)
        arrived[late] = back[late] + (arrived - rows.event_ms)[late] % MINUTE
        faults[late] |= np.uint8(Fault.LATE)
    for i in np.flatnonzero(noise.uniform("unknown field", *draw) < rates.unknown_field).tolist():
        lines[i] = content[i] = _add_field(rows.stream, lines[i], int(source[i] % 3))
        faults[i] |= np.uint8(Fault.UNKNOWN_FIELD)
    sent = replace(rows, lines=lines, content=content, arrived_ms=arrived, faults=faults)

    spoilt = noise.uniform("spoilt", *draw)
    chosen = np.flatnonzero(spoilt < rates.malformed + rates.impossible)
    variant = noise.integers(1 << 30, "how spoilt", *draw)
    bad = _spoil(sent.take(chosen), spoilt[chosen] < rates.malformed, variant[chosen])
    if keeps_good_row:
        sent = join_rows(rows.stream, [sent, bad])
    else:
        lines, faults = list(sent.lines), sent.faults.copy()
        for i, line, fault in zip(chosen.tolist(), bad.lines, bad.faults, strict=True):
            lines[i], faults[i] = line, fault
        sent = replace(sent, lines=lines, faults=faults)
    return join_rows(rows.stream, [sent, _repeat(noise, sent, rates, delays)])


def _repeat(noise: Noise, rows: Rows, rates: FaultRates, delays: Delays) -> Rows:
    source = crc(rows.keys)
    draw = (source, rows.arrived_ms, rows.faults)
    again = rows.take(np.flatnonzero(rows.is_only & (noise.uniform("repeated", *draw) < rates.duplicate)))
    if not len(again):
        return again
    draw = (crc(again.keys), again.arrived_ms, again.faults)
    shortest, longest = delays.repeated_after_ms
    wait = noise.between(shortest, longest, "repeated after", *draw).astype(np.int64)
    rewritten = noise.uniform("rewritten", *draw) < 1 / 3
    lines = [
        json.dumps(json.loads(line), sort_keys=True, ensure_ascii=False) if other and not fault & INVALID else line
        for line, other, fault in zip(again.lines, rewritten.tolist(), again.faults.tolist(), strict=True)
    ]
    is_first = np.zeros(len(again), dtype=np.bool_)
    return replace(again, lines=lines, arrived_ms=again.arrived_ms + wait, faults=again.faults | np.uint8(Fault.DUPLICATE), is_first=is_first)


def displace(noise: Noise, rows: Rows, rates: FaultRates) -> Rows:
    """Moves a share of a file's rows backwards, past up to 200 rows that arrived before them."""
    draw = (crc(rows.keys), rows.arrived_ms, rows.faults)
    moved = noise.uniform("displaced", *draw) < rates.out_of_order
    place = np.arange(len(rows)) - np.where(moved, 1.5 + noise.integers(200, "displaced by", *draw), 0.0)
    faults = np.where(moved, rows.faults | np.uint8(Fault.OUT_OF_ORDER), rows.faults).astype(np.uint8)
    return replace(rows, faults=faults).take(np.argsort(place, kind="stable"))


def _spoil(rows: Rows, is_malformed: np.ndarray, variant: Longs) -> Rows:
    lines = [
        _garble(line, how) if garbled else _make_impossible(rows.stream, line, how)
        for line, garbled, how in zip(rows.lines, is_malformed.tolist(), variant.tolist(), strict=True)
    ]
    kind = np.where(is_malformed, np.uint8(Fault.MALFORMED), np.uint8(Fault.IMPOSSIBLE))
    return replace(rows, lines=lines, content=lines, faults=(rows.faults & np.uint8(~Fault.UNKNOWN_FIELD & 0xFF)) | kind)


def _garble(line: str, variant: int) -> str:
    """A line that is no JSON object."""
    match variant % 6:
        case 0 | 1 | 2:
            return line[: 10 + variant // 6 % (len(line) - 12)]
        case 3:
            return line.replace('":', '"=', 1)
        case 4:
            return "<html><body>502 Bad Gateway</body></html>"
        case _:
            return json.dumps(["unexpected", "array"])


def _add_field(stream: str, line: str, variant: int) -> str:
    payload: Payload = json.loads(line)
    name, value = (("clientVersion", "7.1"), ("origin", "tablet"), ("debug", True))[variant]
    if stream == "device_telemetry" and variant == 0:
        payload["measurements"]["co2"] = 412.5
    else:
        payload[name] = value
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False)


def _later(text: str) -> str:
    """A year that lies after every arrival."""
    return f"2099{text[4:10]}T00:00:00.000Z"


_TELEMETRY: tuple[Callable[[Payload], object], ...] = (
    lambda p: p["measurements"].update(temperature=9999.0),
    lambda p: p["measurements"].update(temperature="NaN-ish"),
    lambda p: p["measurements"].update(vibration={"x": -32768.0, "y": 0.1, "z": 0.1}),
    lambda p: p["measurements"].update(load=-400.0),
    lambda p: p["measurements"].update(humidity=250.0),
    lambda p: p["measurements"].update(temperature=20.0, dewPoint=35.0),
    lambda p: p["measurements"].update(machineStatus="exploded"),
    lambda p: p["metadata"].update(battery_level=255),
    lambda p: p.update(deviceType="toaster"),
    lambda p: p.pop("deviceId"),
    lambda p: p.update(timestamp="31/02/2024 25:61"),
    lambda p: p.update(timestamp=_later(p["timestamp"])),
)
_IMPOSSIBLE: dict[str, tuple[Callable[[Payload], object], ...]] = {
    "device_telemetry": _TELEMETRY,
    "device_registry": (
        lambda p: p.update(reportingIntervalSeconds=0),
        lambda p: p.update(deviceType="toaster"),
        lambda p: p.pop("facility"),
        lambda p: p.update(validFrom=_later(p["validFrom"])),
    ),
    "maintenance_log": (
        lambda p: p.update(type="explosion"),
        lambda p: p.update(downtimeMinutes=-5.0),
        lambda p: p.pop("deviceId"),
        lambda p: p.update(occurredAt=_later(p["occurredAt"])),
    ),
    "orders": (
        lambda p: p.update(status="lost"),
        lambda p: p.update(currency="usd"),
        lambda p: p.update(netAmount=round(p["netAmount"] + 10.0, 2)),
        lambda p: p.update(quantity=0),
        lambda p: p.update(grossAmount="n/a"),
        lambda p: p.pop("customerId"),
        lambda p: p.update(orderedAt=_later(p["orderedAt"])),
    ),
    "customers": (
        lambda p: p.update(birthYear=1066),
        lambda p: p.update(country="usa"),
        lambda p: p.pop("customerId"),
        lambda p: p.update(updatedAt=_later(p["updatedAt"])),
    ),
    "device_events": (
        lambda p: p.update(eventType="explosion"),
        lambda p: p.update(severity="dreadful"),
        lambda p: p.update(measured={"temperature": 9999.0}),
        lambda p: p.update(setPoint="warm"),
        lambda p: p.pop("code"),
        lambda p: p.update(timestamp=_later(p["timestamp"])),
    ),
    "gps_positions": (
        lambda p: p["position"].update(lat=91.5),
        lambda p: p["position"].pop("lon"),
        lambda p: p.update(speed=-1.0),
        lambda p: p.update(heading=400.0),
        lambda p: p.pop("deviceId"),
        lambda p: p.update(timestamp=_later(p["timestamp"])),
    ),
    "device_desired_state": (
        lambda p: p.update(reportingIntervalSeconds=0),
        lambda p: p.update(setPoint=200.0),
        lambda p: p.pop("deviceId"),
        lambda p: p.update(desiredSince=_later(p["desiredSince"])),
    ),
}


def _make_impossible(stream: str, line: str, variant: int) -> str:
    payload: Payload = json.loads(line)
    ways = _IMPOSSIBLE[stream]
    ways[variant % len(ways)](payload)
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
