"""What the image runs, without the image: the files that its COPY lines name, its entry point, environment, secrets and an ordinary user.

The server is another one than the test session's, because `prepare` sets the password of every role, as it does on a fresh installation.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.settings import REPOSITORY, read_secrets
from include.stack.airflow_env import ADMIN_PASSWORD, ADMIN_USER
from include.stack.component import COMMANDS, end_processes, marked_processes
from include.warehouse.server import SUPERUSER_SECRET, SYSTEM_USER
from tests.conftest import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("image")]

IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", "target", "logs", "dbt_packages", ".user.yml")
HEALTHY_WITHIN_S = 240
TASKS_WITHIN_S = 600  # every schedule is on, and each stream has tasks that may come first
STOPPED_WITHIN_S = 30
RELATIONS = "relkind in ('r', 'v', 'p') and relnamespace::regnamespace::text !~ '^pg_'"


@dataclass(frozen=True)
class Image:
    """A folder laid out like the image, the server beside it, and how to run a service of the compose file in it."""

    root: Path
    python: list[str]
    python_path: str
    user: dict[str, Any]
    compose: dict[str, Any]
    server_port: int
    api_port: int
    gateway_port: int

    def environment(self, service: str) -> dict[str, str]:
        """The service's environment of the compose file, with addresses and folders of this machine."""
        here = {
            "0.0.0.0": "127.0.0.1",
            "//postgres:5432": f"//127.0.0.1:{self.server_port}",
            "//api-server:": "//127.0.0.1:",
            "${PUBLIC_URL:-http://127.0.0.1:8080}": "http://127.0.0.1:8080",
            "${LANDING_URL:-file:///srv/tidemark/zone}": "file:///srv/tidemark/zone",
            "${LANDING_ENDPOINT:-}": "",
            "${LAKE_URL:-file:///srv/tidemark/home/lake}": "file:///srv/tidemark/home/lake",
            "${AWS_DEFAULT_REGION:-us-east-1}": "us-east-1",
            "8080": str(self.api_port),
            "8090": str(self.gateway_port),
            "/srv/": f"{self.root}/srv/",
            "/run/secrets/": f"{self.root}/run/secrets/",
        }
        found = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": self.python_path, "PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8"}
        found["HOME"] = f"{self.root}/home"
        for name, value in self.compose["services"][service]["environment"].items():
            text = str(value)
            for there, replacement in here.items():
                text = text.replace(there, replacement)
            found[name] = text
        return found

    def start(self, service: str, *command: str) -> subprocess.Popen[str]:
        """Starts the service's process, or another command of the entry point in its place."""
        with (self.root / f"{service}.log").open("w") as log:
            return subprocess.Popen(
                [*self.python, self.root / "opt/tidemark/docker/entrypoint.py", *(command or self.compose["services"][service]["command"])],
                env=self.environment(service),
                cwd=self.root / "opt/tidemark",
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                **self.user,
            )

    def run(self, service: str, *command: str) -> tuple[int, str]:
        """Exit code and output of a service that ends by itself."""
        code = self.start(service, *command).wait()
        return code, self.log(service)

    def log(self, service: str) -> str:
        return (self.root / f"{service}.log").read_text(errors="replace")

    def healthcheck(self, service: str) -> subprocess.CompletedProcess[str]:
        arguments = self.compose["services"][service]["healthcheck"]["test"][2:]
        script = str(self.root) + arguments[0]
        return subprocess.run([*self.python, script, *arguments[1:]], env=self.environment(service), capture_output=True, text=True, **self.user)

    def rows(self, database: str, query: str) -> list[tuple]:
        password = (self.root / "docker/secrets/postgres_password").read_text()
        with psycopg.connect(host="127.0.0.1", port=self.server_port, user="postgres", password=password, dbname=database) as connection:
            return connection.execute(query).fetchall()  # type: ignore[call-overload]


def ordinary_user(root: Path) -> tuple[dict[str, Any], list[str], str]:
    """Whom to run as, with which Python and path: the server's system user where we are root and it can read some Python, else ourselves."""
    code = f"{root}/opt/tidemark"
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    if os.geteuid() == 0:
        as_user = {"user": SYSTEM_USER, "group": SYSTEM_USER, "extra_groups": []}
        for python, path in ((sys.executable, code), (f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}", f"{code}:{packages}")):
            probe = [python, "-c", "import psycopg, include"]
            try:
                if subprocess.run(probe, env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"}, cwd="/", capture_output=True, **as_user).returncode == 0:
                    return as_user, [python], path
            except OSError:
                continue
    return {}, [sys.executable], code


def server_command(root: Path, port: int, call: str) -> None:
    """Calls the embedded server's module for a server of our own; this process's settings stay as they are."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    environment = {**inherited, "TIDEMARK_HOME": str(root / "server"), "TIDEMARK_POSTGRES_PORT": str(port)}
    subprocess.run([sys.executable, "-c", f"from include.warehouse import server; {call}"], env=environment, cwd=REPOSITORY, check=True)


@pytest.fixture(scope="module")
def image(compose: dict[str, Any], copies: list[tuple[list[str], str]]) -> Iterator[Image]:
    root = Path(tempfile.mkdtemp(prefix="tidemark-image-"))
    root.chmod(0o755)
    port = free_port()
    code = root / "opt/tidemark"
    for sources, target in copies:
        for source in sources:
            origin = REPOSITORY / source
            place = code / target / origin.name if origin.is_file() else code / target
            place.parent.mkdir(parents=True, exist_ok=True)
            if origin.is_file():
                shutil.copy(origin, place)
            else:
                shutil.copytree(origin, place, ignore=IGNORED)
    (root / "docker").mkdir()
    shutil.copy(REPOSITORY / "docker/make-secrets", root / "docker")
    subprocess.run(["/bin/sh", root / "docker/make-secrets"], check=True, capture_output=True)
    (root / "server").mkdir()
    (root / "server/secrets").write_text(f"{SUPERUSER_SECRET}={(root / 'docker/secrets/postgres_password').read_text()}\n")
    try:
        server_command(root, port, "server.start()")
        user, python, python_path = ordinary_user(root)
        for folder in ("run/secrets", "srv/tidemark/home", "srv/tidemark/zone", "home"):
            (root / folder).mkdir(parents=True)
        for name in ("prepare", "tidemark"):
            mounted = root / "run/secrets" / name
            mounted.write_text((root / "docker/secrets" / name).read_text().replace("@postgres:5432", f"@127.0.0.1:{port}"))
            mounted.chmod(0o400)
            if user:
                shutil.chown(mounted, SYSTEM_USER, SYSTEM_USER)
        if user:
            for folder in ("srv/tidemark/home", "srv/tidemark/zone", "home"):
                shutil.chown(root / folder, SYSTEM_USER, SYSTEM_USER)
        yield Image(root, python, python_path, user, compose, port, free_port(), free_port())
    finally:
        server_command(root, port, "server.stop(immediate=True); server.purge()")  # no checkpoint of what is removed
        shutil.rmtree(root)


def installed(image: Image) -> dict[str, list[tuple]]:
    """What `prepare` makes, in an order that does not depend on when."""
    return {
        "roles": image.rows("postgres", "select rolname, rolsuper, rolcanlogin from pg_roles where rolname like 'tidemark%' order by 1"),
        "databases": image.rows("postgres", "select datname, pg_get_userbyid(datdba) from pg_database where not datistemplate order by 1"),
        "revisions": image.rows("tidemark", "select version_num from ops.schema_version") + image.rows("airflow", "select version_num from alembic_version"),
        "relations": image.rows("tidemark", f"select oid, oid::regclass::text from pg_class where {RELATIONS} order by 1"),
        "users": image.rows("airflow", "select username, active from ab_user order by 1"),
        "connections": image.rows("airflow", "select conn_id, host, port, login from connection order by 1"),
        "dags": image.rows("airflow", "select dag_id from dag order by 1"),
    }


def test_prepare_installs_and_may_be_repeated(image: Image) -> None:
    before = sorted(path for path in (image.root / "opt").rglob("*") if "__pycache__" not in path.parts)
    code, output = image.run("prepare")
    assert code == 0, output
    first = installed(image)
    assert ("tidemark_loader", False, True) in first["roles"]
    assert [name for name, _ in first["databases"]] == ["airflow", "mlflow", "postgres", "tidemark"]
    assert first["users"] == [(ADMIN_USER, True)]
    assert {row[1:3] for row in first["connections"]} == {("127.0.0.1", image.server_port)}
    assert len(first["dags"]) >= len(list((REPOSITORY / "dags").glob("*.py"))) > 0

    code, output = image.run("prepare")
    assert code == 0, output
    assert installed(image) == first
    assert sorted(path for path in (image.root / "opt").rglob("*") if "__pycache__" not in path.parts) == before, "the code folder is not the place to write to"
    readable = [path for path in (image.root / "srv/tidemark/home").rglob("*") if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert not readable, "files that others can read"
    if image.user:
        owner = pwd.getpwnam(SYSTEM_USER).pw_uid
        assert {path.stat().st_uid for path in (image.root / "srv/tidemark/home").rglob("*")} == {owner}


def test_missing_secrets_are_named_before_anything_is_done(image: Image) -> None:
    # A running process's file lacks the administrator; nothing may be generated in its place.
    code, output = image.run("api-server", "prepare")
    assert code == 1
    assert "WAREHOUSE_ADMIN_URL" in output
    assert "docker/make-secrets" in output
    assert "Traceback" not in output


def test_keys_are_made_beside_the_administrator_and_nowhere_else(image: Image) -> None:
    code, output = image.run("prepare", "key", "create", "--tenant", "shop_7", "--stream", "orders")
    assert code == 0, output
    assert re.search(r"^tmk_[0-9a-f]{16}_[0-9a-f]{64}$", output, re.MULTILINE), output
    assert image.rows("tidemark", "select tenant_id, streams from ops.api_key") == [("shop_7", ["orders"])]
    code, output = image.run("gateway", "key", "create", "--tenant", "shop_7")
    assert code == 1
    assert "TIDEMARK_KEYS_PASSWORD" in output
    assert "Traceback" not in output


def test_processes_come_up_say_so_and_let_the_administrator_in(image: Image) -> None:
    password = read_secrets(image.root / "docker/secrets/prepare")[ADMIN_PASSWORD]
    assert image.healthcheck("scheduler").returncode == 1, "nothing runs yet"
    running = {name: image.start(name) for name in COMMANDS}
    try:
        waiting = set(COMMANDS)
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        while waiting and time.monotonic() < deadline:
            for name in sorted(waiting):
                assert running[name].poll() is None, image.log(name)[-3000:]
                if image.healthcheck(name).returncode == 0:
                    waiting.discard(name)
            time.sleep(0.5)
        assert not waiting, {name: image.log(name)[-1500:] for name in waiting}
        assert token_status(image, password) == 201
        assert token_status(image, "admin") == 401
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{image.api_port}/api/v2/dags", timeout=30)
        assert refused.value.code == 401
        deadline = time.monotonic() + TASKS_WITHIN_S
        while not {("simulate", "skipped"), ("check_orders", "success")} <= set(task_states(image)) and time.monotonic() < deadline:
            time.sleep(0.5)
        states = set(task_states(image))
        assert ("simulate", "skipped") in states, f"tasks know the container's settings; {states}"
        assert ("check_orders", "success") in states, f"tasks reach the warehouse without the owner's password; {states}"
    finally:
        for process in running.values():
            process.terminate()
        # The scheduler waits for its running tasks, for as long as Docker lets it; then it is killed with them, as here at once.
        stubborn = [name for name, process in running.items() if name != "scheduler" and not ends(process)]
        end_processes(marked_processes(str((image.root / "srv/tidemark/home").resolve())))
        running["scheduler"].wait()
    assert not stubborn


def task_states(image: Image) -> list[tuple]:
    """(task, state) of what the scheduler, finding every DAG switched on, has run so far."""
    return image.rows("airflow", "select task_id, state::text from task_instance")


def token_status(image: Image, password: str) -> int:
    body = json.dumps({"username": ADMIN_USER, "password": password}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{image.api_port}/auth/token", data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def ends(process: subprocess.Popen[str]) -> bool:
    try:
        process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        return False
    return True
