"""What the demo shows at its end: the ledger that adds up, the marts, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from include.commands.console import console, duration, table
from include.commands.stack import print_addresses

MART_SCHEMAS = ("core", "maintenance", "customers", "platform", "features", "predictions")
TOP_MACHINES = """
select p.device_id, d.model_name, p.facility_id, p.maintenance_priority_score, p.failure_probability, p.health_score, p.is_high_priority
from maintenance.rpt_maintenance_priority as p
left join core.dim_device as d on d.tenant_id = p.tenant_id and d.device_id = p.device_id and d.is_current
order by p.maintenance_priority_score desc, p.device_id limit 5
"""
TOP_CUSTOMERS = """
select customer_id, value_rank, customer_value_score, sale_count, net_usd, days_since_sale, is_high_value
from customers.rpt_customer_value order by value_rank, customer_id limit 5
"""
DATA_QUALITY = """
select stream, sum(data_quality_score * landed_count) / nullif(sum(landed_count), 0) as data_quality_score, sum(file_count)::bigint as files,
    sum(failed_file_count)::bigint as failed_files, sum(quarantined_count)::float8 / nullif(sum(landed_count), 0) as quarantined_share
from platform.rpt_data_quality_daily group by stream order by stream
"""
FRESHNESS = """
select mart_name, bool_and(is_current) as is_current, sum(batches_behind_count)::bigint as batches_behind, max(built_at) as built_at_utc,
    max(last_event_at) as newest_event_utc
from platform.rpt_freshness group by mart_name order by mart_name
"""


def print_summary(url: str) -> None:
    """Prints the summary. A mart that does not exist is named and not fatal: the summary shows what there is."""
    from include.stack.streams import stream_statuses
    from include.warehouse import Role, connect

    now = datetime.now(UTC)
    statuses = stream_statuses(now)
    names = ("landed", "accepted", "quarantined", "duplicate", "corrected")
    rows: list[Sequence[object]] = [
        (s.stream, *[getattr(s, name) for name in names], s.landed == s.accepted + s.quarantined + s.duplicate + s.corrected, duration(s.silence_s))
        for s in statuses
    ]
    rows.append(("[bold]all[/bold]", *[sum(getattr(s, name) for s in statuses) for name in names], all(row[6] for row in rows), None))
    table("Landed = accepted + quarantined + duplicate + corrected", ("stream", *names, "balanced", "newest arrival"), rows)
    with connect(Role.ANALYST, autocommit=True) as connection:
        table("Rows a mart", ("mart", "rows"), _row_counts(connection))
        _show(connection, "Top 5 machines by maintenance priority (0 to 3)", TOP_MACHINES)
        _show(connection, "Top 5 customers by value (0 to 1)", TOP_CUSTOMERS)
        _show(connection, "Data quality score (0 to 100), weighted by rows", DATA_QUALITY)
        _show(connection, "Freshness of the marts", FRESHNESS)
    console.print()
    print_addresses(url)


def _row_counts(connection: psycopg.Connection) -> list[Sequence[object]]:
    found = connection.execute(
        """
        select table_schema, table_name from information_schema.tables
        where table_schema = any(%s) and has_table_privilege(format('%%I.%%I', table_schema, table_name), 'select')
        order by array_position(%s, table_schema::text), table_name
        """,
        (list(MART_SCHEMAS), list(MART_SCHEMAS)),
    ).fetchall()
    counted: list[Sequence[object]] = []
    for schema, name in found:
        row = connection.execute(sql.SQL("select count(*) from {}.{}").format(sql.Identifier(schema), sql.Identifier(name))).fetchone()
        counted.append((f"{schema}.{name}", row[0] if row else 0))
    return counted


def _show(connection: psycopg.Connection, title: str, statement: str) -> None:
    try:
        cursor = connection.execute(statement.encode())
    except psycopg.Error as error:
        console.print(f"[yellow]{title}: {str(error).splitlines()[0]}[/yellow]")
        return
    columns = [column.name for column in cursor.description or () if not column.name.startswith("_")]
    rows: list[list[Any]] = [list(row[: len(columns)]) for row in cursor.fetchall()]
    table(title, columns, rows)
