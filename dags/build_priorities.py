"""Build priorities: which machine to look at first, and which to work on tomorrow, from the newest predictions.

**Purpose.** Joins the predicted failure probability with health, anomalies and overdue maintenance into `maintenance.rpt_maintenance_priority`, decides by
expected costs what to work on, and shows it in `maintenance.rpt_maintenance_schedule`.

**Reads and writes.** Reads the predictions and the maintenance marts. Refills the models tagged `priorities` in one transaction each, and makes
`decisions.work_order` say what follows from them. Announces nothing: an asset here would lead back to scoring.

**Schedule and lateness.** Whenever predictions were written that it reads: of failures, of components at risk, of days left. An order whose component is scored
later than its machine names it a run later. `build_hourly` does the same every hour.

**On failure.** Clear the failed task, or leave it: the next scoring, or the next hour, builds the same tables again.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import dag, task

from include.assets import COMPONENT_FAILURE, DEVICE_FAILURE, REMAINING_LIFE
from include.tags import Pool, Tag


@dag(
    # No cron: whenever scoring wrote predictions of any of these; those that come while it runs make one more run, not one each.
    schedule=DEVICE_FAILURE | COMPONENT_FAILURE | REMAINING_LIFE,
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

    @task(pool=Pool.ML)
    def propose_work_orders() -> None:
        from ml.decisions import work_orders

        work_orders.propose()

    @task(pool=Pool.DBT)
    def show_schedule() -> None:
        from include.transform import build, fix_horizon

        build("rpt_maintenance_schedule rpt_maintenance_cost", fix_horizon())

    rank_machines() >> propose_work_orders() >> show_schedule()


build_priorities()
