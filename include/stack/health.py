"""Whether the stack is well: what its processes report about themselves, and what the supervisor sees."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from include.settings import Settings, get_settings
from include.stack import supervisor
from include.stack.airflow_env import airflow_home, base_url
from include.stack.component import GATEWAY
from include.stack.errors import StackError

REPORTED_AS = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}
START_TIMEOUT_S = 180.0
POLL_S = 0.5


@dataclass(frozen=True)
class ComponentHealth:
    """One process: healthy only where it runs and says so itself."""

    name: str
    is_healthy: bool
    state: str
    pid: int | None
    uptime_s: int
    detail: str


def title(name: str) -> str:
    """A component in words."""
    return "The gateway" if name == GATEWAY else f"Airflow's {name}"


def reported_health() -> dict[str, str]:
    """What `/api/v2/monitor/health` says, status by component; empty where the API server does not answer."""
    try:
        answer = httpx.get(f"{base_url()}/api/v2/monitor/health", timeout=5)
        answer.raise_for_status()
        return {name: str(entry.get("status")) for name, entry in answer.json().items()}
    except (httpx.HTTPError, ValueError):
        return {}


def gateway_health(settings: Settings | None = None) -> str | None:
    """What the gateway of this stack says at `/healthz`: `healthy`, or None where it does not answer."""
    settings = settings or get_settings()
    address = settings.model_copy(update={"gateway_url": ""}).gateway_address  # senders may go through a proxy
    try:
        # Its certificate is for the names that senders use; here it only says whether it lives.
        return "healthy" if httpx.get(f"{address}/healthz", timeout=5, verify=False).is_success else None  # noqa: S501
    except (httpx.ReadError, httpx.RemoteProtocolError):
        return "healthy" if settings.gateway_client_ca else None  # it shook hands and then asked for a device's certificate, which we are not
    except httpx.TransportError:
        return None


def components() -> list[ComponentHealth]:
    """Health of each process."""
    reported = reported_health()
    found = []
    for process in supervisor.status():
        if process.name == GATEWAY:
            said = gateway_health()
        else:
            said = reported.get(REPORTED_AS[process.name]) if process.name in REPORTED_AS else ("healthy" if reported else None)
        healthy = process.state in {"RUNNING", "STARTING"} and said == "healthy"
        found.append(ComponentHealth(process.name, healthy, process.state.lower(), process.pid, process.uptime_s, said or "says nothing yet"))
    return found


def wait_until_healthy(progress: Callable[[list[ComponentHealth]], None] | None = None, timeout_s: float = START_TIMEOUT_S) -> float:
    """Waits until every process is healthy.

    Args:
        progress: Called with the current state at every look.
        timeout_s: How long to wait.

    Returns:
        Seconds it took.

    Raises:
        StackError: If a process gave up or the time is over; the message names it and its log.
    """
    started = time.monotonic()
    while True:
        now = components()
        if progress is not None:
            progress(now)
        if all(component.is_healthy for component in now):
            return time.monotonic() - started
        gave_up = [component.name for component in now if component.state in {"fatal", "exited"}]
        if gave_up or time.monotonic() - started > timeout_s:
            name = (gave_up or [component.name for component in now if not component.is_healthy])[0]
            verb = "does not stay up" if gave_up else f"was not healthy within {timeout_s:.0f} s"
            raise StackError(f"{title(name)} {verb}", f"see {airflow_home() / 'logs' / f'{name}.log'}")
        time.sleep(POLL_S)
