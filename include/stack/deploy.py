"""Brings Airflow's metadata database to this checkout: schema, connections, pools, variables, login, DAGs.

Runs as a process of its own (`python -m include.stack.deploy`), because it needs Airflow's environment from the first import on and the
command line should not wait for that import. Reads the filled settings from standard input, so that no secret stands in a file or an argument.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from include.stack.errors import StackError

STEPS = ("schema", "settings", "login", "dags")


NEVER_SWITCHED_ON = {"rebuild_warehouse"}  # recomputes everything: by hand only


def deploy(*, unpause_new: bool = False) -> dict[str, Any]:
    """Runs this module in Airflow's environment and returns its report: seconds per step, number of DAGs.

    Args:
        unpause_new: Switch on the DAGs that the database has not seen before.

    Raises:
        StackError: If a step fails or a DAG does not import; the message is the first line of what went wrong.
    """
    from include.settings import get_settings
    from include.stack.airflow_env import ADMIN_PASSWORD, airflow_home, process_environment
    from include.stack.airflow_settings import load_airflow_settings, placeholders, settings_file

    values = placeholders()
    filled = load_airflow_settings(settings_file(), values)
    request = {
        "settings": filled.model_dump(mode="json"),
        "auth": get_settings().airflow_auth,
        "admin_password": values[ADMIN_PASSWORD],
        "unpause_new": unpause_new,
    }
    log = airflow_home() / "logs" / "deploy.log"
    with log.open("w", encoding="utf-8") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "include.stack.deploy"],
            input=json.dumps(request),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=get_settings().repository,
            env=process_environment(),
        )
    lines = done.stdout.splitlines()
    try:
        report: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        report = {}
    if "error" in report:
        raise StackError(report["error"], f"details: {log}")
    if done.returncode != 0 or "dags" not in report:
        last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
        raise StackError(f"Airflow's metadata database could not be prepared: {''.join(last) or 'no output'}", f"details: {log}")
    return report


def _migrate() -> None:
    from airflow import settings
    from airflow.utils import db

    with settings.get_engine().connect() as connection:
        from alembic.migration import MigrationContext

        current = MigrationContext.configure(connection).get_current_revision()
    if current != db._get_script_object().get_current_head():
        db.upgradedb()


def _load_settings(wanted: dict[str, Any]) -> None:
    from airflow.models.connection import Connection
    from airflow.models.pool import Pool
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        for entry in wanted["connections"]:
            connection = session.scalar(select(Connection).where(Connection.conn_id == entry["conn_id"])) or Connection(conn_id=entry["conn_id"])
            for name in ("conn_type", "host", "schema", "login", "port"):
                setattr(connection, name, entry[name if name == "conn_type" else f"conn_{name}"])
            connection.set_password(entry["conn_password"])
            connection.set_extra(json.dumps(entry["conn_extra"]) if entry["conn_extra"] else "")
            session.add(connection)
        for entry in wanted["pools"]:
            pool = session.scalar(select(Pool).where(Pool.pool == entry["pool_name"])) or Pool(pool=entry["pool_name"], include_deferred=False)
            pool.slots, pool.description = entry["pool_slot"], entry["pool_description"]
            session.add(pool)
        for entry in wanted["variables"]:
            Variable.set(entry["variable_name"], entry["variable_value"], session=session)


def _create_login(auth: str, password: str) -> None:
    if auth != "fab":
        return  # the simple auth manager reads its file
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    from include.stack.airflow_env import ADMIN_USER

    with get_application_builder() as builder:
        manager = builder.sm
        if (user := manager.find_user(ADMIN_USER)) is None:
            manager.add_user(ADMIN_USER, "Tidemark", "Administrator", "admin@tidemark.invalid", manager.find_role("Admin"), password=password)
        else:
            manager.reset_password(user.id, password)


def _serialize_dags(unpause_new: bool) -> int:
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
    from airflow.models import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select, update

    with create_session() as session:
        seen = set(session.scalars(select(DagModel.dag_id)))
        manager = DagBundlesManager()
        manager.sync_bundles_to_db(session=session)
        session.commit()
        known = 0
        for bundle in manager.get_all_dag_bundles():
            bundle.initialize()
            bag = BundleDagBag(bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
            if bag.import_errors:
                file, error = next(iter(bag.import_errors.items()))
                raise StackError(f"DAG file {Path(file).name} does not import: {error.strip().splitlines()[-1]}")
            sync_bag_to_db(bag, bundle.name, bundle_version=None, version_data=None, session=session)
            known += len(bag.dags)
        if unpause_new:
            fresh = set(session.scalars(select(DagModel.dag_id))) - seen - NEVER_SWITCHED_ON
            session.execute(update(DagModel).where(DagModel.dag_id.in_(fresh)).values(is_paused=False))
    return known


def main() -> int:
    """The child process: does the steps, prints its report as the last line of standard output."""
    import time

    request = json.load(sys.stdin)
    steps = {
        "schema": _migrate,
        "settings": lambda: _load_settings(request["settings"]),
        "login": lambda: _create_login(request["auth"], request["admin_password"]),
        "dags": lambda: _serialize_dags(request["unpause_new"]),
    }
    report: dict[str, Any] = {"seconds": {}}
    stdout, sys.stdout = sys.stdout, sys.stderr  # Airflow prints; only the report may stand on standard output
    try:
        for name in STEPS:
            started = time.monotonic()
            result = steps[name]()
            report["seconds"][name] = round(time.monotonic() - started, 2)
            if name == "dags":
                report["dags"] = result
    except StackError as error:
        report["error"] = str(error)
    print(json.dumps(report), file=stdout)
    return 1 if "error" in report else 0


if __name__ == "__main__":
    sys.exit(main())
