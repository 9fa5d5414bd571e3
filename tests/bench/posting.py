"""A process of `make bench-gateway` that posts: raw connections with requests made before the clock starts, so that little of the machine is the client's.

It reads its `Load` from standard input, connects, prints `ready`, waits for a line with the start on the monotonic clock, posts, and prints its `Answers`.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import uvloop

from tests.support.payloads import DAY_0, telemetry

DIFFERENT_BODIES = 64
PATIENCE_S = 600.0


@dataclass(frozen=True)
class Load:
    """What one process posts.

    Attributes:
        port: Port of the server on 127.0.0.1.
        key: API key.
        number: Number of the process, so that no two post the same events.
        posts: How many posts.
        rows: Events a post.
        connections: Connections, each with one post under way at most.
        rate: Posts a second that are due at random moments whatever the server does; None for as fast as it answers.
        output: File for latencies, a line a post: milliseconds and receipt.
    """

    port: int
    key: str
    number: int
    posts: int
    rows: int
    connections: int
    rate: float | None
    output: str


@dataclass(frozen=True)
class Answers:
    """What came of it.

    Attributes:
        finished_at: When the last answer came, on the monotonic clock, seconds.
        statuses: Answers by HTTP status.
    """

    finished_at: float
    statuses: dict[str, int]


def body(rows: int, number: int) -> bytes:
    """NDJSON of so many readings."""
    lines = []
    for row in range(rows):
        reading = telemetry(f"machine_{number:06d}", DAY_0 + timedelta(seconds=5 * row), temperature=60 + row % 30 + 0.125, vibration=2.25)
        lines.append(json.dumps(reading, separators=(",", ":")))
    return "\n".join(lines).encode() + b"\n"


def request(load: Load, content: bytes) -> bytes:
    """The whole request as it goes over the wire."""
    head = (
        f"POST /v1/streams/device_telemetry/events HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\nAuthorization: Bearer {load.key}\r\n"
        f"Content-Type: application/x-ndjson\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


class _Connection(asyncio.Protocol):
    """One connection that sends a request and reads its answer."""

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver
        self._answer = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._driver.is_free(self)

    def send(self, content: bytes, due: float) -> None:
        """Sends a request that was due at a moment, from which its latency counts."""
        self._due = due
        self._transport.write(content)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, separator, content = self._answer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(content) >= int(length):
            self._answer = b""
            self._driver.answered(self, head[9:12].decode(), content, self._due)

    def connection_lost(self, error: Exception | None) -> None:
        self._driver.lost(error)


class _Driver:
    """Hands requests to connections that are free."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._dice = random.Random(load.number)
        count = min(DIFFERENT_BODIES, load.posts)
        self._requests = [request(load, body(load.rows, load.number * DIFFERENT_BODIES + number)) for number in range(count)]
        self._free: deque[_Connection] = deque()
        self._waiting: deque[float] = deque()  # moments at which posts were due that no connection was free for
        self._sent = self._answers = 0
        self._is_open = True
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.finished_at = 0.0
        self.statuses: dict[str, int] = {}
        self.lines: list[str] = []

    def is_free(self, connection: _Connection) -> None:
        """A connection can take a request."""
        if self._waiting:
            self._send(connection, self._waiting.popleft())
        else:
            self._free.append(connection)

    def is_due(self, moment: float) -> None:
        """A post is due."""
        if self._free:
            self._send(self._free.popleft(), moment)
        else:
            self._waiting.append(moment)

    def _send(self, connection: _Connection, due: float) -> None:
        connection.send(self._requests[self._sent % len(self._requests)], due)
        self._sent += 1

    def answered(self, connection: _Connection, status: str, content: bytes, due: float) -> None:
        """An answer is complete."""
        now = time.monotonic()
        self.statuses[status] = self.statuses.get(status, 0) + 1
        receipt = json.loads(content)["receipt"] if status == "202" and content else ""
        self.lines.append(f"{1000 * (now - due):.3f} {receipt}\n")
        self._answers += 1
        if self._answers == self._load.posts:
            self.finished_at = now
            self._is_open = False
            self.done.set_result(None)
        elif self._load.rate is None:
            if self._sent < self._load.posts:
                self._send(connection, now)
        else:
            self.is_free(connection)

    def lost(self, error: Exception | None) -> None:
        """A connection broke, which ends the measurement unless it is over."""
        if self._is_open and not self.done.done():
            self.done.set_exception(ConnectionError(f"the server closed a connection: {error}"))

    async def drive(self, start: float) -> None:
        """Posts, from a moment on the monotonic clock on."""
        await asyncio.sleep(max(0.0, start - time.monotonic()))
        if self._load.rate is None:
            for _ in range(min(self._load.posts, self._load.connections)):
                self.is_due(time.monotonic())
        else:
            due = start
            for _ in range(self._load.posts):
                due += self._dice.expovariate(self._load.rate)
                pause = due - time.monotonic()
                if pause > 0:
                    await asyncio.sleep(pause)
                self.is_due(due)
        await asyncio.wait_for(self.done, PATIENCE_S)


async def main() -> None:
    load = Load(**json.loads(sys.stdin.readline()))
    loop = asyncio.get_running_loop()
    driver = _Driver(load)
    for _ in range(load.connections):
        await loop.create_connection(lambda: _Connection(driver), "127.0.0.1", load.port)
    print("ready", flush=True)  # noqa: T201
    await driver.drive(float(await loop.run_in_executor(None, sys.stdin.readline)))
    Path(load.output).write_text("".join(driver.lines), encoding="utf-8")
    print(json.dumps(asdict(Answers(driver.finished_at, driver.statuses))), flush=True)  # noqa: T201


if __name__ == "__main__":
    uvloop.run(main())
