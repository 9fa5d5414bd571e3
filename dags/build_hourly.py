"""Build hourly: the tables that depend on everything — ranks, shares, the best eight percent.

**Purpose.** One more order can move every customer's rank, so these tables cannot follow touched buckets. They are refilled whole, less often.

**Reads and writes.** Reads marts up to a horizon of its own. Refills every model tagged `hourly` in one transaction each, never swapping a table.

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

    build_refilled_tables()


build_hourly()
