"""One row of each mart is followed down to the bytes that it was made of."""

from __future__ import annotations

import json
from datetime import date

import pytest

from include.file_index.storage import take_snapshot
from include.transform.invocation import load_manifest
from include.transform.trace import TraceError, trace
from include.warehouse import Role, connect
from tests.conftest import Warehouse

# Nobody has scored in this small plant; tests/dbt/test_outcomes.py and tests/ml/test_work_orders.py follow a row of each.
OF_PREDICTIONS = {"platform.fct_prediction_outcome", "platform.rpt_model_performance_daily", "maintenance.rpt_maintenance_schedule"}
MART_SCHEMAS = {"core", "maintenance", "customers", "platform", "features"}


def marts() -> dict[str, tuple[list[str], dict]]:
    """Key columns and configuration of each mart."""
    found = {}
    for node in load_manifest().nodes.values():
        if node.resource_type.value == "model" and node.schema in MART_SCHEMAS and f"{node.schema}.{node.alias}" not in OF_PREDICTIONS:
            found[f"{node.schema}.{node.alias}"] = (list(node.columns), node.config.to_dict())
    return found


def test_one_row_of_each_mart_leads_to_its_bytes(built: Warehouse) -> None:
    take_snapshot(date(2026, 3, 10))
    seen = 0
    for table, (columns, config) in marts().items():
        unique = [index["columns"] for index in config.get("indexes") or [] if index.get("unique")]
        grain = (
            unique[0]
            if unique
            else [
                name for name in columns if name in {"tenant_id", "file_id", "stream", "arrived_date", "error_code", "mart_name", "date_day", "snapshot_date"}
            ]
        )
        with connect(Role.OWNER) as connection:
            listed = ", ".join(f"{name}::text" for name in grain)
            row = connection.execute(f"select {listed} from {table} order by {', '.join(grain)} limit 1").fetchone()  # type: ignore[call-overload]
        assert row is not None, f"{table} is empty"
        found = trace(table, [f"{name}={value}" for name, value in zip(grain, row, strict=True)])
        if table == "core.dim_date":
            assert found.remarks
            continue
        assert found.files, table
        if not table.startswith("platform."):
            assert found.raw, table
            assert all(isinstance(json.loads(raw.original or ""), dict) for raw in found.raw[:20]), table
        seen += 1
    assert seen >= 12


def test_an_hour_is_made_of_exactly_its_readings(built: Warehouse) -> None:
    found = trace("maintenance.fct_device_reading_hourly", ["m1", "2026-03-03 02:00+00"])
    assert found.row["reading_count"] == len(found.raw) == 1
    assert json.loads(found.raw[0].original or "")["measurements"]["temperature"] == pytest.approx(found.row["sum_temperature_c"], rel=1e-14)
    assert found.raw[0].address.startswith("device_telemetry/dt=")


def test_a_corrected_order_leads_to_the_copy_that_won(built: Warehouse) -> None:
    found = trace("customers.fct_order", ["o1"])
    assert [json.loads(raw.original or "")["status"] for raw in found.raw] == ["delivered"]


def test_bytes_that_took_the_place_of_the_landed_ones_are_not_shown_for_them(built: Warehouse) -> None:
    address = trace("customers.fct_order", ["o1"]).raw[0].address
    file = built.zone_dir / address
    landed = file.read_bytes()
    file.write_bytes(landed.replace(b"delivered", b"cancelled"))
    found = trace("customers.fct_order", ["o1"])
    assert [raw.original for raw in found.raw] == [None]
    assert any(f"{address} is not in the zone" in remark for remark in found.remarks)
    file.write_bytes(landed)
    assert [json.loads(raw.original or "")["status"] for raw in trace("customers.fct_order", ["o1"]).raw] == ["delivered"]


def test_a_day_of_health_leads_to_readings_registry_and_maintenance(built: Warehouse) -> None:
    found = trace("maintenance.fct_device_health_daily", ["m1", str(date(2026, 3, 3))])
    assert {raw.stream for raw in found.raw} == {"device_telemetry", "device_registry", "maintenance_log", "work_order_feedback"}


def test_tenants_are_not_mixed(built: Warehouse) -> None:
    found = trace("maintenance.fct_device_reading_daily", ["m1", "2026-03-03", "tenant_id=acme"])
    telemetry = [raw for raw in found.raw if raw.stream == "device_telemetry"]
    assert telemetry
    assert all("tenant=acme" in raw.address for raw in telemetry)


@pytest.mark.parametrize(
    ("table", "key", "message"),
    [
        ("nowhere.nothing", [], "no table nowhere.nothing; known are"),
        ("customers.fct_order", ["missing"], "no row of customers.fct_order"),
        ("customers.fct_order", ["colour=red", "o1"], "2 bare values"),
        ("customers.fct_order", [], "more than one row"),
        ("maintenance.fct_device_reading_hourly", ["m1", "yesterdayish"], "does not fit"),
    ],
)
def test_what_cannot_be_traced_says_why(built: Warehouse, table: str, key: list[str], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        trace(table, key)
