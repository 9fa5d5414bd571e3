"""The tasks that train and score a use case, shared by the DAGs of models."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, Metadata, task
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
        from ml.lifecycle.schema import FeaturesNotBuilt

        try:
            report, reason = train_if_due(find_use_case(name), import_module(f"ml.usecases.{name}").train, by_hand=dag_run.run_type == "manual")
        except (FeaturesNotBuilt, NotEnoughData) as error:
            raise AirflowSkipException(str(error)) from None  # a new warehouse: days have to pass
        if report is None:
            raise AirflowSkipException(reason)

    train(name)


def add_scoring_task(name: str, task_id: str, predictions: Asset, *, priority_weight: int) -> None:
    """Adds to the current DAG a task that writes what the champion of a use case says of new or changed feature rows, and announces it.

    Args:
        name: Of the use case, which is the name of its module in `ml/usecases`.
        task_id: Of the task.
        predictions: Asset that the task announces, with the number of rows.
        priority_weight: What goes first in the pool of one; shadows have 1.
    """

    @task(pool=Pool.ML, task_id=task_id, outlets=[predictions], priority_weight=priority_weight)
    def score(name: str) -> Any:  # noqa: ANN401  a generator, which Airflow asks for the metadata of the event
        from importlib import import_module

        if not (rows := import_module(f"ml.usecases.{name}").score_champion()):
            raise AirflowSkipException("no champion yet, or no feature row changed")
        yield Metadata(predictions, extra={"rows": rows})

    score(name)


def add_shadow_task(*names: str) -> None:
    """Adds to the current DAG a task that scores the challengers of use cases: whether champions can score says nothing about their shadows.

    Args:
        names: Of the use cases.
    """

    @task(pool=Pool.ML)
    def score_shadows(names: list[str]) -> None:
        from importlib import import_module

        for name in names:
            import_module(f"ml.usecases.{name}").score_shadows()

    score_shadows(list(names))
