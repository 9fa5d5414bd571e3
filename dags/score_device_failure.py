"""Score device failure: the probability of each device to fail within seven days.

**Purpose.** Writes the champion's prediction for every new or changed feature row, so that the priority list and later evaluations can join it.

**Reads and writes.** Reads what has changed in `features.feat_device_daily` since a version last scored it (`ops.scoring_state`), the champion of
`ops.model_history` and its file. Writes `predictions.device_failure`, one row a device, day and model version, and announces how many of the champion's. The
newest version beside it scores in its shadow, in a task of its own after the champion's: nobody acts on its rows, and what it fails of is said in its log.

**Schedule and lateness.** Whenever the features were built. A late reading changes its feature row, which is scored again.

**On failure.** Clear the failed task: a prediction is a function of feature row and model version. Without a champion, or with nothing new to score, the task
is skipped and announces nothing. A refused schema means that features changed: train again. A file that is gone: docs/runbooks/models.md.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import Metadata, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from include.assets import DEVICE_FAILURE, DEVICE_FEATURES
from include.tags import Pool, Tag


@dag(
    # No cron: whenever the features were built.
    schedule=DEVICE_FEATURES,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=[Tag.ML, Tag.PREDICTION],
    doc_md=__doc__,
)
def score_device_failure():
    # First in the pool of one, but the other task does not depend on it: whether the champion can score says nothing about its shadow.
    @task(pool=Pool.ML, outlets=[DEVICE_FAILURE], priority_weight=2)
    def score_champion():
        from ml.usecases import device_failure

        rows = device_failure.score_champion()
        if not rows:
            raise AirflowSkipException("no champion yet, or no feature row changed")
        yield Metadata(DEVICE_FAILURE, extra={"rows": rows})

    @task(pool=Pool.ML)
    def score_shadows() -> None:
        from ml.usecases import device_failure

        device_failure.score_shadows()

    score_champion()
    score_shadows()


score_device_failure()
