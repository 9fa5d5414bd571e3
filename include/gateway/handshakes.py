"""TLS connections from their first packet on.

A server of uvloop tells of a connection when both sides have agreed on TLS. Until then it has a descriptor and counts for nothing, so that whoever connects
and says no word could use up the descriptors, with which files are written too. Here a connection counts from the start.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable

from uvicorn.server import ServerState

from include.gateway.connection import Guard

BACKLOG = 4096
HANDSHAKE_S = 10.0
GOODBYE_S = 5.0  # how long the other side's goodbye is waited for
PAUSE_S = 0.1
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

logger = logging.getLogger("tidemark.gateway")


class TlsListener:
    """Listens, and agrees with each sender on TLS. Beyond the most connections the one that has been at it longest makes room, then an idle one.

    Args:
        host: Name or address to listen at.
        port: Port to listen at.
        context: Certificate, and what is asked of senders.
        protocol: Makes the protocol of a connection.
        guard: Limits of all connections.
        state: Connections that are agreed upon.

    Raises:
        OSError: If the port is taken, or the host is none of this machine.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext, protocol: Callable[[], asyncio.Protocol], guard: Guard, state: ServerState) -> None:
        self._context, self._protocol, self._guard, self._state = context, protocol, guard, state
        self._agreeing: dict[asyncio.Task[None], None] = {}
        self._sockets = _bound(host, port)
        self._accepting = [asyncio.get_running_loop().create_task(self._accept(each)) for each in self._sockets]

    def close(self) -> None:
        """Listens no more; connections that are agreed upon stay."""
        for task in (*self._accepting, *self._agreeing):
            task.cancel()
        for each in self._sockets:
            each.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    logger.warning("no connection can be taken now: %s", error.strerror)
                    await asyncio.sleep(PAUSE_S)
                continue  # otherwise it was broken off before we came
            if self._has_room():
                self._agreeing[loop.create_task(self._agree(connection))] = None
            else:
                connection.close()

    def _has_room(self) -> bool:
        """Whether one more connection may be; lets one go for it where there are enough."""
        if len(self._agreeing) + len(self._state.connections) < self._guard.connections:
            return True
        oldest = next(iter(self._agreeing), None)
        if oldest is not None:
            self._guard.refused["handshake"] += 1
            del self._agreeing[oldest]
            oldest.cancel()
            return True
        return self._guard.make_room()

    async def _agree(self, connection: socket.socket) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            await loop.connect_accepted_socket(self._protocol, connection, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S, ssl_shutdown_timeout=GOODBYE_S)
        except OSError:  # no TLS, no certificate, too slow, or gone; whoever it was learns it from TLS
            connection.close()
        finally:
            if task is not None:
                self._agreeing.pop(task, None)


def _bound(host: str, port: int) -> list[socket.socket]:
    """Listening sockets, one for each address of a host."""
    found = dict.fromkeys(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))
    made: list[socket.socket] = []
    try:
        for family, _, _, _, address in found:
            made.append(socket.create_server(address, family=family, backlog=BACKLOG))
            made[-1].setblocking(False)
    except OSError:
        for each in made:
            each.close()
        raise
    return made
