"""The tasks of `replay_quarantine`, run as Airflow runs them, against a real warehouse."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from include.contracts import load_contract
from include.landing import hold, land_pending
from tests.conftest import Warehouse
from tests.support.landing import assert_balanced
from tests.support.payloads import at, put, telemetry
from tests.support.stricter import land_under, with_field


@pytest.fixture
def refused(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """Two readings that yesterday's contract refused, and a line that no contract takes."""
    land_under(monkeypatch, with_field(load_contract("device_telemetry"), "temperature_c", maximum=50.0))
    put("device_telemetry", [telemetry("m1", at(0, 1)), telemetry("m2", at(0, 1)), "{broken"], arrived_at=at(0, 2))
    land_pending("device_telemetry", arrived_from=at(-1), arrived_before=at(3))
    return warehouse


@dataclass
class Outcome:
    """What a task did: announced assets, or why it skipped."""

    announced: list[Any]
    skipped: str = ""


def run_task(house: dict[str, Any], task: str, **conf: Any) -> Outcome:
    """Runs a task with the params of a run triggered by hand, checked as Airflow checks them."""
    from airflow.sdk.exceptions import AirflowSkipException  # only once Airflow's home is set

    dag = house["replay_quarantine"]
    params = copy.deepcopy(dag.params)
    params.update(conf)
    operator = dag.get_task(f"replay_{task}")
    try:
        run = SimpleNamespace(triggering_user_name="anna")
        return Outcome(list(operator.python_callable(*operator.op_args, params=params.validate(), dag_run=run)))
    except AirflowSkipException as reason:
        return Outcome([], str(reason))


def test_rows_land_and_the_stream_is_announced(house: dict[str, Any], refused: Warehouse) -> None:
    (announced,) = run_task(house, "device_telemetry", stream="device_telemetry", code="out_of_range", quarantined_from="2026-01-01T00:00:00Z").announced
    assert (announced.asset.name, announced.extra["accepted"], announced.extra["landed"]) == ("raw.device_telemetry", 2, 2)
    assert refused.value("select count(*) from raw.device_telemetry") == 2
    assert refused.rows("select distinct done_by from ops.quarantine_event") == [("anna",)]
    assert_balanced()
    assert "got no rows" in run_task(house, "device_telemetry", code="out_of_range").skipped


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"dry_run": True}, "got no rows"),
        ({"stream": "orders"}, "the params name orders"),
        ({"code": "malformed_json"}, "got no rows"),
        ({"file": "orders/*"}, "got no rows"),
        ({"quarantined_before": "2020-01-01T00:00:00Z"}, "got no rows"),
    ],
)
def test_a_run_that_brings_nothing_announces_nothing(house: dict[str, Any], refused: Warehouse, conf: dict[str, Any], reason: str) -> None:
    assert reason in run_task(house, "device_telemetry", **conf).skipped
    assert refused.value("select count(*) from raw.device_telemetry") == 0


def test_a_held_stream_is_left_alone(house: dict[str, Any], refused: Warehouse) -> None:
    hold("device_telemetry", "recall")
    assert "on hold" in run_task(house, "device_telemetry").skipped


@pytest.mark.parametrize("conf", [{"stream": "nothing"}, {"quarantined_from": "yesterday"}, {"dry_run": "maybe"}])
def test_params_that_make_no_sense_are_refused(house: dict[str, Any], conf: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Invalid input for param|must be a moment"):
        run_task(house, "orders", **conf)


def test_every_param_has_an_effect_and_a_description(house: dict[str, Any]) -> None:
    params = house["replay_quarantine"].params
    assert set(params) == {"stream", "code", "file", "quarantined_from", "quarantined_before", "dry_run"}
    assert json.dumps(params.dump())
    assert all(params.get_param(name).description for name in params)
