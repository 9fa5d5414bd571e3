"""Work that is done again and again beside the requests, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("tidemark.gateway")


class Repeated:
    """Calls a function at once and then again and again, until it is stopped. A call that fails is logged and does not end it.

    Args:
        name: Of the thread.
        interval_s: Seconds between the end of a call and the next.
        call: The function.
    """

    def __init__(self, name: str, interval_s: float, call: Callable[[], object]) -> None:
        self._name, self._interval_s, self._call = name, interval_s, call
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)  # a call that hangs must not keep the process alive

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Ends after the call that is under way, and waits for that so long at most."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            try:
                self._call()
            except Exception:
                logger.exception("%s: a round failed; the next is in %g s", self._name, self._interval_s)
            if self._stopped.wait(self._interval_s):
                return
