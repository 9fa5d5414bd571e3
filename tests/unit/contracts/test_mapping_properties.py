"""Mappings on made-up texts: nothing is lost, nothing is guessed."""

from __future__ import annotations

import json

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from include.contracts.mapping import apply_mapping
from include.contracts.mapping_definition import parse_mapping_text

MAPPING = parse_mapping_text(
    """
name: trial
stream: customers
version: 1.0.0
description: Trial.
known_after: arrival
columns:
  customer_id: {concat: [c-, {column: id}]}
  event_at: {column: at, formats: ['%Y-%m-%d %H:%M:%S'], time_zone: UTC}
  birth_year: {column: year}
  income_level: {column: income, codes: {a: low, b: high}}
extra:
  spent: {column: spent}
""",
    "trial.yaml",
)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
MAYBE = st.none() | TEXT
ROWS = st.lists(
    st.tuples(MAYBE, MAYBE | st.datetimes().map(lambda at: at.strftime("%Y-%m-%d %H:%M:%S")), MAYBE | st.integers().map(str), MAYBE, MAYBE, MAYBE), max_size=8
)


@settings(max_examples=200, deadline=None)
@given(ROWS)
def test_every_text_becomes_a_value_a_fault_or_a_blank(rows):
    names = ("id", "at", "year", "income", "spent", 'left "over"')
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")
    result = apply_mapping(MAPPING, frame)
    assert result.frame.height == len(result.extra) == len(rows)
    faults = {(fault.row, fault.field): fault.value for fault in result.errors}
    assert len(faults) == len(result.errors), "one fault a value"
    texts = frame.with_columns(pl.all().str.strip_chars().replace("", None)).rows(named=True)
    for number, (text, row, extra) in enumerate(zip(texts, result.frame.iter_rows(named=True), result.extra, strict=True)):
        assert row["customer_id"] == (None if text["id"] is None else f"c-{text['id']}")
        for column, field in (("at", "event_at"), ("year", "birth_year"), ("income", "income_level")):
            is_blank, is_fault, has_value = text[column] is None, (number, field) in faults, row[field] is not None
            assert is_blank + is_fault + has_value == 1
            if is_fault:
                assert faults[number, field] == text[column]
        if row["birth_year"] is not None:
            assert float(row["birth_year"]) == float(text["year"])
        kept = {name: text[column] for name, column in (("spent", "spent"), ('left "over"', 'left "over"')) if text[column] is not None}
        assert (json.loads(extra) if extra is not None else {}) == kept


@settings(max_examples=200, deadline=None)
@given(st.decimals(min_value=-10_000_000, max_value=10_000_000, places=2))
def test_an_amount_survives_its_writing(amount):
    mapping = parse_mapping_text(
        """
name: trial
stream: orders
version: 1.0.0
description: Trial.
known_after: arrival
columns:
  order_id: {column: id}
  customer_id: {column: id}
  event_at: {column: at, formats: ['%Y-%m-%d'], time_zone: UTC}
  updated_at: {column: at, formats: ['%Y-%m-%d'], time_zone: UTC}
  order_status: {constant: paid}
  currency_code: {constant: USD}
  gross_usd: {column: amount, money: '$', thousands: ','}
  net_usd: {column: amount, money: '$', thousands: ','}
""",
        "trial.yaml",
    )
    sign = "-" if amount < 0 else ""
    for written in (f"{sign}${abs(amount):,.2f} ", f"{sign}${abs(amount):.2f}", f" {amount:.2f} $", f"{amount:,.2f}"):
        result = apply_mapping(mapping, pl.DataFrame({"id": ["1"], "at": ["2024-01-01"], "amount": [written]}))
        assert result.errors == []
        assert result.frame["net_usd"].item() == float(amount)
