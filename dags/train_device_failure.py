"""Train device failure: will this device fail within seven days?

**Purpose.** Fits the model anew on everything that is known, measures it against the naive one and the champion, and makes it champion only where it
beats both.

**Reads and writes.** Reads `features.feat_device_daily` and the maintenance events. Writes a run to MLflow's own database, the version to
`ops.model_version` and, where the gate is passed, its reign to `ops.model_history`; the alias in MLflow follows. Enters the data set and the files it was made
of in `ops.dataset`, `ops.dataset_file`.

**Schedule and lateness.** Looks daily, and trains where there is no champion yet or monitoring has asked for it (`tidemark model monitor` says why), twice a
week of data at most; a run by hand trains in any case. Rows whose seven days are not over are left out, so a late failure report enters with a later training.

**On failure.** Clear the failed task: training is seeded and repeats its result. Scoring goes on with the last champion. A model that does not pass the
gate is no failure: `tidemark model list` says by how much it missed. A run without enough history, or without a reason to train, is skipped.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag

from include.stack.model_tasks import add_training_task
from include.tags import Tag


@dag(
    # At 02:30 every day, after the daily audit of landing and after monitoring.
    schedule=CronDataIntervalTimetable("30 2 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 1, "retry_delay": timedelta(minutes=5)},
    tags=[Tag.ML],
    doc_md=__doc__,
)
def train_device_failure():
    add_training_task("device_failure", "train")


train_device_failure()
