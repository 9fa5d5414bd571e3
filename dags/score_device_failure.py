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
from airflow.sdk import dag

from include.assets import DEVICE_FAILURE, DEVICE_FEATURES
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
def score_device_failure():
    add_scoring_task("device_failure", "score_champion", DEVICE_FAILURE, priority_weight=2)
    add_shadow_task("device_failure")


score_device_failure()
