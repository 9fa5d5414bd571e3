"""Rows into files of the landing zone."""

from __future__ import annotations

import gzip
from datetime import datetime
from typing import Protocol

from include.simulator.clock import to_datetime
from include.simulator.rows import Rows

EXTENSION = "ndjson.gz"


class LandingZone(Protocol):
    """What the simulator needs of `include.landing.zone.Zone`."""

    def put(self, stream: str, data: bytes, *, arrived_at: datetime, name: str | None = None) -> object:
        """Writes a file so that readers see it complete or not at all."""


def write_file(zone: LandingZone, rows: Rows, end_ms: int, source: str) -> str:
    """Writes rows that arrived before `end_ms` as one file that arrived a millisecond before it, and returns its address in the zone.

    The name and the bytes follow from the rows alone, so writing again replaces a file by itself.
    """
    arrived_at = to_datetime(end_ms - 1)
    name = f"{arrived_at:%H%M%S%f}-{source}-0.{EXTENSION}"
    text = "\n".join(rows.lines) + "\n"
    zone.put(rows.stream, gzip.compress(text.encode(), compresslevel=4, mtime=0), arrived_at=arrived_at, name=name)
    return f"{rows.stream}/dt={arrived_at:%Y-%m-%d}/hr={arrived_at:%H}/{name}"
