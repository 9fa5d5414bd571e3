"""Committed rows of raw into the lake: one file a day of event time for what came since the last export, and whole days where rows were changed or removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class Export:
    """What an export wrote.

    Attributes:
        stream: The stream.
        upto: Last batch whose rows the lake holds now; 0 where nothing ever landed.
        files: Files entered.
        rows: Rows in them.
        size_bytes: Their bytes.
        rewritten: Days that were written whole, because rows of them were changed or removed.
    """

    stream: str
    upto: int
    files: int = 0
    rows: int = 0
    size_bytes: int = 0
    rewritten: tuple[date, ...] = ()


def export_stream(stream: str) -> Export:
    """Brings the lake to the last committed batch of a stream. Running it again changes nothing.

    Raises:
        LakeBusy: If the lake of the stream is being written.
        LakeError: If a day has to be written anew whose rows raw no longer holds.
        WarehouseUnavailable: If the warehouse cannot be reached.
        ZoneError: If the store fails.
    """
    raise NotImplementedError


def export_days(stream: str, days: Sequence[date]) -> Export:
    """Brings the lake to the last committed batch, and writes the given days whole, as raw holds them now, whether or not rows of them were changed.

    For a day whose digest differs between raw and lake although nothing is left to export: a duplicate may have given a row the envelope of another copy.

    Raises:
        As `export_stream`.
    """
    raise NotImplementedError
