"""The tasks of a landing DAG, shared by the DAGs of all kinds of source."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.sdk import Metadata, Param, Variable, task
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from include.assets import raw_asset
from include.stack.windows import moment
from include.tags import Pool

if TYPE_CHECKING:
    from include.landing.quarantine import Filter

log = logging.getLogger(__name__)
_TEXT: dict[str, Any] = {"type": ["null", "string"]}
_MOMENT: dict[str, Any] = {"type": ["null", "string"], "format": "date-time"}


def arrival_params() -> dict[str, Any]:
    """Params that let a run triggered by hand land another window of arrivals."""
    return {
        "arrived_from": Param(None, description="Land files that arrived at or after this moment (empty: look back as usual).", **_MOMENT),
        "arrived_before": Param(None, description="Land files that arrived before this moment (empty: the end of the interval).", **_MOMENT),
    }


def replay_params(streams: Iterable[str]) -> dict[str, Any]:
    """Params that choose quarantined rows; what is empty leaves nothing out."""
    return {
        "stream": Param(None, type=["null", "string"], enum=[None, *streams], description="Only rows of this stream."),
        "code": Param(None, description="Only rows with this error code, for example out_of_range.", **_TEXT),
        "file": Param(None, description="Only rows of this file of the zone; * stands for any text.", **_TEXT),
        "quarantined_from": Param(None, description="Only rows quarantined at or after this moment.", **_MOMENT),
        "quarantined_before": Param(None, description="Only rows quarantined before this moment.", **_MOMENT),
        "dry_run": Param(False, type="boolean", description="Do everything and keep nothing: the log says what would become of the rows."),
    }


def chosen_rows(params: Mapping[str, Any]) -> Filter:
    """The filter that params of `replay_params` mean.

    Raises:
        ValueError: If a moment is none.
    """
    from include.landing.quarantine import Filter

    since, before = (moment(params[name], name) if params.get(name) else None for name in ("quarantined_from", "quarantined_before"))
    return Filter(params.get("stream"), params.get("code"), params.get("file"), since, before)


def add_replay_tasks(streams: Iterable[str]) -> None:
    """Adds to the current DAG, for each stream, a task that replays the quarantined rows that the params choose."""

    @task(pool=Pool.LANDING)
    def replay(stream: str, params: dict[str, Any], dag_run: Any = None) -> Iterator[Metadata]:  # noqa: ANN401  Airflow's own
        from include.landing.replay import replay

        selection = chosen_rows(params)
        if selection.stream not in {None, stream}:
            raise AirflowSkipException(f"the params name {selection.stream}")
        result = replay(stream, selection, by=dag_run.triggering_user_name or "airflow", dry_run=params["dry_run"])
        log.info("%s%s: %s, %d of them failed again", "dry run: " if params["dry_run"] else "", stream, result.counts(), result.quarantined)
        if result.failed_files:
            raise AirflowException(f"{len(result.failed_files)} files could not be replayed, first {result.failed_files[0]}; the log has the reasons")
        if params["dry_run"] or not result.accepted + result.corrected:
            raise AirflowSkipException(f"{stream} is on hold" if result.is_held else f"{stream} got no rows")  # a skipped task emits no event
        yield Metadata(raw_asset(stream), extra=dict(result.counts()))

    for stream in streams:
        replay.override(task_id=f"replay_{stream}", outlets=[raw_asset(stream)])(stream)  # type: ignore[call-arg, misc]


def add_landing_tasks(streams: Iterable[str]) -> None:
    """Adds to the current DAG, for each stream, a task that lands what arrived and one that checks what its contract promises.

    One task a stream in a loop, not one mapped task: outlets of a mapped task are emitted by every one of its instances.
    """

    @task(pool=Pool.LANDING)
    def land(stream: str, params: dict[str, Any], data_interval_end: pendulum.DateTime | None = None) -> Iterator[Metadata]:
        from include.landing import land_pending
        from include.stack.windows import arrival_window

        window = arrival_window(params, data_interval_end, lookback_hours=int(Variable.get("landing_lookback_hours")))
        result = land_pending(stream, arrived_from=window.start, arrived_before=window.end)
        if not result.files:
            why = "is on hold" if result.is_held else "is without arrivals"
            if result.failed_files:
                why = f"got no rows: {len(result.failed_files)} files failed, first {result.failed_files[0]}; the log has the reasons"
            raise AirflowSkipException(f"{stream} {why}")  # a skipped task emits no event
        yield Metadata(raw_asset(stream), extra=dict(result.counts()))

    # Runs after the commit, whatever landed: good rows flow, and a broken promise is red without blocking the next run.
    @task(trigger_rule="all_done", retries=0)
    def check(stream: str, params: dict[str, Any], data_interval_end: pendulum.DateTime | None = None) -> None:
        from include.landing import check_landing
        from include.stack.windows import arrival_window

        window = arrival_window(params, data_interval_end, lookback_hours=int(Variable.get("landing_lookback_hours")))
        check_landing(stream, now=window.end)

    for stream in streams:
        # Airflow fills the other arguments from the run's context, which their types cannot say.
        landed: Any = land.override(task_id=f"land_{stream}", outlets=[raw_asset(stream)])(stream)  # type: ignore[call-arg, misc]
        landed >> check.override(task_id=f"check_{stream}")(stream)  # type: ignore[call-arg, misc]
