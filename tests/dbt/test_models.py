"""What every model of the project promises: described, tested, under contract, deterministic, and its inputs followed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from include.transform import fix_horizon
from include.transform.invocation import invoke, manifest_json
from tests.conftest import Warehouse
from tests.support.marts import build_marts

Node = dict[str, Any]

EXPECTED = {
    "core": {"dim_customer", "dim_date", "dim_device", "dim_device_desired_state", "dim_facility"},
    "customers": {"fct_order", "rpt_customer_value"},
    "features": {"feat_component_daily", "feat_device_daily", "feat_unit_daily"},
    "intermediate": {
        "int_maintenance__device_activity_daily",
        "int_maintenance__device_activity_hourly",
        "int_maintenance__device_activity_weekly",
        "int_maintenance__device_baseline_daily",
        "int_maintenance__device_firmware_hourly",
        "int_maintenance__device_leg",
        "int_maintenance__device_position",
        "int_maintenance__device_reported_change",
        "int_maintenance__device_use",
        "int_maintenance__device_use_hourly",
        "int_maintenance__error_known_daily",
        "int_maintenance__facility_window_15min",
        "int_maintenance__machine_feature_daily",
        "int_maintenance__reading_known_daily",
        "int_maintenance__type_use_hourly",
        "int_platform__prediction",
    },
    "maintenance": {
        "fct_device_event",
        "fct_device_health_daily",
        "fct_device_position_daily",
        "fct_device_reading_daily",
        "fct_device_reading_hourly",
        "fct_device_session",
        "fct_device_sliding_15min",
        "fct_device_sliding_1h",
        "fct_device_stop",
        "fct_device_window_15min",
        "fct_device_window_1d",
        "fct_device_window_1h",
        "fct_device_window_1min",
        "fct_device_window_5min",
        "fct_facility_window_1d",
        "fct_facility_window_1h",
        "fct_facility_window_local_1d",
        "fct_line_window_1h",
        "fct_machine_state_5min",
        "fct_maintenance_event",
        "fct_pattern_match",
        "fct_unit_failure",
        "fct_unusual_access",
        "rpt_device_last_position",
        "rpt_device_twin",
        "rpt_maintenance_cost",
        "rpt_maintenance_priority",
        "rpt_maintenance_schedule",
        "rpt_usage_profile",
    },
    "platform": {
        "fct_landing_file",
        "fct_prediction_outcome",
        "rpt_data_quality_daily",
        "rpt_feature_quality",
        "rpt_freshness",
        "rpt_model_performance_daily",
        "rpt_quarantine_daily",
        "rpt_reconciliation",
        "rpt_storage_daily",
    },
    "staging": {
        "stg_customers",
        "stg_device_desired_state",
        "stg_device_events",
        "stg_device_registry",
        "stg_device_telemetry",
        "stg_gps_positions",
        "stg_maintenance_log",
        "stg_orders",
        "stg_ticket_counts",
        "stg_unit_lives",
        "stg_unit_readings",
        "stg_work_order_feedback",
    },
}
SCORED = {
    "fct_device_health_daily": "health_score",
    "rpt_customer_value": "customer_value_score",
    "rpt_data_quality_daily": "data_quality_score",
    "rpt_maintenance_priority": "maintenance_priority_score",
}
NOT_A_FUNCTION_OF_THE_DATA = re.compile(
    r"\b(now\(|current_date|current_timestamp|localtimestamp|clock_timestamp|nextval|random\(|gen_random_uuid|uuidv7)", re.IGNORECASE
)


@pytest.fixture
def manifest(deployed: Warehouse) -> dict[str, Any]:
    """The parsed project."""
    return manifest_json()


def models(manifest: dict[str, Any]) -> dict[str, Node]:
    return {node["name"]: node for node in manifest["nodes"].values() if node["resource_type"] == "model"}


def undescribed(nodes: dict[str, Node]) -> list[str]:
    """Models and columns without a text of their own or from a doc block."""
    return [
        *(name for name, node in nodes.items() if not node["description"].strip()),
        *(f"{name}.{column}" for name, node in nodes.items() for column, info in node["columns"].items() if not info["description"].strip()),
    ]


def unfollowed(nodes: dict[str, Node]) -> list[str]:
    """References of incremental models to something that changes and whose changes are not mapped to buckets."""
    found = []
    for name, node in nodes.items():
        if node["config"]["materialized"] == "incremental":
            found += [f"{name} <- {ref['name']}" for ref in node["refs"] if ref["name"] not in node["config"]["inputs"]]
    return found


def test_the_models_are_exactly_those_of_the_plan(manifest: dict[str, Any]) -> None:
    found: dict[str, set[str]] = {}
    for name, node in models(manifest).items():
        found.setdefault(node["schema"], set()).add(name)
    assert found == EXPECTED


def test_every_model_and_every_column_is_described(deployed: Warehouse, manifest: dict[str, Any]) -> None:
    build_marts()
    assert undescribed(models(manifest)) == []
    described = {(node["schema"], node["alias"], column) for node in models(manifest).values() for column in node["columns"]}
    schemas = ", ".join(f"'{schema}'" for schema in EXPECTED)
    real = set(deployed.rows(f"select table_schema, table_name, column_name from information_schema.columns where table_schema in ({schemas})"))
    assert real == described


def test_a_missing_description_would_be_noticed(manifest: dict[str, Any]) -> None:
    broken = json.loads(json.dumps(models(manifest)))
    broken["fct_order"]["columns"]["net_usd"]["description"] = " "
    broken["dim_date"]["description"] = ""
    assert undescribed(broken) == ["dim_date", "fct_order.net_usd"]


def test_marts_and_features_are_under_an_enforced_contract(manifest: dict[str, Any]) -> None:
    for name, node in models(manifest).items():
        assert node["schema"] in {"staging", "intermediate"} or node["config"]["contract"]["enforced"], name


def test_every_table_has_a_grain_test_and_says_its_grain(manifest: dict[str, Any]) -> None:
    tested = {
        manifest["nodes"][node["attached_node"]]["name"]
        for node in manifest["nodes"].values()
        if node["resource_type"] == "test" and node["test_metadata"]["name"] == "unique_combination"
    }
    needed = {name for name, node in models(manifest).items() if node["schema"] != "staging"}
    assert needed <= tested
    assert [name for name, node in models(manifest).items() if not node["raw_code"].startswith("-- Grain: one row per ")] == []


def test_every_data_test_says_whether_it_stops_and_why(manifest: dict[str, Any]) -> None:
    wrong = []
    for node in manifest["nodes"].values():
        if node["resource_type"] == "test":
            severity = node["config"]["severity"].lower()
            if not re.match(rf"{severity}( on the nightly run)?, (because|for the same reason)", node["description"]):
                wrong.append(f"{node['name']}: {severity}, but: {node['description'] or 'nothing said'}")
    assert wrong == []


def test_every_scoring_rule_has_a_unit_test(manifest: dict[str, Any]) -> None:
    for model, column in SCORED.items():
        tests = [node for node in manifest["unit_tests"].values() if node["model"] == model]
        assert any(column in row for test in tests for row in test["expect"]["rows"] if isinstance(row, dict)), model
        assert all(test["description"].strip() for test in tests)


def test_models_are_functions_of_the_data(manifest: dict[str, Any]) -> None:
    for name, node in models(manifest).items():
        code = re.sub(r"--.*", "", node["raw_code"])
        assert not NOT_A_FUNCTION_OF_THE_DATA.search(code), name


def test_every_input_that_changes_is_followed(manifest: dict[str, Any]) -> None:
    assert unfollowed(models(manifest)) == []
    broken = json.loads(json.dumps(models(manifest)))
    del broken["fct_device_health_daily"]["config"]["inputs"]["fct_maintenance_event"]
    assert unfollowed(broken) == ["fct_device_health_daily <- fct_maintenance_event"]


def test_every_mart_has_somebody_who_uses_it(manifest: dict[str, Any]) -> None:
    used = {ref["name"] for exposure in manifest["exposures"].values() for ref in exposure["refs"]}
    marts = {name for name, node in models(manifest).items() if node["schema"] not in {"staging", "intermediate"}}
    assert marts - used == set()


def test_the_unit_tests_of_the_project_pass(deployed: Warehouse) -> None:
    build_marts()
    of = fix_horizon()
    nodes = invoke(["test", "--select", "test_type:unit", "--vars", json.dumps(of.as_vars())], purpose="unit-tests")
    assert len(nodes) >= 30
    assert [f"{node.unique_id}: {node.message}" for node in nodes if node.status != "pass"] == []
