"""Rebuild warehouse: recompute every model from raw, one task a model.

**Purpose.** After a change of a model's meaning, or when somebody doubts the marts: every bucket is recomputed in place, and model by model one sees in the
graph where it stands. The result equals what the micro-batches made, or one of both is wrong.

**Reads and writes.** Reads everything up to one horizon, fixed first and handed to every task. Rewrites all models in place; readers, their views and
grants stay.

**Schedule and lateness.** By hand only, on a quiet hour: builds of micro-batches wait for their turn between its tasks.

**On failure.** Once months have left raw the models that read them refuse: `tidemark rebuild` does it then. Otherwise clear the failed task and those after it:
they go on with the horizon of the run. Or trigger a new run, which begins again.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import dag, task
from cosmos import DbtTaskGroup

from include.stack.cosmos_project import rebuild_configuration
from include.tags import Pool, Tag

# Rendered by Airflow when a task starts: the horizon that the first task fixed.
VARIABLES = {
    "build_id": "{{ ti.xcom_pull(task_ids='fix_horizon')['build_id'] }}",
    "horizon": "{{ ti.xcom_pull(task_ids='fix_horizon')['horizon'] | tojson }}",
    "rebuild": True,
}


@dag(
    # No schedule: by hand.
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 1, "retry_delay": timedelta(minutes=1), "pool": Pool.DBT},
    tags=[Tag.TRANSFORM, Tag.OPERATIONS],
    doc_md=__doc__,
)
def rebuild_warehouse():
    @task
    def fix_horizon() -> dict[str, Any]:
        from include.transform import fix_horizon

        return asdict(fix_horizon())

    # Micro-batches go on between the models' tasks and move tables past this run's horizon, so whole tables are compared in one call with one of its own.
    @task
    def test_whole_tables() -> None:
        from include.transform import build, fix_horizon

        build("config.materialized:incremental config.materialized:refilled_table", fix_horizon(), full_tests=True)

    models = DbtTaskGroup(group_id="models", operator_args={"vars": VARIABLES}, **rebuild_configuration())
    fix_horizon() >> models >> test_whole_tables()


rebuild_warehouse()
