"""The simulated sources as the stack runs them: one history, then interval after interval that continues it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from include.settings import get_settings
from include.stack.windows import utc

RECENT_DAYS = 3  # the newest whole days of a history, which the demo lands by backfill


@dataclass(frozen=True)
class SimulatedHistory:
    """What a history was made with; intervals go on from its end."""

    since: datetime
    until: datetime
    seed: int
    machines: int

    @property
    def recent_from(self) -> datetime:
        """Midnight from which on the newest whole days begin."""
        return (self.until - timedelta(days=RECENT_DAYS)).replace(hour=0, minute=0, second=0, microsecond=0)

    @property
    def today(self) -> datetime:
        """Midnight of the last, broken day."""
        return self.until.replace(hour=0, minute=0, second=0, microsecond=0)


def simulated_history() -> SimulatedHistory | None:
    """The history that was written into the zone of this stack; None where there is none."""
    path = get_settings().truth_dir / "simulation.json"
    if not path.exists():
        return None
    told = json.loads(path.read_text(encoding="utf-8"))
    since, until = (datetime.fromisoformat(told[name]).astimezone(UTC) for name in ("since", "until"))
    return SimulatedHistory(since, until, told["seed"], told["machines"])


def simulate_history(until: datetime, days: int, progress: Callable[[int, int], None] | None = None) -> SimulatedHistory:
    """Writes a history that ends at a moment."""
    from include.landing.zone import Zone
    from include.simulator import write_history

    write_history(Zone(get_settings().zone_url), until=until, days=days, progress=progress)
    history = simulated_history()
    assert history is not None
    return history


def simulate_interval(start: datetime, end: datetime) -> int:
    """Writes what the sources send in an interval, going on from the history where there is one. Returns the number of events."""
    from include.landing.zone import Zone
    from include.simulator import write_interval

    start, end = utc(start), utc(end)
    zone, history = Zone(get_settings().zone_url), simulated_history()
    if history is None:
        return write_interval(zone, interval_start=start, interval_end=end).events
    return write_interval(zone, interval_start=start, interval_end=end, seed=history.seed, machines=history.machines, live_since=history.until).events
