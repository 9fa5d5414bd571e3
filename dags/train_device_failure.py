"""Train device failure: will this device fail within seven days?

**Purpose.** Fits the model anew on everything that is known, measures it against the naive one, and makes it champion only where it passes its gate.

**Reads and writes.** Reads `features.feat_device_daily` and the maintenance events. Writes a run and a model version to MLflow's own database, and the
`champion` alias where the gate is passed. Enters the data set and the files it was made of in `ops.dataset`, `ops.dataset_file`.

**Schedule and lateness.** Daily. Rows whose seven days are not over are left out, so a late failure report enters with a later training.

**On failure.** Clear the failed task: training is seeded and repeats its result. Scoring goes on with the last champion. A model that does not pass the
gate is no failure: the report in MLflow says by how much it missed. A run without enough history is skipped.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from include.tags import Pool, Tag


@dag(
    # At 02:30 every day, after the daily audit of landing.
    schedule=CronDataIntervalTimetable("30 2 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 1, "retry_delay": timedelta(minutes=5)},
    tags=[Tag.ML],
    doc_md=__doc__,
)
def train_device_failure():
    @task(pool=Pool.ML)
    def train() -> None:
        from ml.lifecycle.dataset import NotEnoughData
        from ml.usecases import device_failure

        try:
            device_failure.train()
        except NotEnoughData as error:
            raise AirflowSkipException(str(error)) from None  # a new warehouse: days have to pass

    train()


train_device_failure()
