"""The processes that are killed: a loader and a builder, doing what the tasks of the DAGs do and starting again where Airflow would.

Both are forked from a server that has imported everything, as Airflow forks its tasks. Each tells its channel how far it is; the arena answers where the
message asks for it, and kills it where the plan says so.
"""

from __future__ import annotations

import functools
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dbt.adapters.postgres
import dbt.cli.main
import psycopg

from include.contracts import streams
from include.settings import get_settings
from include.transform import Build, build, fix_horizon, request_touch
from include.warehouse import WarehouseUnavailable
from tests.support.chaos.landing_round import land_round
from tests.support.chaos.plan import Part
from tests.support.chaos.watch import Watch, tell_lost, victim

# In the order of the DAG build_marts, then what build_hourly refills.
TASKS = (*(f"tag:{domain},tag:micro_batch" for domain in ("core", "maintenance", "features", "customers")), "tag:hourly")
FIRST_ARRIVAL = datetime(2026, 1, 1, tzinfo=UTC)
LAST_ARRIVAL = FIRST_ARRIVAL + timedelta(days=365)
TRIES = 3
BEFORE_EVERYTHING = datetime(2000, 1, 1, tzinfo=UTC), datetime(2000, 1, 2, tzinfo=UTC)

_PARTS = {
    Part.COLLECT: r"create temporary table touched__",
    Part.COMPUTE: r'create temporary table "',
    Part.CREATE: r'create\s+table "',
    Part.WRITE: r'delete from "',
    Part.LOG: r"insert into ops\.(bucket_change|model_state)",
}


@victim
def loader(watch: Watch) -> None:
    """One round over all streams, as every five minutes."""
    land_round(watch, streams(), arrived_from=FIRST_ARRIVAL, arrived_before=LAST_ARRIVAL)


@victim
def builder(watch: Watch) -> None:
    """One run of the DAGs: a horizon, then a task a domain. A task that dies is tried again with the horizon of its run, twice at most."""
    # The function that runs dbt imports this name when it is called.
    dbt.cli.main.dbtRunner = functools.partial(_Runner, callbacks=[functools.partial(_note_event, watch)])  # type: ignore[misc]
    state = get_settings().home / "chaos-run.json"
    run = json.loads(state.read_text()) if state.exists() else None
    try:
        if run is None or run["tries"] >= TRIES:
            # A backfill of a day without events: otherwise a model whose inputs stand still would have no steps to be killed at.
            request_touch(*BEFORE_EVERYTHING, "chaos")
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
        tell_lost(watch, error)
        return
    state.unlink()
    watch.tell("built")


_Runner = dbt.cli.main.dbtRunner


def _keep(path: Path, run: dict[str, Any]) -> None:
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(run))
    scratch.replace(path)


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
