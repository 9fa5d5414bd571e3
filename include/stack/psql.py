"""The line that opens psql as the analyst."""

from __future__ import annotations

import shlex

from include.settings import get_settings
from include.warehouse.connection import Role, password_name


def psql_line() -> str:
    """A shell line for people: it reads the password from the secrets file and shows it nowhere."""
    settings = get_settings()
    host, port, database = settings.warehouse_address
    secrets = shlex.quote(str(settings.secrets_path))
    program = "psql"
    if settings.is_embedded:
        from include.warehouse import server

        program = shlex.quote(str(server.binaries() / "psql"))
    name = password_name(Role.ANALYST)
    return f"PGPASSWORD=$(sed -n 's/^{name}=//p' {secrets}) {program} -h {host} -p {port} -U {Role.ANALYST.value} {database}"
