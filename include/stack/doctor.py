"""What a person would check first when something does not work."""

from __future__ import annotations

import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil

from include.landing.errors import ZoneError
from include.settings import get_settings
from include.stack import supervisor
from include.stack.up import MINIMUM_FREE_BYTES, MINIMUM_PYTHON

RECOMMENDED_MEMORY_BYTES = 4 * 1024**3


@dataclass(frozen=True)
class Finding:
    """One check: what was found and what to do; no advice where all is well."""

    check: str
    is_good: bool
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Runs every check. A check that breaks is a finding itself."""
    checks: list[Callable[[], Iterator[Finding]]] = [_python, _disk, _memory, _secrets, _settings_file, _ports, _warehouse, _zone, _components]
    findings: list[Finding] = []
    for check in checks:
        try:
            findings.extend(check())
        except Exception as error:
            findings.append(
                Finding(check.__name__.strip("_"), False, str(error).splitlines()[0] if str(error) else type(error).__name__, getattr(error, "hint", ""))
            )
    return findings


def _python() -> Iterator[Finding]:
    good = sys.version_info >= MINIMUM_PYTHON
    yield Finding("Python", good, sys.version.split()[0], "" if good else "install Python 3.11 or newer and run `make setup`")


def _disk() -> Iterator[Finding]:
    home = get_settings().home
    free = shutil.disk_usage(home if home.exists() else home.parent).free
    good = free >= MINIMUM_FREE_BYTES
    yield Finding("disk", good, f"{free / 1024**3:.1f} GiB free at {home}", "" if good else "free some space, or set TIDEMARK_HOME to another disk")


def _memory() -> Iterator[Finding]:
    total = psutil.virtual_memory().total
    good = total >= RECOMMENDED_MEMORY_BYTES * 0.9
    yield Finding("memory", good, f"{total / 1024**3:.1f} GiB", "" if good else "4 GiB are recommended: Airflow alone takes about 1.5")


def _secrets() -> Iterator[Finding]:
    path = get_settings().secrets_path
    if not path.exists():
        yield Finding("secrets", False, f"{path} does not exist", "run `tidemark up`: it generates them")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    yield Finding("secrets", mode & 0o077 == 0, f"{path}, mode {mode:o}", "" if mode & 0o077 == 0 else f"chmod 600 {path}")


def _settings_file() -> Iterator[Finding]:
    from include.stack.airflow_settings import load_airflow_settings, placeholders, settings_file

    loaded = load_airflow_settings(settings_file(), placeholders())
    yield Finding("airflow_settings.yaml", True, f"{len(loaded.connections)} connections, {len(loaded.pools)} pools, {len(loaded.variables)} variables")


def _ports() -> Iterator[Finding]:
    from include.warehouse import server

    settings = get_settings()
    if not supervisor.is_running():
        listeners = {"Airflow": (settings.airflow_host, settings.airflow_port), "Gateway": (settings.gateway_host, settings.gateway_port)}
        for name, (host, port) in listeners.items():
            taken = server.port_is_taken(host, port)
            yield Finding(
                f"{name} port",
                not taken,
                f"{port} is {'taken by another program' if taken else 'free'}",
                f"set TIDEMARK_{name.upper()}_PORT to a free port" if taken else "",
            )
    if settings.is_embedded and not server.is_running():
        taken = server.port_is_taken("127.0.0.1", settings.postgres_port)
        yield Finding(
            "PostgreSQL port",
            not taken,
            f"{settings.postgres_port} is {'taken by another program' if taken else 'free'}",
            "set TIDEMARK_POSTGRES_PORT to a free port" if taken else "",
        )


def _warehouse() -> Iterator[Finding]:
    from include.warehouse import Role, connect

    with connect(Role.ANALYST) as connection:
        row = connection.execute("select current_setting('server_version'), current_setting('fsync'), pg_database_size(current_database())").fetchone()
    assert row is not None
    yield Finding(
        "warehouse",
        row[1] == "on",
        f"PostgreSQL {row[0]}, {row[2] / 1024**2:,.0f} MiB, fsync {row[1]}",
        "" if row[1] == "on" else "switch fsync on: the ledger is only as good as the disk",
    )


def _zone() -> Iterator[Finding]:
    from include.lake.store import open_lake
    from include.landing.object_store import ObjectStore
    from include.landing.zone import Zone

    settings = get_settings()
    stores: dict[str, tuple[str, Callable[[], Zone | ObjectStore]]] = {
        "landing zone": (settings.zone_url, lambda: Zone(settings.zone_url)),
        "lake": (settings.lake_root, open_lake),
    }
    for name, (url, open_it) in stores.items():
        try:
            open_it().check()
        except ZoneError as error:
            problem, _, advice = str(error).partition("; ")
            yield Finding(name, False, problem, advice)
        else:
            yield Finding(name, True, f"{url} answers")


def _components() -> Iterator[Finding]:
    from include.stack.airflow_env import airflow_home
    from include.stack.component import GATEWAY
    from include.stack.health import components

    for component in components():
        log = airflow_home() / "logs" / f"{component.name}.log"
        advice = "" if component.is_healthy else ("run `tidemark up`" if component.state == "stopped" else f"see {log}")
        name = component.name if component.name == GATEWAY else f"Airflow {component.name}"
        yield Finding(name, component.is_healthy, f"{component.state}, {component.detail}", advice)
