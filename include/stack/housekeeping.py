"""What `keep_house` does: throw away, rotate, prepare. Each function does nothing where its work is done."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

from psycopg import sql

from include.contracts import load_contract, streams
from include.settings import get_settings
from include.stack.airflow_env import airflow_home, process_environment
from include.stack.errors import StackError
from include.transform.invocation import dbt_home
from include.warehouse import Role, connect

VACUUMED_AS = {
    Role.LOADER: ("raw", "ops"),
    Role.TRANSFORMER: ("intermediate", "features", "core", "maintenance", "customers", "platform"),
    Role.ML: ("predictions", "decisions"),
}


def make_partitions(at: datetime, *, ahead: timedelta) -> int:
    """Makes the month partitions that events up to `at + ahead` need. Returns how many were missing."""
    made = 0
    with connect(Role.LOADER) as connection:
        for stream in streams():
            if load_contract(stream).partition == "month":
                row = connection.execute("select ops.ensure_partitions(%s, %s, %s)", (stream, at, at + ahead)).fetchone()
                made += row[0] if row else 0
    return made


def apply_contracts() -> int:
    """Brings raw tables to their contracts and fills new columns from `_extra`. Returns how many rows it moved values in.

    Raises:
        LandingError: If a table could not be brought there, or a lock was not free in time. Every other stream was tried; what was done is kept.
    """
    from include.landing.errors import LandingError
    from include.landing.new_columns import apply_contract

    moved, failures = 0, []
    for stream in streams():
        try:
            moved += apply_contract(stream).moved
        except LandingError as error:
            failures.append(str(error))
    if failures:
        raise LandingError("; ".join(failures))
    return moved


def clean_airflow_metadata(at: datetime, *, keep: timedelta) -> None:
    """Removes runs, task instances, events and logs older than `keep` from Airflow's database, by its own command.

    Raises:
        StackError: If the command fails.
    """
    before = (at - keep).isoformat()
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "clean", "--clean-before-timestamp", before, "--skip-archive", "--yes"],
        env=process_environment(),
        cwd=get_settings().repository,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise StackError(f"airflow db clean failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")


def remove_logs(at: datetime, *, keep: timedelta) -> int:
    """Removes log files that were last written before `at - keep`, then empty folders, and what dbt calls that failed or were killed then have left.

    Returns:
        Number of files and of folders of dbt calls.
    """
    oldest, removed = (at - keep).timestamp(), 0
    for folder, _, files in os.walk(airflow_home() / "logs", topdown=False):
        for name in files:
            path = Path(folder) / name
            if path.lstat().st_mtime < oldest:
                path.unlink(missing_ok=True)
                removed += 1
        if Path(folder) != airflow_home() / "logs" and not any(Path(folder).iterdir()):
            Path(folder).rmdir()
    for call in (dbt_home() / "runs").glob("*"):
        with contextlib.suppress(FileNotFoundError):  # a call that ends meanwhile removes its own folder
            if max(path.lstat().st_mtime for path in (call, *call.rglob("*"))) < oldest:
                shutil.rmtree(call)
                removed += 1
    return removed


def prune_ops_history(*, keep: timedelta) -> dict[str, int]:
    """Removes build history older than `keep`, and change log rows that every consumer has passed. Returns rows by table."""
    with connect(Role.LOADER) as connection:
        row = connection.execute("select ops.prune_history(%s)", (keep,)).fetchone()
    return dict(row[0]) if row else {}


def vacuum() -> int:
    """Vacuums and analyzes every table, each as the role that may. Returns how many."""
    done = 0
    for role, schemas in VACUUMED_AS.items():
        with connect(role, autocommit=True) as connection:
            tables = connection.execute(
                """
                select n.nspname, c.relname, c.relkind = 'p' from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
                where n.nspname = any(%s) and c.relkind in ('r', 'm', 'p') and has_table_privilege(c.oid, 'maintain') order by 1, 2
                """,
                (list(schemas),),
            ).fetchall()
            for schema, table, is_parent in tables:
                # Of a partitioned table nobody else looks at the whole; its partitions are tables of their own here.
                command = sql.SQL("analyze (skip_locked) only {}" if is_parent else "vacuum (analyze, skip_locked) {}")
                connection.execute(command.format(sql.Identifier(schema, table)))
                done += 1
    return done
