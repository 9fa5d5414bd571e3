"""Which arrivals a landing run is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any


@dataclass(frozen=True)
class ArrivalWindow:
    """Arrivals with `start <= arrived_at < end`; None as `end` means everything that is there, None as `start` the loader's own look-back."""

    start: datetime | None
    end: datetime | None


def moment(text: str, name: str) -> datetime:
    """Parses an ISO 8601 moment; without a zone it is UTC.

    Raises:
        ValueError: If it is not one; the message names the parameter.
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name} must be a moment like 2026-01-31T00:00:00Z, got {text!r}") from None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def utc(moment: datetime) -> datetime:
    """A moment as a plain UTC datetime. Airflow hands over pendulum's, whose differences are not plain timedeltas."""
    return datetime.fromtimestamp(moment.timestamp(), UTC).replace(microsecond=moment.microsecond)


def arrival_window(params: Mapping[str, Any], interval_end: datetime | None, *, lookback_hours: int) -> ArrivalWindow:
    """The window of a landing run.

    Args:
        params: `arrived_from` and `arrived_before` of a run triggered by hand, each an ISO 8601 text or None.
        interval_end: End of the data interval; None for a run without one.
        lookback_hours: How far a run without `arrived_from` looks back from its end, so that a file that became visible late is found.

    Raises:
        ValueError: If the parameters are not moments or the window is empty.
    """
    end = moment(params["arrived_before"], "arrived_before") if params.get("arrived_before") else interval_end and utc(interval_end)
    if params.get("arrived_from"):
        start: datetime | None = moment(params["arrived_from"], "arrived_from")
    else:
        start = end - timedelta(hours=lookback_hours) if end is not None else None
    if start is not None and end is not None and start > end:
        raise ValueError(f"arrived_from {start.isoformat()} must not be after arrived_before {end.isoformat()}")
    return ArrivalWindow(start, end)
