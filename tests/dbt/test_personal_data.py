"""Personal data never reaches a mart: the column lineage of the compiled SQL, from every classified field of the contracts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlglot import exp, parse_one
from sqlglot.lineage import Node as LineageNode
from sqlglot.lineage import lineage
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import build_scope
from sqlglot.schema import MappingSchema

from include.contracts import load_contract, streams
from include.transform.expiring import Node
from include.transform.forgetting import check_forgetting, forgetful_models, streams_about_persons, unforgetful_models
from include.transform.invocation import DbtError, load_manifest, manifest_json, run_dbt
from tests.conftest import Warehouse
from tests.support.marts import build_marts

pytestmark = pytest.mark.xdist_group("lineage")

Columns = dict[str, dict[str, str]]
Lineage = dict[tuple[str, str], set[tuple[str, str]]]
# Pseudonyms that a table may show: what they stand for has many values, so nobody guesses it from how often one occurs. Names that devices give to people
# have few (resident_1), so those are bound to tenant and device.
PSEUDONYMS_SHOWN = {("core.dim_customer", f"{field}_pseudonym") for field in ("full_name", "email", "phone")} | {
    (table, "actor_pseudonym") for table in ("intermediate.int_maintenance__device_use", "maintenance.fct_unusual_access")
}
# Counts of rows, constants and what the project's own graph says: the only columns that no column of a source stands behind.
MADE_OF_NOTHING = {
    "customers.rpt_customer_value.sale_count",
    "intermediate.int_maintenance__device_baseline_daily.baseline_day_count",
    "intermediate.int_maintenance__device_baseline_daily.hour_count",
    "intermediate.int_maintenance__device_reported_change.property_code",
    "intermediate.int_maintenance__device_use.use_count",
    "intermediate.int_maintenance__error_known_daily.error_event_count",
    "intermediate.int_maintenance__machine_feature_daily.component_count",
    "intermediate.int_maintenance__machine_feature_daily.day_count_28d",
    "intermediate.int_maintenance__reading_known_daily.reading_count",
    "intermediate.int_platform__prediction.horizon_days",
    "intermediate.int_platform__prediction.use_case",
    "maintenance.fct_device_position_daily.fix_count",
    "maintenance.fct_device_position_daily.stop_count",
    "maintenance.fct_device_reading_daily.hour_count",
    "maintenance.fct_device_reading_hourly.reading_count",
    "maintenance.fct_device_stop.fix_count",
    "maintenance.fct_device_window_1min.metric_code",
    "maintenance.fct_device_window_1min.reading_count",
    "maintenance.fct_machine_state_5min.event_count",
    "maintenance.fct_maintenance_event.entry_source",
    "maintenance.fct_pattern_match.pattern_code",
    "maintenance.fct_pattern_match.step_count",
    "maintenance.fct_unit_failure.stated_by",
    "maintenance.rpt_maintenance_priority.formula_version",
    "maintenance.rpt_usage_profile.day_count",
    "maintenance.rpt_usage_profile.device_day_count",
    "platform.fct_prediction_outcome.event_count",
    "platform.fct_prediction_outcome.has_occurred",
    "platform.rpt_data_quality_daily.file_count",
    "platform.rpt_feature_quality.feature_kind",
    "platform.rpt_feature_quality.feature_name",
    "platform.rpt_feature_quality.feature_table",
    "platform.rpt_feature_quality.row_count",
    "platform.rpt_freshness.batches_behind_count",
    "platform.rpt_freshness.mart_name",
    "platform.rpt_freshness.stream",
    "platform.rpt_model_performance_daily.prediction_count",
    "platform.rpt_model_performance_daily.slice_dimension",
    "platform.rpt_quarantine_daily.all_quarantined_count",
    "platform.rpt_quarantine_daily.quarantined_count",
}
# Tables that people bring have all their values among the fields that no contract knows; features are made of them, which ML alone may read.
VALUES_BROUGHT = {("raw.unit_readings", "_extra"): {("features.feat_unit_daily", "unit_values")}}
_TAKEN: Lineage = {}


def without_laterals(query: Any) -> Any:
    """The same query with each column of a LATERAL replaced by what it is made of: sqlglot follows a scalar subquery and stops at a LATERAL."""
    for lateral in list(query.find_all(exp.Lateral)):
        select, inner = lateral.find_ancestor(exp.Select), lateral.this.unnest()
        projections = {projection.alias_or_name: projection.unalias() for projection in inner.selects}
        for column in [column for column in select.find_all(exp.Column) if column.table == lateral.alias]:
            scalar = inner.copy()
            scalar.set("expressions", [projections[column.name].copy()])
            scalar.set("order", None)
            within = {source.alias_or_name for source in inner.find_all(exp.Table)}
            outer = [name.copy() for name in scalar.expressions[0].find_all(exp.Column) if name.table not in within]
            whole = exp.Anonymous(this="made_of", expressions=[exp.Subquery(this=scalar), *outer])
            column.replace(exp.alias_(whole, column.name, quoted=True) if column.parent is select else whole)
        lateral.find_ancestor(exp.Join).pop()
    return query


def columns_read(relation: str, sql: str, known: dict[str, Columns]) -> Lineage:
    """Which columns of other relations each output column of a query is made of."""
    schema = MappingSchema(dict(known), dialect="postgres")
    parsed = parse_one(sql, dialect="postgres")
    for table in parsed.find_all(exp.Table):
        if table.name.startswith("touched__"):
            table.set("db", exp.to_identifier("pg_temp"))
    query: Any = without_laterals(qualify(parsed, dialect="postgres", schema=schema, validate_qualify_columns=False))
    query = qualify(query, dialect="postgres", schema=schema, validate_qualify_columns=False)
    # All columns at once: what they share is followed once, where a column after the other would walk each CTE again for each of its readers.
    nodes = lineage(None, query, schema=schema, scope=build_scope(query), dialect="postgres", trim_selects=False)
    return {(relation, name): leaves_of(nodes[name]) for name in query.named_selects}


def leaves_of(root: LineageNode) -> set[tuple[str, str]]:
    """Columns of stored relations below a node of sqlglot's lineage; each node is looked at once, though many ways lead to it."""
    leaves, seen, waiting = set(), set(), [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        waiting += node.downstream
        if isinstance(node.expression, exp.Table) and not node.downstream:
            leaves.add((f"{node.expression.db}.{node.expression.name}", node.name.rpartition(".")[2].strip('"')))
    return leaves


def reached(made_of: Lineage, start: tuple[str, str]) -> set[tuple[str, str]]:
    """Every column that is made of a column, directly or not."""
    found: set[tuple[str, str]] = set()
    waiting = [start]
    while waiting:
        current = waiting.pop()
        for column, sources in made_of.items():
            if current in sources and column not in found:
                found.add(column)
                waiting.append(column)
    return found


def personal_columns() -> set[tuple[str, str]]:
    return {(f"raw.{stream}", field.name) for stream in streams() for field in load_contract(stream).fields if field.classification == "personal"}


@pytest.fixture
def made_of(request: pytest.FixtureRequest, tmp_path: Path) -> Lineage:
    """Lineage of every column of every model, from SQL as dbt compiles it. Taken once: it does not depend on data."""
    if not _TAKEN:
        _TAKEN.update(take_lineage(request.getfixturevalue("deployed"), tmp_path))
    return _TAKEN


def take_lineage(deployed: Warehouse, folder: Path) -> Lineage:
    """Builds the marts empty and walks the compiled SQL of every model."""
    build_marts()
    known: dict[str, Columns] = {}
    listing = "select table_schema, table_name, column_name, data_type from information_schema.columns where table_schema not like 'pg_%'"
    for schema, table, column, kind in deployed.rows(listing):
        known.setdefault(schema, {}).setdefault(table, {})[column] = kind
    # The touched buckets of a run are a temporary table, which exists only while a model runs.
    models = [node for node in manifest_json()["nodes"].values() if node["resource_type"] == "model" and node["config"].get("bucket")]
    known["pg_temp"] = {f"touched__{node['alias']}": {column: node["columns"][column]["data_type"] for column in node["config"]["bucket"]} for node in models}
    result = run_dbt(["compile", "--vars", json.dumps({"build_id": "lineage", "horizon": {}})], folder, load_manifest())
    found: Lineage = {}
    for item in result.results:
        if item.node.resource_type.value == "model":
            found |= columns_read(f"{item.node.schema}.{item.node.alias}", item.node.compiled_code, known)
    return found


def test_no_clear_personal_field_leaves_raw(made_of: Lineage) -> None:
    assert len(personal_columns()) == 6
    for field in personal_columns():
        assert reached(made_of, field) == set(), field


def test_only_harmless_pseudonyms_reach_a_mart(made_of: Lineage) -> None:
    shown = set()
    for table, field in personal_columns():
        shown |= {column for column in reached(made_of, (table, f"{field}_pseudonym")) if not column[0].startswith("staging.")}
    assert shown == PSEUDONYMS_SHOWN
    tables = {f"{node['schema']}.{node['alias']}": node["columns"] for node in manifest_json()["nodes"].values() if node["resource_type"] == "model"}
    unclassified = [column for column in PSEUDONYMS_SHOWN if tables[column[0]][column[1]]["config"]["meta"].get("classification") != "pseudonym"]
    assert unclassified == []


def keeps_persons_for_ever(made_of: Lineage, manifest: Node) -> set[str]:
    """Tables that anything personal of a stream whose months are deleted reaches, and that do not say how they forget it."""
    nodes = {f"{node['schema']}.{node['alias']}": node for node in manifest["nodes"].values() if node["resource_type"] == "model"}
    return {
        relation
        for stream in streams_about_persons()
        for field in load_contract(stream).fields
        if field.classification == "personal"
        for column in (field.name, f"{field.name}_pseudonym")
        for relation, _ in reached(made_of, (f"raw.{stream}", column))
        if nodes[relation]["config"]["materialized"] != "view" and stream not in (nodes[relation]["config"].get("forgets") or {})
    }


def test_every_table_about_persons_forgets_when_its_contract_says_so(made_of: Lineage) -> None:
    assert streams_about_persons() == ("device_events",)
    manifest = manifest_json()
    assert keeps_persons_for_ever(made_of, manifest) == set()
    assert [(each.model, each.day_column, each.first_day, each.last_day) for each in forgetful_models(manifest)] == [
        ("intermediate.int_maintenance__device_use", "used_date", 0, 0),
        ("maintenance.fct_unusual_access", "local_date", -57, 1),
    ]
    check_forgetting(manifest)
    del manifest["nodes"]["model.tidemark.fct_unusual_access"]["config"]["forgets"]
    assert keeps_persons_for_ever(made_of, manifest) == {"maintenance.fct_unusual_access"}
    with pytest.raises(DbtError, match="fct_unusual_access holds actor_pseudonym and is made of device_events, whose months are deleted"):
        check_forgetting(manifest)


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        ("fct_unusual_access", {"forgets": {"orders": [0, 0], "device_events": [0, 0]}}, "speaks of months of orders, which are never deleted"),
        ("fct_unusual_access", {"forgets": {"no_such": [0, 0], "device_events": [0, 0]}}, "speaks of months of no_such, which are never deleted"),
        ("fct_unusual_access", {"event_time": "accessed_at"}, "give it touched buckets with the day of a row among them"),
        ("rpt_usage_profile", {"incremental_strategy": None}, "give it touched buckets with the day of a row among them"),
        ("rpt_usage_profile", {"remembers": {"device_events": [1, -1]}}, r"says \[1, -1\] of device_events: give the first and the last day"),
        ("rpt_usage_profile", {"remembers": {"device_events": 31}}, "says 31 of device_events: give the first and the last day"),
    ],
)
def test_a_way_to_forget_that_cannot_be_gone_is_refused(model: str, config: dict[str, Any], message: str, deployed: Warehouse) -> None:
    manifest = manifest_json()
    assert list(unforgetful_models(manifest, streams_about_persons())) == []
    manifest["nodes"][f"model.tidemark.{model}"]["config"].update(config)
    with pytest.raises(DbtError, match=message):
        check_forgetting(manifest)


def test_free_text_and_unclassified_fields_stay_below_the_marts(made_of: Lineage) -> None:
    for source in [*((f"raw.{stream}", "_extra") for stream in streams()), ("raw.maintenance_log", "notes"), ("raw.work_order_feedback", "why")]:
        shown = {column for column in reached(made_of, source) if not column[0].startswith("staging.")}
        assert shown == VALUES_BROUGHT.get(source, set()), source
    for stream in {table for table, _ in personal_columns()}:
        assert reached(made_of, (stream, "_extra")) == set(), stream


def test_the_lineage_knows_every_column_and_where_it_comes_from(made_of: Lineage) -> None:
    models = {f"{node['schema']}.{node['alias']}" for node in manifest_json()["nodes"].values() if node["resource_type"] == "model"}
    assert {relation for relation, _ in made_of} == models
    # Any other column made of nothing would be a hole in the net.
    assert {f"{relation}.{column}" for (relation, column), sources in made_of.items() if not sources} == MADE_OF_NOTHING
    assert ("features.feat_device_daily", "vibration_ratio_7d_to_28d") in reached(made_of, ("raw.device_telemetry", "vibration_x_mm_s"))
    assert ("maintenance.rpt_maintenance_priority", "maintenance_priority_score") in reached(made_of, ("raw.device_registry", "maintenance_interval_days"))
    assert ("customers.rpt_customer_value", "is_high_value") in reached(made_of, ("raw.orders", "net_usd"))


def test_a_leak_would_be_found() -> None:
    known = {"raw": {"customers": {"email": "text", "customer_id": "text"}}, "staging": {"stg_customers": {"customer_id": "text", "contact": "text"}}}
    view = "with source as (select * from raw.customers) select customer_id, lower(email) as contact from source"
    mart = "select c.customer_id, x.hint from staging.stg_customers c cross join lateral (select left(c.contact, 3) as hint) x"
    leaky = columns_read("staging.stg_customers", view, known) | columns_read("core.dim_customer", mart, known)
    assert reached(leaky, ("raw.customers", "email")) == {("staging.stg_customers", "contact"), ("core.dim_customer", "hint")}
