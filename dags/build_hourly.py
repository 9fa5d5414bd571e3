"""Build hourly: the tables that depend on everything — ranks, shares, the best eight percent.

**Purpose.** One more order can move every customer's rank, so these tables cannot follow touched buckets. They are refilled whole, less often. Outcomes of
predictions and the quality of features do follow buckets; they change by the day, and the micro-batches need not wait for them.

**Reads and writes.** Reads marts up to a horizon of its own. Refills every model tagged `hourly`, or brings it to the horizon, in one transaction each, never
swapping a table. Proposes work orders anew from the priority list: after a change of champion, or an announcement that a kill swallowed, nothing else would.

**Schedule and lateness.** Hourly; up to an hour behind the marts, which `platform.rpt_freshness` tells.

**On failure.** Clear the failed task, or leave it: the next hour refills the same tables. Readers keep the last complete ones meanwhile.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag, task

from include.tags import Pool, Tag


@dag(
    # At minute 10 of every hour, when the builds of the full hour are through.
    schedule=CronDataIntervalTimetable("10 * * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=2)},
    tags=[Tag.TRANSFORM, Tag.MARTS],
    doc_md=__doc__,
)
def build_hourly():
    @task(pool=Pool.DBT)
    def build_refilled_tables() -> None:
        from include.transform import build, fix_horizon

        build("tag:hourly", fix_horizon())

    @task(pool=Pool.DBT)  # loads no model: a training must not hold up the next hour
    def propose_work_orders() -> None:
        from ml.decisions import work_orders

        work_orders.propose()

    @task(pool=Pool.DBT)
    def show_schedule() -> None:
        from include.transform import build, fix_horizon

        build("rpt_maintenance_schedule rpt_maintenance_cost", fix_horizon())

    build_refilled_tables() >> propose_work_orders() >> show_schedule()


build_hourly()
