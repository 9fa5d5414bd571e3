"""Commands of the stack as a whole: up, down, status, doctor, airflow."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import psycopg
import typer

from include.commands.console import STATE_STYLES, Steps, console, duration, print_json, table
from include.settings import SettingsError, get_settings, read_secrets

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, for scripts.")]


def up(paused: Annotated[bool, typer.Option("--paused", help="Leave DAGs that are new here switched off.")] = False) -> None:
    """Start the stack: PostgreSQL, schema, Airflow, the gateway. After a pull it migrates what is there.

    Example: tidemark up
    """
    from include.stack import up as stack

    steps = Steps()
    report = stack.up(step=steps, unpause_new=not paused)
    console.print()
    print_addresses(report.url)


def print_addresses(url: str) -> None:
    """Where to go next: Airflow with its login, the docs, the gateway, psql."""
    from include.stack.airflow_env import ADMIN_PASSWORD, ADMIN_USER
    from include.stack.psql import psql_line

    settings = get_settings()
    password = read_secrets(settings.secrets_path).get(ADMIN_PASSWORD, "?")
    console.print(f"Airflow   {url}   login [bold]{ADMIN_USER}[/bold], password [bold]{password}[/bold]", soft_wrap=True)
    console.print(f"dbt docs  {url}/cosmos/tidemark/dbt_docs_index.html   (same login; in Airflow under Browse)", soft_wrap=True)
    console.print(f"Gateway   {settings.gateway_address}/docs   (keys: tidemark key create)", soft_wrap=True)
    console.print(f"psql      {psql_line()}", soft_wrap=True, markup=False)


def down(
    purge: Annotated[bool, typer.Option("--purge", help="Also remove the warehouse, the zone, the lake, secrets and logs, for good.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a purge.")] = False,
) -> None:
    """Stop the stack. No process stays.

    Examples: tidemark down; tidemark down --purge --yes
    """
    from include.stack import up as stack

    if purge and not yes:
        settings = get_settings()
        kept = [f"zone {settings.zone_url}"] if settings.landing_url else []
        kept += [f"lake {settings.lake_root}"] if settings.lake_url else []
        apart = f" What stays: {', '.join(kept)}." if kept else ""
        typer.confirm(f"Remove everything below {settings.home}, all data included?{apart}", abort=True)
    killed = stack.down(purge=purge, step=Steps())
    if killed:
        console.print(f"[dim]{killed} processes did not stop by themselves and were killed[/dim]")


def status(as_json: Json = False) -> None:
    """Every process and every stream: healthy, last batch, freshness, quarantined. Exit code 1 where something is red.

    Examples: tidemark status; tidemark status --json | jq '.streams[] | select(.is_healthy | not)'
    """
    from include.stack.health import components
    from include.stack.streams import stream_statuses
    from include.warehouse import WarehouseUnavailable, server

    settings = get_settings()
    processes = components()
    server_pid = server.server_pid() if settings.is_embedded else None
    unreachable: str | None = None
    try:
        streams = stream_statuses(datetime.now(UTC))
    except (WarehouseUnavailable, SettingsError) as error:
        streams, unreachable = [], str(error)
    except psycopg.Error as error:
        streams, unreachable = [], f"the schema is not up to date ({str(error).splitlines()[0]}): run `tidemark up`"
    healthy = unreachable is None and all(process.is_healthy for process in processes) and all(stream.is_healthy for stream in streams)
    if as_json:
        warehouse = {"is_healthy": unreachable is None, "pid": server_pid, "error": unreachable}
        print_json({"is_healthy": healthy, "warehouse": warehouse, "processes": [asdict(p) for p in processes], "streams": [asdict(s) for s in streams]})
        raise typer.Exit(0 if healthy else 1)
    rows: list[tuple[object, ...]] = [(STATE_STYLES[unreachable is None], "postgres", unreachable or "answers", server_pid, None)]
    rows += [(STATE_STYLES[p.is_healthy], p.name, f"{p.state}, {p.detail}", p.pid, duration(p.uptime_s) if p.pid else None) for p in processes]
    table("Processes", ("", "process", "state", "pid", "up for"), [(*row[:3], str(row[3]) if row[3] else None, row[4]) for row in rows])
    if streams:
        table(
            "Streams",
            ("", "stream", "silent for", "accepted", "quarantined", "replayed", "open", "failed files", "problems"),
            [
                (
                    STATE_STYLES[s.is_healthy],
                    s.stream,
                    f"{duration(s.silence_s)} of {duration(s.freshness_s)}",
                    s.accepted,
                    s.quarantined,
                    s.replayed,
                    s.open_quarantine,
                    f"[red]{s.failed_files}[/red]" if s.failed_files else "0",
                    "; ".join(s.problems) or ("[dim]nothing landed yet[/dim]" if s.last_batch_id is None else None),
                )
                for s in streams
            ],
            unbroken="stream",
        )
    raise typer.Exit(0 if healthy else 1)


def doctor(as_json: Json = False) -> None:
    """Check this machine and this installation, and say what to do about each finding.

    Example: tidemark doctor
    """
    from include.stack.doctor import examine

    findings = examine()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        table("", ("", "check", "found", "what to do"), [(STATE_STYLES[f.is_good], f.check, f.found, f.advice or None) for f in findings])
    raise typer.Exit(0 if all(finding.is_good for finding in findings) else 1)


def airflow(context: typer.Context) -> None:
    """Run Airflow's own command line against this stack.

    Examples: tidemark airflow dags list; tidemark airflow backfill create --dag-id backfill_history --from-date 2026-01-01 --to-date 2026-01-02
    """
    from include.stack.airflow_env import ensure_airflow_secrets, process_environment

    ensure_airflow_secrets()
    environment = process_environment()
    environment.pop("TIDEMARK_STACK")  # `down` ends the stack's processes, not people's commands
    columns = str(shutil.get_terminal_size().columns)
    done = subprocess.run([sys.executable, "-m", "airflow", *context.args], env={**environment, "COLUMNS": columns}, cwd=get_settings().repository)
    raise typer.Exit(done.returncode)
