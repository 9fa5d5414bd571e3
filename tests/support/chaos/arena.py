"""Runs a storm through a warehouse whose loader, builder and server are killed by plan, and says what it did.

One thread: messages of the two watched processes are taken one after another, so nothing else happens while a kill is looked into. What the loader waits
for (files) comes from here too, tied to its progress and to the kills, not to the clock.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psycopg

from include.warehouse import Role, WarehouseUnavailable, server
from include.warehouse.bootstrap import connect_as_superuser
from tests.support.chaos.plan import POSTGRES, Kill, Victim
from tests.support.chaos.storm import Delivery

PATIENCE_S = 240.0
MOST_MISSES = 3
ROLES = {Victim.LOADER: Role.LOADER, Victim.DBT: Role.TRANSFORMER}
PRELOADED = "tests.support.chaos.victims"

_AT_WORK = """
select application_name, pid, backend_start, backend_xid is not null as has_written, state, regexp_replace(left(query, 120), '\\s+', ' ', 'g')
from pg_stat_activity where datname = current_setting('tidemark.chaos_database') and xact_start is not null
and application_name = any(%s) order by has_written desc, pid
"""


class ChaosFailed(AssertionError):
    """Something that must not happen happened; the message says what, and where the kills stood."""


@dataclass
class Record:
    """What happened, for the report.

    Attributes:
        kills: Kills that hit work in progress, by victim and step.
        around: Kills beside a transaction, by victim and step; they count for nothing.
        missed: How often a process had finished its transaction by the time it was to be killed, so that the kill was put off.
        interruptions: What the processes said when the server went away under them, by kind.
        log: One line a kill.
    """

    kills: dict[Victim, Counter[str]] = field(default_factory=lambda: {victim: Counter() for victim in Victim})
    around: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    interruptions: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)

    def total(self, *victims: Victim) -> int:
        """Kills of these victims that count."""
        return sum(self.kills[victim].total() for victim in victims)


class _Watched:
    """One life after another of the loader or the builder, and the kills that wait for it."""

    def __init__(self, role: Victim, main: Callable[[Connection, dict[str, str]], None], kills: Sequence[Kill]) -> None:
        self.role, self._main, self._waiting = role, main, list(kills)
        self.is_asking = False  # whether it waits for an answer
        self.is_finished = False
        self.lives = 0
        self._misses = 0
        self.channel: Connection
        self.process: BaseProcess
        self.born: datetime

    @property
    def kill(self) -> Kill | None:
        """The next kill that waits for a step of this process."""
        return self._waiting[0] if self._waiting else None

    @property
    def kills_left(self) -> int:
        return len(self._waiting)

    def start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        self.channel, other = context.Pipe()
        self.born, self.is_asking, self.lives = datetime.now(UTC), False, self.lives + 1
        self.process = context.Process(target=self._main, args=(other, dict(os.environ)), name=f"chaos-{self.role}", daemon=True)
        self.process.start()
        other.close()
        self.arm()

    @property
    def pause_s(self) -> float | None:
        """How long after the step to kill; None: right there. Shorter each time the work was done by then."""
        if self.kill is None or self.kill.pause_ms is None or self._misses >= MOST_MISSES:
            return None
        return self.kill.pause_ms / 1000 / 2**self._misses

    def arm(self) -> None:
        """Says which step to watch for."""
        if self.kill:
            self.channel.send(("arm", (self.kill.number, self.kill.step, 1 if self._misses else self.kill.turn, self.pause_s is None)))

    def missed(self) -> None:
        """The work was done when the kill was due: once more, sooner after the step."""
        self._misses += 1
        self.arm()

    def done(self) -> None:
        """The kill is done; the next one waits."""
        self._waiting.pop(0)
        self._misses = 0

    def answer(self, kind: str = "go") -> None:
        if self.is_asking:
            self.is_asking = False
            self.channel.send((kind, None))

    def end(self) -> None:
        """SIGKILL, and nothing is left of it."""
        self.process.kill()
        self.process.join()
        self.channel.close()


class Arena:
    """See the module.

    Args:
        zone: Folder of the landing zone.
        database: Name of the warehouse's database on the embedded server.
        deliveries: What is sent, in order.
        plan: The kills, by the process that each waits for.
    """

    def __init__(self, zone: Path, database: str, deliveries: Sequence[Delivery], plan: dict[Victim, list[Kill]]) -> None:
        from tests.support.chaos import victims

        multiprocessing.get_context("forkserver").set_forkserver_preload([PRELOADED])
        self._zone, self._database = zone, database
        self._to_send, self._sent = list(deliveries), 0
        self._kills = sum(len(kills) for kills in plan.values())
        self._watched = {
            Victim.LOADER: _Watched(Victim.LOADER, victims.loader, plan[Victim.LOADER]),
            Victim.DBT: _Watched(Victim.DBT, victims.builder, plan[Victim.DBT]),
        }
        self._monitor: psycopg.Connection | None = None
        self._began = self._progress = 0.0
        self.record = Record()

    def run(self) -> None:
        """Until every kill is done, every file sent and landed.

        Raises:
            ChaosFailed: If a process meets an error that no kill explains, or nothing goes on.
        """
        try:
            self._began = self._progress = time.monotonic()
            self._feed(self._quota())
            for watched in self._watched.values():
                watched.start()
            while not all(watched.is_finished for watched in self._watched.values()):
                self._take_messages()
        finally:
            for watched in self._watched.values():
                if watched.lives:
                    watched.end()
            if self._monitor is not None:
                self._monitor.close()

    # --- messages ------------------------------------------------------------------------------------------------------------------------------

    def _take_messages(self) -> None:
        if time.monotonic() - self._progress > PATIENCE_S:
            raise ChaosFailed(f"no kill and no file for {PATIENCE_S:.0f} s. {self._standing()}")
        living = {watched.channel: watched for watched in self._watched.values() if not watched.is_finished}
        ready = wait(list(living), timeout=PATIENCE_S)
        if not ready:
            raise ChaosFailed(f"nothing happened for {PATIENCE_S:.0f} s. {self._standing()}")
        watched = living[ready[0]]  # type: ignore[index]
        try:
            kind, content = watched.channel.recv()
        except (EOFError, OSError):
            raise ChaosFailed(f"the {watched.role} ended by itself with code {watched.process.exitcode}. {self._standing()}") from None
        if kind == "reached":
            self._reached(watched, content)
            return
        watched.is_asking = True
        if kind == "trouble":
            raise ChaosFailed(f"the {watched.role} met an error that no kill explains:\n{content}\n{self._standing()}")
        if kind in {"lost", "busy"}:
            self.record.interruptions[f"{watched.role} {kind}: {content.split(':')[0]}"] += 1
            self._ensure_server()
            watched.answer()
        elif kind == "built":
            self._built(watched)
        elif kind == "idle":
            self._idle(watched)

    def _idle(self, loader: _Watched) -> None:
        """The loader has landed everything: it gets more where more is due, and waits where not."""
        if loader.kill:
            if not self._to_send:
                raise ChaosFailed(f"all files are sent, and kills wait for the loader. {self._standing()}")
            self._feed(1)
        elif self._all_kills_done():
            if self._to_send:
                self._feed(len(self._to_send))
            else:
                self._finish(loader)

    def _built(self, builder: _Watched) -> None:
        if self._watched[Victim.LOADER].is_finished and not builder.kill:
            self._finish(builder)
        else:
            builder.answer()

    def _finish(self, watched: _Watched) -> None:
        watched.answer("finish")
        watched.process.join(PATIENCE_S)
        watched.is_finished = True

    def _all_kills_done(self) -> bool:
        return not any(watched.kill for watched in self._watched.values())

    # --- files ---------------------------------------------------------------------------------------------------------------------------------

    def _quota(self) -> int:
        """How many files are due: as large a share of all as of the kills is done."""
        done = self._kills - sum(watched.kills_left for watched in self._watched.values())
        return (self._sent + len(self._to_send)) * (done + 1) // (self._kills + 1) - self._sent

    def _feed(self, count: int) -> None:
        """Sends the next files. One that replaces another waits until that one has been landed, as otherwise it would never have been there."""
        held: list[Delivery] = []
        fed = 0
        while self._to_send and fed < count:
            delivery = self._to_send.pop(0)
            if delivery.replaces is not None and not self._is_settled(delivery):
                held.append(delivery)
                continue
            delivery.write(self._zone)
            fed += 1
        self._to_send[:0] = held
        self._sent += fed
        self._progress = time.monotonic() if fed else self._progress
        self._watched[Victim.LOADER].answer()

    def _is_settled(self, delivery: Delivery) -> bool:
        row = self._ask("select count(*) from ops.file where address = %s and state in ('landed', 'quarantined')", delivery.address)
        return bool(row[0][0])

    # --- kills ---------------------------------------------------------------------------------------------------------------------------------

    def _reached(self, watched: _Watched, number: int) -> None:
        kill = watched.kill
        if kill is None or kill.number != number:
            raise ChaosFailed(f"the {watched.role} reached a step that nobody waits for. {self._standing()}")
        pause_s = watched.pause_s
        watched.is_asking = pause_s is None
        if pause_s is not None:
            time.sleep(pause_s)  # the random moment: the watched process goes on meanwhile
        work = self._work_of(watched)
        at_work = [row for row in work if row[3]] if kill.victim in POSTGRES else work
        if not at_work and not kill.is_around:
            self.record.missed += 1
            watched.missed()
            watched.answer()
            return
        if kill.victim in POSTGRES:
            self._kill_server(kill, at_work[0][1])
        else:
            watched.end()
        self._note(kill, pause_s, at_work)
        self._progress = time.monotonic()
        watched.done()
        if kill.victim in POSTGRES:
            watched.arm()
            watched.answer()
        else:
            watched.start()
        self._feed(max(0, self._quota()))

    def _work_of(self, watched: _Watched) -> list[tuple[Any, ...]]:
        """Transactions that are open in this life of the process: what the server says about them."""
        return [row for row in self._ask(_AT_WORK, [ROLES[watched.role].value]) if row[2] >= watched.born]

    def _note(self, kill: Kill, pause_s: float | None, at_work: list[tuple[Any, ...]]) -> None:
        if kill.is_around:
            self.record.around[f"{kill.victim} {kill.step}"] += 1
        else:
            self.record.kills[kill.victim][kill.step] += 1
        when = "held there" if pause_s is None else f"{1000 * pause_s:.1f} ms later"
        seen = f"; open: {at_work[0][0]}, {at_work[0][4]}, {at_work[0][5]}" if at_work else ""
        elapsed = time.monotonic() - self._began
        self.record.log.append(f"{elapsed:.1f} s, {kill.watched} {kill.number}: {kill.victim} at {kill.step}, turn {kill.turn}, {when}{seen}")

    def _kill_server(self, kill: Kill, backend: int) -> None:
        if kill.victim is Victim.POSTGRES:
            server.kill()
        elif kill.victim is Victim.POSTMASTER:
            postmaster = server.server_pid()
            assert postmaster is not None
            os.kill(postmaster, signal.SIGKILL)
        else:
            os.kill(backend, signal.SIGKILL)
            self._await_loss()
        self._forget_monitor()
        self._ensure_server()

    def _await_loss(self) -> None:
        """Waits until the server, which lost a backend, has ended all other sessions."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                self._ask("select 1")
            except psycopg.OperationalError:
                return
        raise ChaosFailed(f"the server did not notice the death of a backend. {self._standing()}")

    # --- the server ----------------------------------------------------------------------------------------------------------------------------

    def _ensure_server(self) -> None:
        """Starts the server where it does not run, as `tidemark up` does, and waits until it answers."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            server.start()
            try:
                self._ask("select 1")
                return
            except (psycopg.OperationalError, WarehouseUnavailable):
                self._forget_monitor()
                if time.monotonic() > deadline:
                    raise ChaosFailed(f"the server did not come back within {PATIENCE_S:.0f} s. {self._standing()}") from None
                time.sleep(0.05)

    def _ask(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        if self._monitor is None:
            self._monitor = connect_as_superuser(self._database)
            self._monitor.execute("select set_config('tidemark.chaos_database', %s, false)", (self._database,))
        return self._monitor.execute(query, parameters).fetchall()  # type: ignore[call-overload, no-any-return]

    def _forget_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    def _standing(self) -> str:
        """Where things stand, for a message."""
        waiting = {str(role): watched.kill for role, watched in self._watched.items()}
        try:
            activity = self._ask(
                "select application_name, pid, state, wait_event_type, wait_event, pg_blocking_pids(pid), left(query, 200) "
                "from pg_stat_activity where datname is not null"
            )
        except Exception as error:
            activity = [(f"the server does not answer: {error}",)]
        done = sum(self.record.kills[victim].total() for victim in Victim)
        lines = [f"{done} kills done; waiting: {waiting}; {self._sent} files sent, {len(self._to_send)} to send", *map(str, activity), *self.record.log[-8:]]
        return "\n".join(lines)
