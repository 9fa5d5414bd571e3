"""The simulated sources as the stack runs them: one history, then interval after interval that continues it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from include.settings import get_settings
from include.stack.errors import StackError
from include.stack.windows import utc


@dataclass(frozen=True)
class SimulatedHistory:
    """What a history was made with; intervals go on from its end."""

    since: datetime
    until: datetime
    seed: int
    machines: int

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


class Way(StrEnum):
    """How simulated sources send."""

    FILES = "files"
    """Files dropped into the landing zone."""
    HTTP = "http"
    """Posts to the gateway."""


def simulate_interval(start: datetime, end: datetime, way: Way = Way.FILES) -> int:
    """Sends what the sources send in an interval, going on from the history where there is one. Returns the number of events.

    Raises:
        StackError: If the interval is to be posted and is not over: a post arrives when it is sent, and its events would lie after that.
        ClientError: If the gateway does not take a post. What was posted before is in the truth, and may be posted again.
    """
    from include.landing.zone import Zone
    from include.simulator import Files, Posts, write_interval

    start, end = utc(start), utc(end)
    if way is Way.HTTP and end > datetime.now(UTC):
        raise StackError(f"the interval ends at {end:%Y-%m-%d %H:%M} UTC, which is still to come", "simulate one that is over, or send it as files")
    with ExitStack() as stack:
        if way is Way.HTTP:
            from include.gateway.session import open_client

            client = stack.enter_context(open_client())

            def post(stream: str, body: bytes) -> tuple[str, bool]:
                accepted = client.post(stream, body)
                return accepted.receipt, accepted.may_be_twice

            destination: Files | Posts = Posts(post)
        else:
            destination = Files(Zone(get_settings().zone_url))
        history = simulated_history()
        if history is None:
            return write_interval(destination, interval_start=start, interval_end=end).events
        return write_interval(
            destination, interval_start=start, interval_end=end, seed=history.seed, machines=history.machines, live_since=history.until
        ).events
