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
from airflow.sdk import dag

from include.assets import COMPONENT_FAILURE, DEVICE_FAILURE_24H, DEVICE_FEATURES, REMAINING_LIFE
from include.stack.model_tasks import add_scoring_task, add_shadow_task
from include.tags import Tag


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
    # What work orders show goes first in the pool of one.
    add_scoring_task("component_failure", "score_component_failure", COMPONENT_FAILURE, priority_weight=3)
    add_scoring_task("remaining_life", "score_remaining_life", REMAINING_LIFE, priority_weight=3)
    add_scoring_task("device_failure_24h", "score_device_failure_24h", DEVICE_FAILURE_24H, priority_weight=2)
    add_shadow_task("device_failure_24h", "component_failure", "remaining_life")


score_failure_details()
