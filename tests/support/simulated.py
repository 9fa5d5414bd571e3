"""A zone in memory, and simulated histories in it."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from include.simulator import HistorySummary, write_history

UNTIL = datetime(2026, 3, 2, 9, 40, tzinfo=UTC)


@dataclass
class MemoryZone:
    """Keeps what it is given, by the address that the landing zone would use."""

    files: dict[str, bytes] = field(default_factory=dict)
    arrivals: dict[str, datetime] = field(default_factory=dict)

    def put(self, stream: str, data: bytes, *, arrived_at: datetime, name: str | None = None) -> None:
        assert name is not None
        address = f"{stream}/dt={arrived_at:%Y-%m-%d}/hr={arrived_at:%H}/{name}"
        self.files[address] = data
        self.arrivals[address] = arrived_at

    def lines(self, stream: str) -> list[tuple[datetime, str]]:
        """Arrival of the file, and text, of every row of a stream in order of arrival."""
        addresses = sorted((address for address in self.files if address.startswith(f"{stream}/")), key=lambda address: (self.arrivals[address], address))
        return [(self.arrivals[a], line) for a in addresses for line in gzip.decompress(self.files[a]).decode().splitlines()]

    def payloads(self, stream: str) -> list[tuple[datetime, dict[str, Any]]]:
        """Rows of a stream that are JSON objects."""
        found = []
        for arrived_at, line in self.lines(stream):
            try:
                payload = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(payload, dict):
                found.append((arrived_at, payload))
        return found


@dataclass(frozen=True)
class Written:
    """A history with its zone and its truth."""

    zone: MemoryZone
    truth: Path
    summary: HistorySummary


def written(folder: Path, **arguments: Any) -> Written:
    zone = MemoryZone()
    return Written(zone, folder, write_history(zone, until=UNTIL, truth_dir=folder, **arguments))
