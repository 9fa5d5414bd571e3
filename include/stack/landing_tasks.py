"""The tasks of a landing DAG, shared by the DAGs of all kinds of source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pendulum
from airflow.sdk import Metadata, Param, Variable, task
from airflow.sdk.exceptions import AirflowSkipException

from include.assets import raw_asset
from include.tags import Pool

_MOMENT: dict[str, Any] = {"type": ["null", "string"], "format": "date-time"}


def arrival_params() -> dict[str, Any]:
    """Params that let a run triggered by hand land another window of arrivals."""
    return {
        "arrived_from": Param(None, description="Land files that arrived at or after this moment (empty: look back as usual).", **_MOMENT),
        "arrived_before": Param(None, description="Land files that arrived before this moment (empty: the end of the interval).", **_MOMENT),
    }


def add_landing_tasks(streams: Iterable[str]) -> None:
    """Adds to the current DAG, for each stream, a task that lands what arrived and one that checks what its contract promises.

    One task a stream in a loop, not one mapped task: outlets of a mapped task are emitted by every one of its instances.
    """

    @task(pool=Pool.LANDING)
    def land(stream: str, params: dict[str, Any], data_interval_end: pendulum.DateTime | None = None) -> Iterator[Metadata]:
        from include.landing import land_pending
        from include.stack.windows import arrival_window

        window = arrival_window(params, data_interval_end, lookback_hours=int(Variable.get("landing_lookback_hours")))
        result = None if window.is_empty else land_pending(stream, arrived_from=window.start, arrived_before=window.end)
        if result is None or not result.files:
            raise AirflowSkipException(f"{stream} is {'on hold' if result and result.is_held else 'without arrivals'}")  # a skipped task emits no event
        yield Metadata(raw_asset(stream), extra=dict(result.counts()))

    # Runs after the commit, whatever landed: good rows flow, and a broken promise is red without blocking the next run.
    @task(trigger_rule="all_done", retries=0)
    def check(stream: str, params: dict[str, Any], data_interval_end: pendulum.DateTime | None = None) -> None:
        from include.landing import check_landing
        from include.stack.windows import arrival_window

        window = arrival_window(params, data_interval_end, lookback_hours=int(Variable.get("landing_lookback_hours")))
        if window.is_empty:
            raise AirflowSkipException("scheduled landing is held back: the look-back is 0 hours")
        check_landing(stream, now=window.end)

    for stream in streams:
        # Airflow fills the other arguments from the run's context, which their types cannot say.
        landed: Any = land.override(task_id=f"land_{stream}", outlets=[raw_asset(stream)])(stream)  # type: ignore[call-arg, misc]
        landed >> check.override(task_id=f"check_{stream}")(stream)  # type: ignore[call-arg, misc]
