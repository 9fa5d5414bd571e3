"""A DAG that breaks every rule of the house once, to show that the rules can fail."""

from __future__ import annotations

from datetime import datetime

import pandas as pd
import pendulum
from airflow.sdk import Asset, dag, task

loop = Asset(name="loop", uri="tidemark://loop")


@dag(
    schedule=loop,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=True,
    max_active_runs=4,
    tags=["whatever"],
    doc_md="Does things.",
)
def breaks_every_rule():
    @task(outlets=[loop])
    def build():
        from include.transform import build, fix_horizon

        build("tag:core", fix_horizon())

    @task(retries=0)
    def land():
        from include.landing import land_pending

        land_pending("orders", arrived_before=datetime.now())
        return pd.DataFrame()

    build() >> land()


breaks_every_rule()

# line 1 of a file that does not fit on a screen
# line 2 of a file that does not fit on a screen
# line 3 of a file that does not fit on a screen
# line 4 of a file that does not fit on a screen
# line 5 of a file that does not fit on a screen
# line 6 of a file that does not fit on a screen
# line 7 of a file that does not fit on a screen
# line 8 of a file that does not fit on a screen
# line 9 of a file that does not fit on a screen
# line 10 of a file that does not fit on a screen
# line 11 of a file that does not fit on a screen
# line 12 of a file that does not fit on a screen
# line 13 of a file that does not fit on a screen
# line 14 of a file that does not fit on a screen
# line 15 of a file that does not fit on a screen
# line 16 of a file that does not fit on a screen
# line 17 of a file that does not fit on a screen
# line 18 of a file that does not fit on a screen
# line 19 of a file that does not fit on a screen
# line 20 of a file that does not fit on a screen
# line 21 of a file that does not fit on a screen
# line 22 of a file that does not fit on a screen
# line 23 of a file that does not fit on a screen
# line 24 of a file that does not fit on a screen
# line 25 of a file that does not fit on a screen
# line 26 of a file that does not fit on a screen
# line 27 of a file that does not fit on a screen
# line 28 of a file that does not fit on a screen
# line 29 of a file that does not fit on a screen
# line 30 of a file that does not fit on a screen
# line 31 of a file that does not fit on a screen
# line 32 of a file that does not fit on a screen
# line 33 of a file that does not fit on a screen
# line 34 of a file that does not fit on a screen
# line 35 of a file that does not fit on a screen
# line 36 of a file that does not fit on a screen
# line 37 of a file that does not fit on a screen
# line 38 of a file that does not fit on a screen
# line 39 of a file that does not fit on a screen
# line 40 of a file that does not fit on a screen
# line 41 of a file that does not fit on a screen
# line 42 of a file that does not fit on a screen
# line 43 of a file that does not fit on a screen
# line 44 of a file that does not fit on a screen
# line 45 of a file that does not fit on a screen
# line 46 of a file that does not fit on a screen
# line 47 of a file that does not fit on a screen
# line 48 of a file that does not fit on a screen
# line 49 of a file that does not fit on a screen
# line 50 of a file that does not fit on a screen
# line 51 of a file that does not fit on a screen
# line 52 of a file that does not fit on a screen
# line 53 of a file that does not fit on a screen
# line 54 of a file that does not fit on a screen
# line 55 of a file that does not fit on a screen
# line 56 of a file that does not fit on a screen
# line 57 of a file that does not fit on a screen
# line 58 of a file that does not fit on a screen
# line 59 of a file that does not fit on a screen
# line 60 of a file that does not fit on a screen
# line 61 of a file that does not fit on a screen
# line 62 of a file that does not fit on a screen
# line 63 of a file that does not fit on a screen
# line 64 of a file that does not fit on a screen
# line 65 of a file that does not fit on a screen
# line 66 of a file that does not fit on a screen
# line 67 of a file that does not fit on a screen
# line 68 of a file that does not fit on a screen
# line 69 of a file that does not fit on a screen
# line 70 of a file that does not fit on a screen
# line 71 of a file that does not fit on a screen
# line 72 of a file that does not fit on a screen
# line 73 of a file that does not fit on a screen
# line 74 of a file that does not fit on a screen
# line 75 of a file that does not fit on a screen
# line 76 of a file that does not fit on a screen
# line 77 of a file that does not fit on a screen
# line 78 of a file that does not fit on a screen
# line 79 of a file that does not fit on a screen
