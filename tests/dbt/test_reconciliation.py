"""What analysts see of the books, and that a difference anywhere makes a run red and is named."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from include.contracts import OnConflict, load_contract
from include.landing import land_pending
from include.transform import TransformFailed, build, fix_horizon
from include.transform.invocation import invoke, manifest_json
from include.warehouse import Role
from tests.conftest import Warehouse
from tests.support.marts import build_marts
from tests.support.payloads import at, order, put, telemetry

REPORT = "select file_id, is_balanced, is_every_row_counted, is_quarantine_complete, is_batch_balanced from platform.rpt_reconciliation order by file_id"
# Additive by their names, as the headers of the marts say; what is not a sum of the input stands here with the reason.
ADDITIVE = re.compile(r"^(sum_.*|.*_count|.*_usd|energy_kwh|downtime_min)$")
SUMMED = re.compile(r"sum\((\w+)(?:::numeric)?\)")
NOT_A_SUM = {
    ("fct_device_reading_daily", "expected_reading_count"): "made of the registry's intervals, not of readings",
    **{
        (f"fct_device_window_{length}", "expected_reading_count"): "the same, and silent windows have no row"
        for length in ("1min", "5min", "15min", "1h", "1d")
    },
    ("fct_pattern_match", "step_count"): "length of the pattern",
    ("fct_device_stop", "fix_count"): "a fix on the way belongs to no stop",
    ("fct_unusual_access", "profile_day_count"): "days that accesses share",
    ("fct_unusual_access", "similar_day_count"): "the same",
}


def failures_of_platform() -> list[str]:
    command = ["test", "--select", "rpt_reconciliation,test_type:data", "--vars", json.dumps(fix_horizon().as_vars())]
    nodes = invoke(command, purpose="reconciliation")
    assert nodes
    return [node.unique_id for node in nodes if node.status != "pass"]


def test_each_file_is_balanced_and_a_falsified_book_is_not(unfilled: Warehouse) -> None:
    put("orders", [order("o1", "c1", at(0)), order("o2", "c1", at(0)), "{broken"], arrived_at=at(1))
    put("orders", [order("o1", "c1", at(0)), order("o3", "c1", at(0))], arrived_at=at(1, 1))
    land_pending("orders", arrived_from=at(0), arrived_before=at(3))
    put("orders", [order("o1", "c1", at(0), gross=40.0, updated_at=at(0, 3))], arrived_at=at(2))
    land_pending("orders", arrived_from=at(0), arrived_before=at(3))
    assert unfilled.rows(REPORT, Role.ANALYST) == [(file, True, True, True, True) for file in (1, 2, 3)]
    assert failures_of_platform() == []
    unfilled.execute("update ops.quarantine set file_id = 2")
    assert unfilled.rows(REPORT, Role.ANALYST)[:2] == [(1, False, True, False, True), (2, False, True, False, True)]
    unfilled.execute("update ops.quarantine set file_id = 1")
    unfilled.execute("insert into ops.movement (stream, partition, batch_id, rows_of_batch, reason, row_count) values ('orders', 'orders_h1', 1, 1, 'load', 5)")
    assert unfilled.rows(REPORT, Role.ANALYST)[:2] == [(1, False, True, True, False), (2, False, True, True, False)]
    assert len(failures_of_platform()) == 1


def test_a_file_whose_row_loses_its_place_to_an_earlier_arrival_is_still_balanced(unfilled: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = replace(load_contract("orders"), version_field=None, on_conflict=OnConflict.QUARANTINE)
    monkeypatch.setattr("include.landing.load.load_contract", lambda stream: strict)
    put("orders", [order("o1", "late", at(0)), order("o2", "c1", at(0))], arrived_at=at(1, 1))
    land_pending("orders", arrived_from=at(0), arrived_before=at(3))
    put("orders", [order("o1", "early", at(0)), order("o2", "c1", at(0))], arrived_at=at(1))
    land_pending("orders", arrived_from=at(0), arrived_before=at(3))
    accepted = "select accepted_count, batch_moved_count from platform.rpt_reconciliation order by file_id"
    assert unfilled.rows(accepted, Role.ANALYST) == [(0, 0), (2, 2)]
    assert unfilled.rows(REPORT, Role.ANALYST) == [(file, True, True, True, True) for file in (1, 2)]
    assert failures_of_platform() == []


def test_every_additive_measure_is_compared_with_its_input(unfilled: Warehouse) -> None:
    nodes = manifest_json()["nodes"].values()
    compared: dict[str, set[str]] = {}
    for node in nodes:
        if node["resource_type"] == "test" and (node.get("test_metadata") or {}).get("name") == "equal_totals":
            compared.setdefault(node["attached_node"].rpartition(".")[2], set()).update(node["test_metadata"]["kwargs"]["measures"])
        if node["resource_type"] == "test" and (node.get("test_metadata") or {}).get("name") == "same_totals_by":
            found = (SUMMED.fullmatch(measure) for measure in node["test_metadata"]["kwargs"]["measures"])
            compared.setdefault(node["attached_node"].rpartition(".")[2], set()).update(each.group(1) for each in found if each)
    facts = {node["name"]: node for node in nodes if node["resource_type"] == "model" and node["name"].startswith("fct_") and "micro_batch" in node["tags"]}
    missing = [
        f"{name}.{column}"
        for name, node in facts.items()
        for column in node["columns"]
        if ADDITIVE.match(column)
        and "Nothing here is additive" not in node["raw_code"]
        and column not in compared.get(name, set())
        and (name, column) not in NOT_A_SUM
    ]
    assert missing == []
    assert {"fct_order", "fct_device_reading_hourly", "fct_maintenance_event"} <= set(compared)


def test_a_mart_that_does_not_add_up_is_named_with_its_streams_and_batches(unfilled: Warehouse) -> None:
    put("device_telemetry", [telemetry("m1", at(0, 1)), telemetry("m1", at(0, 2))], arrived_at=at(0, 3))
    land_pending("device_telemetry", arrived_from=at(0), arrived_before=at(1))
    build_marts()
    unfilled.execute("update maintenance.fct_device_reading_hourly set sum_temperature_c = sum_temperature_c + 1")
    put("device_telemetry", [telemetry("m2", at(0, 1))], arrived_at=at(0, 4))
    land_pending("device_telemetry", arrived_from=at(0), arrived_before=at(1))
    of = fix_horizon()
    build("tag:maintenance,tag:micro_batch", of)  # looks at the hours it has recomputed, which are right
    with pytest.raises(
        TransformFailed, match=rf"\[table maintenance\.fct_device_reading_hourly: device_telemetry up to batch {of.horizon['device_telemetry']}\]"
    ):
        build("fct_device_reading_hourly", fix_horizon(), full_tests=True)
