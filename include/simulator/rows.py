"""Rows on their way from a simulated source to a file: the JSON line and what the simulator knows about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

from include.simulator.noise import Longs


class Fault(IntFlag):
    """What was done to a row. A row may carry several."""

    NONE = 0
    LATE = 1
    DUPLICATE = 2
    OUT_OF_ORDER = 4
    UNKNOWN_FIELD = 8
    MALFORMED = 16
    IMPOSSIBLE = 32


INVALID = Fault.MALFORMED | Fault.IMPOSSIBLE


@dataclass(frozen=True)
class Rows:
    """Rows of one stream, as parallel columns.

    Attributes:
        stream: Name of the stream.
        keys: Event identity in clear: key fields joined by `|`.
        lines: The JSON text that goes into the file, without line end.
        content: Identity of the content: the line as the source first wrote it. Rows of a key with the same content are duplicates, however written.
        event_ms: Event time of the good row; an impossible row may claim another.
        arrived_ms: When the landing zone receives the row.
        faults: `Fault` bits.
        is_first: Whether the row is the first copy of its key (else it is a later state of the same entity: a correction).
        is_only: Whether the key has a single copy in all time; only such rows are repeated, so that a repetition is a duplicate in every order of landing.
    """

    stream: str
    keys: list[str]
    lines: list[str]
    content: list[str]
    event_ms: Longs
    arrived_ms: Longs
    faults: NDArray[np.uint8]
    is_first: NDArray[np.bool_]
    is_only: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, positions: NDArray[np.intp] | NDArray[np.int64]) -> Rows:
        """The rows at positions, in their order."""
        order = positions.tolist()
        return Rows(
            self.stream,
            [self.keys[i] for i in order],
            [self.lines[i] for i in order],
            [self.content[i] for i in order],
            self.event_ms[positions],
            self.arrived_ms[positions],
            self.faults[positions],
            self.is_first[positions],
            self.is_only[positions],
        )

    def arriving(self, start_ms: int, end_ms: int) -> Rows:
        """Rows that arrive in [start_ms, end_ms), by arrival time, then key and text, so that the order never depends on how they were made."""
        inside = np.flatnonzero((self.arrived_ms >= start_ms) & (self.arrived_ms < end_ms))
        arrived = self.arrived_ms[inside].tolist()
        positions = inside.tolist()
        order = sorted(range(len(positions)), key=lambda i: (arrived[i], self.keys[positions[i]], self.lines[positions[i]]))
        return self.take(inside[np.asarray(order, dtype=np.int64)])


def new_rows(
    stream: str,
    keys: list[str],
    lines: list[str],
    event_ms: Longs,
    *,
    arrived_ms: Longs | None = None,
    is_first: NDArray[np.bool_] | None = None,
    is_only: NDArray[np.bool_] | None = None,
) -> Rows:
    """Faultless rows as their source wrote them, arriving at once unless `arrived_ms` says otherwise."""
    size = len(keys)
    return Rows(
        stream,
        keys,
        lines,
        lines,
        event_ms,
        event_ms if arrived_ms is None else arrived_ms,
        np.zeros(size, dtype=np.uint8),
        np.ones(size, dtype=np.bool_) if is_first is None else is_first,
        np.ones(size, dtype=np.bool_) if is_only is None else is_only,
    )


def join_rows(stream: str, parts: Iterable[Rows]) -> Rows:
    """Rows of one stream after each other."""
    found = [part for part in parts if len(part)]
    if not found:
        return new_rows(stream, [], [], np.zeros(0, dtype=np.int64))
    return Rows(
        stream,
        [key for part in found for key in part.keys],
        [line for part in found for line in part.lines],
        [content for part in found for content in part.content],
        np.concatenate([part.event_ms for part in found]),
        np.concatenate([part.arrived_ms for part in found]),
        np.concatenate([part.faults for part in found]),
        np.concatenate([part.is_first for part in found]),
        np.concatenate([part.is_only for part in found]),
    )
