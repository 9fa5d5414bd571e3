"""Train failure details: will this machine fail within a day, which of its components within seven, and how many days are left?

**Purpose.** The same data as the week's prediction, asked more closely: for the crew of tomorrow morning, for the part to bring along, and for planning. Each
model becomes champion only where it beats the naive one and its own champion.

**Reads and writes.** Reads `features.feat_device_daily`, `features.feat_component_daily` and the maintenance events. Writes runs to MLflow's own database,
versions to `ops.model_version` and, where the gate is passed, reigns to `ops.model_history`; data sets to `ops.dataset`, `ops.dataset_file`.

**Schedule and lateness.** Looks daily, after the week's prediction, and trains where there is no champion yet or monitoring has asked for it, twice a week of
data at most; a run by hand trains in any case. Rows whose outcome window is not over are left out.

**On failure.** Clear the failed task: training is seeded and repeats its result, and the two do not wait for each other. Scoring goes on with the last
champion. A run without enough history, or without a reason to train, is skipped. It is a DAG of its own so that the week's prediction, which the priority list
rests on, never waits for it.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag

from include.stack.model_tasks import add_training_task
from include.tags import Tag


@dag(
    # At 03:00 every day, half an hour after the week's prediction is trained.
    schedule=CronDataIntervalTimetable("0 3 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 1, "retry_delay": timedelta(minutes=5)},
    tags=[Tag.ML],
    doc_md=__doc__,
)
def train_failure_details():
    for name in ("device_failure_24h", "component_failure", "remaining_life"):
        add_training_task(name, f"train_{name}")


train_failure_details()
