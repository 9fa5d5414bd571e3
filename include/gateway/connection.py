"""Connections of senders that may be slow, broken or hostile: what uvicorn's HTTP protocol lacks in limits.

A connection has a time for its headers, a time and a least rate for its body, and bounds on the size of both; one request is served at a time, and few wait
behind it.
A sender that is refused is told why, as long as he can be.
"""

from __future__ import annotations

import asyncio
import json
import logging
from asyncio import Transport
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from include.gateway.problems import MEDIA_TYPE

HEAD_BYTES = 32 << 10
HEAD_LINES = 100
GRACE_S = 10.0  # of a body, before its rate counts
LEAST_RATE = 1024  # bytes a second
PIPELINED = 8
PIPELINED_BYTES = 64 << 10
LINGER_S = 2.0
WRITE_S = 30.0
TEND_EVERY_S = 1.0

logger = logging.getLogger("tidemark.gateway")


@dataclass
class Guard:
    """Limits of all connections, and what was refused because of them.

    Attributes:
        connections: Most connections; beyond, the one that has been idle longest makes room.
        head_s: Seconds for the headers of a request.
        body_s: Seconds for a body.
        body_bytes: Largest body as sent.
        idle: Connections without a request, that which has been so longest first.
        refused: How often each reason was given.
    """

    connections: int
    head_s: float
    body_s: float
    body_bytes: int
    idle: dict[GuardedProtocol, None] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)

    def make_room(self) -> bool:
        """Ends the connection that has been idle longest. Returns whether there was one."""
        oldest = next(iter(self.idle), None)
        if oldest is None:
            self.refused["connections"] += 1
            return False
        self.refused["idle"] += 1
        oldest.transport.abort()
        oldest.leave_idle()
        return True

    async def tend(self, state: ServerState) -> None:
        """Ends what takes too long, every second until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TEND_EVERY_S)
            now = loop.time()
            for connection in list(state.connections):
                try:
                    cast(GuardedProtocol, connection).tend(now)
                except Exception:  # the time limits of all others depend on this loop
                    logger.exception("a connection could not be looked after")


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self, guard: Guard, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state, _loop=_loop)
        self.guard = guard
        self.running: RequestResponseCycle | None = None  # `cycle` is the request that was read last, which may wait behind it
        self.is_deaf = False  # what still comes is thrown away
        self.is_head_open = False
        self.is_body_open = False
        self.head_since: float | None = None
        self.head_bytes = 0
        self.body_since = 0.0
        self.body_bytes = 0  # of the body, and below as it came, with what frames its chunks
        self.raw_bytes = 0
        self.lingers_until: float | None = None
        self.write_paused_since: float | None = None

    # What the transport calls

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Takes a connection, if need be in the place of an idle one."""
        super().connection_made(transport)
        self.head_since = self.loop.time()
        if len(self.connections) > self.guard.connections and not self.guard.make_room():
            self.is_deaf = True
            transport.write(_problem(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests are being served; try again after Retry-After seconds"))
            transport.close()
            return
        self.guard.idle[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self.leave_idle()
        super().connection_lost(exc)
        if self.running is not None:
            self.running.disconnected = True
            self.running.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Reads what came, within bounds."""
        if self.is_deaf:
            return
        if self.is_body_open:
            self.raw_bytes += len(data)
            if self.raw_bytes > 2 * self.guard.body_bytes + HEAD_BYTES:
                self.fail(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {self.guard.body_bytes:,} bytes as sent", "body_bytes")
                return
        else:
            if self.head_since is None:
                self.head_since = self.loop.time()
            self.head_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            if not self.is_deaf:  # a callback that refused said why
                self.fail(HTTPStatus.BAD_REQUEST, "this is not HTTP/1.1: look at the request line, the headers, Content-Length and the chunks", "protocol")
        except httptools.HttpParserUpgrade:
            # We stay with HTTP/1.1, and the parser is of no use any more.
            if self.running is not None:
                self.running.keep_alive = False
            self.is_deaf = True
        if self.is_head_open and self.head_bytes > HEAD_BYTES and not self.is_deaf:
            self._fail_head()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The sender has nothing more to say. Returns whether he may still be answered."""
        is_plain = self.scheme == "http"
        if self.is_deaf or self.running is None:
            return False
        if self.is_body_open and self.running is self.cycle and not self.running.response_complete:
            self.fail(HTTPStatus.BAD_REQUEST, f"the connection ended after {self.body_bytes} bytes of the body, which was to be longer", "broken_off")
            return False
        self.running.keep_alive = False
        return is_plain

    def pause_writing(self) -> None:
        """The sender does not take his answers."""
        super().pause_writing()
        self.write_paused_since = self.loop.time()

    def resume_writing(self) -> None:
        """He does again."""
        super().resume_writing()
        self.write_paused_since = None

    # What the parser calls

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.is_head_open = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer after a body in chunks: those are ignored."""
        if self.is_head_open:
            super().on_header(name, value)
            if len(self.headers) > HEAD_LINES:
                self._fail_head()

    def on_headers_complete(self) -> None:
        """A request can be served, at once or after those before it."""
        if self.is_deaf:
            return
        self.is_head_open, self.head_since, self.head_bytes = False, None, 0
        self.is_body_open, self.body_bytes, self.raw_bytes = True, 0, 0
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            self._fail_head()
            return
        if len(self.pipeline) >= PIPELINED:
            self._stop_listening()
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        if self.is_deaf:
            return
        self.body_bytes += len(body)
        super().on_body(body)
        if self.running is not None and self.cycle is not self.running and len(self.cycle.body) > PIPELINED_BYTES:
            self._stop_listening()

    def on_message_complete(self) -> None:
        """A request is complete."""
        self.is_body_open = False
        if not self.is_deaf:
            super().on_message_complete()

    # What a request calls

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - as uvicorn has it
        self.leave_idle()
        self.running = cycle
        self.body_since = self.loop.time()
        cycle.transport = cast(Transport, _Leaving(self))
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """A request was answered; the next one follows, or idleness."""
        self.running = None
        super().on_response_complete()
        if self.running is None and not self.transport.is_closing():
            self.guard.idle[self] = None

    def shutdown(self) -> None:
        """No more requests: ends the connection now, or after the answer that is under way."""
        self.pipeline.clear()
        if self.running is None:
            self.transport.close()
        else:
            self.running.keep_alive = False

    # Our own

    def leave_idle(self) -> None:
        """Does not count as idle from now on."""
        self.guard.idle.pop(self, None)

    def tend(self, now: float) -> None:
        """Ends the connection where it takes too long, in seconds of the loop's clock."""
        if self.lingers_until is not None:
            if now > self.lingers_until:
                self.transport.abort()
        elif self.write_paused_since is not None and now - self.write_paused_since > WRITE_S:
            self.guard.refused["slow_reader"] += 1
            self.transport.abort()
        elif self.is_body_open and self.cycle is not None and (self.running is self.cycle or self.cycle.response_complete):
            self._tend_body(now - self.body_since)
        elif self.head_since is not None and now - self.head_since > self.guard.head_s:
            if self.is_head_open:
                self.fail(HTTPStatus.REQUEST_TIMEOUT, f"the headers took more than {self.guard.head_s:g} s", "slow_head")
            elif self.running is None:
                self.guard.refused["silent"] += 1
                self.transport.close()

    def fail(self, status: HTTPStatus, detail: str, reason: str) -> None:
        """Gives up reading. The request that cannot be read is answered, unless others are to be answered before it."""
        self.guard.refused[reason] += 1
        running = self.running
        if running is not None and running is not self.cycle:
            self._stop_listening()
            return
        if running is not None:
            if not (running.more_body or running.body):
                self._stop_listening()  # it was read whole: what is wrong came after it
                return
            running.disconnected = True
            running.message_event.set()
        is_answered = self.is_body_open and self.cycle is not None and self.cycle.response_started
        if not is_answered:
            self.transport.write(_problem(status, detail))
        self.leave()

    def leave(self) -> None:
        """Closes the connection so that the last answer arrives: a socket that is closed with unread bytes would take it back."""
        self.is_deaf = True
        if not self.transport.can_write_eof() or self.transport.is_closing():
            self.transport.close()
            return
        self.lingers_until = self.loop.time() + LINGER_S
        self.flow.resume_reading()
        self.transport.write_eof()

    def _tend_body(self, seconds: float) -> None:
        is_slow = seconds > GRACE_S and self.body_bytes < (seconds - GRACE_S) * LEAST_RATE
        if is_slow or seconds > self.guard.body_s:
            detail = f"a body must come within {self.guard.body_s:g} s, and with at least {LEAST_RATE} bytes a second; send fewer rows in a post"
            self.fail(HTTPStatus.REQUEST_TIMEOUT, detail, "slow_body")

    def _fail_head(self) -> None:
        self.is_head_open = False
        detail = f"the request line and the headers have together at most {HEAD_BYTES:,} bytes and {HEAD_LINES} lines"
        self.fail(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail, "head_bytes")

    def _stop_listening(self) -> None:
        """Answers what is under way and then closes."""
        self.is_deaf = True
        self.pipeline.clear()
        if self.running is not None:
            self.running.keep_alive = False
        else:
            self.leave()


class _Leaving:
    """A request's view of the transport: when it closes the connection, its answer has to arrive first."""

    def __init__(self, protocol: GuardedProtocol) -> None:
        self._protocol = protocol
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing

    def close(self) -> None:
        """Closes the connection."""
        if self._protocol.is_body_open or self._protocol.is_deaf:
            self._protocol.leave()
        else:
            self._protocol.transport.close()


def _problem(status: HTTPStatus, detail: str) -> bytes:
    content = json.dumps({"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail}).encode()
    retry = b"retry-after: 1\r\n" if status is HTTPStatus.SERVICE_UNAVAILABLE else b""
    head = b"content-type: %s\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n" % (MEDIA_TYPE.encode(), len(content), retry)
    return STATUS_LINE[int(status)] + head + content
