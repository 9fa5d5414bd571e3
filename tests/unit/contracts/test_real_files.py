"""The mappings against the public files they were written for, with exactly explained counts. Skipped where the files are absent."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from include.contracts import Contract, load_contract
from include.contracts.mapping import Mapped, apply_mapping, load_mapping

FACTORY = "factory/smart_manufacturing_data.csv"
FACTORY_BLANKS = "factory/smart_manufacturing_data_with_blanks.csv"
ECOMMERCE = "commerce/Ecommerce_Consumer_Behavior_Analysis_Data.csv"
FILES = {
    "smart_manufacturing": FACTORY,
    "smart_manufacturing_blanks": FACTORY_BLANKS,
    "ecommerce_consumer_orders": ECOMMERCE,
    "ecommerce_consumer_customers": ECOMMERCE,
    "azure_pdm_machines": "maintenance/PdM_machines.csv",
    "azure_pdm_telemetry": "maintenance/PdM_telemetry_machines1-20_90days.csv.gz",
    "azure_pdm_errors": "maintenance/PdM_errors.csv",
    "azure_pdm_failures": "maintenance/PdM_failures.csv",
    "azure_pdm_maintenance": "maintenance/PdM_maint.csv",
}


def mapped(real_data: Path, name: str) -> tuple[pl.DataFrame, Mapped]:
    frame = pl.read_csv(real_data / FILES[name], infer_schema=False)
    return frame, apply_mapping(load_mapping(name), frame)


def breaches(contract: Contract, frame: pl.DataFrame) -> Counter[str]:
    """What a row-by-row reading of the contract would refuse, counted by column and reason."""
    found: Counter[str] = Counter()

    def count(reason: str, is_wrong: pl.Expr) -> None:
        found[reason] += frame.select(is_wrong.fill_null(False).sum()).item()

    for field in contract.fields:
        column = pl.col(field.name)
        if field.required:
            count(f"{field.name} missing", column.is_null())
        if field.enum is not None:
            count(f"{field.name} not in enum", ~column.is_in(list(field.enum)))
        if field.minimum is not None and field.maximum is not None:
            count(f"{field.name} out of range", ~column.is_between(field.minimum, field.maximum))
        if field.max_length is not None:
            count(f"{field.name} too long", column.str.len_chars() > field.max_length)
        if field.pattern is not None:
            count(f"{field.name} pattern", ~column.str.contains(field.pattern))
    count("event time", pl.col("event_at") < contract.earliest)
    for rule in contract.rules:
        count(f"rule:{rule.name}", ~pl.sql_expr(rule.expression))
    return +found


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("smart_manufacturing", 1997),
        ("smart_manufacturing_blanks", 1997),
        ("ecommerce_consumer_orders", 1000),
        ("ecommerce_consumer_customers", 1000),
        ("azure_pdm_machines", 100),
        ("azure_pdm_telemetry", 43_200),
        ("azure_pdm_errors", 3_919),
        ("azure_pdm_failures", 761),
        ("azure_pdm_maintenance", 3_286),
    ],
)
def test_every_row_is_mapped_keeps_the_contract_and_is_an_event_of_its_own(real_data, name, rows):
    _, result = mapped(real_data, name)
    contract = load_contract(load_mapping(name).stream)
    assert result.frame.height == rows
    assert result.errors == []
    assert breaches(contract, result.frame) == Counter()
    assert result.frame.select(contract.key).n_unique() == rows
    spoilt = result.frame.with_columns(event_at=pl.lit(datetime(1999, 1, 1, tzinfo=UTC)))
    assert breaches(contract, spoilt)["event time"] == rows, "the check must be able to fail"


def test_blanks_of_the_factory_are_null_and_labels_stay_aside(real_data):
    for name in ("smart_manufacturing", "smart_manufacturing_blanks"):
        _, result = mapped(real_data, name)
        nulls = {
            column: result.frame[column].null_count()
            for column in ("temperature_c", "vibration_x_mm_s", "humidity_pct", "pressure_hpa", "energy_kwh", "machine_status")
        }
        assert nulls == {"temperature_c": 23, "vibration_x_mm_s": 13, "humidity_pct": 0, "pressure_hpa": 6, "energy_kwh": 0, "machine_status": 12}
        assert Counter(result.frame["machine_status"]) == {"running": 1576, "idle": 212, "fault": 197, None: 12}
        extra = [json.loads(text) for text in result.extra]
        assert set().union(*extra) == {"anomaly_flag", "downtime_risk", "failure_type", "maintenance_required", "predicted_remaining_life"}
        assert sum("downtime_risk" not in each for each in extra) == 804
        assert sum(each["anomaly_flag"] == "1" for each in extra) == 171
        assert result.frame["pressure_hpa"].min() == 1000
        assert result.frame["pressure_hpa"].max() == 5000


def test_both_editions_of_the_factory_file_are_the_same_events(real_data):
    editions = [mapped(real_data, name)[1] for name in ("smart_manufacturing", "smart_manufacturing_blanks")]
    plain, renamed = (each.frame.with_columns(each.extra).sort("device_id", "event_at") for each in editions)
    assert plain.equals(renamed), "so landing counts the second of the two as 1,997 duplicates"
    assert plain["device_id"].n_unique() == 50


def test_a_renamed_machine_column_is_refused_as_another_file(real_data):
    frame = pl.read_csv(real_data / FACTORY_BLANKS, infer_schema=False)
    with pytest.raises(ValueError, match="has no column machine_id"):
        apply_mapping(load_mapping("smart_manufacturing"), frame)


def test_orders_keep_amounts_and_no_traits_of_people(real_data):
    source, result = mapped(real_data, "ecommerce_consumer_orders")
    cents = sum(int(text.strip().removeprefix("$").replace(".", "").replace(",", "")) for text in source["Purchase_Amount"])
    assert round(result.frame["net_usd"].sum() * 100) == cents
    assert Counter(result.frame["channel_code"]) == {"mixed": 340, "online": 334, "in_store": 326}
    assert {key for text in result.extra for key in json.loads(text)} == {
        "Device_Used_for_Shopping", "Discount_Used", "Product_Rating", "Purchase_Intent", "Shipping_Preference", "Time_to_Decision",
    }  # fmt: skip
    assert result.frame["event_at"].dt.year().unique().to_list() == [2024]


def test_the_word_none_stays_a_value(real_data):
    _, result = mapped(real_data, "ecommerce_consumer_customers")
    extra = [json.loads(text) for text in result.extra]
    assert sum(each["Social_Media_Influence"] == "None" for each in extra) == 247
    assert sum(each["Engagement_with_Ads"] == "None" for each in extra) == 256
    assert result.frame["is_loyalty_member"].sum() == 491
    assert (result.frame["birth_year"].min(), result.frame["birth_year"].max()) == (1974, 2006)


def test_the_age_of_the_azure_machines_is_as_of_their_first_day(real_data):
    source, result = mapped(real_data, "azure_pdm_machines")
    begin = datetime(2015, 1, 1, tzinfo=UTC)
    ages = [round((begin - installed).total_seconds() / 86_400 / 365.25) for installed in result.frame["installed_at"]]
    assert ages == [int(text) for text in source["age"]]
    assert set(result.frame["event_at"]) == {begin}
    assert set(result.frame["tenant_id"]) == {"azure_pdm"}
