"""Fixtures of all tests: one real PostgreSQL a test process, one fresh database a test, cloned from a migrated template."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from include.settings import get_settings, read_secrets
from include.warehouse import Role, bootstrap, connect, migrate, server
from include.warehouse.bootstrap import connect_as_superuser
from tests.support.databases import clone_database, drop_database, free_port

TEMPLATE = "tidemark_template"
DEPLOYED_TEMPLATE = "tidemark_deployed"
UNFILLED_TEMPLATE = "tidemark_unfilled"
BUILT_TEMPLATE = "tidemark_built"
# Tests of one process run one after another, so one name serves all; dbt's parsed project is valid for one database name only.
TEST_DATABASE = "tidemark_test"
REAL_DATA = get_settings().public_data
# What these run is SQL, other processes or other people's Python, and looking at each of its lines takes as long again.
NOT_COVERED = ("dbt/", "e2e/", "dags/", "ml/test_evaluate.py", "integration/test_bench_", "integration/test_bring_your_own_data.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves tests out of the measuring of coverage; what they run is bound to it by the tests of its own room."""
    for item in items:
        if item.path.relative_to(Path(__file__).parent).as_posix().startswith(NOT_COVERED):
            item.add_marker("no_cover")


def set_environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Sets TIDEMARK_* variables for this process and its children and makes the settings read them."""
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()


@dataclass(frozen=True)
class Cluster:
    """The test process's own server."""

    home: Path
    port: int

    def url(self, database: str) -> str:
        """Address of one of its databases, in the form of TIDEMARK_WAREHOUSE_URL."""
        return f"postgresql://127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running embedded server whose database `tidemark_template` is migrated and never written to."""
    home = Path(tempfile.mkdtemp(prefix="tidemark-test-"))
    port = free_port()
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("TIDEMARK_")]:
        patch.delenv(name)
    set_environment(patch, TIDEMARK_HOME=str(home), TIDEMARK_POSTGRES_PORT=str(port))
    try:
        server.start()
        # From here on the warehouse is named by its URL, as on a server installation; the superuser comes from a secret.
        with get_settings().secrets_path.open("a", encoding="utf-8") as file:
            password = read_secrets(get_settings().secrets_path)["POSTGRES_PASSWORD"]
            file.write(f"WAREHOUSE_ADMIN_URL=postgresql://postgres:{password}@127.0.0.1:{port}/postgres\n")
        set_environment(patch, TIDEMARK_WAREHOUSE_URL=f"postgresql://127.0.0.1:{port}/{TEMPLATE}")
        _forgo_the_disk()
        bootstrap()
        migrate()
        yield Cluster(home, port)
    finally:
        patch.delenv("TIDEMARK_WAREHOUSE_URL", raising=False)
        get_settings.cache_clear()
        server.purge()
        patch.undo()
        get_settings.cache_clear()


def _forgo_the_disk() -> None:
    """Lets the server answer before its writes are on the disk. Only a machine that fails can tell: tests kill processes, and a killed one loses none of this.

    What waits for the disk otherwise is mostly the database that each test is given: a copy of a template, and a checkpoint when it goes.
    """
    with connect_as_superuser() as connection:
        for name in ("fsync", "full_page_writes"):
            connection.execute(sql.SQL("alter system set {} = off").format(sql.SQL(name)))
        connection.execute("select pg_reload_conf()")


@dataclass(frozen=True)
class Warehouse:
    """One test's own database and landing zone."""

    url: str
    zone_dir: Path

    def rows(self, query: str, role: Role = Role.OWNER) -> list[tuple]:
        """All rows of a query."""
        with connect(role) as connection:
            return connection.execute(query).fetchall()  # type: ignore[call-overload]

    def value(self, query: str, role: Role = Role.OWNER) -> object:
        """First column of the first row."""
        return self.rows(query, role)[0][0]

    def execute(self, statement: str, role: Role = Role.OWNER) -> None:
        """Runs and commits a statement."""
        with connect(role) as connection:
            connection.execute(statement)  # type: ignore[call-overload]


def _fresh_warehouse(cluster: Cluster, template: str, zone: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    drop_database(TEST_DATABASE)
    clone_database(template, TEST_DATABASE)
    zone.mkdir()
    set_environment(
        monkeypatch, TIDEMARK_WAREHOUSE_URL=cluster.url(TEST_DATABASE), TIDEMARK_LANDING_URL=zone.as_uri(), TIDEMARK_LAKE_URL=(zone.parent / "lake").as_uri()
    )
    yield Warehouse(cluster.url(TEST_DATABASE), zone)
    monkeypatch.undo()
    get_settings.cache_clear()


@pytest.fixture
def warehouse(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    """A fresh migrated database and an empty zone; the settings of this process and its children point to them."""
    yield from _fresh_warehouse(cluster, TEMPLATE, tmp_path / "zone", monkeypatch)


def _keep_as_template(name: str) -> None:
    with connect_as_superuser() as connection:
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (TEST_DATABASE,))
        connection.execute(sql.SQL("alter database {} rename to {}").format(sql.Identifier(TEST_DATABASE), sql.Identifier(name)))


@pytest.fixture(scope="session")
def deployed_template(cluster: Cluster) -> str:
    """Name of a database that has the project's views and is never written to."""
    from include.transform import deploy

    drop_database(TEST_DATABASE)
    clone_database(TEMPLATE, TEST_DATABASE)
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, TIDEMARK_WAREHOUSE_URL=cluster.url(TEST_DATABASE))
        deploy()
    get_settings.cache_clear()
    _keep_as_template(DEPLOYED_TEMPLATE)
    return DEPLOYED_TEMPLATE


@pytest.fixture
def deployed(cluster: Cluster, deployed_template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    """Like `warehouse`, with the dbt project's views in place and its manifest parsed: ready to build marts."""
    yield from _fresh_warehouse(cluster, deployed_template, tmp_path / "zone", monkeypatch)


def make_template(cluster: Cluster, name: str, zone: Path, fill: Callable[[], None]) -> None:
    """Makes a database that is never written to, and its zone, from one with the project's views.

    Args:
        cluster: The server.
        name: Of the database.
        zone: Folder to be made.
        fill: Lands and builds, with the settings pointing there.
    """
    zone.mkdir()
    drop_database(TEST_DATABASE)
    clone_database(DEPLOYED_TEMPLATE, TEST_DATABASE)
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, TIDEMARK_WAREHOUSE_URL=cluster.url(TEST_DATABASE), TIDEMARK_LANDING_URL=zone.as_uri())
        fill()
    get_settings.cache_clear()
    _keep_as_template(name)


def fresh_copy(cluster: Cluster, name: str, zone: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    """A test's own copy of what `make_template` made, with its zone in a folder."""
    for warehouse in _fresh_warehouse(cluster, name, folder / "zone", monkeypatch):
        shutil.copytree(zone, warehouse.zone_dir, dirs_exist_ok=True)
        yield warehouse


@pytest.fixture(scope="session")
def unfilled_template(cluster: Cluster, deployed_template: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a database in which every mart was built of nothing; it is never written to."""
    from tests.support.marts import build_marts

    make_template(cluster, UNFILLED_TEMPLATE, tmp_path_factory.mktemp("unfilled") / "zone", build_marts)
    return UNFILLED_TEMPLATE


@pytest.fixture
def unfilled(cluster: Cluster, unfilled_template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    """Like `deployed`, with every table there and empty: a build has to do with what landed only, where making sixty tables is not what a test is about."""
    yield from _fresh_warehouse(cluster, unfilled_template, tmp_path / "zone", monkeypatch)


@pytest.fixture(scope="session")
def built_zone(cluster: Cluster, deployed_template: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zone of the files of tests/support/scenario.py; they are landed and built in database `tidemark_built`, which is never written to."""
    from tests.support.marts import build_marts
    from tests.support.scenario import land_in_order

    def fill() -> None:
        land_in_order()
        build_marts()

    zone = tmp_path_factory.mktemp("built") / "zone"
    make_template(cluster, BUILT_TEMPLATE, zone, fill)
    return zone


@pytest.fixture
def built(cluster: Cluster, built_zone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    """Like `deployed`, with the files of the scenario landed in order of arrival and every mart built."""
    yield from fresh_copy(cluster, BUILT_TEMPLATE, built_zone, tmp_path, monkeypatch)


@pytest.fixture
def owner(warehouse: Warehouse) -> Iterator[psycopg.Connection]:
    """A connection to the test's database as its owner, in autocommit."""
    with connect(Role.OWNER, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real public data sets; tests that need it are skipped where it is absent (it is never on a newcomer's machine)."""
    if not REAL_DATA.is_dir():
        pytest.skip("the folder shared/data beside the repository is absent; it is not part of the repository")
    return REAL_DATA
