"""Export lake: committed rows of every stream as Parquet, so that raw may forget them and training may read them.

**Purpose.** Raw is fast and dear. The lake keeps the same rows for a year and more at a tenth of the size of what arrived, with the files they came in; a month
that has left raw comes back from it.

**Reads and writes.** Reads committed batches of `raw.<stream>` since the last export. Writes `lake/<stream>/event_date=…/`, its lines in `ops.file`,
`ops.lake_state` and the manifest of the stream. A day whose rows were corrected is written anew. `keep_lake` makes one file of a day's many.

**Schedule and lateness.** Hourly; what landed since is in the next run. Emits no asset: nothing waits for the lake.

**On failure.** Clear the failed task: it goes on where the lake is, and files that were not entered do not count. A lake of another warehouse is refused; the
message says what to do. See docs/runbooks/lake.md.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag, task

from include.contracts import streams
from include.tags import Tag


@dag(
    # At minute 50 of every hour, between two landing runs.
    schedule=CronDataIntervalTimetable("50 * * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
    tags=[Tag.OPERATIONS],
    doc_md=__doc__,
)
def export_lake():
    @task
    def export(stream: str) -> dict[str, int]:
        from include.lake import export_stream

        done = export_stream(stream)
        return {"upto": done.upto, "files": done.files, "rows": done.rows, "bytes": done.size_bytes, "days_rewritten": len(done.rewritten)}

    for stream in streams():
        export.override(task_id=f"export_{stream}")(stream)


export_lake()
