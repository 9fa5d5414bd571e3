"""Build priorities: which machine to look at first, from the newest predictions.

**Purpose.** Joins the predicted failure probability with health, anomalies and overdue maintenance into `maintenance.rpt_maintenance_priority`.

**Reads and writes.** Reads the predictions and the maintenance marts. Refills the models tagged `priorities` in one transaction each. Announces nothing:
an asset here would lead back to scoring.

**Schedule and lateness.** Whenever predictions were written.

**On failure.** Clear the failed task, or leave it: the next scoring builds the same table again.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import dag, task

from include.assets import DEVICE_FAILURE
from include.tags import Pool, Tag


@dag(
    # No cron: whenever scoring wrote predictions.
    schedule=DEVICE_FAILURE,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=30)},
    tags=[Tag.MARTS, Tag.PREDICTION],
    doc_md=__doc__,
)
def build_priorities():
    @task(pool=Pool.DBT)
    def rank_machines() -> None:
        from include.transform import build, fix_horizon

        build("tag:priorities", fix_horizon())

    rank_machines()


build_priorities()
