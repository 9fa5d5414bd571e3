"""Files that nobody here made up land with exactly explained counts."""

from __future__ import annotations

import csv
from collections import Counter
from datetime import UTC, datetime, timedelta

from include.landing import land_pending
from include.landing.quarantine import Filter, list_quarantined
from tests.support.landing import assert_balanced, raw_rows
from tests.support.payloads import zone

ARRIVED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def land(real_data, name, stream, mapping):
    ext = "csv.gz" if name.endswith(".gz") else "csv"
    zone().put(stream, (real_data / name).read_bytes(), arrived_at=ARRIVED_AT, source="import", ext=ext, mapping=mapping)
    result = land_pending(stream, arrived_before=datetime(2026, 3, 1, 13, tzinfo=UTC))
    assert_balanced()
    reasons = Counter((str(error["code"]), error["field"]) for row in list_quarantined(Filter(stream), limit=10_000) for error in row.errors)
    return result, reasons


def cells(real_data, name):
    with (real_data / name).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_the_factory_file_and_its_edition_with_blanks(warehouse, real_data):
    plain, blanks = "factory/smart_manufacturing_data.csv", "factory/smart_manufacturing_data_with_blanks.csv"
    result, reasons = land(real_data, plain, "device_telemetry", "smart_manufacturing")
    assert (result.landed, result.accepted, result.quarantined, reasons) == (1997, 1997, 0, {})
    again, reasons = land(real_data, blanks, "device_telemetry", "smart_manufacturing_blanks")
    assert (again.landed, again.duplicate, again.quarantined, reasons) == (1997, 1997, 0, {})  # each row of the second edition says what its twin says
    source, rows = cells(real_data, plain), raw_rows("device_telemetry")
    assert sorted(row["temperature_c"] for row in rows if row["temperature_c"] is not None) == sorted(
        float(row["temperature"]) for row in source if row["temperature"]
    )
    assert len({row["device_id"] for row in rows}) == len({row["machine_id"] for row in source}) == 50
    delays = {row["_known_at"] - row["event_at"] for row in rows}
    assert delays == {timedelta(minutes=5)}


def test_the_shop_file(warehouse, real_data):
    name = "commerce/Ecommerce_Consumer_Behavior_Analysis_Data.csv"
    for stream, mapping in (("orders", "ecommerce_consumer_orders"), ("customers", "ecommerce_consumer_customers")):
        result, reasons = land(real_data, name, stream, mapping)
        assert (result.landed, result.accepted, result.quarantined, reasons) == (1000, 1000, 0, {})
    source = cells(real_data, name)
    amounts = sorted(float(row["Purchase_Amount"].strip().strip("$").replace(",", "")) for row in source)
    assert sorted(row["gross_usd"] for row in raw_rows("orders")) == amounts
    assert {row["customer_id"] for row in raw_rows("customers")} == {row["Customer_ID"] for row in source}


def test_the_azure_sample_is_known_when_its_mappings_say(warehouse, real_data):
    files = {
        "machines": ("device_registry", "PdM_machines.csv", 100, timedelta(0)),
        "telemetry": ("device_telemetry", "PdM_telemetry_machines1-20_90days.csv.gz", 43_200, timedelta(hours=1)),
        "errors": ("device_events", "PdM_errors.csv", 3_919, timedelta(hours=1)),
        "failures": ("maintenance_log", "PdM_failures.csv", 761, timedelta(hours=12)),
        "maintenance": ("maintenance_log", "PdM_maint.csv", 3_286, timedelta(hours=12)),
    }
    for kind, (stream, name, rows, delay) in files.items():
        result, reasons = land(real_data, f"maintenance/{name}", stream, f"azure_pdm_{kind}")
        assert (result.landed, result.accepted, result.quarantined, reasons) == (rows, rows, 0, {}), kind
        known = warehouse.rows(f"select distinct tenant_id, _known_at - event_at from raw.{stream} where _batch_id = (select max(_batch_id) from raw.{stream})")
        assert known == [("azure_pdm", delay)], kind
    coincide = (
        "select count(*) from raw.maintenance_log as f join raw.maintenance_log as r using (tenant_id, device_id, event_at, component_code) "
        "where f.maintenance_type = 'failure' and r.maintenance_type = 'service'"
    )
    assert warehouse.value(coincide) == 743
