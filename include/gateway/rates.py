"""How often a key may post. The notation is that of the library `limits`: `50/second`, `50/second;1000/minute`, `10 per 5 minutes`.

A rate is a window that begins with its first post and is full after so many; the next begins with the first post after its end. So `Retry-After` is exact, and
a key costs two numbers a rate. The counters of the library are not used: in memory they walk over all keys a hundred times a second, which took
18 % of a core at 1,500 posts/s and 5,000 keys, and their moving window, which is the alternative, keeps every post.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus

from limits import RateLimitItem, parse_many

from include.gateway.model import Caller
from include.gateway.problems import Problem

MAX_LIMITS = 4
EXAMPLE = "50/second;1000/minute"


@lru_cache(maxsize=4096)
def parse_rate(rate: str) -> tuple[RateLimitItem, ...]:
    """The limits of a rate.

    Raises:
        ValueError: If it is not one; the message says what one looks like.
    """
    try:
        items = tuple(parse_many(rate))
    except ValueError:
        raise ValueError(f"{rate!r} is no rate; write for example {EXAMPLE}") from None
    if len(items) > MAX_LIMITS:
        raise ValueError(f"{rate!r} has {len(items)} limits; at most {MAX_LIMITS} make one rate")
    for item in items:
        if item.amount < 1:
            raise ValueError(f"{rate!r} lets nothing through; to stop a key revoke it")
    return items


def rate_text(rate: str) -> str:
    """A rate in the one form that is stored, e.g. `50/second;1000/5minute`.

    Raises:
        ValueError: If it is not one.
    """
    return ";".join(f"{item.amount}/{item.multiples if item.multiples > 1 else ''}{item.GRANULARITY.name}" for item in parse_rate(rate))


class _Window:
    """Posts since the window began."""

    __slots__ = ("count", "ends")

    def __init__(self, ends: float) -> None:
        self.ends, self.count = ends, 0


class Rates:
    """Counts the posts of each key. For one thread, that of the event loop.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[str, list[_Window]] = {}

    def count(self, caller: Caller) -> None:
        """Counts one post.

        Raises:
            Problem: 429 if a limit is reached; nothing is counted then. After the seconds of `Retry-After` the post is taken,
                unless others used the key meanwhile.
        """
        if caller.rate is None:
            return
        items, now = parse_rate(caller.rate), self._clock()
        windows = self._windows.get(caller.key_id)
        if windows is None:
            windows = self._windows[caller.key_id] = [_Window(now + item.get_expiry()) for item in items]
        wait = 0.0
        for position, item in enumerate(items):
            window = windows[position]
            if window.ends <= now:
                window = windows[position] = _Window(now + item.get_expiry())
            if window.count >= item.amount:
                wait = max(wait, window.ends - now)
        if wait:
            seconds = math.ceil(wait)
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"This key may post {caller.rate}. Send the same body again after {seconds} s; several events fit into one post.",
                headers={"Retry-After": str(seconds)},
            )
        for window in windows:
            window.count += 1
