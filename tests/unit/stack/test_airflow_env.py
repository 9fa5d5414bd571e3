"""The environment of Airflow's processes follows from the settings alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from include.settings import get_settings
from include.stack import airflow_env, supervisor
from include.stack.errors import StackError
from include.stack.up import check_machine
from include.warehouse.connection import Role, password_name
from tests.conftest import free_port, set_environment


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    set_environment(monkeypatch, TIDEMARK_HOME=str(tmp_path / "home"), TIDEMARK_AIRFLOW_PORT=str(free_port()), TIDEMARK_GATEWAY_PORT=str(free_port()))
    monkeypatch.delenv("TIDEMARK_WAREHOUSE_URL", raising=False)
    get_settings.cache_clear()
    airflow_env.ensure_secrets([password_name(role) for role in Role])
    airflow_env.ensure_airflow_secrets()
    yield airflow_env.airflow_environment()
    monkeypatch.undo()
    get_settings.cache_clear()


def test_the_ui_is_bound_to_this_machine(environment: dict[str, str]) -> None:
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"


def test_the_database_driver_is_named(environment: dict[str, str]) -> None:
    """A bare postgresql:// would mean another driver with SQLAlchemy 2.1."""
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("postgresql+psycopg2://tidemark_airflow:")


def test_the_generated_keys_are_usable(environment: dict[str, str]) -> None:
    Fernet(environment["AIRFLOW__CORE__FERNET_KEY"].encode())
    assert len(environment["AIRFLOW__API_AUTH__JWT_SECRET"]) >= 64


def test_telemetry_is_off(environment: dict[str, str]) -> None:
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["SCARF_ANALYTICS"] == "false"
    assert environment["AIRFLOW__COSMOS__ENABLE_TELEMETRY"] == "False"
    assert environment["DBT_SEND_ANONYMOUS_USAGE_STATS"] == "False"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_dbt_is_imported_before_the_fork(environment: dict[str, str]) -> None:
    assert environment["AIRFLOW__CORE__MP_START_METHOD"] == "forkserver"
    assert "dbt.cli.main" in environment["AIRFLOW__CORE__MP_FORKSERVER_PRELOAD"].split(",")


def test_the_environment_is_the_same_every_time(environment: dict[str, str]) -> None:
    assert airflow_env.airflow_environment() == environment


def test_the_login_is_written_for_its_owner_only(environment: dict[str, str]) -> None:
    passwords = Path(environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    assert passwords.stat().st_mode & 0o777 == 0o600
    assert list(json.loads(passwords.read_text())) == ["admin"]


def test_a_server_installation_logs_in_by_fab(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, TIDEMARK_AIRFLOW_AUTH="fab")
    assert airflow_env.airflow_environment()["AIRFLOW__CORE__AUTH_MANAGER"].endswith("FabAuthManager")


def test_every_process_can_be_found_again(environment: dict[str, str]) -> None:
    """The mark must survive setproctitle, which otherwise writes over the environment of a process."""
    assert environment[airflow_env.STACK_MARK] == str(get_settings().home.resolve())
    assert environment["SPT_NOENV"] == "1"


def test_the_supervisor_configuration_holds_no_secret(environment: dict[str, str]) -> None:
    text = supervisor.configuration()
    assert not [value for name, value in environment.items() if name.endswith(("SECRET_KEY", "JWT_SECRET", "FERNET_KEY", "PASSWORD")) and value in text]


def test_a_long_home_gets_a_socket_that_the_kernel_takes(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, TIDEMARK_HOME=str(tmp_path / ("long" * 40)))
    assert len(str(supervisor.socket_path())) < 107
    assert supervisor.socket_path().parent.stat().st_mode & 0o077 == 0


def test_an_old_python_is_refused(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("include.stack.up.MINIMUM_PYTHON", (99, 0))
    with pytest.raises(StackError, match="too old"):
        check_machine()


def test_a_full_disk_is_refused(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("include.stack.up.MINIMUM_FREE_BYTES", 1 << 60)
    with pytest.raises(StackError, match="GiB free") as raised:
        check_machine()
    assert "TIDEMARK_HOME" in raised.value.hint


@pytest.mark.parametrize("name", ["airflow_port", "gateway_port"])
def test_a_taken_port_is_refused(environment: dict[str, str], name: str) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", getattr(get_settings(), name)))
        other.listen()
        with pytest.raises(StackError, match="is taken") as raised:
            check_machine()
    assert f"TIDEMARK_{name.upper()}" in raised.value.hint


def test_a_home_that_cannot_be_made_is_refused(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, TIDEMARK_HOME="/proc/tidemark")
    with pytest.raises(StackError, match="cannot use /proc/tidemark"):
        check_machine()
