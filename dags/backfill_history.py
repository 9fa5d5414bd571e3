"""Backfill history: make a day as it would be had everything been on time and nothing gone wrong.

**Purpose.** Three uses. `airflow backfill create --dag-id backfill_history` lands the files that arrived on those days and has every mart recomputed there.
The same with `--reprocess-behavior completed` repairs marts that somebody falsified. Its own daily run is the audit of the whole landing zone.

**Reads and writes.** Reads every file that arrived on day D and is not in the ledger; the daily scheduled run reads the whole zone. Writes `raw.*`,
the ledger, and a request in `ops.touch_request` to recompute the buckets whose event time lies in D. Announces both, and `build_marts` does the
building, once for many days.

**Schedule and lateness.** Daily for the day that has just ended. Backfill runs need this DAG to be on: runs of a paused DAG stay queued.

**On failure.** Clear the failed task. Days do not depend on each other, may be done in any order and again at any time.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import CronDataIntervalTimetable, Metadata, dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from include.assets import TOUCH_REQUESTS, raw_asset
from include.contracts import streams
from include.tags import Pool, Tag


@dag(
    # At midnight UTC for the day that has just ended, so that a logical date is a day: --from-date and --to-date are both included.
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30)},
    tags=[Tag.BACKFILL, Tag.LANDING],
    doc_md=__doc__,
)
def backfill_history():
    @task(pool=Pool.LANDING)
    def land(stream: str, dag_run: Any = None, data_interval_start: pendulum.DateTime | None = None, data_interval_end: pendulum.DateTime | None = None):
        from include.landing import land_everything, land_pending
        from include.stack.windows import utc

        if data_interval_start is None:
            raise AirflowFailException("a backfill is about a day: use `tidemark backfill --from DAY --to DAY` or trigger with a logical date")
        if dag_run.run_type == "scheduled":
            result = land_everything(stream, arrived_before=utc(data_interval_end))
        else:
            result = land_pending(stream, arrived_from=utc(data_interval_start), arrived_before=utc(data_interval_end))
        if not result.files:
            raise AirflowSkipException(f"the ledger knows every file of {stream}")
        yield Metadata(raw_asset(stream), extra=result.counts())

    # After the loads, also where none of them found anything: the repair of a falsified mart lands nothing.
    @task(pool=Pool.LANDING, trigger_rule="none_failed", outlets=[TOUCH_REQUESTS])
    def request_touch(dag_run: Any = None, data_interval_start: pendulum.DateTime | None = None, data_interval_end: pendulum.DateTime | None = None):
        from include.stack.windows import utc
        from include.transform import request_touch

        if dag_run.run_type == "scheduled":
            raise AirflowSkipException("the daily audit lands what was stranded; only a backfill recomputes a whole day")
        request_touch(utc(data_interval_start), utc(data_interval_end), f"backfill run {dag_run.run_id}")

    touch = request_touch()
    # One task a stream, not one mapped task: outlets of a mapped task are emitted by every one of its instances.
    for stream in streams():
        land.override(task_id=f"land_{stream}", outlets=[raw_asset(stream)])(stream) >> touch


backfill_history()
