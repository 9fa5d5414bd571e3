"""Contract → validator: what the contract allows passes, each single break of it is named, and a row's verdict depends on the row alone."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.contracts import load_contract, streams
from include.contracts.model import Contract, Field, LogicalType
from include.landing.columns import parse_time, typed
from include.landing.readers import Source, read_chunks
from include.landing.rows import Chunk
from include.landing.validate import Validated, validate

ARRIVED_AT = datetime(2026, 3, 2, tzinfo=UTC)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=12)
SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def check(contract: Contract, lines: list[bytes], rows: int = 1000, file_format: str = "ndjson") -> Validated:
    """What becomes of the rows of a file, in their order: readers gather unusual lines behind the others."""
    data = b"\n".join(lines)
    parts = []
    for chunk in read_chunks(iter([Source(0, io.BytesIO(data), file_format, None)]), contract, rows):
        arrived = np.full(len(chunk), int(ARRIVED_AT.timestamp() * 1_000_000), dtype=np.int64)
        parts.append(validate(chunk, contract, arrived))
    accepted = pl.concat([part.accepted for part in parts]).sort("_row_number")
    return Validated(accepted, sorted((row for part in parts for row in part.rejected), key=lambda row: row.row_number))


def codes(validated: Validated) -> list[list[tuple[str, str | None]]]:
    return [[(str(error.code), error.field) for error in row.errors] for row in validated.rejected]


def values_of(field: Field, contract: Contract) -> st.SearchStrategy[Any]:
    """Values that the contract allows for a field."""
    if field.enum:
        return st.sampled_from(field.enum)
    low, high = field.minimum, field.maximum
    match field.logical_type:
        case LogicalType.STRING:
            if not _is_narrow(field):
                return TEXT
            longest = field.max_length or sys.maxsize
            return st.from_regex(field.pattern, fullmatch=True).filter(lambda text: len(text) <= longest)
        case LogicalType.INTEGER:
            return st.integers(int(low) if low is not None else -(2**63), int(high) if high is not None else 2**63 - 1)
        case LogicalType.NUMBER:
            return st.floats(low, high, allow_nan=False, allow_infinity=False) if low is not None else st.floats(-1e9, 1e9)
        case LogicalType.BOOLEAN:
            return st.booleans()
        case LogicalType.DATE:
            return st.dates(date(1, 1, 1)).map(date.isoformat)
        case LogicalType.TIMESTAMP:
            latest = ARRIVED_AT + contract.future_tolerance if field.name == contract.event_time else datetime(9999, 1, 1, tzinfo=UTC)
            earliest = contract.earliest if field.name == contract.event_time else datetime(2, 1, 1, tzinfo=UTC)
            offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timedelta(minutes=minutes))
            moments = st.datetimes(earliest.replace(tzinfo=None), latest.replace(tzinfo=None))
            return st.builds(_iso, moments, offsets, st.sampled_from("zZo"))


def _is_narrow(field: Field) -> bool:
    """A pattern of particular characters, not the one that only forbids blanks around a text."""
    return field.pattern is not None and "[A-Z" in field.pattern


def _iso(moment: datetime, offset: timedelta, kind: str) -> str:
    if kind != "o":
        return moment.isoformat() + kind.upper()
    local, minutes = moment + offset, int(offset.total_seconds() // 60)
    return f"{local.isoformat()}{'+' if minutes >= 0 else '-'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def nested(contract: Contract, flat: dict[str, Any]) -> dict[str, Any]:
    payload: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = contract.by_name[name].path
        place = payload
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return payload


@st.composite
def valid_rows(draw: st.DrawFn, contract: Contract) -> dict[str, Any]:
    """A row by column name that keeps the contract, rules included: fields that rules speak of are left out where that is allowed, else made to fit."""
    row: dict[str, Any] = {}
    for field in contract.fields:
        in_rule = any(field.name in rule.expression for rule in contract.rules)
        if field.required or (not in_rule and draw(st.booleans())):
            row[field.name] = draw(values_of(field, contract))
    if "net_usd" in row and "gross_usd" in row:
        row["net_usd"] = row["gross_usd"]
    return row


@pytest.mark.parametrize("stream", streams())
@SLOW
@given(data=st.data())
def test_what_the_contract_allows_is_accepted_as_it_is(stream: str, data: st.DataObject):
    contract = load_contract(stream)
    row = data.draw(valid_rows(contract))
    validated = check(contract, [json.dumps(nested(contract, row)).encode()])
    assert codes(validated) == []
    assert validated.accepted.height == 1
    found = validated.accepted.row(0, named=True)
    for field in contract.fields:
        value = row.get(field.name)
        if field.logical_type is LogicalType.TIMESTAMP and value is not None:
            value = datetime.fromisoformat(value).astimezone(UTC).replace(tzinfo=None)
        if field.logical_type is LogicalType.DATE and value is not None:
            value = date.fromisoformat(value)
        assert found[field.name] == value


def mutations(contract: Contract) -> list[tuple[str, str, Any]]:
    """Every single break of every field: (field, code, value)."""
    found: list[tuple[str, str, Any]] = []
    for field in contract.fields:
        kind, name = field.logical_type, field.name
        if field.required:
            found.append((name, "missing_required", None))
        if kind is LogicalType.STRING:
            found += [(name, "wrong_type", 5), (name, "wrong_type", True), (name, "wrong_type", ["x"])]
            if not field.enum and not field.pattern:
                found.append((name, "nul_character", "a\x00b"))
            found += [(name, "not_in_enum", "no such value")] if field.enum else []
            found += [(name, "too_long", "x" * (field.max_length + 1))] if field.max_length and not _is_narrow(field) else []
            found += [(name, "bad_pattern", " a")] if field.pattern else []
        elif kind in {LogicalType.NUMBER, LogicalType.INTEGER}:
            found += [(name, "wrong_type", "5"), (name, "wrong_type", False), (name, "wrong_type", {"a": 1})]
            found += (
                [(name, "wrong_type", 1.5), (name, "number_out_of_range", 2**63)] if kind is LogicalType.INTEGER else [(name, "number_out_of_range", 10**400)]
            )
            found += [(name, "out_of_range", field.minimum - 1)] if field.minimum is not None else []
            found += [(name, "out_of_range", field.maximum + 1)] if field.maximum is not None else []
        elif kind is LogicalType.BOOLEAN:
            found += [(name, "wrong_type", "true"), (name, "wrong_type", 1)]
        else:
            wrong = ["2026-02-30T00:00:00Z", "yesterday", "2026-03-01 25:00:00Z", "2026-03-01T00:00:60Z", "", "0000-01-01T00:00:00Z"]
            found += [(name, "bad_timestamp", value) for value in wrong] + [(name, "wrong_type", 1767225600)]
            if kind is LogicalType.TIMESTAMP:
                found.append((name, "bad_timestamp", "2026-03-01T00:00:00"))
            if name == contract.event_time:
                too_late = ARRIVED_AT + contract.future_tolerance + timedelta(microseconds=1)
                too_early = contract.earliest - timedelta(days=1)
                found += [(name, "event_time_out_of_range", too_late.isoformat()), (name, "event_time_out_of_range", too_early.isoformat())]
    return found


@pytest.mark.parametrize("stream", streams())
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_each_single_break_is_named(stream: str, data: st.DataObject):
    contract = replace(load_contract(stream), rules=())
    row = data.draw(valid_rows(contract))
    breaks = mutations(contract)
    validated = check(contract, [json.dumps(nested(contract, row | {name: value})).encode() for name, _, value in breaks])
    assert validated.accepted.height == 0
    assert len(validated.rejected) == len(breaks)
    for (name, code, value), found in zip(breaks, codes(validated), strict=True):
        assert (code, name) in found, (name, code, value, found)
        assert {field for _, field in found} == {name}, (name, code, value, found)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_all_breaks_of_a_row_are_named_together(data: st.DataObject):
    contract = load_contract("device_telemetry")
    broken = data.draw(st.lists(st.sampled_from(mutations(contract)), min_size=2, max_size=6, unique_by=lambda one: one[0]))
    row = data.draw(valid_rows(contract)) | {name: value for name, _, value in broken}
    (found,) = codes(check(contract, [json.dumps(nested(contract, row)).encode()]))
    assert {(code, name) for name, code, _ in broken} <= set(found)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_verdict_depends_on_the_row_alone(data: st.DataObject):
    contract = load_contract("device_telemetry")
    odd = [b'{"deviceId": "\\ud800"}', b"[]", b"{", b'{"measurements": {"temperature": NaN}}', b'{"measurements": {"temperature": 5}, "x": {"y": 1}}']
    good = data.draw(st.lists(valid_rows(contract), max_size=3))
    broken = data.draw(st.lists(st.sampled_from(mutations(contract)), max_size=4))
    lines = [json.dumps(nested(contract, row)).encode() for row in good]
    lines += [
        json.dumps(nested(contract, {"device_id": "m", "device_type": "machine_controller", "event_at": "2026-03-01T00:00:00Z"} | {n: v})).encode()
        for n, _, v in broken
    ]
    lines = data.draw(st.permutations(lines + data.draw(st.lists(st.sampled_from(odd), max_size=3)) + [odd[0]]))
    together = check(contract, list(lines))
    alone = [check(contract, [line]) for line in lines]
    assert [(row.original, row.errors) for row in together.rejected] == [(row.original, row.errors) for one in alone for row in one.rejected]
    accepted = pl.concat([one.accepted for one in alone])
    assert together.accepted.drop("_row_number").equals(accepted.drop("_row_number"))


def test_a_broken_rule_is_named_with_its_columns_and_null_passes():
    contract = load_contract("device_telemetry")
    row = {"device_id": "m", "device_type": "machine_controller", "event_at": "2026-03-01T00:00:00Z"}
    lines = [json.dumps(nested(contract, row | {"temperature_c": 5.0, "dew_point_c": dew})).encode() for dew in (5.0, 5.5, None)]
    validated = check(contract, lines)
    (errors,) = [one.errors for one in validated.rejected]
    assert errors[0].code.startswith("rule:")
    assert set((errors[0].field or "").split(",")) == {"dew_point_c", "temperature_c"}
    assert validated.accepted["_row_number"].to_list() == [1, 3]


def test_csv_text_is_typed_and_the_same_breaks_are_named():
    contract = load_contract("device_telemetry")
    header = b"deviceId,deviceType,timestamp,temperature_c"
    cells = [b"1.5", b" 2", b"1e3", b"abc", b"NaN", b"1e999", b"", b"-81"]
    lines = [header] + [b"m1,machine_controller,2026-03-01T00:00:00Z," + cell for cell in cells]
    validated = check(contract, lines, file_format="csv")
    assert validated.accepted["temperature_c"].to_list() == [1.5, None]
    assert [[code for code, _ in found] for found in codes(validated)] == [
        ["wrong_type"],
        ["out_of_range"],
        ["wrong_type"],
        ["non_finite"],
        ["number_out_of_range"],
        ["out_of_range"],
    ]


def test_typed_columns_of_parquet_are_typed_without_guessing():
    aware = pl.Series([datetime(2026, 3, 1, tzinfo=UTC)])
    assert typed(aware, LogicalType.TIMESTAMP, is_text=False).values.to_list() == [datetime(2026, 3, 1)]
    naive = typed(pl.Series([datetime(2026, 3, 1), None]), LogicalType.TIMESTAMP, is_text=False)
    assert [(row, code) for row, code, *_ in naive.wrong] == [(0, "bad_timestamp")]
    numbers = typed(pl.Series([1.0, float("nan"), None]), LogicalType.NUMBER, is_text=False)
    assert (numbers.values.to_list(), [code for _, code, *_ in numbers.wrong]) == ([1.0, None, None], ["non_finite"])
    whole = typed(pl.Series([1.0, 1.5]), LogicalType.INTEGER, is_text=False)
    assert (whole.values.to_list(), [code for _, code, *_ in whole.wrong]) == ([1, None], ["wrong_type"])
    beyond = typed(pl.Series([2**63], dtype=pl.UInt64), LogicalType.INTEGER, is_text=False)
    assert [code for _, code, *_ in beyond.wrong] == ["number_out_of_range"]
    assert [code for _, code, *_ in typed(pl.Series(["5"]), LogicalType.NUMBER, is_text=False).wrong] == ["wrong_type"]


@given(st.datetimes(datetime(1000, 1, 1)), st.sampled_from(["", ".5", ".123456", ".123456789"]))
def test_the_fast_and_the_slow_way_read_the_same_time(moment: datetime, fraction: str):
    text = f"{moment:%Y}".zfill(4) + f"{moment:-%m-%dT%H:%M:%S}{fraction}Z"
    assert typed([text, None], LogicalType.TIMESTAMP, is_text=False).values.to_list() == [parse_time(text), None]


@pytest.mark.parametrize(
    ("tenant", "code"), [(5, "wrong_type"), ("", "bad_pattern"), (" a", "bad_pattern"), ("x" * 129, "bad_pattern"), ("a\x00", "nul_character")]
)
def test_a_tenant_is_short_text(tenant, code):
    contract = load_contract("device_telemetry")
    payload = {"tenantId": tenant, "deviceId": "m", "deviceType": "machine_controller", "timestamp": "2026-03-01T00:00:00Z"}
    assert codes(check(contract, [json.dumps(payload).encode()])) == [[(code, "tenant_id")]]


def test_a_chunk_keeps_one_error_of_a_row_whose_structure_is_broken():
    chunk = Chunk(np.zeros(1, np.int32), np.ones(1, np.int32), [b"{"], {}, [], [None])
    (read,) = read_chunks(iter([Source(0, io.BytesIO(b"{"), "ndjson", None)]), load_contract("orders"))
    assert len(chunk) == 1
    assert [error.code for error in read.errors[0]] == ["malformed_json"]


def test_events_of_months_that_have_left_raw_are_refused_beside_all_their_other_errors():
    contract = load_contract("device_telemetry")
    moments = ["2026-01-31T23:59:59.999999Z", "2026-02-01T00:00:00Z", "2026-02-28T23:59:59+00:00", "2026-03-01T00:59:00+01:00", "2026-03-01T00:00:00Z", "never"]
    lines = [json.dumps({"deviceId": "m1", "deviceType": "thermostat" if number != 2 else "kettle", "timestamp": at}) for number, at in enumerate(moments)]
    (chunk,) = read_chunks(iter([Source(0, io.BytesIO("\n".join(lines).encode()), "ndjson", None)]), contract)
    arrived = np.full(len(chunk), int(ARRIVED_AT.timestamp() * 1_000_000), dtype=np.int64)
    validated = validate(chunk, contract, arrived, {date(2026, 2, 1)})
    assert validated.accepted["_row_number"].to_list() == [1, 5]
    assert codes(validated) == [
        [("partition_expired", "event_at")],
        [("not_in_enum", "device_type"), ("partition_expired", "event_at")],
        [("partition_expired", "event_at")],
        [("bad_timestamp", "event_at")],
    ]
    error = validated.rejected[0].errors[0]
    assert error.value == "2026-02-01T00:00:00Z"
    assert "`tidemark lake restore device_telemetry 2026-02-01` brings the month back" in error.message
