"""The simulated plant: it knows of every failure when its signs began, so the report can say which of them nobody could have seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from include.landing import Zone, land_everything
from include.settings import get_settings
from include.simulator import write_history
from include.transform import build, deploy, fix_horizon
from include.warehouse import Role, connect
from ml.lifecycle.alerts import Entity, judge_alerts
from ml.lifecycle.dataset import load_dataset
from ml.usecases.device_failure import DEVICE_FAILURE
from ml.usecases.device_failure_24h import DEVICE_FAILURE_24H
from ml.usecases.remaining_life import REMAINING_LIFE
from tests.evaluate.life import life_section
from tests.evaluate.question import FEATURES, SEED, Answer, answer, failures_of, interval, section, table

UNTIL = datetime(2026, 3, 1, tzinfo=UTC)
STREAMS = ("device_registry", "device_telemetry", "device_events", "maintenance_log")


def evaluate(folder: Path, step: Callable[[str], None], *, days: int, machines: int) -> list[str]:
    """Makes up a history in the empty warehouse that the settings point to, and judges the use cases on it.

    Args:
        folder: For the simulator's truth.
        step: Called with the title of each step before it begins.
        days: Length of the history.
        machines: Machines of the plant.

    Returns:
        Lines of Markdown.
    """
    step(f"Simulated plant: {days} days of {machines} machines")
    write_history(Zone(get_settings().zone_url), until=UNTIL, days=days, machines=machines, truth_dir=folder)
    for stream in STREAMS:
        land_everything(stream)
    step("Simulated plant: features")
    deploy()
    build(FEATURES, fix_horizon(), run_tests=False)
    truth = pl.read_parquet(folder / "failures.parquet")
    lines = [
        "## Simulated plant",
        "",
        f"{machines} machines over {days} days, as `docs/simulator.md` describes them: faults of the data, false alarms and failures without warning included. "
        "Outcomes are what the maintenance log says, which is what a plant would have.",
        "",
    ]
    with connect(Role.ML) as connection:
        for use_case, title in ((DEVICE_FAILURE_24H, "Simulated failure within 24 hours"), (DEVICE_FAILURE, "Simulated failure within 7 days")):
            step(f"Simulated plant: {title}")
            dataset = load_dataset(connection, use_case.dataset)
            failures = failures_of(connection, use_case.dataset)
            result = answer(title, dataset, use_case.training, use_case.baselines, failures, ("model_name",))
            lines += section(result)
            lines += _against_truth(result, truth)
        step("Simulated plant: days until the next failure")
        lines += life_section("Simulated days until a machine fails", REMAINING_LIFE, load_dataset(connection, REMAINING_LIFE.dataset))
    return lines


def _against_truth(result: Answer, truth: pl.DataFrame) -> list[str]:
    """Recall at the budget by what the simulator knows of each failure."""
    entities = [tuple(map(str, row)) for row in result.test[["tenant_id", "device_id"]].itertuples(index=False, name=None)]
    kinds = {
        "announced itself (signs for at least a day)": truth.filter(pl.col("symptom_days") >= 1),
        "came with signs for less than a day, or none": truth.filter(pl.col("symptom_days") < 1),
    }
    score = result.test["probability"].to_numpy(dtype=np.float64)
    rows = []
    for name, part in kinds.items():
        failures: Mapping[Entity, Sequence[datetime]] = {
            ("default", str(device)): [row[0] for row in own.select("failed_at").iter_rows()] for (device,), own in part.group_by("device_id")
        }
        alerts = judge_alerts(entities, list(result.test["feature_date"]), score, failures, horizon=result.split.gap, seed=SEED)
        rows.append([name, f"{alerts.caught} of {alerts.failures}", interval(alerts.recall, 2)])
    return [f"{result.chosen} against the simulator's truth:", "", *table(("failure", "caught at the budget", "recall"), rows)]
