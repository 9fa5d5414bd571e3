"""Works one item ahead in a thread, so that reading and validating go on while the server writes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def prefetched(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """Items in order, the next being made while the current one is used.

    An exception of the maker is raised where its item would have come. On leaving the block early the maker stops after its current item.
    """
    ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(maxsize=1)
    is_over = threading.Event()

    def offer(entry: tuple[bool, T | BaseException | None]) -> bool:
        while not is_over.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not offer((True, item)):
                    return
            offer((False, None))
        except BaseException as error:
            offer((False, error))

    maker = threading.Thread(target=make, name="landing-reader", daemon=True)
    maker.start()

    def take() -> Iterator[T]:
        while True:
            has_item, value = ready.get()
            if has_item:
                yield value  # type: ignore[misc]
            elif isinstance(value, BaseException):
                raise value
            else:
                return

    try:
        yield take()
    finally:
        is_over.set()
        maker.join()
