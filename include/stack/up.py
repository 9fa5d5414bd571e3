"""Brings the whole stack up, and takes it down without leaving a process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from include.settings import get_settings
from include.stack import supervisor
from include.stack.airflow_env import airflow_home, base_url, ensure_airflow_secrets
from include.stack.deploy import deploy
from include.stack.errors import StackError
from include.stack.health import ComponentHealth, wait_until_healthy
from include.warehouse import bootstrap, migrate, server

MINIMUM_PYTHON = (3, 11)
MINIMUM_FREE_BYTES = 2 * 1024**3

Step = Callable[[str], AbstractContextManager[object]]
Progress = Callable[[list[ComponentHealth]], None]


@dataclass(frozen=True)
class UpReport:
    """What `up` found and did."""

    url: str
    dags: int
    was_running: bool


def _untimed(title: str) -> AbstractContextManager[object]:
    del title
    return nullcontext()


def check_machine() -> None:
    """Refuses to begin what cannot end well.

    Raises:
        StackError: If Python is too old, the disk too full, the home not writable or a port taken.
    """
    settings = get_settings()
    if sys.version_info < MINIMUM_PYTHON:
        raise StackError(
            f"Python {sys.version_info.major}.{sys.version_info.minor} is too old: Tidemark needs 3.11 or newer", "install it and run `make setup` again"
        )
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(settings.home).free
    except OSError as error:
        raise StackError(f"cannot use {settings.home}: {error.strerror}", "set TIDEMARK_HOME to a folder that you may write to") from None
    if free < MINIMUM_FREE_BYTES:
        raise StackError(
            f"only {free / 1024**3:.1f} GiB free at {settings.home}; the stack needs at least 2 GiB", "free some space, or set TIDEMARK_HOME to another disk"
        )
    listeners = {"AIRFLOW": (settings.airflow_host, settings.airflow_port), "GATEWAY": (settings.gateway_host, settings.gateway_port)}
    for name, (host, port) in listeners.items():
        if not supervisor.is_running() and server.port_is_taken(host, port):
            raise StackError(f"port {port} is taken by another program", f"stop it, or set TIDEMARK_{name}_PORT to a free port")


def start_warehouse(step: Step = _untimed) -> None:
    """Server, roles, databases, schema and views: everything below Airflow. Does nothing where it is done."""
    if get_settings().is_embedded:
        with step("PostgreSQL"):
            server.start()
    with step("roles, databases and schema"):
        bootstrap()
        migrate()
        if get_settings().simulate:
            from include.gateway.keys.administration import ensure_secret_key
            from include.gateway.session import OWN_KEY
            from include.landing.zone import DEFAULT_TENANT

            ensure_secret_key(OWN_KEY, tenant=DEFAULT_TENANT, note="the simulator and `tidemark post` of this machine", by="tidemark up")
    with step("dbt project and views"):
        from include.transform import deploy as deploy_views

        deploy_views()


def up(*, step: Step = _untimed, progress: Progress | None = None, unpause_new: bool = True, wait: bool = True) -> UpReport:
    """Starts what does not run and migrates what is older than this checkout. Safe to repeat.

    Args:
        step: Context manager around each step, for messages and times.
        progress: Called with the health of the processes while they start.
        unpause_new: Switch DAGs on that this database has never seen. DAGs that it knows keep their switch.
        wait: Wait until every process is healthy.

    Raises:
        StackError, ServerError, WarehouseUnavailable, SettingsError: With one line that says what to do.
    """
    check_machine()
    was_running = supervisor.is_running()
    start_warehouse(step)
    with step("Airflow database, settings and DAGs"):
        ensure_airflow_secrets()
        report = deploy(unpause_new=unpause_new)
    with step("Airflow and the gateway"):
        supervisor.start()
        if wait:
            wait_until_healthy(progress)
    return UpReport(url=base_url(), dags=report["dags"], was_running=was_running)


def down(*, purge: bool = False, step: Step = _untimed) -> int:
    """Stops everything. With `purge` it also removes the warehouse, the zone, secrets and logs for good.

    Returns:
        How many processes did not stop by themselves and were killed.
    """
    with step("Airflow and the gateway"):
        killed = supervisor.stop()
    if get_settings().is_embedded:
        with step("PostgreSQL"):
            if purge:
                server.purge()
            else:
                server.stop()
    if purge:
        with step(f"removing {get_settings().home}"):
            shutil.rmtree(get_settings().home, ignore_errors=True)
    return killed


def log_folder() -> str:
    """Where the logs of Airflow's processes and tasks are."""
    return str(airflow_home() / "logs")
