"""The embedded server starts again, by itself and with what was committed, whatever a crash has left behind."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest

from include.warehouse import Role, connect, server
from tests.conftest import Cluster
from tests.support.own_server import own_server

# Looks at nothing but its own counter, as a long sort does, so that it does not notice the death of the postmaster.
BUSY = "do $$ declare i bigint := 0; begin while i < 100000000 loop i := i + 1; end loop; end $$"


@dataclass(frozen=True)
class Servers:
    """A server to kill, and the process id of another one that runs beside it."""

    home: Path
    other_pid: int


@pytest.fixture(scope="module")
def servers(cluster: Cluster) -> Iterator[Servers]:
    other_pid = server.server_pid()  # the cluster's, as long as the settings are
    assert other_pid is not None
    with own_server() as home:
        with connect(Role.OWNER) as connection:
            connection.execute("create table ops.crash_test as select 42 as answer")
        yield Servers(home, other_pid)


def answer() -> object:
    with connect(Role.OWNER) as connection:
        row = connection.execute("select answer from ops.crash_test").fetchone()
    return row and row[0]


def pid_file() -> Path:
    return server.data_directory() / "postmaster.pid"


def with_id(content: str, pid: int) -> str:
    """The content of a pid file with another process id."""
    return "\n".join([str(pid), *content.splitlines()[1:]]) + "\n"


def test_all_processes_killed_at_once(servers: Servers) -> None:
    server.start()
    server.kill()
    assert not server.is_running()
    server.start()
    assert answer() == 42


def test_the_postmaster_killed_while_its_backends_work_on(servers: Servers) -> None:
    server.start()
    started = threading.Event()
    ended: list[Exception] = []

    def work() -> None:
        try:
            with connect(Role.OWNER) as connection:
                connection.execute("select 1")
                started.set()
                connection.execute(BUSY)
        except psycopg.OperationalError as error:
            ended.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    assert started.wait(30)
    postmaster = server.server_pid()
    assert postmaster is not None
    server._end([psutil.Process(postmaster)])
    server.start()
    assert answer() == 42
    worker.join()
    assert len(ended) == 1


def test_the_id_of_the_killed_server_belongs_to_another_program(servers: Servers) -> None:
    server.start()
    content = pid_file().read_text()
    server.stop()
    other = subprocess.Popen(["sleep", "600"], **server._as_server_user())
    try:
        pid_file().write_text(with_id(content, other.pid))
        assert not server.is_running()
        server.start()
        assert answer() == 42
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_id_of_the_killed_server_belongs_to_another_server(servers: Servers) -> None:
    server.start()
    content = pid_file().read_text()
    server.stop()
    pid_file().write_text(with_id(content, servers.other_pid))
    assert not server.is_running()
    server.start()
    assert server.server_pid() != servers.other_pid
    assert answer() == 42
