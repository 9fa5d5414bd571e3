"""Keep lake: one file a day of event time, and nothing on disk that nobody needs.

**Purpose.** Hourly exports make many small files; readers and compression want few large ones. Files that others replaced, and what exports that died have
left, would stay for ever.

**Reads and writes.** Reads live files of the lake; raw is not needed. Writes one file for each day that has several, checks number and digest of its rows,
enters it in `ops.file` in their place. Removes files that were replaced, or written without being entered, more than 24 hours ago, so that whoever reads them
may finish.

**Schedule and lateness.** Daily. A missed day is made good by the next.

**On failure.** Clear the failed task; each goes on where it stopped. A file whose bytes or rows are not those that were entered stops the compaction of its
stream and is named; see docs/runbooks/lake.md.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag, task

from include.contracts import streams
from include.tags import Tag


@dag(
    # At 04:20 every day, after `keep_house` has begun and between two exports.
    schedule=CronDataIntervalTimetable("20 4 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    tags=[Tag.OPERATIONS],
    doc_md=__doc__,
)
def keep_lake():
    @task
    def compact(stream: str) -> dict[str, int]:
        from include.lake.compact import compact_stream

        done = compact_stream(stream)
        return {"days": done.days, "files": done.files, "bytes_before": done.bytes_before, "bytes_after": done.bytes_after}

    @task
    def sweep(stream: str) -> dict[str, int]:
        from include.lake.sweep import sweep_stream

        done = sweep_stream(stream)
        return {"replaced": done.replaced, "never_entered": done.strangers, "bytes": done.size_bytes}

    for stream in streams():
        compact.override(task_id=f"compact_{stream}")(stream) >> sweep.override(task_id=f"sweep_{stream}")(stream)


keep_lake()
