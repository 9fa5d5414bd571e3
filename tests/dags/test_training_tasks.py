"""The tasks of the trainings and of `monitor_models`: a night trains where there is a reason, a person always."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ml.lifecycle import monitoring
from ml.lifecycle.dataset import NotEnoughData
from ml.lifecycle.reread import use_cases

TRAININGS = ("train_device_failure", "train_failure_details")


def run(operator: Any, run_type: str) -> str:
    """Runs a task and returns why it skipped."""
    from airflow.sdk.api.datamodels._generated import DagRunType  # only once Airflow's home is set
    from airflow.sdk.exceptions import AirflowSkipException

    try:
        operator.python_callable(*operator.op_args, dag_run=SimpleNamespace(run_type=DagRunType(run_type)))
    except AirflowSkipException as reason:
        return str(reason)
    return ""


@pytest.mark.parametrize("dag_id", TRAININGS)
def test_every_training_asks_whether_it_is_due(dag_id: str, house: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def train_if_due(use_case: Any, train: Any, *, by_hand: bool) -> tuple[Any, str]:
        asked.append((use_case.name, by_hand))
        assert train.__module__ == f"ml.usecases.{use_case.name}"
        return (object() if by_hand else None), "no reason to"

    monkeypatch.setattr(monitoring, "train_if_due", train_if_due)
    for operator in house[dag_id].tasks:
        assert run(operator, "scheduled") == "no reason to"
        assert run(operator, "manual") == ""
        name = asked[-1][0]
        assert asked[-2:] == [(name, False), (name, True)]
    assert len({name for name, _ in asked}) == len(house[dag_id].tasks)


@pytest.mark.parametrize("dag_id", TRAININGS)
def test_a_new_warehouse_waits_for_days_and_fails_nobody(dag_id: str, house: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def train_if_due(use_case: Any, train: Any, *, by_hand: bool) -> tuple[None, str]:
        raise NotEnoughData(f"{use_case.name} needs more days")

    monkeypatch.setattr(monitoring, "train_if_due", train_if_due)
    for operator in house[dag_id].tasks:
        assert run(operator, "manual").endswith("needs more days")


def test_every_use_case_of_machines_has_a_training(house: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def train_if_due(use_case: Any, train: Any, *, by_hand: bool) -> tuple[None, str]:
        found.append(use_case.name)
        return None, "no"

    monkeypatch.setattr(monitoring, "train_if_due", train_if_due)
    for dag_id in TRAININGS:
        for operator in house[dag_id].tasks:
            run(operator, "scheduled")
    assert sorted(found) == sorted(name for name, use_case in use_cases().items() if "device_id" in use_case.dataset.features.entity)


def test_all_champions_are_watched(house: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    (operator,) = house["monitor_models"].tasks
    looked: list[str] = []

    def monitor_all(cases: Any) -> int:
        looked.extend(use_case.name for use_case in cases)
        return len(looked)

    monkeypatch.setattr(monitoring, "monitor_all", monitor_all)
    operator.python_callable()
    assert sorted(looked) == sorted(use_cases())
    monkeypatch.setattr(monitoring, "monitor_all", lambda cases: 0)
    with pytest.raises(AirflowSkipException, match="no champion yet"):
        operator.python_callable()
