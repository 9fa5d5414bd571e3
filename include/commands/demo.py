"""`tidemark demo`: the whole way of the house once, through Airflow, with the time of each step."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from include.commands.console import Steps, console, progress_bars
from include.commands.data import run_backfill
from include.commands.summary import print_summary
from include.stack.errors import StackError
from include.stack.rest import AirflowApi
from include.stack.sources import SimulatedHistory, simulate_history, simulated_history

LANDING_DAGS = ("land_device_streams", "land_commerce_streams")
NEVER_SWITCHED_ON = {"rebuild_warehouse"}
LOOK_BACK = "landing_lookback_hours"
TICK = timedelta(minutes=5)  # of the sources and of landing
STEP_TIMEOUT_S = 900.0


def demo(days: Annotated[int, typer.Option("--days", min=30, max=720, help="Length of the simulated history.")] = 90) -> None:
    """Set up everything, simulate a company, land its history, build, train and score, and leave the stack running.

    Safe to repeat after a failure: it goes on where it stopped. `tidemark down --purge` makes room for a fresh one.

    Example: tidemark demo
    """
    from include.stack import up as stack
    from include.stack.health import wait_until_healthy

    begun = time.monotonic()
    steps = Steps()
    report = stack.up(step=steps, unpause_new=False, wait=False)
    history = simulated_history()
    if history is None:
        with steps(f"simulated history of {days} days (Airflow starts meanwhile)"):
            history = write_history(_last_tick(datetime.now(UTC)), days)
    with steps("every Airflow process healthy"):
        wait_until_healthy()
    with AirflowApi() as api:
        api.switch("simulate_sources", on=True)  # from the end of the history on, without a gap
        yesterday = history.today - timedelta(days=1)
        with steps("yesterday landed by airflow backfill"):
            run_backfill(api, yesterday, yesterday, again=False, wait=True, timeout_s=STEP_TIMEOUT_S)
        with steps("every other day landed by the landing DAGs' schedules"):
            _land(api, history.since)
        with steps("marts built"):
            _run(api, "build_marts")
        with steps("models trained, hourly tables and docs made"):
            _run(api, "train_device_failure", "train_failure_details", "build_hourly", "publish_docs")
        with steps("devices scored, priorities ranked, tomorrow's work orders proposed"):
            _run(api, "score_failure_details")  # first, so that work orders name the component
            _score(api)
        with steps("every schedule switched on"):
            for dag in api.request("GET", "/dags", params={"limit": 100})["dags"]:
                if dag["dag_id"] not in NEVER_SWITCHED_ON:
                    api.switch(dag["dag_id"], on=True)
    console.print()
    print_summary(report.url)
    console.print(
        f"\n[bold]Done in {time.monotonic() - begun:.0f} s.[/bold] The stack goes on running; `tidemark status` shows how it is, `tidemark down` stops it."
    )


def _last_tick(now: datetime) -> datetime:
    """Just before the last tick of the schedules: the next run of landing takes what arrived by then, and the next one of the sources goes on from there."""
    return now - (now - datetime.min.replace(tzinfo=UTC)) % TICK - timedelta(seconds=1)


def write_history(until: datetime, days: int) -> SimulatedHistory:
    """Writes the history with a bar of files."""
    with progress_bars() as bars:
        bar = bars.add_task("files written", total=None)
        return simulate_history(until, days, lambda done, total: bars.update(bar, completed=done, total=total))


def _land(api: AirflowApi, since: datetime) -> None:
    """Lets the schedule of each landing DAG look back over the whole history once, with a bar of files, and switches it off until the end.

    Every five minutes they would land what the sources send on, and have the marts built again: beside the steps to come that would be waited for as well.
    """
    from include.contracts import streams
    from include.landing.zone import Zone
    from include.settings import get_settings

    zone = Zone(get_settings().zone_url)
    arrived_from = since - timedelta(days=1)
    total = sum(len(zone.list(stream, arrived_from, None)) for stream in streams())
    api.set_variable(LOOK_BACK, str((datetime.now(UTC) - arrived_from) // timedelta(hours=1) + 1))
    runs = {dag_id: api.switch_on_and_run(dag_id) for dag_id in LANDING_DAGS}
    with progress_bars() as bars:
        bar = bars.add_task("files landed", total=total)

        def look() -> None:
            bars.update(bar, completed=_landed_files(arrived_from))

        for dag_id, run_id in runs.items():
            api.wait(dag_id, [run_id], timeout_s=STEP_TIMEOUT_S, poll=look)
    for dag_id in LANDING_DAGS:
        api.switch(dag_id, on=False)
    api.set_variable(LOOK_BACK, _configured(LOOK_BACK))


def _configured(variable: str) -> str:
    from include.stack.airflow_settings import load_airflow_settings, placeholders, settings_file

    loaded = load_airflow_settings(settings_file(), placeholders())
    return next(entry.variable_value for entry in loaded.variables if entry.variable_name == variable)


def _landed_files(arrived_from: datetime) -> int:
    from include.warehouse import Role, connect

    with connect(Role.ANALYST) as connection:
        row = connection.execute("select count(*) from ops.file where kind = 'arrival' and state <> 'pending' and arrived_at >= %s", (arrived_from,)).fetchone()
    assert row is not None
    return int(row[0])


def _run(api: AirflowApi, *dag_ids: str) -> None:
    """One run of each DAG, at the same time. Switching a daily or hourly DAG on makes the scheduler ask for its latest interval: that run is taken."""
    runs = {dag_id: api.switch_on_and_run(dag_id) for dag_id in dag_ids}
    with progress_bars() as bars:
        bar = bars.add_task("tasks", total=None)

        def look() -> None:
            states = [state for dag_id, run_id in runs.items() for state in api.tasks(dag_id, run_id).values()]
            bars.update(bar, total=len(states), completed=sum(1 for state in states if state in {"success", "skipped"}))

        for dag_id, run_id in runs.items():
            api.wait(dag_id, [run_id], timeout_s=STEP_TIMEOUT_S, poll=look)


def _score(api: AirflowApi) -> None:
    """Scores, and waits for the ranking that the predictions' asset starts."""
    api.switch("build_priorities", on=True)
    before = {run.run_id for run in api.runs("build_priorities")}
    run_id = api.switch_on_and_run("score_device_failure")
    with console.status("scoring …"):
        api.wait("score_device_failure", [run_id], timeout_s=STEP_TIMEOUT_S)
    scored = api.tasks("score_device_failure", run_id)
    if scored["score_champion"] == "skipped":
        console.print("[yellow]  nothing was scored: no model passed its gate, or no feature row changed[/yellow]")
        _run(api, "build_priorities")
        return
    with console.status("ranking …"):
        run = _appears(lambda: [run.run_id for run in api.runs("build_priorities") if run.run_id not in before])
        api.wait("build_priorities", [run], timeout_s=STEP_TIMEOUT_S)


def _appears(find: Callable[[], list[str]], timeout_s: float = 60) -> str:
    deadline = time.monotonic() + timeout_s
    while not (found := find()):
        if time.monotonic() > deadline:
            raise StackError("scoring announced predictions but no ranking started", "see build_priorities in the Airflow UI")
        time.sleep(0.5)
    return found[-1]
