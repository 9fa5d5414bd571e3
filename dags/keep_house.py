"""Keep house: what has to be thrown away, rotated and prepared so that the stack may run for years.

**Purpose.** Micro-batches make many runs a day; without this DAG Airflow's database, the logs and the history of builds would grow without end, and the
first event of a new month would have to make its partition while loading.

**Reads and writes.** Runs every data test over whole tables; between nights only touched buckets are tested. Compares every raw
partition with the movements of its rows. Makes partitions seven days ahead. Measures how much space every stream and table takes (`ops.storage_snapshot`).
Removes runs, task instances and logs of Airflow and build history of `ops` older than the retention in the Airflow variables. Vacuums and analyzes.
Moves values out of `_extra` into columns that a contract has taken in since. Removes nothing from raw, ledger or quarantine.

**Schedule and lateness.** Daily. A missed day is made good by the next, but for its measurement of space, which nobody can take later.

**On failure.** Clear the failed task; each does nothing where its work is done. After a week of red partitions, loading makes them itself, only slower.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import CronDataIntervalTimetable, Variable, dag, task

from include.tags import Pool, Tag


@dag(
    # At 03:40 every day, when little else runs.
    schedule=CronDataIntervalTimetable("40 3 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    tags=[Tag.OPERATIONS],
    doc_md=__doc__,
)
def keep_house():
    @task(pool=Pool.LANDING)
    def prepare_raw_tables(dag_run: Any = None) -> tuple[int, int]:
        from include.stack.housekeeping import apply_contracts, make_partitions
        from include.stack.windows import utc

        return make_partitions(utc(dag_run.run_after), ahead=timedelta(days=7)), apply_contracts()

    @task
    def clean_airflow(dag_run: Any = None) -> None:
        from include.stack.housekeeping import clean_airflow_metadata
        from include.stack.windows import utc

        clean_airflow_metadata(utc(dag_run.run_after), keep=timedelta(days=int(Variable.get("airflow_history_days"))))

    @task
    def remove_old_logs(dag_run: Any = None) -> int:
        from include.stack.housekeeping import remove_logs
        from include.stack.windows import utc

        return remove_logs(utc(dag_run.run_after), keep=timedelta(days=int(Variable.get("log_history_days"))))

    @task(pool=Pool.DBT)
    def prune_build_history() -> dict[str, int]:
        from include.stack.housekeeping import prune_ops_history

        return prune_ops_history(keep=timedelta(days=int(Variable.get("build_history_days"))))

    @task(pool=Pool.DBT)
    def vacuum_and_analyze() -> int:
        from include.stack.housekeeping import vacuum

        return vacuum()

    @task
    def measure_storage(dag_run: Any = None) -> int:
        from include.file_index.storage import take_snapshot
        from include.stack.windows import utc

        return take_snapshot(utc(dag_run.run_after).date())

    @task
    def compare_partitions() -> int:
        from include.landing import check_partitions

        return check_partitions(everything=True)

    # Micro-batches have moved some tables past others when this runs, so it first brings all of them to one horizon.
    @task(pool=Pool.DBT)
    def test_all_marts() -> None:
        from include.transform import check_everything, fix_horizon

        check_everything(fix_horizon())

    prepare_raw_tables()
    compare_partitions()
    test_all_marts()
    clean_airflow() >> remove_old_logs()
    prune_build_history() >> vacuum_and_analyze() >> measure_storage()  # rows of marts are what the analysis counted


keep_house()
