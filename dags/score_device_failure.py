"""Score device failure: the probability of each device to fail within seven days.

**Purpose.** Writes the champion's prediction for every new or changed feature row, so that the priority list and later evaluations can join it.

**Reads and writes.** Reads `features.feat_device_daily` and the champion from MLflow. Writes `predictions.device_failure`, one row a device, day and model
version, and announces how many.

**Schedule and lateness.** Whenever the device health mart was built. A late reading changes its feature row, which is scored again.

**On failure.** Clear the failed task: a prediction is a function of feature row and model version. Without a champion, or with nothing new to score, the run is
skipped and announces nothing. A refused schema means that features changed: train again.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import Metadata, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from include.assets import DEVICE_FAILURE, DEVICE_HEALTH
from include.tags import Pool, Tag


@dag(
    # No cron: whenever the device health mart was built.
    schedule=DEVICE_HEALTH,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=[Tag.ML, Tag.PREDICTION],
    doc_md=__doc__,
)
def score_device_failure():
    @task(pool=Pool.ML, outlets=[DEVICE_FAILURE])
    def score():
        from ml.usecases import device_failure

        rows = device_failure.score()
        if not rows:
            raise AirflowSkipException("no champion yet, or no feature row changed")
        yield Metadata(DEVICE_FAILURE, extra={"rows": rows})

    score()


score_device_failure()
