"""The processes that are killed: a loader and a builder, doing what the tasks of the DAGs do and starting again where Airflow would.

Both are forked from a server that has imported everything, as Airflow forks its tasks. Each tells its channel how far it is; the arena answers where the
message asks for it, and kills it where the plan says so.
"""

from __future__ import annotations

import functools
import json
import os
import re
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import dbt.adapters.postgres
import dbt.cli.main
import psycopg

from include.contracts import streams
from include.landing import LandingBusy, crash, land_pending
from include.settings import get_settings
from include.transform import Build, build, fix_horizon
from include.warehouse import WarehouseUnavailable
from tests.support.chaos.plan import Part

# In the order of the DAG build_marts, then what build_hourly refills.
TASKS = (*(f"tag:{domain},tag:micro_batch" for domain in ("core", "maintenance", "features", "customers")), "tag:hourly")
FIRST_ARRIVAL = datetime(2026, 1, 1, tzinfo=UTC)
LAST_ARRIVAL = FIRST_ARRIVAL + timedelta(days=365)
TRIES = 3

_PARTS = {
    Part.COLLECT: r"create temporary table touched__",
    Part.COMPUTE: r'create temporary table "',
    Part.CREATE: r'create\s+table "',
    Part.WRITE: r'delete from "',
    Part.LOG: r"insert into ops\.(bucket_change|model_state)",
}


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


def _victim(work: Callable[[Watch], None]) -> Callable[[Connection, dict[str, str]], None]:
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


@_victim
def loader(watch: Watch) -> None:
    """One round over all streams, as every five minutes."""
    crash.listener = lambda step: watch.passes(step.value)
    files = 0
    for stream in streams():
        try:
            result = land_pending(stream, arrived_from=FIRST_ARRIVAL, arrived_before=LAST_ARRIVAL)
        except LandingBusy as error:
            watch.tell("busy", str(error))
            return
        except (WarehouseUnavailable, psycopg.OperationalError) as error:
            _tell_lost(watch, error)
            return
        if result.failed_files or result.is_held:
            raise AssertionError(f"{stream}: {result} although nothing is wrong with any file")
        files += result.files
    if not files:
        watch.tell("idle")


@_victim
def builder(watch: Watch) -> None:
    """One run of the DAGs: a horizon, then a task a domain. A task that dies is tried again with the horizon of its run, twice at most."""
    # The function that runs dbt imports this name when it is called.
    dbt.cli.main.dbtRunner = functools.partial(_Runner, callbacks=[functools.partial(_note_event, watch)])  # type: ignore[misc]
    state = get_settings().home / "chaos-run.json"
    run = json.loads(state.read_text()) if state.exists() else None
    try:
        if run is None or run["tries"] >= TRIES:
            of = fix_horizon()
            run = {"build_id": of.build_id, "horizon": of.horizon, "task": 0, "tries": 0}
        while run["task"] < len(TASKS):
            run["tries"] += 1
            _keep(state, run)
            selector = TASKS[run["task"]]
            build(selector, Build(run["build_id"], run["horizon"]))
            run["task"], run["tries"] = run["task"] + 1, 0
            _keep(state, run)
    except (WarehouseUnavailable, psycopg.OperationalError) as error:
        _tell_lost(watch, error)
        return
    state.unlink()
    watch.tell("built")


_Runner = dbt.cli.main.dbtRunner


def _keep(path: Path, run: dict[str, Any]) -> None:
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(run))
    scratch.replace(path)


def _tell_lost(watch: Watch, error: WarehouseUnavailable | psycopg.OperationalError) -> None:
    """Goes on after the loss of the server; a deadlock, a full disk and the like are a find."""
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is not None and error.sqlstate[:2] not in {"08", "57"}:
        raise error
    watch.tell("lost", f"{type(error).__name__}: {error}")


def _note_event(watch: Watch, event: Any) -> None:
    if event.info.name not in {"SQLQuery", "SQLCommit"}:
        return
    node = event.data.node_info.unique_id
    if not node.startswith("model."):
        return
    if event.info.name == "SQLCommit":
        part: Part | None = Part.COMMIT
    else:
        part = next((part for part, pattern in _PARTS.items() if re.search(pattern, event.data.sql)), None)
    if part is not None:
        watch.passes(f"{node.rsplit('.', 1)[1]}:{part}")
