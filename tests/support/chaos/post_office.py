"""Senders that post while the gateway is killed again and again, and landing whose server is killed meanwhile.

The senders share one event loop with the killer, so that it is known at the moment of a kill which posts were sent and not answered. Landing and the kills of
PostgreSQL have a thread of their own; both sides meet in the zone only, as in real life.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import signal
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from include.warehouse import Role, server
from include.warehouse.bootstrap import connect_as_superuser
from tests.support.chaos.arena import ChaosFailed
from tests.support.chaos.landing_round import land_round
from tests.support.chaos.letters import KEYS, Letter, Writer
from tests.support.chaos.plan import REGISTERED
from tests.support.chaos.watch import Watch, victim
from tests.support.gateway import Gateway, running_gateway

SENDERS = 24
PATIENCE_S = 120.0
GROUP_MS = (0, 5, 50, 200)
IDLE_S = 0.2
PRELOADED = "tests.support.chaos.post_office"


@dataclass
class Record:
    """What happened.

    Attributes:
        gateway_kills: For each kill of the gateway that counts, how many posts were sent and never answered.
        missed: Kills at which every post in flight had been answered.
        postgres_kills: Kills of PostgreSQL while a load had written in an open transaction, by step.
        refused: Answers that asked to come again, by status.
        log: One line a kill.
    """

    gateway_kills: list[int] = field(default_factory=list)
    missed: int = 0
    postgres_kills: Counter[str] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)


class PostOffice:
    """Senders and the killer of the gateway.

    Args:
        home: TIDEMARK_HOME of gateway and warehouse.
        port: Port of the gateway.
        keys: An API key a tenant.
        seed: Decides letters and moments.
        kills: How many kills must count.
        landing: Who lands what is posted.
        record: Where it is written down.
    """

    def __init__(self, home: Path, port: int, keys: dict[str, str], seed: int, kills: int, landing: Landing, record: Record) -> None:
        self._home, self._port, self._keys, self._kills, self._landing, self._record = home, port, keys, kills, landing, record
        self._dice = random.Random(f"gateway {seed}")
        self._writer = Writer(seed)
        self._in_flight: set[Letter] = set()
        self._acknowledged = 0
        self._is_over = False

    @property
    def letters(self) -> list[Letter]:
        """Everything that was written."""
        return self._writer.letters

    async def run(self) -> None:
        """Until the kills are done and every sender has his last answer."""
        self._up, self._news = asyncio.Event(), asyncio.Condition()
        began = time.monotonic()
        senders = [asyncio.create_task(self._send_letters(random.Random(f"sender {self._dice.random()}"))) for _ in range(SENDERS)]
        life, gateway = await self._start()
        try:
            while len(self._record.gateway_kills) < self._kills:
                await self._kill(gateway, senders, began)
                life.close()
                life, gateway = await self._start()
            await self._until(lambda: self._landing.is_done, senders)  # so that landing has work while its server is killed
            self._is_over = True
            await asyncio.wait_for(asyncio.gather(*senders), PATIENCE_S)
        finally:
            for sender in senders:
                sender.cancel()
            life.close()

    async def _start(self) -> tuple[ExitStack, Gateway]:
        life = ExitStack()
        group_ms = self._dice.choice(GROUP_MS)
        starting = running_gateway(self._home, port=self._port, key=self._keys["default"], gateway_group_ms=group_ms, gateway_free_bytes=0)
        gateway = await asyncio.to_thread(life.enter_context, starting)
        self._acknowledged = 0
        self._up.set()
        return life, gateway

    async def _kill(self, gateway: Gateway, senders: list[asyncio.Task[None]], began: float) -> None:
        """Kills the gateway at a random moment while posts are in flight, and learns which of them were never answered."""
        enough, pause_s = self._dice.randrange(1, 60), self._dice.uniform(0, 0.3)
        await self._until(lambda: self._acknowledged >= enough, senders)
        await asyncio.sleep(pause_s)  # the random moment
        await self._until(lambda: bool(self._in_flight), senders)
        self._up.clear()
        os.kill(gateway.process.pid, signal.SIGKILL)
        waiting = {letter: letter.unanswered for letter in self._in_flight}
        await self._until(lambda: not self._in_flight, senders)  # each has read what had come before, and then the end of the connection
        lost = sum(letter.unanswered > before for letter, before in waiting.items())
        if lost:
            self._record.gateway_kills.append(lost)
        else:
            self._record.missed += 1
        self._record.log.append(f"{time.monotonic() - began:.1f} s: gateway, {lost} of {len(waiting)} posts in flight never answered")

    async def _until(self, condition: Callable[[], bool], senders: list[asyncio.Task[None]]) -> None:
        """Waits for a condition that an answer, a loss or a post on its way may bring about."""
        async with self._news:
            async with asyncio.timeout(PATIENCE_S):
                while not condition():
                    for sender in senders:
                        if sender.done():
                            sender.result()
                    await self._news.wait()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    # --- senders -------------------------------------------------------------------------------------------------------------------------------

    async def _send_letters(self, dice: random.Random) -> None:
        """One sender: a letter at a time, by the retry rule; some give a letter up that was not answered, as a device does that is switched off."""
        connection: socket.socket | None = None
        try:
            while not self._is_over:
                letter = self._writer.write()
                while not letter.receipts:
                    await self._up.wait()
                    connection, is_answered = await self._send(connection, letter)
                    await self._tell()
                    if not is_answered and dice.random() < 0.3:
                        break
        finally:
            if connection is not None:
                connection.close()
            await self._tell()

    async def _send(self, connection: socket.socket | None, letter: Letter) -> tuple[socket.socket | None, bool]:
        """Sends a letter once. Returns the connection while it lasts, and whether there was an answer."""
        loop = asyncio.get_running_loop()
        try:
            if connection is None:
                connection = socket.socket()
                connection.setblocking(False)
                await loop.sock_connect(connection, ("127.0.0.1", self._port))
            await loop.sock_sendall(connection, self._request(letter))
            self._in_flight.add(letter)  # from here on every byte is with the kernel
            await self._tell()
            status, headers, content = await _answer(connection)
        except OSError:
            letter.unanswered += 1
            if connection is not None:
                connection.close()
            return None, False
        finally:
            self._in_flight.discard(letter)
        if status == 202:
            letter.receipts.append(json.loads(content)["receipt"])
            self._acknowledged += 1
        elif status in (429, 503):
            self._record.refused[status] += 1
            letter.unanswered += status == 503  # it may be stored all the same
            await asyncio.sleep(float(headers["retry-after"]))
        else:
            raise ChaosFailed(f"a good letter was answered with {status}: {content[:500]!r}")
        return connection, True

    def _request(self, letter: Letter) -> bytes:
        head = (
            f"POST /v1/streams/{letter.stream}/events HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {self._keys[letter.tenant]}\r\n"
            f"Content-Type: {letter.content_type}\r\nContent-Encoding: {letter.encoding}\r\nContent-Length: {len(letter.body)}\r\n\r\n"
        )
        return head.encode() + letter.body


async def _answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """An answer as it comes; raises ConnectionResetError where the connection ends before it."""
    loop = asyncio.get_running_loop()
    received = b""
    while True:
        head, separator, content = received.partition(b"\r\n\r\n")
        if separator:
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if len(content) >= int(headers["content-length"]):
                return int(first.split()[1]), headers, content
        part = await loop.sock_recv(connection, 1 << 16)
        if not part:
            raise ConnectionResetError("the connection ended before the answer")
        received += part


# --- landing -----------------------------------------------------------------------------------------------------------------------------------


@victim
def loader(watch: Watch) -> None:
    """One round over the streams, as every five minutes."""
    land_round(watch, KEYS)


class Landing:
    """Lands in a loop in a process of its own, kills PostgreSQL at its steps and starts it again.

    Args:
        database: Name of the warehouse's database.
        seed: Decides the steps.
        kills: How many kills must count.
        record: Where it is written down.
    """

    def __init__(self, database: str, seed: int, kills: int, record: Record) -> None:
        self._database, self._kills, self._record = database, kills, record
        self._dice = random.Random(f"postgres {seed}")
        self._is_over = threading.Event()
        self._done = threading.Event()
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Begins."""
        multiprocessing.get_context("forkserver").set_forkserver_preload([PRELOADED])
        self._thread.start()

    def finish(self) -> None:
        """Waits until everything has landed that was posted.

        Raises:
            ChaosFailed: If something happened that no kill explains.
        """
        self._is_over.set()
        self._thread.join()
        if self._trouble:
            raise ChaosFailed(self._trouble)

    @property
    def is_done(self) -> bool:
        """Whether every kill is done, or it failed."""
        return self._done.is_set()

    def _run(self) -> None:
        context = multiprocessing.get_context("forkserver")
        channel, other = context.Pipe()
        process = context.Process(target=loader, args=(other, dict(os.environ)), name="landing", daemon=True)
        process.start()
        other.close()
        try:
            self._arm(channel)
            self._take_messages(channel)
            process.join(PATIENCE_S)
        except Exception:
            self._trouble = traceback.format_exc()
        finally:
            self._done.set()
            process.kill()
            process.join()
            channel.close()

    def _arm(self, channel: Connection) -> None:
        done = self._record.postgres_kills.total()
        if done < self._kills:
            self._step = self._dice.choice(REGISTERED).value
            channel.send(("arm", (done, self._step, self._dice.randrange(1, 3), True)))
        else:
            self._done.set()

    def _take_messages(self, channel: Connection) -> None:
        while True:
            if not channel.poll(PATIENCE_S):
                raise ChaosFailed(f"landing said nothing for {PATIENCE_S:.0f} s")
            kind, content = channel.recv()
            if kind == "trouble":
                raise ChaosFailed(f"landing met an error that no kill explains:\n{content}")
            if kind == "reached":
                if self._loads_have_written():
                    server.kill()
                    self._record.postgres_kills[self._step] += 1
                    self._record.log.append(f"postgres at {self._step}")
                    server.start()
                self._arm(channel)
            elif kind in ("lost", "busy"):
                server.start()
            elif self._is_over.is_set():
                channel.send(("finish", None))
                return
            else:
                self._is_over.wait(IDLE_S)
            channel.send(("go", None))

    def _loads_have_written(self) -> bool:
        with connect_as_superuser(self._database) as connection:
            row = connection.execute(
                "select count(*) from pg_stat_activity where application_name = %s and backend_xid is not null", (Role.LOADER.value,)
            ).fetchone()
        return bool(row and row[0])
