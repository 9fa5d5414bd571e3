"""Identities are stored forever: their encodings are frozen here, computed beside the code with nothing but hashlib."""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.contracts import load_contract
from include.contracts.model import Contract, LogicalType
from include.landing.identity import content_hashes, event_ids, pseudonym, shortest_decimal


def ids(contract: Contract, key: bytes | None = None, **columns: list) -> list[bytes]:
    schema = {"event_at": pl.Datetime("us")}
    return event_ids(pl.DataFrame(columns, schema_overrides={name: dtype for name, dtype in schema.items() if name in columns}), contract, key).to_list()


def netstrings(*values: str) -> bytes:
    return b"".join(b"%d:%s," % (len(value.encode()), value.encode()) for value in values)


@pytest.mark.parametrize(
    ("stream", "columns", "canonical", "expected"),
    [
        (
            "device_telemetry",
            {"tenant_id": ["default"], "device_id": ["sensor_12345"], "event_at": [datetime(2024, 1, 15, 10, 30)]},
            b"7:default,16:device_telemetry,12:sensor_12345,16:1705314600000000,",
            "d672c10f42e0e8a125a45150ec7ceda9",
        ),
        (
            "device_telemetry",
            {"tenant_id": ["acme"], "device_id": ["caf\u0065\u0301"], "event_at": [datetime(1969, 12, 31, 23, 59, 59, 999999)]},
            "4:acme,16:device_telemetry,5:café,2:-1,".encode(),
            "3333ad888caaaf0771f17e60c3f7764d",
        ),
        ("orders", {"tenant_id": ["default"], "order_id": ["o-1"]}, b"7:default,6:orders,3:o-1,", "e48cb78c8483fde6c6d6dc809bf3a040"),
    ],
)
def test_the_event_id_is_the_hash_of_netstrings(stream, columns, canonical, expected):
    found = ids(load_contract(stream), **columns)
    assert found == [hashlib.sha256(canonical).digest()[:16]]
    assert found[0].hex() == expected


def test_the_same_text_in_two_normal_forms_is_the_same_event():
    contract = load_contract("orders")
    assert len(set(ids(contract, tenant_id=["default"] * 2, order_id=["caf\u00e9", "cafe\u0301"]))) == 1


def test_an_identity_with_a_personal_key_is_keyed():
    contract = load_contract("customers")
    fields = tuple(replace(field, classification="personal") if field.name == "customer_id" else field for field in contract.fields)
    personal = replace(contract, fields=fields)
    columns = {"tenant_id": ["default"], "customer_id": ["c1"], "event_at": [datetime(2024, 1, 15, 10, 30)]}
    canonical = netstrings("default", "customers", "c1", "1705314600000000")
    assert ids(contract, None, **columns) == [hashlib.sha256(canonical).digest()[:16]]
    assert ids(personal, b"secret", **columns) == [hmac.digest(b"secret", canonical, "sha256")[:16]]
    with pytest.raises(ValueError, match="pseudonym key"):
        ids(personal, None, **columns)


@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8"), max_size=6), st.text(st.characters(codec="utf-8"), max_size=6)), min_size=2, max_size=20, unique=True
    )
)
def test_different_keys_are_different_events(pairs):
    contract = replace(load_contract("orders"), key=("order_id", "customer_id"))
    frame = {"tenant_id": ["default"] * len(pairs), "order_id": [left for left, _ in pairs], "customer_id": [right for _, right in pairs]}
    distinct = {tuple(unicodedata.normalize("NFC", part) for part in pair) for pair in pairs}
    assert len(set(ids(contract, **frame))) == len(distinct)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_shortest_decimal_reads_back_exactly(value):
    text = shortest_decimal(value)
    assert float(text) == value
    assert "e" not in text.lower()
    assert text != "-0"


def test_the_shortest_decimal_is_frozen():
    assert [shortest_decimal(value) for value in (0.1, 100.0, -3.0, 1e21, 5e-324, -0.0, 72.5)][:4] == ["0.1", "100", "-3", "1000000000000000000000"]
    assert shortest_decimal(-0.0) == "0"


def test_the_content_hash_is_frozen_and_leaves_absent_fields_out():
    contract = load_contract("device_telemetry")
    names = ("device_id", "event_at", "temperature_c")
    frame = pl.DataFrame(
        {"device_id": ["m1"], "event_at": [datetime(2024, 1, 15, 10, 30)], "temperature_c": [72.5], "_extra": ['{"a":1}']},
        schema_overrides={"event_at": pl.Datetime("us")},
    )
    bits = 4634802150889750528
    canonical = f'device_id=2:m1,;event_at=1705314600000000;temperature_c={bits};_extra=7:{{"a":1}},'.encode()
    assert content_hashes(frame, [contract.by_name[name] for name in names]).to_list() == [hashlib.sha256(canonical).digest()[:16]]
    wider = frame.with_columns(pl.lit(None, dtype=pl.Float64).alias("humidity_pct"))
    assert content_hashes(wider, [contract.by_name[name] for name in (*names, "humidity_pct")]).to_list() == [hashlib.sha256(canonical).digest()[:16]]


def test_the_hash_of_a_row_does_not_depend_on_its_neighbours():
    contract = load_contract("device_telemetry")
    fields = [field for field in contract.fields if field.logical_type in {LogicalType.STRING, LogicalType.NUMBER, LogicalType.TIMESTAMP}]
    moment = datetime(2024, 1, 15, 10, 30, tzinfo=UTC).replace(tzinfo=None)
    empty = {field.name: None for field in fields} | {"_extra": None}
    rows = [
        empty | {"device_id": "é", "event_at": moment, "temperature_c": -0.0},
        empty | {"device_id": "m2", "event_at": moment, "humidity_pct": 1.0, "_extra": "{}"},
    ]
    schema = {
        field.name: {LogicalType.STRING: pl.String, LogicalType.NUMBER: pl.Float64, LogicalType.TIMESTAMP: pl.Datetime("us")}[field.logical_type]
        for field in fields
    }
    together = content_hashes(pl.DataFrame(rows, schema=schema | {"_extra": pl.String}), fields).to_list()
    alone = [content_hashes(pl.DataFrame([row], schema=schema | {"_extra": pl.String}), fields).to_list()[0] for row in rows]
    assert together == alone


def test_pseudonyms_ignore_case_blanks_and_normal_form():
    assert pseudonym(" Ann@Example.invalid ", b"k") == pseudonym("ann@example.invalid", b"k") == hmac.digest(b"k", b"ann@example.invalid", "sha256").hex()[:32]
    assert pseudonym("caf\u00e9", b"k") == pseudonym("cafe\u0301", b"k")
    assert pseudonym("ann", b"k") != pseudonym("ann", b"l")
