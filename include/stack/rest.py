"""Airflow's REST API, as far as the command line needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

import httpx

from include.settings import secret
from include.stack.airflow_env import ADMIN_PASSWORD, ADMIN_USER, base_url
from include.stack.errors import StackError

POLL_S = 0.5
FINISHED = {"success", "failed"}


@dataclass(frozen=True)
class Run:
    """A DAG run."""

    dag_id: str
    run_id: str
    run_type: str
    state: str
    logical_date: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


class AirflowApi:
    """A logged-in session. Use it as a context manager.

    Raises:
        StackError: From every method, where Airflow does not answer or refuses.
    """

    def __init__(self) -> None:
        self._client = httpx.Client(base_url=base_url(), timeout=30)
        try:
            answer = self._client.post("/auth/token", json={"username": ADMIN_USER, "password": secret(ADMIN_PASSWORD)})
        except httpx.HTTPError:
            self._client.close()
            raise StackError(f"Airflow does not answer at {base_url()}", "start it with `tidemark up`") from None
        if answer.status_code != httpx.codes.CREATED:
            self._client.close()
            raise StackError(f"Airflow at {base_url()} refuses the login ({answer.status_code})", "another stack may own this port: `tidemark status`")
        self._client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def __enter__(self) -> AirflowApi:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def request(self, method: str, path: str, **arguments: Any) -> Any:  # noqa: ANN401  JSON
        """Sends one request below /api/v2 and returns its JSON."""
        try:
            answer = self._client.request(method, f"/api/v2{path}", **arguments)
        except httpx.HTTPError as error:
            raise StackError(f"Airflow stopped answering: {type(error).__name__}", "`tidemark status` says which process is down") from None
        if answer.is_error:
            raise StackError(f"Airflow refused {method} {path}: {answer.status_code} {answer.text[:300]}")
        return answer.json() if answer.content else None

    def switch(self, dag_id: str, *, on: bool) -> None:
        """Switches a DAG's schedule on or off."""
        self.request("PATCH", f"/dags/{dag_id}", json={"is_paused": not on})

    def set_variable(self, name: str, value: str) -> None:
        """Changes an Airflow variable."""
        self.request("PATCH", f"/variables/{name}", json={"key": name, "value": value})

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Starts a run by hand and returns its id. The DAG must be on, or the run stays queued."""
        return str(self.request("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf or {}})["dag_run_id"])

    def run(self, dag_id: str, run_id: str) -> Run:
        """One run."""
        return _run(self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}"))

    def runs(self, dag_id: str, *, run_type: str | None = None, started_after: datetime | None = None, limit: int = 50) -> list[Run]:
        """Runs of a DAG, newest first."""
        query: dict[str, Any] = {"order_by": "-run_after", "limit": limit}
        if run_type:
            query["run_type"] = run_type
        if started_after:
            query["run_after_gte"] = started_after.isoformat()
        return [_run(entry) for entry in self.request("GET", f"/dags/{dag_id}/dagRuns", params=query)["dag_runs"]]

    def tasks(self, dag_id: str, run_id: str) -> dict[str, str]:
        """State by task of a run; 'waiting' where it has none yet."""
        found = self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 100})
        return {entry["task_id"]: entry["state"] or "waiting" for entry in found["task_instances"]}

    def wait(self, dag_id: str, run_ids: Iterable[str], *, timeout_s: float, poll: Callable[[], None] | None = None) -> None:
        """Waits until runs have ended well.

        Args:
            dag_id: Their DAG.
            run_ids: The runs.
            timeout_s: How long to wait.
            poll: Called at every look, for progress.

        Raises:
            StackError: If a run failed (with its failed tasks) or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        waiting = list(run_ids)
        while waiting:
            if poll is not None:
                poll()
            for run_id in list(waiting):
                state = self.run(dag_id, run_id).state
                if state == "failed":
                    failed = sorted(task for task, task_state in self.tasks(dag_id, run_id).items() if task_state in {"failed", "upstream_failed"})
                    raise StackError(f"{dag_id}: {', '.join(failed) or 'the run'} failed", f"logs: {base_url()}/dags/{dag_id}/runs/{run_id}")
                if state == "success":
                    waiting.remove(run_id)
            if waiting and time.monotonic() > deadline:
                raise StackError(f"{dag_id} did not end within {timeout_s:.0f} s", f"see {base_url()}/dags/{dag_id}")
            if waiting:
                time.sleep(POLL_S)
        if poll is not None:
            poll()

    def switch_on_and_run(self, dag_id: str, *, patience_s: float = 8.0) -> str:
        """A fresh run of a DAG, and its id.

        A DAG with a schedule that was off gets a run for its latest interval from the scheduler when it is switched on; that one is taken, so that
        nothing runs twice. In every other case a run is triggered.
        """
        dag = self.request("GET", f"/dags/{dag_id}")
        was_off, has_clock = dag["is_paused"], dag["timetable_summary"] not in {None, "", "Asset", "Never, external triggers only"}
        known = {run.run_id for run in self.runs(dag_id)}
        self.switch(dag_id, on=True)
        deadline = time.monotonic() + patience_s
        while was_off and has_clock and time.monotonic() < deadline:
            fresh = [run.run_id for run in self.runs(dag_id) if run.run_id not in known]
            if fresh:
                return fresh[-1]
            time.sleep(POLL_S)
        return self.trigger(dag_id)

    def create_backfill(self, dag_id: str, first: datetime, last: datetime, *, again: bool) -> int:
        """What `airflow backfill create` does: one run a schedule tick between both moments, included. Returns the backfill's id.

        Args:
            dag_id: The DAG.
            first: First logical date.
            last: Last logical date.
            again: Run days again that have a finished run (`--reprocess-behavior completed`).
        """
        body = {
            "dag_id": dag_id,
            "from_date": first.isoformat(),
            "to_date": last.isoformat(),
            "max_active_runs": 1,
            "reprocess_behavior": "completed" if again else "none",
        }
        return int(self.request("POST", "/backfills", json=body)["id"])

    def backfill_is_complete(self, backfill_id: int) -> bool:
        """Whether every run of a backfill has ended."""
        return self.request("GET", f"/backfills/{backfill_id}")["completed_at"] is not None


def _run(entry: dict[str, Any]) -> Run:
    def parsed(name: str) -> datetime | None:
        return datetime.fromisoformat(entry[name]) if entry.get(name) else None

    return Run(entry["dag_id"], entry["dag_run_id"], entry["run_type"], entry["state"], parsed("logical_date"), parsed("start_date"), parsed("end_date"))
