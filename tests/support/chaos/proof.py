"""The proof from beginning to end: a server of its own, an undisturbed run, the chaos, and the comparison of both."""

from __future__ import annotations

import json
import os
import platform
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from include.contracts import streams
from include.landing import land_pending
from include.settings import REPOSITORY, get_settings
from include.transform import check_everything, deploy, fix_horizon
from include.transform.invocation import load_manifest
from tests.conftest import clone_database, drop_database, set_environment
from tests.support.chaos import storm as storms
from tests.support.chaos.arena import Arena, ChaosFailed, Record
from tests.support.chaos.plan import POSTGRES, Count, Model, Victim, make_plan
from tests.support.chaos.storm import Delivery, Size
from tests.support.chaos.truth import faults
from tests.support.chaos.victims import FIRST_ARRIVAL, LAST_ARRIVAL, TASKS
from tests.support.marts import Snapshot, differences, snapshot

DATABASE = "tidemark"
FRESH = "tidemark_fresh"


@dataclass(frozen=True)
class Proof:
    """One proof.

    Attributes:
        seed: Decides what is sent and who is killed when.
        size: How much is sent.
        count: How many kills.
    """

    seed: int
    size: Size
    count: Count


@dataclass(frozen=True)
class Outcome:
    """What came of a proof.

    Attributes:
        report: Figures, ready for JSON.
        wrong: What is not as it must be, one line each.
    """

    report: dict[str, Any]
    wrong: list[str]


def prove(proof: Proof, home: Path) -> Outcome:
    """Runs a proof on the server of `own_server`."""
    started = time.monotonic()
    deliveries = storms.storm(proof.seed, proof.size)
    deploy()
    clone_database(DATABASE, FRESH)
    calm, wrong = _undisturbed(deliveries, home / "calm")
    drop_database(DATABASE)
    clone_database(FRESH, DATABASE)
    arena = Arena(home / "zone", DATABASE, deliveries, make_plan(proof.seed, proof.count, _models()))
    began = time.monotonic()
    try:
        arena.run()
        chaos_s = time.monotonic() - began
        wrong += faults(deliveries) + differences(_built(), calm)
    except Exception as error:  # whatever it is, it belongs to this seed
        chaos_s = time.monotonic() - began
        wrong.append(str(error) if isinstance(error, ChaosFailed) else traceback.format_exc())
    report = _report(proof, deliveries, arena.record, wrong) | {"chaos_s": round(chaos_s, 1), "duration_s": round(time.monotonic() - started, 1)}
    return Outcome(report, wrong)


def _undisturbed(deliveries: list[Delivery], zone: Path) -> tuple[Snapshot, list[str]]:
    """The marts when nothing is killed and everything is landed in order before the only build; and what the truth has against that."""
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, TIDEMARK_LANDING_URL=zone.as_uri())
        for part in ([d for d in deliveries if d.replaces is None], [d for d in deliveries if d.replaces is not None]):
            for delivery in part:
                delivery.write(zone)
            for stream in streams():
                land_pending(stream, arrived_from=FIRST_ARRIVAL, arrived_before=LAST_ARRIVAL)
        wrong = [f"without any kill: {line}" for line in faults(deliveries)]
        marts = _built()
    get_settings.cache_clear()
    return marts, wrong


def _built() -> Snapshot:
    """Every mart, brought up to what has landed, all data tests passed over whole tables."""
    check_everything(fix_horizon())
    return snapshot()


def _models() -> list[Model]:
    """Every table of the project, with the task that builds it."""
    found = []
    for node in load_manifest().nodes.values():
        if node.resource_type.value != "model" or node.config.materialized not in {"incremental", "refilled_table"}:
            continue
        tags = {f"tag:{tag}" for tag in node.tags}
        tasks = [number for number, selector in enumerate(TASKS) if set(selector.split(",")) <= tags]
        assert tasks, f"no task of tests/support/chaos/victims.py builds {node.name}: add its domain to TASKS, as in dags/build_marts.py"
        found.append(Model(node.name, tasks[0], node.config.materialized == "incremental"))
    return sorted(found, key=lambda model: (model.task, model.name))


def _report(proof: Proof, deliveries: list[Delivery], record: Record, wrong: list[str]) -> dict[str, Any]:
    return {
        "seed": proof.seed,
        "outcome": "failed" if wrong else "passed",
        "wrong": wrong,
        "events": sum(len(delivery.rows) for delivery in deliveries),
        "files": len(deliveries),
        "kills": {"loader": record.total(Victim.LOADER), "dbt": record.total(Victim.DBT), "postgres": record.total(*POSTGRES)},
        "kills_by_victim_and_step": {str(victim): dict(sorted(record.kills[victim].items())) for victim in Victim},
        "kills_beside_a_transaction": dict(sorted(record.around.items())),
        "put_off_because_the_work_was_done": record.missed,
        "interruptions": dict(sorted(record.interruptions.items())),
        "log": record.log,
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
    }


def write_report(report: dict[str, Any]) -> Path:
    """Writes build/prove/chaos.json."""
    path = REPOSITORY / "build" / "prove" / "chaos.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return path
