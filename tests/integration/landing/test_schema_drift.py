# ruff: noqa: E501 - a line a case reads best
"""What sources send beyond their contract is counted with the load, and so is what they send no longer."""

from __future__ import annotations

import json
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from include.contracts import load_contract
from include.landing import LandingCheckFailed, check_landing, land_pending
from include.landing import drift as drift_module
from include.landing.drift import OTHERS, Inferred, drift_of, inferred, merged
from include.landing.drift_report import State, list_drift, proposable
from include.landing.errors import UnreadableFile
from include.landing.quarantine import Filter, discard, list_quarantined
from include.landing.replay import replay
from tests.integration.test_commands import run, run_json
from tests.support.landing import VOLATILE, assert_balanced, raw_rows
from tests.support.payloads import at, customer, iso, order, put, telemetry, zone
from tests.support.press import STREAM, contracts_of, forget, make_table, press
from tests.support.stricter import land_under, with_field


def land(stream: str, **window: datetime):
    result = land_pending(stream, **({"arrived_from": at(-1), "arrived_before": at(3)} | window))
    assert_balanced()
    return result


def found(stream: str | None = None, **options: bool):
    return {(line.kind, line.field, line.tenant_id): line for line in list_drift(stream, **options)}


def test_unknown_fields_are_counted_typed_and_shown_once(warehouse):
    more = [{"coupon": "SPRING"}, {"coupon": "X"}, {"coupon": None, "pos": {"till": 3, "open": True}}, {"pos": {"till": 4.5}}, {}]
    put("orders", [order(f"o{n}", "c1", at(0), **extra) for n, extra in enumerate(more)], arrived_at=at(0, 1))
    land("orders")
    before = found("orders")
    assert {key[1]: (line.row_count, line.inferred_type, line.sample) for key, line in before.items()} == {
        "coupon": (3, "string", "SPRING"), "pos.till": (2, "number", "3"), "pos.open": (1, "boolean", "true"),
    }  # fmt: skip
    assert {(line.contract_version, line.tenant_id, line.mapping, line.state) for line in before.values()} == {("1.0.0", "default", "", State.OPEN)}
    assert land("orders").files == 0
    assert found("orders") == before
    put("orders", [order("o9", "c1", at(0), coupon=7), order("o0", "c1", at(0), coupon="SPRING")], arrived_at=at(0, 2), tenant="acme")
    land("orders")
    after = found("orders")
    assert after["unknown", "coupon", "default"] == before["unknown", "coupon", "default"]
    acme = after["unknown", "coupon", "acme"]
    assert (acme.row_count, acme.inferred_type) == (2, "mixed")
    assert acme.first_seen_at == acme.last_seen_at > before["unknown", "coupon", "default"].last_seen_at
    assert proposable("orders") == ([("pos.open", "boolean"), ("pos.till", "number")], ["coupon: its values are of several types"])
    assert {line["field"] for line in run_json("contracts", "drift", "orders")} == {"coupon", "pos.till", "pos.open"}  # type: ignore[union-attr]
    assert "SPRING" in run("contracts", "drift")


def test_a_batch_that_is_not_kept_counts_nothing(warehouse, monkeypatch):
    put("orders", [order("o1", "c1", at(0), coupon="A"), order("o2", "c1", at(0), gross=-5.0, coupon="B")], arrived_at=at(0, 1))
    monkeypatch.setattr("include.landing.batch.Attempt._check_balance", lambda *_: (_ for _ in ()).throw(RuntimeError("not today")))
    assert land("orders").failed_files
    assert (found(), warehouse.value("select count(*) from ops.field_seen")) == ({}, 0)
    monkeypatch.undo()


def test_fields_of_refused_rows_are_counted_too_and_once_however_often_they_are_replayed(warehouse, monkeypatch):
    land_under(monkeypatch, with_field(load_contract("orders"), "gross_usd", maximum=10.0))
    put("orders", [order("o1", "c1", at(0), coupon="A"), order("o2", "c1", at(0), gross=-1.0, coupon="B"), "{broken"], arrived_at=at(0, 1))
    assert land("orders").quarantined == 3
    before = found()
    assert before["unknown", "coupon", "default"].row_count == 2
    for landed in (1, 0):
        assert replay("orders", Filter(), by="tester").accepted == landed
        assert found() == before
    assert warehouse.rows("select field from ops.field_seen") == []


def test_a_file_that_was_quarantined_whole_is_counted_when_a_replay_reads_it(warehouse, monkeypatch):
    good = "".join(f"{json.dumps(order(f'o{n}', 'c1', at(0), coupon='A'))}\n" for n in range(2)).encode()

    def not_today(sources, _contract):
        for source in sources:
            raise UnreadableFile(source.position, "not today")
        yield from ()

    with monkeypatch.context() as broken:
        broken.setattr("include.landing.batch.read_chunks", not_today)
        zone().put("orders", good, source="test", arrived_at=at(0, 1), ext="ndjson")
        assert land("orders").quarantined == 1
    assert found() == {}
    assert replay("orders", Filter(), by="tester").accepted == 2
    assert found()["unknown", "coupon", "default"].row_count == 2


def test_samples_of_streams_with_personal_data_are_masked(warehouse):
    put("customers", [customer("k1", at(0), nick="Ann-Lee 7", **{"ann@example.invalid": 1})], arrived_at=at(0, 1))
    land("customers")
    assert {key[1]: line.sample for key, line in found("customers").items()} == {"nick": "aaa-aaa 9", "aaa@aaaaaaa.aaaaaaa": "9"}


def test_a_file_without_a_header_shows_nobody_its_first_row(warehouse):
    zone().put("customers", b"k1,Ann Lee,ann@example.invalid\nk2,Bob Ray,bob@example.invalid\n", source="till", arrived_at=at(0, 1), ext="csv")
    for number, name in enumerate(("k1", "Customer_ID")):
        data = f"{name},Nick Name,ann@example.invalid\nk2,Bob Ray,bob@example.invalid\n".encode()
        zone().put("customers", data, source="shop", arrived_at=at(0, 1, 1 + number), ext="csv", mapping="ecommerce_consumer_customers")
    assert land("customers").quarantined == 3
    shown = {line.field for line in list_drift("customers") if line.kind == "unknown"}
    assert shown == {"Nick Name", "aaa@aaaaaaa.aaaaaaa"}, "what stands beside a known name is a name"
    errors = [error for (error,) in warehouse.rows("select error from ops.file where error is not null")]
    assert len(errors) == 2
    assert not any("Nick" in error or "ann@" in error for error in errors)


def test_a_flood_of_names_is_counted_together(warehouse, monkeypatch):
    monkeypatch.setattr(drift_module, "MAX_FIELDS", 3)
    put("orders", [order(f"o{n}", "c1", at(0), **{f"k{n}": 1, "steady": 1}) for n in range(9)], arrived_at=at(0, 1))
    land("orders")
    put("orders", [order("p", "c1", at(0), late=1, steady=1)], arrived_at=at(0, 2))
    land("orders")
    lines = {key[1]: line.row_count for key, line in found("orders").items()}
    assert set(lines) == {"k0", "steady", "k1", OTHERS}
    assert (lines["steady"], lines[OTHERS]) == (10, 8)
    for number in range(4):
        put("orders", [order(f"t{number}", "c1", at(0), steady=1)], arrived_at=at(0, 3, number), tenant=f"shop{number}")
    land("orders")
    assert {line.tenant_id for line in list_drift("orders") if line.field == "steady"} == {"default", *(f"shop{n}" for n in range(4))}, "one name, many tenants"


def test_a_column_that_is_sent_no_longer_is_named_and_forgiven_when_it_returns(warehouse, monkeypatch, caplog):
    monkeypatch.setattr(drift_module, "SILENT_ROWS", 20)
    monkeypatch.setattr(drift_module, "EXPECTED_VALUES", 10)

    def send(count: int, hour: float, *, errors: int = 0, **changes: object) -> None:
        rows = []
        for number in range(count):
            row = telemetry(f"m{number}", at(0, hour, number))
            row["measurements"] |= changes | ({"humidity": 50.0} if number < errors else {})
            rows.append(row)
        put("device_telemetry", rows, arrived_at=at(1, hour))
        land("device_telemetry")

    send(20, 0, errors=2)  # humidity comes with one row in ten
    assert found() == {}
    send(15, 1, load=None)
    assert found() == {}, "so few rows say nothing"
    send(15, 2, load=None)
    (line,) = list_drift("device_telemetry")
    assert (line.kind, line.field, line.row_count, line.state) == ("vanished", "load_pct", 30, State.OPEN)
    assert line.first_seen_at < line.last_seen_at
    with caplog.at_level(logging.WARNING, "include.landing.check"):
        check_landing("device_telemetry", now=at(1, 3))
    assert [record.message for record in caplog.records] == [
        "device_telemetry: load_pct had values and has none any more; see `tidemark contracts drift device_telemetry`"
    ]
    send(1, 3)
    assert list_drift("device_telemetry") == []
    (line,) = list_drift("device_telemetry", everything=True)
    assert (line.state, line.ended_at is not None) == (State.ENDED, True)
    send(75, 4)
    assert [line.field for line in list_drift()] == ["humidity_pct"], "a rare column needs more rows to be missed"


def test_what_only_a_retired_major_or_a_forgotten_mapping_had_is_not_missed(warehouse, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(drift_module, "SILENT_ROWS", 5)
    monkeypatch.setattr(drift_module, "EXPECTED_VALUES", 5)
    monkeypatch.setattr("include.landing.check._silence", lambda *_: [])
    old = {"pressId": "a", "at": iso(at(0)), "temp": 212.0, "force": 1.0}
    new = {"pressId": "b", "at": iso(at(0)), "plate": {"temperature": 100.0}, "force": 1.0}

    def warned(now: datetime) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "include.landing.check"):
            check_landing(STREAM, now=now)
        return [record.message for record in caplog.records]

    with contracts_of(tmp_path / "contracts", {f"{STREAM}.yaml": press("2.0.0"), f"{STREAM}.v1.yaml": press("1.0.0")}) as folder:
        make_table(folder)
        for number, rows in enumerate(([old] * 6, [new] * 6)):
            put(STREAM, [{**row, "pressId": f"{row['pressId']}{n}"} for n, row in enumerate(rows)], arrived_at=at(0, 1 + number))
            land(STREAM)
        (line,) = list_drift(STREAM)
        assert (line.kind, line.field) == ("vanished", "temperature_f")
        assert len(warned(line.last_seen_at)) == 1
        assert warned(line.last_seen_at + timedelta(days=2)) == [], "nothing has come since"
        (folder / f"{STREAM}.v1.yaml").write_text(press("1.1.0", status="retired"))
        forget()
        put(STREAM, [{**new, "pressId": f"c{n}"} for n in range(6)], arrived_at=at(0, 3))
        land(STREAM)
        assert (list_drift(STREAM), warned(line.last_seen_at)) == ([], [])
        assert [(each.field, each.state, each.row_count) for each in list_drift(STREAM, everything=True)] == [("temperature_f", State.ENDED, line.row_count)]


def test_new_fields_are_a_warning_for_a_day(warehouse, caplog):
    put("orders", [order("o1", "c1", at(0), coupon="A")], arrived_at=at(0, 1))
    land("orders")
    seen = found()["unknown", "coupon", "default"].first_seen_at
    for now, count in ((seen + timedelta(hours=1), 1), (seen + timedelta(hours=25), 0)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "include.landing.check"), pytest.raises(LandingCheckFailed):  # the file's own arrival is long ago
            check_landing("orders", now=now)
        assert len(caplog.records) == count


def test_types_are_inferred_and_merged():
    json_values = ["a", 1, 1.5, True, "2026-01-31", "2026-01-31T10:00:00Z", [1], {}, None, "12"]
    assert [str(inferred(value, is_text=False)) for value in json_values] == [
        "string",
        "integer",
        "number",
        "boolean",
        "date",
        "timestamp",
        "list",
        "object",
        "null",
        "string",
    ]
    assert [str(inferred(value, is_text=True)) for value in ["12", "1.5", "true", "x", "2026-01-31"]] == ["integer", "number", "boolean", "string", "date"]
    assert merged(Inferred.NULL, Inferred.DATE) is Inferred.DATE
    assert merged(Inferred.DATE, Inferred.TIMESTAMP) is Inferred.STRING
    assert merged(Inferred.INTEGER, Inferred.STRING) is Inferred.MIXED


def test_rows_without_unknown_fields_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(drift_module, "flattened", lambda _: pytest.fail("nothing to flatten"))
    contract = load_contract("ticket_counts")
    frame = pl.DataFrame({"tenant_id": ["a"] * 3, "_extra": pl.Series([None] * 3, dtype=pl.String), **{name: [None] * 3 for name in contract.by_name}})
    drift = drift_of(frame, [], contract, None, is_text=False)
    assert (drift.unknown, drift.rows, drift.values) == ({}, Counter({"": 3}), Counter())


ARRIVED = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_the_factory_renames_its_machines_and_writes_words(warehouse, real_data):
    """The plain edition lands by its mapping. The next one comes under the same mapping and is another file: nothing lands, and the drift says what changed. The
    mapping that was written for it takes it, and each row says what its twin says."""
    plain, blanks = ((real_data / f"factory/smart_manufacturing_data{suffix}.csv").read_bytes() for suffix in ("", "_with_blanks"))
    window = {"arrived_from": ARRIVED - timedelta(hours=1), "arrived_before": ARRIVED + timedelta(hours=9)}
    zone().put("device_telemetry", plain, arrived_at=ARRIVED, source="import", ext="csv", mapping="smart_manufacturing")
    assert land("device_telemetry", **window).accepted == 1997
    before = raw_rows("device_telemetry", without=VOLATILE)
    labels = {line.field: (line.row_count, line.inferred_type) for line in list_drift("device_telemetry")}
    assert set(labels) == {"anomaly_flag", "predicted_remaining_life", "failure_type", "downtime_risk", "maintenance_required"}
    assert labels["anomaly_flag"] == (1997, "integer")
    assert labels["failure_type"] == (1997, "string")

    zone().put("device_telemetry", blanks, arrived_at=ARRIVED + timedelta(hours=1), source="import", ext="csv", mapping="smart_manufacturing")
    assert land("device_telemetry", **window).accepted == 0
    lines = found("device_telemetry")
    assert ("vanished", "machine_id", "") in lines
    assert ("unknown", "machine", "default") in lines
    assert {line.mapping for line in lines.values()} == {"smart_manufacturing"}
    assert proposable("device_telemetry") == ([], []), "columns of a mapped file are the business of its mapping"

    zone().put("device_telemetry", blanks, arrived_at=ARRIVED + timedelta(hours=2), source="import", ext="csv", mapping="smart_manufacturing_blanks")
    result = land("device_telemetry", **window)
    assert (result.landed, result.duplicate, result.quarantined) == (1997, 1997, 0)
    assert raw_rows("device_telemetry", without=VOLATILE) == before
    (left,) = list_quarantined(Filter("device_telemetry"))
    discard(Filter(ids=(left.quarantine_id,)), reason="sent under its own mapping", by="tester")
    assert list_quarantined(Filter("device_telemetry")) == []
    zone().put("device_telemetry", plain, arrived_at=ARRIVED + timedelta(hours=3), source="import", ext="csv", mapping="smart_manufacturing")
    assert land("device_telemetry", **window).duplicate == 1997
    assert ("vanished", "machine_id", "") not in found("device_telemetry"), "the mapping fits again"
