"""Land tables: what people brought to train models on, from the landing zone into `raw.*`, every half hour.

**Purpose.** Tables come once, mostly by `tidemark import`, which lands them itself; this DAG lands what was put into the zone otherwise, or was on hold, and
accounts for every row. It is a DAG of its own so that the runs of every five minutes do not look for what hardly ever comes.

**Reads and writes.** Reads the zone's arrivals up to the end of the interval. Writes `raw.<stream>`, `ops.quarantine` and one ledger line a file,
all in one transaction. Emits one asset event a stream that had arrivals, with the counts.

**Schedule and lateness.** Every half hour; a run without a data interval (triggered by hand) lands what is pending, or what arrived in the span
of its parameters. Arrival time decides the interval, so events that are days late need no special run.

**On failure.** A red `land_*`: clear the task; a file is landed once however often the task runs. A red `check_*`: the good rows are in; look at
`tidemark quarantine list` and ask the source; later runs go on meanwhile. Never trigger a new run for an old interval: the next one
picks up whatever is pending.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag

from include.contracts import table_streams
from include.stack.landing_tasks import add_landing_tasks, arrival_params
from include.tags import Tag


@dag(
    # Every half hour; the interval is the window of arrival times that has just closed.
    schedule=CronDataIntervalTimetable("*/30 * * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=20)},
    params=arrival_params(),
    tags=[Tag.LANDING, Tag.TABLE],
    doc_md=__doc__,
)
def land_tables():
    add_landing_tasks(table_streams())


land_tables()
