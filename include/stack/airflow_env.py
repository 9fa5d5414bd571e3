"""The environment in which every Airflow process of the house runs, built from the settings and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from include.settings import Settings, ensure_secrets, get_settings, secret
from include.transform.invocation import dbt_environment
from include.warehouse import Role, sqlalchemy_url

ADMIN_USER = "admin"
ADMIN_PASSWORD = "AIRFLOW_ADMIN_PASSWORD"  # noqa: S105  names of secrets, not secrets
JWT_SECRET = "AIRFLOW_JWT_SECRET"  # noqa: S105
API_SECRET = "AIRFLOW_API_SECRET_KEY"  # noqa: S105
FERNET_KEY = "AIRFLOW_FERNET_KEY"
AIRFLOW_SECRETS = [ADMIN_PASSWORD, JWT_SECRET, API_SECRET, FERNET_KEY]

STACK_MARK = "TIDEMARK_STACK"  # in the environment of every process of the stack: `down` finds them all by it
FORKSERVER_PRELOAD = "airflow,dbt.cli.main,dbt.adapters.postgres"
AUTH_MANAGERS = {
    "simple": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
    "fab": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
}
TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "SCARF_ANALYTICS": "false",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "AIRFLOW__COSMOS__ENABLE_TELEMETRY": "False",
}


def airflow_home(settings: Settings | None = None) -> Path:
    """Folder of Airflow's own files."""
    return (settings or get_settings()).home.resolve() / "airflow"


def docs_dir(settings: Settings | None = None) -> Path:
    """Folder of the published dbt docs."""
    return (settings or get_settings()).home.resolve() / "dbt" / "docs"


def base_url(settings: Settings | None = None) -> str:
    """Address of the Airflow UI and API as this machine reaches them."""
    settings = settings or get_settings()
    host = "127.0.0.1" if settings.airflow_host == "0.0.0.0" else settings.airflow_host  # noqa: S104  compared, not bound
    return f"http://{host}:{settings.airflow_port}"


def airflow_environment(settings: Settings | None = None) -> dict[str, str]:
    """Every AIRFLOW__… variable, what switches telemetry off, and the TIDEMARK_… variables of this process.

    The secrets must exist (`ensure_airflow_secrets`).

    Raises:
        SettingsError: If a secret is missing.
    """
    settings = settings or get_settings()
    home = airflow_home(settings)
    logs = home / "logs"
    airflow = {
        "CORE__DAGS_FOLDER": settings.repository / "dags",
        "CORE__PLUGINS_FOLDER": settings.repository / "plugins",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": 3,
        "CORE__MAX_ACTIVE_RUNS_PER_DAG": 1,
        "CORE__LOAD_EXAMPLES": False,
        "CORE__AUTH_MANAGER": AUTH_MANAGERS[settings.airflow_auth],
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ADMIN_USER}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": home / "passwords.json",
        "CORE__FERNET_KEY": f"{secret(FERNET_KEY)}=",  # 32 random bytes in URL-safe base64; the secret has no padding
        "CORE__EXECUTION_API_SERVER_URL": f"{base_url(settings)}/execution/",
        "CORE__DAGBAG_IMPORT_TIMEOUT": 90,  # after a change of the dbt project, rebuild_warehouse parses it once
        "CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "CORE__MP_START_METHOD": "forkserver",
        "CORE__MP_FORKSERVER_PRELOAD": FORKSERVER_PRELOAD,
        "DATABASE__SQL_ALCHEMY_CONN": sqlalchemy_url(Role.AIRFLOW, database="airflow"),
        "DATABASE__SQL_ALCHEMY_POOL_SIZE": 5,
        "LOGGING__BASE_LOG_FOLDER": logs,
        "LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": logs / "dag_processor",
        "LOGGING__COLORED_CONSOLE_LOG": False,
        "LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "0o700",
        "LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS": "0o600",
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": 120,
        "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": 60,
        "DAG_PROCESSOR__PARSING_PROCESSES": 1,
        "DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": 120,
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 120,
        "DAG_PROCESSOR__REFRESH_INTERVAL": 60,
        "DAG_PROCESSOR__PRINT_STATS_INTERVAL": 300,
        "API__HOST": settings.airflow_host,
        "API__PORT": settings.airflow_port,
        "API__BASE_URL": base_url(settings),
        "API__WORKERS": 1,
        "API__SECRET_KEY": secret(API_SECRET),
        "API__EXPOSE_CONFIG": False,
        "API__INSTANCE_NAME": "Tidemark",
        "API_AUTH__JWT_SECRET": hashlib.sha512(secret(JWT_SECRET).encode()).hexdigest(),  # SHA-512 signatures want 64 bytes or more
        "API_AUTH__JWT_ISSUER": "tidemark",
        "COSMOS__DBT_DOCS_PROJECTS": json.dumps({"tidemark": {"dir": str(docs_dir(settings)), "index": "static_index.html", "name": "dbt docs"}}),
        "COSMOS__CACHE_DIR": home / "cosmos",
    }
    return {
        "AIRFLOW_HOME": str(home),
        STACK_MARK: str(settings.home.resolve()),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(settings.repository), os.environ.get("PYTHONPATH", "")])),
        "PYTHONUNBUFFERED": "1",
        "SPT_NOENV": "1",  # setproctitle would write the process title over the environment, and with it over our mark
        "NO_COLOR": "1",
        **{name: value for name, value in os.environ.items() if name.startswith("TIDEMARK_")},
        "TIDEMARK_HOME": str(settings.home.resolve()),
        **TELEMETRY_OFF,
        **dbt_environment(),
        **{f"AIRFLOW__{name}": str(value) for name, value in airflow.items()},
    }


def process_environment(settings: Settings | None = None) -> dict[str, str]:
    """`airflow_environment` on top of this process's environment, without what an Airflow task was told about itself."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "_AIRFLOW_"))}
    return {**inherited, **airflow_environment(settings)}


def ensure_airflow_secrets(settings: Settings | None = None) -> None:
    """Generates what is missing and writes the login of the simple auth manager, readable by its owner only."""
    ensure_secrets(AIRFLOW_SECRETS)
    home = airflow_home(settings)
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    (home / "logs").mkdir(exist_ok=True)
    passwords = home / "passwords.json"
    descriptor = os.open(passwords, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({ADMIN_USER: secret(ADMIN_PASSWORD)}, file)
        file.write("\n")
