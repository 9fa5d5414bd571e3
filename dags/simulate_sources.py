"""Simulate sources: what devices and the shop would have sent in the last five minutes.

**Purpose.** Keeps the demo alive: a plant, smart homes and a shop go on reporting, with the faults that real sources have. Switch it off
(`TIDEMARK_SIMULATE=false` or pause this DAG) where real sources report.

**Reads and writes.** Reads nothing. Posts to the gateway, as devices and shops do, and writes what it made up into the truth folder.

**Schedule and lateness.** Every five minutes for the interval that has just closed. Values are a function of the interval, so a repeated run
posts the same events again, and landing counts them as duplicates.

**On failure.** Is the gateway up (`tidemark status`)? Then clear the failed task. A missed interval is a silence of the sources and needs nothing.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from include.tags import Tag


@dag(
    # Every five minutes; the interval is the time in which the events happened.
    schedule=CronDataIntervalTimetable("*/5 * * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=20)},
    tags=[Tag.SIMULATION],
    doc_md=__doc__,
)
def simulate_sources():
    @task
    def simulate(data_interval_start: pendulum.DateTime | None = None, data_interval_end: pendulum.DateTime | None = None) -> None:
        from include.settings import get_settings
        from include.stack.sources import Way, simulate_interval

        if not get_settings().simulate:
            raise AirflowSkipException("the simulator is switched off (TIDEMARK_SIMULATE)")
        if data_interval_start is None or data_interval_end is None:
            raise AirflowSkipException("a run without a data interval has nothing to simulate: `tidemark simulate` writes any interval")
        simulate_interval(data_interval_start, data_interval_end, Way.HTTP)

    simulate()


simulate_sources()
