"""What the demo shows at its end: the ledger that adds up, the marts, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from include.commands.console import console, duration, table
from include.commands.stack import print_addresses

MART_SCHEMAS = ("core", "maintenance", "customers", "platform", "features", "predictions", "decisions")
TOP_MACHINES = """
select p.device_id, d.model_name, p.facility_id, p.maintenance_priority_score, p.failure_probability, p.health_score, p.is_high_priority
from maintenance.rpt_maintenance_priority as p
left join core.dim_device as d on d.tenant_id = p.tenant_id and d.device_id = p.device_id and d.is_current
order by p.maintenance_priority_score desc, p.device_id limit 5
"""
CHAMPIONS = """
select h.use_case, h.model_version as version,
    case v.report ->> 'kind' when 'quantiles' then 'pinball loss (d)' else 'PR-AUC' end as measure,
    coalesce(v.report ->> 'pr_auc_model', v.report ->> 'loss_model')::float8 as model,
    coalesce(v.report ->> 'pr_auc_baseline', v.report ->> 'loss_baseline')::float8 as rule, v.report ->> 'baseline_name' as best_rule,
    h.champion_from as since_utc
from ops.model_history as h join ops.model_version as v using (use_case, model_version) where h.champion_until is null order by h.use_case
"""
SCHEDULE = """
select planned_date, benefit_rank as rank, device_id, facility_id, failure_probability, component_code as component, remaining_life_p50_d as days_left,
    benefit_usd
from maintenance.rpt_maintenance_schedule where state = 'proposed' and verdict is null order by tenant_id, benefit_rank limit 5
"""
# Of the newest planned day of each tenant; an answer of the crew is a maintenance event.
DECIDED = """
select case when e.log_id is null then w.state else 'answered' end as state, count(*), max(w.planned_date)
from (select *, max(planned_date) over (partition by tenant_id) as newest_date from decisions.work_order) as w
left join maintenance.fct_maintenance_event as e on e.tenant_id = w.tenant_id and e.log_id = 'work_order_feedback:' || w.work_order_id
where w.planned_date = w.newest_date
group by 1
"""
STATES = {
    "answered": "answered by the crew already",
    "proposed": "proposed",
    "over_capacity": "worth it, but beyond what the crew can do in the day",
    "not_worth_it": "cheaper to leave running",
    "quiet": "left alone after a false alarm",
    "done_already": "mended since their prediction",
}
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
        _show(connection, "Champions among the models beside the best rule (why: tidemark model history)", CHAMPIONS)
        _show(connection, "Top 5 machines by maintenance priority (0 to 3)", TOP_MACHINES)
        _show(connection, "Tomorrow's schedule: work orders that save most", SCHEDULE, when_empty=without_orders)
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


def without_orders(connection: psycopg.Connection) -> str:
    """Why nothing is to be done on the planned day: how many machines were decided on, and how."""
    decided = connection.execute(DECIDED).fetchall()
    if not decided:
        return "no order has been decided: no machine has a prediction of a champion yet"
    counts = {state: count for state, count, _ in decided}
    said = ", ".join(f"{counts[state]} {words}" for state, words in STATES.items() if state in counts)
    return f"nothing to do on {max(day for _, _, day in decided)}; of {sum(counts.values())} machines {said}"


def _show(connection: psycopg.Connection, title: str, statement: str, *, when_empty: Callable[[psycopg.Connection], str] | None = None) -> None:
    try:
        cursor = connection.execute(statement.encode())
        columns = [column.name for column in cursor.description or () if not column.name.startswith("_")]
        rows: list[list[Any]] = [list(row[: len(columns)]) for row in cursor.fetchall()]
        if not rows and when_empty is not None:
            console.print(f"{title}: {when_empty(connection)}", soft_wrap=True)
            return
    except psycopg.Error as error:
        console.print(f"[yellow]{title}: {str(error).splitlines()[0]}[/yellow]")
        return
    table(title, columns, rows)
