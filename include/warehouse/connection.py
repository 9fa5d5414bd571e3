"""Connections to the warehouse, one role a component (decision 12)."""

from __future__ import annotations

from enum import StrEnum
from typing import Any
from urllib.parse import quote

import psycopg

from include.settings import get_settings, secret

LOCK_TIMEOUT_S = 30


class WarehouseUnavailable(RuntimeError):
    """The warehouse does not answer; the message says where it was sought and what to do."""


class Role(StrEnum):
    """Who connects. No component connects as OWNER after start-up."""

    OWNER = "tidemark_owner"
    LOADER = "tidemark_loader"
    TRANSFORMER = "tidemark_transformer"
    ML = "tidemark_ml"
    ANALYST = "tidemark_analyst"
    API = "tidemark_api"
    KEYS = "tidemark_keys"
    MLFLOW = "tidemark_mlflow"
    AIRFLOW = "tidemark_airflow"


def password_name(role: Role) -> str:
    """Name of the secret that holds a role's password, for example TIDEMARK_LOADER_PASSWORD."""
    return f"{role.value.upper()}_PASSWORD"


def connect(role: Role, *, database: str | None = None, autocommit: bool = False) -> psycopg.Connection:
    """Opens a connection as a role.

    A lock is waited for at most 30 s. The server notices within 2 s when the client has died, the client within 30 s when the server's machine has vanished.

    Raises:
        WarehouseUnavailable: If the server cannot be reached or refuses the role.
    """
    try:
        return psycopg.connect(**_parameters(role, database), autocommit=autocommit, connect_timeout=10)
    except psycopg.OperationalError as error:
        raise _unavailable(role, error) from error


async def connect_async(role: Role, *, timeout_s: float) -> psycopg.AsyncConnection:
    """Opens a connection in autocommit as a role, for an event loop. Neither connecting nor a statement takes much longer than the limit.

    Args:
        role: Who connects.
        timeout_s: Seconds; libpq waits at least 2.

    Raises:
        WarehouseUnavailable: If the server cannot be reached or refuses the role.
    """
    parameters = _parameters(role, None)
    options = f"{parameters.pop('options')} -c statement_timeout={int(timeout_s * 1000)}"
    try:
        return await psycopg.AsyncConnection.connect(**parameters, options=options, autocommit=True, connect_timeout=max(2, int(timeout_s)))
    except psycopg.OperationalError as error:
        raise _unavailable(role, error) from error


def _parameters(role: Role, database: str | None) -> dict[str, Any]:
    host, port, default_database = get_settings().warehouse_address
    return {
        "host": host,
        "port": port,
        "dbname": database or default_database,
        "user": role.value,
        "password": secret(password_name(role)),
        "application_name": role.value,
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        "options": f"-c lock_timeout={LOCK_TIMEOUT_S}s -c client_connection_check_interval=2s -c timezone=UTC",
    }


def _unavailable(role: Role, error: psycopg.OperationalError) -> WarehouseUnavailable:
    host, port, _ = get_settings().warehouse_address
    reason = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
    return WarehouseUnavailable(f"cannot reach the warehouse at {host}:{port} as {role.value}: {reason}. Run `tidemark up`, then `tidemark doctor`.")


def libpq_url(role: Role, *, database: str | None = None) -> str:
    """A URL for libpq clients (psql, ADBC). It holds the password: never print it."""
    host, port, default_database = get_settings().warehouse_address
    return f"postgresql://{role.value}:{quote(secret(password_name(role)), safe='')}@{host}:{port}/{database or default_database}"


def sqlalchemy_url(role: Role, *, database: str | None = None, driver: str = "psycopg2") -> str:
    """A URL for SQLAlchemy with its driver named, because a bare postgresql:// means psycopg 3 since SQLAlchemy 2.1."""
    return libpq_url(role, database=database).replace("postgresql://", f"postgresql+{driver}://", 1)
