"""What every container of the image runs: `entrypoint.py prepare` once, then one process of the stack each; `entrypoint.py key …` when somebody needs a key.

It calls what `tidemark up` calls, in the same order and environment; only the supervisor is missing, because here Docker restarts processes.
Besides the TIDEMARK_… settings a container may be given AIRFLOW__… variables: they win over the house's own.
"""

from __future__ import annotations

import os
import sys

from include.settings import SettingsError, get_settings, read_secrets
from include.stack.airflow_env import AIRFLOW_SECRETS, airflow_home, ensure_airflow_secrets, process_environment
from include.stack.component import COMMANDS, COMPONENT_MARK
from include.stack.errors import StackError
from include.warehouse import Role, WarehouseUnavailable
from include.warehouse.bootstrap import ADMIN_URL_SECRET
from include.warehouse.connection import password_name

USAGE = f"""\
usage: entrypoint.py prepare              make or migrate roles, databases, views, connections, login and DAGs; safe to repeat
       entrypoint.py key …               make, list, rotate or revoke keys of the gateway, as `tidemark key` does
       entrypoint.py {{{",".join(COMMANDS)}}}
"""
PREPARING_SECRETS = [ADMIN_URL_SECRET, password_name(Role.OWNER), password_name(Role.KEYS)]  # no process that stays has them
RUNNING_SECRETS = ["TIDEMARK_PSEUDONYM_KEY", *AIRFLOW_SECRETS, *(password_name(role) for role in Role if role not in {Role.OWNER, Role.KEYS})]


def check(needed: list[str]) -> None:
    """Refuses what cannot end well in a container.

    Args:
        needed: Names of secrets.

    Raises:
        SettingsError: If the warehouse would be the embedded server, or a secret is missing (the file cannot be written here).
    """
    settings = get_settings()
    if settings.is_embedded:
        raise SettingsError("TIDEMARK_WAREHOUSE_URL is not set: a container has no server of its own")
    known = read_secrets(settings.secrets_path)
    missing = [name for name in needed if name not in known]
    if missing:
        raise SettingsError(f"{settings.secrets_path} lacks {', '.join(missing)}: run docker/make-secrets on the host again, it adds what is missing")


def prepare() -> None:
    """Brings warehouse and Airflow's database to the code of this image. Safe to repeat; what is done already is left alone."""
    from include.stack.deploy import deploy
    from include.stack.up import start_warehouse

    check(PREPARING_SECRETS + RUNNING_SECRETS)
    say("roles, databases, schema and views")
    start_warehouse()
    say("Airflow's database, connections, pools, variables, login and DAGs")
    ensure_airflow_secrets()
    report = deploy(unpause_new=True)
    say(f"ready: {report['dags']} DAGs")


def environment() -> dict[str, str]:
    """The environment of the house's processes, with what this container was told about Airflow on top."""
    told = {name: value for name, value in os.environ.items() if name.startswith("AIRFLOW__")}
    return {**process_environment(), **told}


def become(component: str) -> None:
    """Replaces this process by one of the stack, as the supervisor starts it."""
    check(RUNNING_SECRETS)
    (airflow_home() / "logs").mkdir(parents=True, exist_ok=True)
    os.chdir(get_settings().repository)
    os.execve(sys.executable, [sys.executable, "-m", "include.stack.component", component], {**environment(), COMPONENT_MARK: component})  # noqa: S606


def say(text: str) -> None:
    """One line for `docker compose logs`."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Does what the container's command says. Returns only for `prepare` and where it refuses."""
    os.umask(0o077)
    try:
        match arguments:
            case ["prepare"]:
                prepare()
            case ["key", *rest]:
                check([password_name(Role.KEYS)])
                os.execv(sys.executable, [sys.executable, "-m", "include.cli", "key", *rest])  # noqa: S606
            case [name] if name in COMMANDS:
                become(name)
            case _:
                sys.stderr.write(USAGE)
                return 0 if arguments == ["--help"] else 2
    except (SettingsError, StackError, WarehouseUnavailable) as error:
        sys.stderr.write(f"tidemark: {error}\n")
        if hint := getattr(error, "hint", ""):
            sys.stderr.write(f"  {hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
