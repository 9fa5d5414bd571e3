"""Databases cloned from a migrated template, for tests and benchmarks."""

from __future__ import annotations

import socket

from psycopg import sql

from include.warehouse import Role
from include.warehouse.bootstrap import connect_as_superuser


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clone_database(template: str, name: str) -> None:
    """Makes database `name` from a template, with the template's grants on the database itself."""
    with connect_as_superuser() as connection:
        connection.execute(sql.SQL("create database {} template {} owner tidemark_owner").format(sql.Identifier(name), sql.Identifier(template)))
        roles = sql.SQL(", ").join(sql.Identifier(role.value) for role in Role if role not in {Role.AIRFLOW, Role.MLFLOW})
        connection.execute(sql.SQL("grant connect, temporary on database {} to {}").format(sql.Identifier(name), roles))


def drop_database(name: str) -> None:
    """Drops a database, closing what is still connected to it."""
    with connect_as_superuser() as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
