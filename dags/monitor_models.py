"""Monitor models: has what the champions see moved, and how good were they really?

**Purpose.** Nobody trains anew because a day has passed. Features of the newest week are compared with what each champion was trained on, its predictions with
what happened; where an effect is large, a loss is sure, or a newer version in the shadow was better, a training is asked for, within a budget of trainings a
week.

**Reads and writes.** Reads the champions of `ops.model_history`, their references, the feature tables and `platform.fct_prediction_outcome`. Writes a line a
use case and day of data to `ops.model_monitor`, with every figure and the reason; `tidemark model monitor` shows it. Trains nothing: the DAGs train_* do.

**Schedule and lateness.** Daily, before the trainings. Looks at the newest whole day of the data; what arrives later for a day is seen on the next.

**On failure.** Clear the failed task: the same data give the same line. All champions but those that the message names have been looked at. A refused schema
means that features changed: the next training makes a version that fits.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from include.tags import Pool, Tag


@dag(
    # At 02:10 every day, before the trainings at 02:30 and 03:00 look whether they are needed.
    schedule=CronDataIntervalTimetable("10 2 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=2)},
    tags=[Tag.ML],
    doc_md=__doc__,
)
def monitor_models():
    @task(pool=Pool.ML)
    def watch_champions() -> None:
        from ml.lifecycle.monitoring import monitor_all
        from ml.lifecycle.reread import use_cases

        if not monitor_all(use_cases().values()):
            raise AirflowSkipException("no champion yet: there is nothing to watch")

    watch_champions()


monitor_models()
