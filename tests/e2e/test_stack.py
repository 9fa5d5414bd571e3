"""The stack as a user starts it: real PostgreSQL, real supervised Airflow, on free ports and in a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from include.settings import REPOSITORY, get_settings, read_secrets
from include.stack.airflow_env import STACK_MARK, process_environment
from include.stack.rest import AirflowApi
from include.warehouse import Role, connect
from tests.conftest import free_port, set_environment
from tests.support.marts import differences, snapshot, tables

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("stack")]

PATIENCE_S = 240.0
COMPONENTS = {"api-server", "scheduler", "dag-processor", "triggerer", "gateway"}

# What anybody may see: the login, static files, the empty application shell, OpenAPI and its pages, health, version. Nothing here shows data.
ANONYMOUS = {
    ("GET", "/1"),  # the empty application shell, whatever the path
    ("GET", "/static/"),
    ("GET", "/health"),
    ("GET", "/api/1"),  # "API route not found"
    ("GET", "/api/v1/1"),  # "has been removed"
    ("GET", "/api/v2/monitor/health"),
    ("GET", "/api/v2/version"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/docs/oauth2-redirect"),
    ("GET", "/redoc"),
    ("GET", "/auth/1"),  # the login page
    ("GET", "/auth/static/"),
    ("GET", "/auth/openapi.json"),
    ("GET", "/auth/docs"),
    ("GET", "/auth/docs/oauth2-redirect"),
    ("GET", "/auth/redoc"),
    ("POST", "/auth/token"),
    ("POST", "/auth/token/cli"),
    ("GET", "/execution/openapi.json"),
    ("GET", "/execution/docs"),
    ("GET", "/execution/docs/oauth2-redirect"),
    ("GET", "/execution/redoc"),
    ("GET", "/execution/changelog"),  # of the API's versions
    ("GET", "/execution/health"),
    ("GET", "/execution/health/ping"),
}


@dataclass(frozen=True)
class Stack:
    """A running stack."""

    home: Path
    url: str
    environment: dict[str, str]

    def tidemark(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs the command line as a user does."""
        done = subprocess.run([sys.executable, "-m", "include.cli", *arguments], env=self.environment, cwd=REPOSITORY, capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def status(self) -> dict[str, Any]:
        """What `tidemark status --json` says."""
        return dict(json.loads(self.tidemark("status", "--json", check=False).stdout))

    def token(self) -> str:
        """A bearer token of the administrator."""
        password = read_secrets(self.home / "secrets")["AIRFLOW_ADMIN_PASSWORD"]
        answer = httpx.post(f"{self.url}/auth/token", json={"username": "admin", "password": password}, timeout=20)
        assert answer.status_code == 201
        return str(answer.json()["access_token"])


def environment_of(home: Path) -> dict[str, str]:
    """The environment of a user with this home and free ports."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMARK_", "AIRFLOW"))}
    return {
        **clean,
        "TIDEMARK_HOME": str(home),
        "TIDEMARK_POSTGRES_PORT": str(free_port()),
        "TIDEMARK_AIRFLOW_PORT": str(free_port()),
        "TIDEMARK_GATEWAY_PORT": str(free_port()),
        "TIDEMARK_SIMULATE": "false",
    }


def processes_of(home: Path) -> list[psutil.Process]:
    """Everything that runs for this home: Airflow by its mark, PostgreSQL by its data directory."""
    from include.stack.component import marked_processes

    data = str((home / "postgres").resolve())
    servers = [process for process in psutil.process_iter(["cmdline"]) if data in " ".join(process.info["cmdline"] or ())]
    return [*marked_processes(str(home.resolve())), *servers]


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for a condition of another process; the deadline is generous because machines are busy."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S:.0f} s"
        time.sleep(0.3)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """`tidemark up --paused` in a home of its own."""
    home = Path(tempfile.mkdtemp(prefix="tidemark-e2e-"))
    environment = environment_of(home)
    found = Stack(home, f"http://127.0.0.1:{environment['TIDEMARK_AIRFLOW_PORT']}", environment)
    try:
        found.tidemark("up", "--paused")
        yield found
    finally:
        found.tidemark("down", "--purge", "--yes", check=False)


def test_up_starts_every_process(stack: Stack) -> None:
    status = stack.status()
    assert {process["name"] for process in status["processes"] if process["is_healthy"]} == COMPONENTS
    assert status["warehouse"]["is_healthy"]


def test_secrets_are_readable_by_their_owner_only(stack: Stack) -> None:
    for name in ("secrets", "airflow/passwords.json", "supervisor/supervisord.conf"):
        assert (stack.home / name).stat().st_mode & 0o077 == 0, name


def test_no_secret_in_logs_or_configuration(stack: Stack) -> None:
    secrets = {value for value in read_secrets(stack.home / "secrets").values() if len(value) > 20}
    for path in [*(stack.home / "airflow").rglob("*.log"), *(stack.home / "supervisor").glob("*.conf")]:
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not [secret for secret in secrets if secret in text], path


def test_airflow_listens_on_this_machine_only(stack: Stack) -> None:
    pids = {process.pid for process in processes_of(stack.home)}
    listening = {(item.laddr.ip, item.laddr.port) for item in psutil.net_connections("tcp") if item.status == psutil.CONN_LISTEN and item.pid in pids}
    assert listening
    assert {address for address, _ in listening} == {"127.0.0.1"}


def test_settings_are_in_airflow(stack: Stack) -> None:
    headers = {"Authorization": f"Bearer {stack.token()}"}
    with httpx.Client(base_url=f"{stack.url}/api/v2", headers=headers, timeout=20) as client:
        pools = {entry["name"]: entry["slots"] for entry in client.get("/pools").json()["pools"]}
        assert {name: pools[name] for name in ("landing", "dbt", "ml")} == {"landing": 2, "dbt": 1, "ml": 1}
        assert {entry["connection_id"] for entry in client.get("/connections").json()["connections"]} == {"tidemark_warehouse", "tidemark_analyst"}
        assert client.get("/variables/landing_lookback_hours").json()["value"] == "48"
        assert client.get("/importErrors").json()["total_entries"] == 0
        assert all(dag["is_paused"] for dag in client.get("/dags").json()["dags"])


def test_anonymous_requests_see_nothing(stack: Stack) -> None:
    """Every route of the running server's application, Cosmos and every plugin included."""
    from include.stack.airflow_env import STACK_MARK

    code = "import json, sys; from include.stack.airflow_env import process_environment; print(json.dumps(process_environment()))"
    airflow = json.loads(subprocess.run([sys.executable, "-c", code], env=stack.environment, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout)
    airflow.pop(STACK_MARK)
    listed = subprocess.run(
        [sys.executable, REPOSITORY / "tests/e2e/routes.py"], env=airflow, cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    found = [tuple(json.loads(line)) for line in listed.splitlines() if line.startswith("[")]
    paths = {path for _, path in found}
    assert {"/api/v2/dags", "/api/v2/connections", "/ui/config", "/cosmos/tidemark/dbt_docs_index.html", "/cosmos/tidemark/manifest.json"} <= paths
    shown = []
    for method, path in found:
        if (method, path) in ANONYMOUS:
            continue
        answer = httpx.request(method, stack.url + path, timeout=20)
        to_login = answer.is_redirect and answer.headers["location"].startswith("/auth/login")
        if answer.status_code not in {401, 403} and not to_login:
            shown.append((method, path, answer.status_code))
    assert shown == []


@pytest.mark.parametrize(
    "path",
    ["/cosmos", "/cosmos/", "/cosmos/tidemark/dbt_docs_index.html", "/%63osmos/tidemark/manifest.json", "/cosmos/tidemark/index.html", "/pluginsv2/anything"],
)
def test_plugin_pages_need_the_login(stack: Stack, path: str) -> None:
    assert httpx.get(stack.url + path, timeout=20).status_code == 401
    page = httpx.get(stack.url + path, headers={"Accept": "text/html"}, timeout=20)
    assert page.status_code == 302
    assert page.headers["location"].startswith("/auth/login")
    assert httpx.get(stack.url + path, headers={"Authorization": "Bearer forged"}, timeout=20).status_code == 401
    assert httpx.get(stack.url + path, cookies={"_token": "forged"}, timeout=20).status_code in {401, 403}


def test_plugin_pages_open_with_the_login(stack: Stack) -> None:
    docs = stack.home / "dbt" / "docs" / "static_index.html"
    docs.parent.mkdir(parents=True, exist_ok=True)
    docs.write_text("<html><head></head><body>the docs</body></html>")
    path, token = "/cosmos/tidemark/dbt_docs_index.html", stack.token()
    for page in (
        httpx.get(stack.url + path, headers={"Authorization": f"Bearer {token}"}, timeout=20),
        httpx.get(stack.url + path, cookies={"_token": token}, timeout=20),
    ):
        assert page.status_code == 200
        assert "the docs" in page.text


@pytest.mark.parametrize("component", ["triggerer", "scheduler", "gateway"])
def test_a_killed_process_comes_back(stack: Stack, component: str) -> None:
    pid = next(process["pid"] for process in stack.status()["processes"] if process["name"] == component)
    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        now = next(process for process in stack.status()["processes"] if process["name"] == component)
        return bool(now["is_healthy"] and now["pid"] not in {None, pid})

    until(is_back, f"restart of {component}")


def test_up_again_changes_nothing(stack: Stack) -> None:
    before = {process["name"]: process["pid"] for process in stack.status()["processes"]}
    stack.tidemark("up", "--paused")
    assert {process["name"]: process["pid"] for process in stack.status()["processes"]} == before


def test_the_ports_of_a_running_stack_are_refused_to_another(stack: Stack, tmp_path: Path) -> None:
    other = {**environment_of(tmp_path / "home"), "TIDEMARK_AIRFLOW_PORT": stack.environment["TIDEMARK_AIRFLOW_PORT"]}
    done = subprocess.run([sys.executable, "-m", "include.cli", "up"], env=other, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is taken by another program" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture
def warehouse_of_stack(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets this process look into the stack's warehouse, whatever server the tests before it used."""
    for name in [name for name in os.environ if name.startswith("TIDEMARK_")]:
        monkeypatch.delenv(name)
    set_environment(monkeypatch, **{name: value for name, value in stack.environment.items() if name.startswith("TIDEMARK_")})
    yield
    monkeypatch.undo()
    get_settings.cache_clear()


def run_dag(stack: Stack, dag_id: str, conf: dict[str, str]) -> None:
    """Runs a DAG by `dag.test()`."""
    environment = {name: value for name, value in process_environment().items() if name != STACK_MARK} | {"AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    script = REPOSITORY / "tests/e2e/dag_run.py"
    done = subprocess.run([sys.executable, script, dag_id, json.dumps(conf)], env=environment, cwd=REPOSITORY, capture_output=True, text=True)
    assert "state=success" in done.stdout, f"{dag_id}: {done.stdout[-1500:]}{done.stderr[-1500:]}"


@pytest.mark.usefixtures("warehouse_of_stack")
def test_landing_and_build_dags_run(stack: Stack) -> None:
    """Through `dag.test()`: what simulated sources wrote lands as they say it must, and every mart of it is built."""
    stack.tidemark("simulate", "history", "--days", "5")
    history = {"arrived_from": "2020-01-01T00:00:00Z", "arrived_before": datetime.now(UTC).isoformat()}
    run_dag(stack, "land_device_streams", history)
    run_dag(stack, "land_commerce_streams", history)
    run_dag(stack, "build_marts", {})
    expected = json.loads((stack.home / "truth" / "expected.json").read_text())
    with connect(Role.LOADER) as connection:
        landed = connection.execute(
            "select stream, sum(landed), sum(accepted), sum(quarantined), sum(duplicate), sum(corrected) from ops.file group by stream"
        ).fetchall()
    names = ("landed", "accepted", "quarantined", "duplicate", "corrected")
    assert {row[0]: dict(zip(names, map(int, row[1:]), strict=True)) for row in landed} == {
        stream: {name: counts[name] for name in names} for stream, counts in expected.items()
    }


@pytest.mark.usefixtures("warehouse_of_stack")
def test_airflow_backfill_repairs_falsified_marts(stack: Stack) -> None:
    """`airflow backfill create … --reprocess-behavior completed` over two days on which three marts were falsified."""
    marts = [name for name in tables(("incremental",)) if not name.startswith("platform.")]  # reports and outcomes are built on the hour
    before = snapshot(marts)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = [today - timedelta(days=3), today - timedelta(days=2)]
    with AirflowApi() as api:
        api.switch("backfill_history", on=True)
        first = api.create_backfill("backfill_history", days[0], days[1], again=False)
        until(lambda: api.backfill_is_complete(first), "the first backfill")
        with connect(Role.TRANSFORMER) as connection:
            for day in days:
                changed = [
                    connection.execute(statement, {"day": day.date()}).rowcount
                    for statement in (
                        "update maintenance.fct_device_reading_hourly set reading_count = 999 where hour_at::date = %(day)s",
                        "delete from maintenance.fct_device_reading_daily where reading_date = %(day)s",
                        "insert into customers.fct_order select (jsonb_populate_record(o, jsonb_build_object('order_id', 'invented-' || order_id))).* "
                        "from customers.fct_order o where ordered_at::date = %(day)s",
                    )
                ]
                assert all(changed), changed
        assert len(differences(before, snapshot(marts))) == 3
        api.switch("build_marts", on=True)
    command = ["airflow", "backfill", "create", "--dag-id", "backfill_history", "--from-date", f"{days[0]:%Y-%m-%d}", "--to-date", f"{days[1]:%Y-%m-%d}"]
    stack.tidemark(*command, "--reprocess-behavior", "completed")
    until(lambda: requests_built() == 2 * len(days), "the build of both days")
    assert differences(before, snapshot(marts)) == []


def requests_built() -> int:
    """How many touch requests every incremental model has consumed."""
    with connect(Role.TRANSFORMER) as connection:
        row = connection.execute(
            "select count(*) from ops.touch_request where request_id <= (select min(position) from ops.model_state where input = 'touch')"
        ).fetchone()
    return int(row[0]) if row else 0


def test_down_leaves_no_process(stack: Stack) -> None:
    """Last of this module: also what a killed supervisor would leave behind is found."""
    assert len(processes_of(stack.home)) > len(COMPONENTS)
    stack.tidemark("down")
    assert processes_of(stack.home) == []
    status = stack.status()
    assert not status["is_healthy"]
    assert {process["state"] for process in status["processes"]} == {"stopped"}
