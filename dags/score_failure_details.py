"""Score failure details: the probability of each machine to fail within a day, of each component within seven, and the days that are left.

**Purpose.** Writes the champions' predictions for every new or changed feature row: who is at risk tomorrow, which part to bring along, and how long
there is time.

**Reads and writes.** Reads what has changed in `features.feat_device_daily` and `features.feat_component_daily` since a version last scored them, the champions
of `ops.model_history` and their files. Writes `predictions.device_failure_24h`, `predictions.component_failure` and `predictions.remaining_life`, one row a
machine (and component), day and model version, and announces each: work orders name components and days left. Shadows score in a task of their own.

**Schedule and lateness.** Whenever the features were built. A late reading changes its feature rows, which are scored again.

**On failure.** Clear the failed task: a prediction is a function of feature row and model version. Without a champion, or with nothing new to score, a task is
skipped. It is a DAG of its own so that the week's prediction, which the priority list rests on, never waits for it.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import Metadata, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from include.assets import COMPONENT_FAILURE, DEVICE_FAILURE_24H, DEVICE_FEATURES, REMAINING_LIFE
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
def score_failure_details():
    @task(pool=Pool.ML, outlets=[DEVICE_FAILURE_24H], priority_weight=2)
    def score_device_failure_24h():
        from ml.usecases import device_failure_24h

        if not (rows := device_failure_24h.score_champion()):
            raise AirflowSkipException("no champion yet, or no feature row changed")
        yield Metadata(DEVICE_FAILURE_24H, extra={"rows": rows})

    # What work orders show goes first in the pool of one.
    @task(pool=Pool.ML, outlets=[COMPONENT_FAILURE], priority_weight=3)
    def score_component_failure():
        from ml.usecases import component_failure

        if not (rows := component_failure.score_champion()):
            raise AirflowSkipException("no champion yet, or no feature row changed")
        yield Metadata(COMPONENT_FAILURE, extra={"rows": rows})

    @task(pool=Pool.ML, outlets=[REMAINING_LIFE], priority_weight=3)
    def score_remaining_life():
        from ml.usecases import remaining_life

        if not (rows := remaining_life.score_champion()):
            raise AirflowSkipException("no champion yet, or no feature row changed")
        yield Metadata(REMAINING_LIFE, extra={"rows": rows})

    @task(pool=Pool.ML)
    def score_shadows() -> None:
        from ml.usecases import component_failure, device_failure_24h, remaining_life

        for use_case in (device_failure_24h, component_failure, remaining_life):
            use_case.score_shadows()

    score_component_failure()
    score_remaining_life()
    score_device_failure_24h()
    score_shadows()


score_failure_details()
