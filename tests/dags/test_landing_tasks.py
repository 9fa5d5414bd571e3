"""The tasks of the landing DAGs, run as Airflow runs them, against a real warehouse."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Warehouse
from tests.support.payloads import at, put, telemetry


def skipped(house: dict[str, Any]) -> str:
    """Why the task that lands telemetry skips."""
    from airflow.sdk.exceptions import AirflowSkipException  # only once Airflow's home is set

    operator = house["land_device_streams"].get_task("land_device_telemetry")
    with pytest.raises(AirflowSkipException) as reason:
        list(operator.python_callable(*operator.op_args, params={}, data_interval_end=at(1)))
    return str(reason.value)


def test_a_run_that_lands_nothing_says_why(house: dict[str, Any], warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("include.stack.landing_tasks.Variable.get", lambda _: "48")
    assert skipped(house) == "device_telemetry is without arrivals"
    file = put("device_telemetry", [telemetry("m1", at(0, 1))], arrived_at=at(0, 2))

    def fail(*_: object) -> None:
        raise RuntimeError("no idea")

    monkeypatch.setattr("include.landing.store.stored_copies", fail)
    assert skipped(house) == f"device_telemetry got no rows: 1 files failed, first {file.address}; the log has the reasons"
