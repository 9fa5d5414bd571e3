"""The warehouse: connections by role, the embedded server, migrations, partitions."""

from __future__ import annotations

import logging
from pathlib import Path

from include.warehouse.bootstrap import bootstrap
from include.warehouse.connection import Role, WarehouseUnavailable, connect, libpq_url, sqlalchemy_url

__all__ = ["Role", "WarehouseUnavailable", "bootstrap", "connect", "libpq_url", "migrate", "sqlalchemy_url"]


def migrate() -> None:
    """Brings the warehouse database to the newest schema revision; does nothing when it is there."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    command.upgrade(config, "head")
