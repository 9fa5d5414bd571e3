"""Apply retention: what is older than its contract keeps it leaves raw, then the lake and marts about persons, and files that landed long ago leave the zone.

**Purpose.** The warehouse keeps what is asked for every day, the lake keeps the rest for as long as the contract says, and neither grows without end. What the
lake deletes, marts that hold pseudonyms forget. Other marts, features, ledger and quarantine never leave by this.

**Reads and writes.** Reads every lake file of a month that is due and compares it with raw, row by row. Drops month partitions of `raw.*` that the lake holds
exactly and every model has read, restored ones whose time is over among them (`ops.partition_state`, a batch of kind expiry, its movements). Deletes whole
months from the lake, rows that are made of them from models that say they forget (`ops.bucket_change` tells the models below), and files from the zone that
the lake has (`ops.file`).

**Schedule and lateness.** Daily. A missed day is made good by the next. What has to wait is in the log of its task, and `tidemark retention plan` says it too.

**On failure.** Clear the failed task: each goes on where it stopped, and nothing leaves that is not safe elsewhere. A message about the lake being damaged
needs a person: docs/runbooks/retention.md.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag, task

from include.tags import Pool, Tag


@dag(
    # At 05:10 every day, when keep_house and keep_lake are through and little else runs.
    schedule=CronDataIntervalTimetable("10 5 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=[Tag.OPERATIONS],
    doc_md=__doc__,
)
def apply_retention():
    # In the pool of builds: a month does not leave while models read.
    @task(pool=Pool.DBT)
    def expire_raw(dag_run: Any = None) -> list[dict[str, Any]]:
        from include.lake.retention import expire_raw
        from include.stack.windows import utc

        return [{**asdict(item), "month": str(item.month)} for item in expire_raw(utc(dag_run.run_after))]

    @task
    def expire_lake(dag_run: Any = None) -> int:
        from include.lake.retention import expire_lake
        from include.stack.windows import utc

        return len(expire_lake(utc(dag_run.run_after)))

    # In the pool of builds: each model is locked while it forgets.
    @task(pool=Pool.DBT)
    def forget_in_marts() -> list[dict[str, Any]]:
        from include.lake.retention import forget_in_marts

        return [asdict(item) for item in forget_in_marts()]

    @task(pool=Pool.LANDING)
    def expire_zone(dag_run: Any = None) -> int:
        from include.lake.retention import expire_zone_files
        from include.stack.windows import utc

        return sum(item.files or 0 for item in expire_zone_files(utc(dag_run.run_after)))

    leaves_raw, leaves_lake = expire_raw(), expire_lake()
    leaves_raw >> [leaves_lake, expire_zone()]
    leaves_lake >> forget_in_marts()


apply_retention()
