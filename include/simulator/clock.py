"""Time as the simulator counts it: whole milliseconds since 1970-01-01 UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import ArrayLike

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

EPOCH = datetime(2022, 1, 1, tzinfo=UTC)
"""When the simulated world begins: machines are installed and the shop opens. Nothing can be simulated before."""

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
