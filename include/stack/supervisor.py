"""The processes of the stack under supervisord: started, restarted when they die, and stopped without leaving one behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from include.settings import get_settings
from include.stack.airflow_env import STACK_MARK, airflow_home, process_environment
from include.stack.component import COMMANDS, COMPONENT_MARK, end_processes, marked_processes
from include.stack.errors import StackError

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 30.0
ORPHAN_GRACE_S = 3.0
MAX_SOCKET_PATH = 100  # the kernel allows 107 bytes


@dataclass(frozen=True)
class ProcessStatus:
    """One supervised process as supervisord sees it."""

    name: str
    state: str
    pid: int | None
    uptime_s: int
    detail: str

    @property
    def is_running(self) -> bool:
        """Whether it runs and has done so for longer than a start takes."""
        return self.state == "RUNNING"


def supervisor_dir() -> Path:
    """Configuration, pid file and logs of the supervisor."""
    return get_settings().home.resolve() / "supervisor"


def socket_path() -> Path:
    """The control socket: in the stack's home, or in a private temporary folder where that path is too long for a socket."""
    path = supervisor_dir() / "control.sock"
    if len(str(path)) <= MAX_SOCKET_PATH:
        return path
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"tidemark-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise StackError(f"{folder} belongs to somebody else", "set TIDEMARK_HOME to a shorter path")
    return folder / "control.sock"


def configuration() -> str:
    """The text of supervisord.conf. It holds no secret: the environment is inherited."""

    def literal(value: object) -> str:
        return str(value).replace("%", "%%")

    folder = supervisor_dir()
    owner = "user=root\n" if os.geteuid() == 0 else ""
    head = f"""\
; Written by `tidemark up`.
[unix_http_server]
file={literal(socket_path())}
chmod=0700

[supervisord]
logfile={literal(folder / "supervisord.log")}
logfile_maxbytes=5MB
logfile_backups=2
pidfile={literal(folder / "supervisord.pid")}
childlogdir={literal(folder)}
directory={literal(get_settings().repository)}
identifier=tidemark
umask=077
{owner}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    programs = [
        f"""
[program:{name}]
command={literal(sys.executable)} -m include.stack.component {name}
environment={COMPONENT_MARK}="{name}"
autostart=true
autorestart=true
startsecs=5
startretries=20
stopsignal=TERM
stopwaitsecs=15
stopasgroup=true
killasgroup=true
stdout_logfile={literal(airflow_home() / "logs" / f"{name}.log")}
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=3
redirect_stderr=true
"""
        for name in COMMANDS
    ]
    return head + "".join(programs)


def _proxy() -> Any:  # noqa: ANN401  XML-RPC is untyped
    from supervisor.xmlrpc import SupervisorTransport

    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{socket_path()}")).supervisor


def is_running() -> bool:
    """Whether the supervisor of this home answers."""
    if not socket_path().exists():
        return False
    try:
        return bool(_proxy().getState()["statename"] == "RUNNING")
    except (OSError, xmlrpc.client.Error):
        return False


def status() -> list[ProcessStatus]:
    """State of each supervised process; every one is STOPPED where no supervisor runs."""
    if not is_running():
        return [ProcessStatus(name, "STOPPED", None, 0, "the stack is down") for name in COMMANDS]
    found = {info["name"]: info for info in _proxy().getAllProcessInfo()}
    return [
        ProcessStatus(name, info["statename"], info["pid"] or None, max(info["now"] - info["start"], 0) if info["pid"] else 0, info["description"])
        for name in COMMANDS
        if (info := found.get(name))
    ]


def start() -> None:
    """Writes the configuration and starts the supervisor with its processes. Restarts them where it runs already with another configuration or environment.

    Raises:
        StackError: If supervisord does not come up.
    """
    folder = supervisor_dir()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    config = folder / "supervisord.conf"
    environment = process_environment()
    digest = hashlib.sha256(
        "\n".join([configuration(), *(f"{key}={value}" for key, value in sorted(environment.items()) if _matters(key))]).encode()
    ).hexdigest()
    fingerprint = folder / "fingerprint"
    if is_running():
        if fingerprint.exists() and fingerprint.read_text() == digest:
            _start_what_gave_up()
            return
        stop()
    end_processes(marked_processes(environment[STACK_MARK]))  # of a supervisor that was killed
    config.write_text(configuration(), encoding="utf-8")
    config.chmod(0o600)
    fingerprint.write_text(digest)
    done = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
        env=environment,
        cwd=get_settings().repository,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0 or not _wait(is_running, START_TIMEOUT_S):
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no answer"]
        raise StackError(f"the supervisor did not start: {reason[0]}", f"see {folder / 'supervisord.log'}")


def _matters(name: str) -> bool:
    return name.startswith(("AIRFLOW", "TIDEMARK_")) or name in {"DO_NOT_TRACK", "SCARF_ANALYTICS"}


def _start_what_gave_up() -> None:
    proxy = _proxy()
    for process in status():
        if process.state in {"FATAL", "EXITED", "STOPPED"}:
            proxy.startProcess(process.name, False)


def restart(component: str) -> None:
    """Restarts one process."""
    proxy = _proxy()
    with contextlib.suppress(xmlrpc.client.Fault):
        proxy.stopProcess(component)
    proxy.startProcess(component, False)


def stop() -> int:
    """Stops the supervisor and everything that belongs to the stack. Returns how many processes had to be killed.

    Processes that left the group of their parent (running tasks do) are found by the mark in their environment.
    """
    if is_running():
        with contextlib.suppress(OSError, xmlrpc.client.Error):
            _proxy().shutdown()
    mark = str(get_settings().home.resolve())
    _wait(lambda: not is_running() and not _supervisor_lives(), STOP_TIMEOUT_S)
    _wait(lambda: not marked_processes(mark), ORPHAN_GRACE_S)  # helpers of multiprocessing end a moment after their parents
    killed = 0
    while left := marked_processes(mark):  # again, because a dying process may have started one more
        killed += end_processes(left)
    socket_path().unlink(missing_ok=True)
    (supervisor_dir() / "supervisord.pid").unlink(missing_ok=True)
    return killed


def _supervisor_lives() -> bool:
    try:
        pid = int((supervisor_dir() / "supervisord.pid").read_text())
        return "supervisor.supervisord" in " ".join(psutil.Process(pid).cmdline())
    except (OSError, ValueError, psutil.Error):
        return False


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
