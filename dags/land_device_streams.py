"""Land device streams: from the landing zone into `raw.*`, every five minutes.

**Purpose.** Devices post at any time; this DAG makes what arrived queryable within one interval and accounts for every row.

**Reads and writes.** Reads the zone's arrivals up to the end of the interval. Writes `raw.<stream>`, `ops.quarantine` and one ledger line a file,
all in one transaction. Emits one asset event a stream that had arrivals, with the counts.

**Schedule and lateness.** Every five minutes; a run without a data interval (triggered by hand) lands what is pending, or what arrived in the span
of its parameters. Arrival time decides the interval, so events that are days late need no special run.

**On failure.** A red `land_*`: clear the task; a file is landed once however often the task runs. A red `check_*`: the good rows are in; look at
`tidemark quarantine list` and ask the source; later runs go on meanwhile. Never trigger a new run for an old interval: the next one
picks up whatever is pending.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import CronDataIntervalTimetable, Metadata, Param, Variable, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from include.assets import raw_asset
from include.contracts import device_streams
from include.tags import Pool, Tag

MOMENT = {"type": ["null", "string"], "format": "date-time"}


@dag(
    # Every five minutes; the interval is the window of arrival times that has just closed.
    schedule=CronDataIntervalTimetable("*/5 * * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=20)},
    params={
        "arrived_from": Param(None, description="Land files that arrived at or after this moment (empty: look back as usual).", **MOMENT),
        "arrived_before": Param(None, description="Land files that arrived before this moment (empty: the end of the interval).", **MOMENT),
    },
    tags=[Tag.LANDING, Tag.DEVICE],
    doc_md=__doc__,
)
def land_device_streams():
    @task(pool=Pool.LANDING)
    def land(stream: str, params: dict[str, Any], data_interval_end: pendulum.DateTime | None = None):
        from include.landing import land_pending
        from include.stack.windows import arrival_window

        window = arrival_window(params, data_interval_end, lookback_hours=int(Variable.get("landing_lookback_hours")))
        result = None if window.is_empty else land_pending(stream, arrived_from=window.start, arrived_before=window.end)
        if result is None or not result.files:
            raise AirflowSkipException(f"{stream} is {'on hold' if result and result.is_held else 'without arrivals'}")  # a skipped task emits no event
        yield Metadata(raw_asset(stream), extra=result.counts())

    # Runs after the commit, whatever landed: good rows flow, and a broken promise is red without blocking the next run.
    @task(trigger_rule="all_done", retries=0)
    def check(stream: str, params: dict[str, Any], data_interval_end: pendulum.DateTime | None = None) -> None:
        from include.landing import check_landing
        from include.stack.windows import arrival_window

        window = arrival_window(params, data_interval_end, lookback_hours=int(Variable.get("landing_lookback_hours")))
        if window.is_empty:
            raise AirflowSkipException("scheduled landing is held back: the look-back is 0 hours")
        check_landing(stream, now=window.end)

    # One task a stream, not one mapped task: outlets of a mapped task are emitted by every one of its instances.
    for stream in device_streams():
        landed = land.override(task_id=f"land_{stream}", outlets=[raw_asset(stream)])(stream)
        landed >> check.override(task_id=f"check_{stream}")(stream)


land_device_streams()
