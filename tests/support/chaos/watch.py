"""What a process that is to be killed says about itself: how far it is, and what it met."""

from __future__ import annotations

import functools
import os
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import psycopg

from include.settings import get_settings
from include.warehouse import WarehouseUnavailable


class Watch:
    """Tells the arena of the one step that it waits for, and holds the process there where it wants that."""

    def __init__(self, channel: Connection) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._armed: tuple[int, str, int, bool] | None = None
        self.is_over = False

    def passes(self, step: str) -> None:
        """Called at every step, from any thread."""
        with self._lock:
            while self._channel.poll():
                self._take()
            if self._armed is None or self._armed[1] != step:
                return
            number, _, turns, is_held = self._armed
            self._armed = (number, step, turns - 1, is_held) if turns > 1 else None
            if turns == 1:
                self._channel.send(("reached", number))
                if is_held:
                    self._wait()

    def tell(self, kind: str, content: Any = None) -> None:
        """Tells the arena something and waits until it says to go on."""
        with self._lock:
            self._channel.send((kind, content))
            self._wait()

    def _wait(self) -> None:
        while not self._take():
            pass

    def _take(self) -> bool:
        """Reads one message; True where it says to go on."""
        kind, content = self._channel.recv()
        if kind == "arm":
            self._armed = content
        self.is_over = self.is_over or kind == "finish"
        return kind in {"go", "finish"}


def victim(work: Callable[[Watch], None]) -> Callable[[Connection, dict[str, str]], None]:
    """The main function of a process that does its work again and again, until the arena says that it is over."""

    @functools.wraps(work)
    def main(channel: Connection, environment: dict[str, str]) -> None:
        os.environ.clear()
        os.environ.update(environment)
        get_settings.cache_clear()
        watch = Watch(channel)
        try:
            while not watch.is_over:
                work(watch)
        except BaseException:
            watch.tell("trouble", traceback.format_exc())

    return main


def tell_lost(watch: Watch, error: WarehouseUnavailable | psycopg.OperationalError) -> None:
    """Goes on after the loss of the server; a deadlock, a full disk and the like are a find."""
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is not None and error.sqlstate[:2] not in {"08", "57"}:
        raise error
    watch.tell("lost", f"{type(error).__name__}: {error}")
