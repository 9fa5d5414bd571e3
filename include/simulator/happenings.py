"""One thing that happened to a device, and one that was planted to be found."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from include.simulator.clock import iso
from include.simulator.devices import Device
from include.simulator.faults import crc
from include.simulator.noise import Noise
from include.simulator.rows import Rows, new_rows


@dataclass(frozen=True, slots=True)
class Happening:
    """One event of a device. Temperatures in °C, load in % of the rated power."""

    at_ms: int
    device: Device
    kind: str
    code: str
    previous_state: str | None = None
    severity: str | None = None
    temperature: float | None = None
    load: float | None = None
    setpoint: float | None = None
    actor: str | None = None

    @property
    def key(self) -> str:
        """Identity: device, time, type and code."""
        return f"{self.device.device_id}|{self.at_ms}|{self.kind}|{self.code}"


@dataclass(frozen=True)
class Planted:
    """Something that analysis should find, or, where `is_match` is false, should not take for it.

    Attributes:
        kind: What it is, or looks like.
        variant: How it was made.
        happenings: The events that it is made of, in order.
    """

    kind: str
    variant: str
    is_match: bool
    happenings: tuple[Happening, ...]

    @property
    def device_id(self) -> str:
        """The device to which it happened."""
        return self.happenings[0].device.device_id

    @property
    def started_ms(self) -> int:
        """Time of its first event."""
        return self.happenings[0].at_ms

    @property
    def ended_ms(self) -> int:
        """Time of its last event."""
        return self.happenings[-1].at_ms

    def truth(self) -> dict[str, object]:
        """What the ground truth says of it; times in milliseconds."""
        told = {"started_ms": self.started_ms, "ended_ms": self.ended_ms, "event_count": len(self.happenings)}
        return {"kind": self.kind, "variant": self.variant, "is_match": self.is_match, "device_id": self.device_id, **told}


def happening_rows(noise: Noise, happenings: Iterable[Happening]) -> Rows:
    """Rows of stream `device_events`, each arriving a few seconds after its event."""
    found = sorted(happenings, key=lambda each: (each.at_ms, each.key))
    at_ms = np.array([each.at_ms for each in found], dtype=np.int64)
    lines = [_line(each, stamp) for each, stamp in zip(found, iso(at_ms), strict=True)]
    keys = [each.key for each in found]
    return new_rows("device_events", keys, lines, at_ms, arrived_ms=at_ms + 700 + noise.integers(18_000, "event delay", crc(keys)))


def _line(happening: Happening, stamp: str) -> str:
    measured = {"temperature": happening.temperature, "load": happening.load}
    payload: dict[str, object] = {
        "deviceId": happening.device.device_id,
        "deviceType": happening.device.device_type,
        "timestamp": stamp,
        "eventType": happening.kind,
        "code": happening.code,
        "previousState": happening.previous_state,
        "severity": happening.severity,
        "measured": {name: value for name, value in measured.items() if value is not None} or None,
        "setPoint": happening.setpoint,
        "actor": happening.actor,
    }
    return json.dumps({name: value for name, value in payload.items() if value is not None}, separators=(",", ":"))
