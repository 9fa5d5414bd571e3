"""Rows on their way out: into files of the landing zone, or as posts to the gateway."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np

from include.simulator.clock import to_datetime
from include.simulator.rows import Rows

EXTENSION = "ndjson.gz"
ROWS_A_POST = 500


class LandingZone(Protocol):
    """What the simulator needs of `include.landing.zone.Zone`."""

    def put(self, stream: str, data: bytes, *, arrived_at: datetime, name: str | None = None) -> object:
        """Writes a file so that readers see it complete or not at all."""


@dataclass(frozen=True)
class Piece:
    """Rows that were sent together.

    Attributes:
        address: Where they are: address of a file in the zone, or receipt of a post.
        rows: The rows, in their order.
        may_be_twice: Whether they may have been stored twice, because an answer was lost.
    """

    address: str
    rows: Rows
    may_be_twice: bool = False


class Destination(Protocol):
    """Where the rows of an interval go.

    Attributes:
        adds_repetitions: Whether the same rows sent again are stored once more; else they replace what was sent before.
    """

    adds_repetitions: bool

    def deliver(self, rows: Rows, end_ms: int) -> Iterator[Piece]:
        """Sends rows of one stream that arrived before `end_ms`, and tells of each piece once it is stored."""


class Files:
    """Drops a file a stream and interval into the zone."""

    adds_repetitions = False

    def __init__(self, zone: LandingZone) -> None:
        self._zone = zone

    def deliver(self, rows: Rows, end_ms: int) -> Iterator[Piece]:
        """Writes one file."""
        yield Piece(write_file(self._zone, rows, end_ms, "live"), rows)


class Posts:
    """Posts rows in their order, as sources do that speak HTTP. They arrive when they are posted.

    Args:
        post: Posts NDJSON to a stream; gives the receipt once the post is acknowledged, and whether it may be stored twice.
    """

    adds_repetitions = True

    def __init__(self, post: Callable[[str, bytes], tuple[str, bool]]) -> None:
        self._post = post

    def deliver(self, rows: Rows, end_ms: int) -> Iterator[Piece]:  # noqa: ARG002  they arrive when they are posted
        """Posts `ROWS_A_POST` rows at a time. The same rows make the same bodies."""
        for start in range(0, len(rows), ROWS_A_POST):
            part = rows.take(np.arange(start, min(start + ROWS_A_POST, len(rows))))
            receipt, may_be_twice = self._post(rows.stream, _text(part))
            yield Piece(receipt, part, may_be_twice)


def write_file(zone: LandingZone, rows: Rows, end_ms: int, source: str) -> str:
    """Writes rows that arrived before `end_ms` as one file that arrived a millisecond before it, and returns its address in the zone.

    The name and the bytes follow from the rows alone, so writing again replaces a file by itself.
    """
    arrived_at = to_datetime(end_ms - 1)
    name = f"{arrived_at:%H%M%S%f}-{source}-0.{EXTENSION}"
    zone.put(rows.stream, gzip.compress(_text(rows), compresslevel=4, mtime=0), arrived_at=arrived_at, name=name)
    return f"{rows.stream}/dt={arrived_at:%Y-%m-%d}/hr={arrived_at:%H}/{name}"


def _text(rows: Rows) -> bytes:
    return ("\n".join(rows.lines) + "\n").encode()
