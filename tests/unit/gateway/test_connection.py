"""Time limits of a connection, with a clock that a test can turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from include.gateway.connection import GRACE_S, LEAST_RATE, LINGER_S, WRITE_S, Guard, GuardedProtocol

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"


class Wire(asyncio.Transport):
    """What a connection would send, and whether it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = ""

    def write(self, data: Any) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = self.closed or "closed"

    def abort(self) -> None:
        self.closed = "aborted"

    def write_eof(self) -> None:
        self.closed = self.closed or "half"

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closed in {"closed", "aborted"}

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def _reader(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """An application that reads and never answers."""
    while (await receive())["type"] == "http.request":
        pass


def talk(steps: Callable[[GuardedProtocol, Wire, float], Any]) -> None:
    """Runs steps on a connection that has just been made, and the loop's clock at that moment."""

    async def run() -> None:
        config = uvicorn.Config(_reader, log_config=None)
        config.load()
        guard = Guard(connections=10, head_s=10, body_s=100, body_bytes=1 << 20)
        protocol, wire = GuardedProtocol(guard, config, ServerState(), {}), Wire()
        protocol.connection_made(wire)
        await steps(protocol, wire, asyncio.get_running_loop().time())
        protocol.connection_lost(None)
        await asyncio.sleep(0)

    asyncio.run(run())


@pytest.mark.parametrize(("rate", "is_ended"), [(LEAST_RATE * 2, False), (LEAST_RATE // 2, True)])
def test_a_body_must_keep_its_rate_after_some_time_of_grace(rate: int, is_ended: bool) -> None:
    async def steps(protocol: GuardedProtocol, wire: Wire, now: float) -> None:
        protocol.data_received(HEAD)
        protocol.tend(now + GRACE_S - 1)
        assert not wire.closed
        seconds = 20
        protocol.data_received(b"x" * (rate * seconds))
        protocol.tend(now + GRACE_S + seconds)
        assert bool(wire.closed) is is_ended
        assert wire.sent.startswith(b"HTTP/1.1 408 ") is is_ended
        assert protocol.guard.refused["slow_body"] == int(is_ended)
        if is_ended:
            assert wire.closed == "half"  # the answer can be read
            protocol.tend(asyncio.get_running_loop().time() + LINGER_S + 1)
            assert wire.closed == "aborted"

    talk(steps)


def test_a_fast_body_that_never_ends_is_ended() -> None:
    async def steps(protocol: GuardedProtocol, wire: Wire, now: float) -> None:
        protocol.data_received(HEAD + b"x" * 99_999)
        protocol.tend(now + 99)
        assert not wire.closed
        protocol.tend(now + 102)
        assert wire.sent.startswith(b"HTTP/1.1 408 ")

    talk(steps)


def test_who_does_not_take_his_answers_is_left() -> None:
    async def steps(protocol: GuardedProtocol, wire: Wire, now: float) -> None:
        protocol.data_received(HEAD + b"x" * 100_000)
        protocol.pause_writing()
        protocol.tend(now + WRITE_S - 1)
        assert not wire.closed
        protocol.tend(now + WRITE_S + 1)
        assert wire.closed == "aborted"

    talk(steps)


def test_who_takes_them_late_is_not() -> None:
    async def steps(protocol: GuardedProtocol, wire: Wire, now: float) -> None:
        protocol.data_received(HEAD + b"x" * 100_000)
        protocol.pause_writing()
        protocol.resume_writing()
        protocol.tend(now + WRITE_S + 1)
        assert not wire.closed

    talk(steps)


def test_one_that_cannot_be_looked_after_does_not_end_the_limits_of_others() -> None:
    async def steps(protocol: GuardedProtocol, wire: Wire, now: float) -> None:
        ended = asyncio.Event()

        class Broken:
            def tend(self, now: float) -> None:
                raise RuntimeError

        class Next:
            def tend(self, now: float) -> None:
                ended.set()

        state = ServerState()
        state.connections = {Broken(), Next()}  # type: ignore[assignment]
        for _ in range(2):  # in whatever order
            ended.clear()
            task = asyncio.create_task(protocol.guard.tend(state))
            await ended.wait()
            await asyncio.sleep(0)
            assert not task.done()
            task.cancel()

    talk(steps)
