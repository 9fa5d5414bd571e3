"""The tasks that train, score and watch: a night trains where there is a reason, a person always; a champion announces what it wrote."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from ml.lifecycle import monitoring
from ml.lifecycle.dataset import NotEnoughData
from ml.lifecycle.reread import use_cases
from ml.lifecycle.schema import FeaturesNotBuilt

TRAININGS = ("train_device_failure", "train_failure_details")
SCORINGS = ("score_device_failure", "score_failure_details")


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


@pytest.mark.parametrize("missing", [NotEnoughData, FeaturesNotBuilt])
@pytest.mark.parametrize("dag_id", TRAININGS)
def test_a_new_warehouse_waits_for_days_and_fails_nobody(
    dag_id: str, missing: type[ValueError], house: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_if_due(use_case: Any, train: Any, *, by_hand: bool) -> tuple[None, str]:
        raise missing(f"{use_case.name} needs more days")

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


@pytest.mark.parametrize("dag_id", SCORINGS)
def test_champions_announce_what_they_wrote_and_each_has_its_shadows(dag_id: str, house: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    written, shadowed = dict.fromkeys(use_cases(), 0), []
    for name in written:
        module = import_module(f"ml.usecases.{name}")
        monkeypatch.setattr(module, "score_champion", lambda name=name: written[name], raising=False)
        monkeypatch.setattr(module, "score_shadows", lambda name=name: shadowed.append(name), raising=False)
    *champions, shadows = sorted(house[dag_id].tasks, key=lambda task: task.task_id == "score_shadows")
    for operator in champions:
        (name,), (predictions,) = operator.op_args, operator.outlets
        assert predictions.name == f"predictions.{name}"
        with pytest.raises(AirflowSkipException, match="no champion yet"):
            list(operator.python_callable(name))
        written[name] = 7
        assert [(said.asset, said.extra) for said in operator.python_callable(name)] == [(predictions, {"rows": 7})]
    shadows.python_callable(*shadows.op_args)
    assert sorted(shadowed) == sorted(operator.op_args[0] for operator in champions)


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
