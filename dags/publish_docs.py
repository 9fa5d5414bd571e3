"""Publish docs: the dbt documentation of what is in the warehouse now.

**Purpose.** Anyone who can log in to Airflow reads there what every table and column means, where it comes from and how many rows it has.

**Reads and writes.** Reads the dbt project and the catalog of the warehouse. Replaces one static page, which the Airflow UI shows under Browse, dbt docs.

**Schedule and lateness.** Daily, and by hand after a change of the models.

**On failure.** Clear the failed task, or leave it: the page of yesterday stays. Nothing depends on it.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import CronDataIntervalTimetable, dag, task

from include.tags import Pool, Tag


@dag(
    # At 04:00 every day.
    schedule=CronDataIntervalTimetable("0 4 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 1, "retry_delay": timedelta(minutes=5)},
    tags=[Tag.DOCS],
    doc_md=__doc__,
)
def publish_docs():
    @task(pool=Pool.DBT)
    def generate() -> None:
        from include.transform import generate_docs

        generate_docs()

    generate()


publish_docs()
