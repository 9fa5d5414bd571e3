"""What must exist before the first migration: roles with generated passwords and the three databases. Idempotent."""

from __future__ import annotations

import psycopg
from psycopg import sql

from include.settings import ensure_secrets, get_settings, secret
from include.warehouse.connection import Role, WarehouseUnavailable, password_name
from include.warehouse.server import SUPERUSER_SECRET

SERVICE_DATABASES = {"airflow": Role.AIRFLOW, "mlflow": Role.MLFLOW}
ADMIN_URL_SECRET = "WAREHOUSE_ADMIN_URL"  # noqa: S105  the name of a secret, not a secret


def connect_as_superuser(database: str = "postgres") -> psycopg.Connection:
    """Connects as the server's superuser; used only here and in tests.

    On another server than the embedded one the secret WAREHOUSE_ADMIN_URL says how.

    Raises:
        WarehouseUnavailable: If the server does not answer or refuses.
    """
    settings = get_settings()
    host, port, _ = settings.warehouse_address
    try:
        if settings.is_embedded:
            return psycopg.connect(
                host=host, port=port, user="postgres", password=secret(SUPERUSER_SECRET), dbname=database, autocommit=True, connect_timeout=10
            )
        return psycopg.connect(secret(ADMIN_URL_SECRET), dbname=database, autocommit=True, connect_timeout=10)
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
        raise WarehouseUnavailable(f"cannot reach the warehouse server at {host}:{port} as its administrator: {reason}") from error


def bootstrap(database: str | None = None) -> None:
    """Creates or completes roles and databases; sets each role's password to the one in the secrets file."""
    database = database or get_settings().warehouse_address[2]
    ensure_secrets([password_name(role) for role in Role] + ["TIDEMARK_PSEUDONYM_KEY"])
    with connect_as_superuser() as connection:
        connection.execute("select pg_advisory_lock(hashtextextended('tidemark.bootstrap', 0))")
        existing = {row[0] for row in connection.execute("select rolname from pg_roles")}
        for role in Role:
            action = sql.SQL("alter role {} login password {}") if role.value in existing else sql.SQL("create role {} login password {}")
            connection.execute(action.format(sql.Identifier(role.value), sql.Literal(secret(password_name(role)))))
        connection.execute("grant tidemark_transformer, tidemark_ml to tidemark_owner")  # the owner may read and repair what dbt and ML made
        connection.execute("alter role tidemark_analyst set default_transaction_read_only = on")
        connection.execute("alter role tidemark_analyst set statement_timeout = '5min'")
        databases = {row[0] for row in connection.execute("select datname from pg_database")}
        for name, owner in {database: Role.OWNER, **SERVICE_DATABASES}.items():
            if name not in databases:
                connection.execute(sql.SQL("create database {} owner {}").format(sql.Identifier(name), sql.Identifier(owner.value)))
                connection.execute(sql.SQL("revoke connect, temporary on database {} from public").format(sql.Identifier(name)))
            if name == database:
                grantees = [sql.Identifier(role.value) for role in Role if role not in {Role.AIRFLOW, Role.MLFLOW}]
                connection.execute(sql.SQL("grant connect on database {} to {}").format(sql.Identifier(name), sql.SQL(", ").join(grantees)))
                writers = sql.SQL(", ").join(sql.Identifier(role.value) for role in (Role.LOADER, Role.TRANSFORMER, Role.ML))
                connection.execute(sql.SQL("grant temporary on database {} to {}").format(sql.Identifier(name), writers))
