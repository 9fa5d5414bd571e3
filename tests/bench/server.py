"""A benchmark's own server: the embedded PostgreSQL with the product's configuration, a migrated template, and fresh databases cloned from it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from include.settings import get_settings, read_secrets
from include.warehouse import Role, bootstrap, libpq_url, migrate, server
from include.warehouse.bootstrap import connect_as_superuser
from tests.bench.report import console
from tests.support.databases import clone_database, drop_database, free_port

TEMPLATE = "bench_template"
DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")
_SHOWN = (
    *DURABILITY,
    "shared_buffers",
    "work_mem",
    "maintenance_work_mem",
    "effective_cache_size",
    "max_wal_size",
    "checkpoint_timeout",
    "wal_level",
    "wal_compression",
    "wal_buffers",
    "max_connections",
    "autovacuum",
    "jit",
    "random_page_cost",
    "data_checksums",
)


class BenchmarkError(RuntimeError):
    """A benchmark cannot run or its outcome cannot be trusted; the message says why and what to do."""


@contextmanager
def scratch_folder(folder: Path) -> Iterator[None]:
    """Removes what a benchmark leaves in a folder, and ends the command with the message of a BenchmarkError."""
    try:
        yield
    except BenchmarkError as error:
        console.print(f"[red]✗[/red] {error}", soft_wrap=True)
        raise typer.Exit(1) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class BenchServer:
    """The running server of a benchmark."""

    home: Path
    port: int

    def environment(self, database: str, zone: Path) -> dict[str, str]:
        """The environment of a process that lands into one of its databases from a zone."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
        return kept | {"TIDEMARK_HOME": str(self.home), "TIDEMARK_WAREHOUSE_URL": self.url(database), "TIDEMARK_LANDING_URL": zone.resolve().as_uri()}

    def url(self, database: str) -> str:
        """Address of a database in the form of TIDEMARK_WAREHOUSE_URL."""
        return f"postgresql://127.0.0.1:{self.port}/{database}"

    def owner_url(self, database: str) -> str:
        """A URL with the password of the owner, for loaders that make their own tables. Never to be printed."""
        return libpq_url(Role.OWNER, database=database)

    def fresh(self, database: str, *, template: str = TEMPLATE) -> None:
        """Makes a database anew."""
        drop_database(database)
        clone_database(template, database)

    def settle(self) -> None:
        """Writes out what earlier work left to do, so that the next measurement does not pay for it."""
        with connect_as_superuser() as connection:
            connection.execute("checkpoint")

    def facts(self) -> dict[str, object]:
        """Version and settings.

        Raises:
            BenchmarkError: If durability is not switched on: such figures are worth nothing.
        """
        with connect_as_superuser() as connection:
            rows = connection.execute("select name, current_setting(name) from unnest(%s::text[]) as name", (list(_SHOWN),)).fetchall()
            version = connection.execute("select version()").fetchone()
        settings = {str(name): str(value) for name, value in rows}
        off = [name for name in DURABILITY if settings[name] != "on"]
        if off:
            raise BenchmarkError(f"{', '.join(off)} must be on, otherwise the figures are worth nothing; see include/warehouse/server.py")
        return {"version": str(version[0]) if version else "", "settings": settings}


@contextmanager
def bench_server(home: Path) -> Iterator[BenchServer]:
    """Starts a server of its own in `home` and removes it with its data at the end.

    Raises:
        BenchmarkError: If a server runs there already.
    """
    before = {name: value for name, value in os.environ.items() if name.startswith("TIDEMARK_")}
    port = free_port()
    _set_environment({"TIDEMARK_HOME": str(home), "TIDEMARK_POSTGRES_PORT": str(port)})
    try:
        pid = server.server_pid()
        if pid is not None:
            raise BenchmarkError(f"another benchmark runs in {home}, or was killed there: let it finish, or end its server with `kill -INT {pid}`")
        server.purge()
        shutil.rmtree(home, ignore_errors=True)
        try:
            server.start()
            with get_settings().secrets_path.open("a", encoding="utf-8") as file:
                password = read_secrets(get_settings().secrets_path)[server.SUPERUSER_SECRET]
                file.write(f"WAREHOUSE_ADMIN_URL=postgresql://postgres:{password}@127.0.0.1:{port}/postgres\n")
            running = BenchServer(home, port)
            _set_environment({"TIDEMARK_HOME": str(home), "TIDEMARK_WAREHOUSE_URL": running.url(TEMPLATE)})
            bootstrap()
            migrate()
            yield running
        finally:
            server.purge()
            shutil.rmtree(home, ignore_errors=True)
    finally:
        _set_environment(before)


def _set_environment(values: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith("TIDEMARK_")]:
        del os.environ[name]
    os.environ.update(values)
    get_settings.cache_clear()
