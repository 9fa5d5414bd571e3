"""Time as the simulator counts it: whole milliseconds since 1970-01-01 UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import ArrayLike, NDArray

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

EPOCH = datetime(2022, 1, 1, tzinfo=UTC)
"""When the simulated world begins: machines are installed and the shop opens. Nothing can be simulated before."""

TIME_ZONE = "America/Los_Angeles"
"""The clock by which homes and trucks live: all plants and homes of this world lie on one coast."""

_UNIX = datetime(1970, 1, 1, tzinfo=UTC)


def to_ms(moment: datetime) -> int:
    """Milliseconds of a moment.

    Raises:
        ValueError: If the moment has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; the simulator takes aware datetimes only")
    return (moment - _UNIX) // timedelta(milliseconds=1)


def to_datetime(milliseconds: int) -> datetime:
    """The moment of milliseconds, in UTC."""
    return _UNIX + timedelta(milliseconds=int(milliseconds))


EPOCH_MS = to_ms(EPOCH)


def iso(milliseconds: ArrayLike) -> list[str]:
    """ISO 8601 with milliseconds and Z, as devices write it."""
    moments = np.asarray(milliseconds, dtype=np.int64).astype("datetime64[ms]")
    return [f"{text}Z" for text in np.datetime_as_string(moments, unit="ms").tolist()]


def to_local(at_ms: ArrayLike) -> NDArray[np.int64]:
    """What the clock of `TIME_ZONE` shows at moments, counted in milliseconds as if it were UTC."""
    changes, offsets = _clock_changes()
    moments = np.asarray(at_ms, dtype=np.int64)
    return moments + offsets[np.searchsorted(changes, moments, side="right")]


def from_local(local_ms: ArrayLike) -> NDArray[np.int64]:
    """Moments at which the clock of `TIME_ZONE` shows a time. A time that it shows twice is the first of the two, one that it skips an hour later."""
    changes, offsets = _clock_changes()
    shown = np.asarray(local_ms, dtype=np.int64)
    return shown - offsets[np.searchsorted(changes + np.maximum(offsets[:-1], offsets[1:]), shown, side="right")]


def local_days(start_ms: int, end_ms: int) -> range:
    """Numbers of the local days that have a part in [start_ms, end_ms): days since 1970-01-01."""
    first, last = (to_local([start_ms, end_ms - 1]) // DAY).tolist()
    return range(first, last + 1)


def is_weekend(day: ArrayLike) -> NDArray[np.bool_]:
    """Whether days since 1970-01-01, a Thursday, are Saturdays or Sundays."""
    return (np.asarray(day, dtype=np.int64) + 3) % 7 >= 5


@cache
def _clock_changes() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When the clock of `TIME_ZONE` changed its distance from UTC in the 60 years from the world's beginning, and the distances before, between and after."""
    zone = ZoneInfo(TIME_ZONE)

    def offset(at_ms: int) -> int:
        distance = to_datetime(at_ms).astimezone(zone).utcoffset()
        assert distance is not None
        return distance // timedelta(milliseconds=1)

    changes, offsets = [], [offset(EPOCH_MS)]
    for day in range(EPOCH_MS, EPOCH_MS + 60 * 366 * DAY, DAY):
        if offset(day + DAY) != offsets[-1]:
            changes.append(next(hour for hour in range(day, day + DAY + 1, HOUR) if offset(hour) != offsets[-1]))
            offsets.append(offset(day + DAY))
    return np.array(changes, dtype=np.int64), np.array(offsets, dtype=np.int64)
