"""The task that trains a use case, shared by the DAGs of trainings."""

from __future__ import annotations

from typing import Any

from airflow.sdk import task
from airflow.sdk.exceptions import AirflowSkipException

from include.tags import Pool


def add_training_task(name: str, task_id: str) -> None:
    """Adds to the current DAG a task that trains a use case: when a person asks for it, or when a training is due.

    Args:
        name: Of the use case, which is the name of its module in `ml/usecases`.
        task_id: Of the task.
    """

    @task(pool=Pool.ML, task_id=task_id)
    def train(name: str, dag_run: Any = None) -> None:  # noqa: ANN401  Airflow's own
        from importlib import import_module

        from ml.lifecycle.dataset import NotEnoughData
        from ml.lifecycle.monitoring import train_if_due
        from ml.lifecycle.reread import find_use_case

        try:
            report, reason = train_if_due(find_use_case(name), import_module(f"ml.usecases.{name}").train, by_hand=dag_run.run_type == "manual")
        except NotEnoughData as error:
            raise AirflowSkipException(str(error)) from None  # a new warehouse: days have to pass
        if report is None:
            raise AirflowSkipException(reason)

    train(name)
