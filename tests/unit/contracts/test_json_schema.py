# ruff: noqa: E501 - a line a field reads best
"""The JSON Schema of a stream says what landing says: it refuses nothing that landing takes, and takes only what no schema could refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError, validators
from typer.testing import CliRunner

from include.cli import app
from include.contracts import CONTRACTS_FOLDER, load_contract, streams
from include.contracts.json_schema import DIALECT, MAX_TENANT_CHARACTERS, TENANT_PATH, example_row, row_schema, schema_document
from include.contracts.majors import join_majors
from include.contracts.model import Contract, Field, LogicalType
from include.contracts.parse import parse_contract, parse_contract_text
from include.landing import rows, validate
from include.landing.majors import judge
from include.landing.payload import chunk_of_lines
from include.landing.rows import Code
from tests.support.payloads import at
from tests.support.press import STREAM as PRESS
from tests.support.press import press

ARRIVED_AT = at(0)
PROPERTY = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

# Every kind of field, without bounds, and required in a nested place.
GATE = """
apiVersion: v3.2.0
kind: DataContract
id: tidemark-gate
name: gate
version: 3.1.0
status: active
team: {name: porters}
schema:
  - name: gate
    physicalName: raw.gate
    logicalType: object
    description: What gates do.
    properties:
      - {name: at, physicalName: event_at, logicalType: timestamp, required: true, primaryKey: true, primaryKeyPosition: 2, description: When.}
      - name: gate
        logicalType: object
        properties:
          - {name: id, physicalName: gate_id, logicalType: string, required: true, primaryKey: true, primaryKeyPosition: 1, description: Which.}
          - {name: side, physicalName: side_code, logicalType: string, logicalTypeOptions: {maxLength: 3}, enum: [{value: in}, {value: outer}], description: Side.}
      - {name: opened, physicalName: opened_date, logicalType: date, description: On which day.}
      - {name: turns, physicalName: turn_count, logicalType: integer, required: true, description: Turns.}
      - {name: force, physicalName: force_n, logicalType: number, description: Force.}
      - {name: low, physicalName: low_n, logicalType: number, logicalTypeOptions: {minimum: 0.5}, description: Least force.}
      - {name: locked, physicalName: is_locked, logicalType: boolean, required: true, description: Whether it is locked.}
      - {name: version, physicalName: schema_version, logicalType: integer, description: Version.}
    quality:
      - {name: low_below_force, type: custom, engine: tidemark, implementation: low_n <= force_n, description: The least is not above.}
slaProperties:
  - {property: freshness, value: 90, unit: min}
customProperties:
  - {property: streamKind, value: event}
  - {property: source, value: device}
  - {property: eventTime, value: event_at}
  - {property: onConflict, value: keep_first}
  - {property: partitioning, value: month}
  - {property: bucketColumns, value: [gate_id]}
  - {property: earliest, value: '2020-01-01T00:00:00Z'}
  - {property: futureToleranceMinutes, value: 10}
  - {property: maxQuarantinedShare, value: 0.05}
  - {property: quarantineWindow, value: 1000}
  - {property: schemaVersionField, value: schema_version}
"""


def two_majors() -> Contract:
    newest, first = parse_contract_text(press("2.0.0"), f"{PRESS}.yaml"), parse_contract_text(press("1.0.0"), f"{PRESS}.v1.yaml")
    return join_majors(newest, [first])


CONTRACTS = {stream: load_contract(stream) for stream in streams()} | {"gate": parse_contract_text(GATE, "gate.yaml"), PRESS: two_majors()}


def _whole_match(_: object, pattern: str, instance: object, __: object) -> Iterator[ValidationError]:
    """ECMA-262, the language of patterns in JSON Schema, ends a text at its end; Python's `$` also matches before a last line feed."""
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


Validator = validators.extend(Draft202012Validator, {"pattern": _whole_match})


def judged(contract: Contract, payloads: list[Any]) -> list[list[rows.RowError]]:
    """What landing holds against each row; nothing where it takes it."""
    count = len(payloads)
    chunk = chunk_of_lines(contract, [json.dumps(payload).encode() for payload in payloads], np.zeros(count, dtype=np.int32), np.arange(count, dtype=np.int32))
    found = judge(chunk, contract, np.full(count, int(ARRIVED_AT.timestamp() * 1_000_000)))
    assert len(found.accepted) + len(found.rejected) == count
    errors = {row.row_number: list(row.errors) for row in found.rejected}
    return [errors.get(row, []) for row in range(count)]


def errors_of(contract: Contract, payload: object) -> list[rows.RowError]:
    """What landing holds against a row; nothing where it takes it."""
    return judged(contract, [payload])[0]


def unsayable(contract: Contract, error: rows.RowError) -> bool:
    """Whether no schema could have told the error."""
    if error.code == Code.BAD_TIMESTAMP:  # the digits of a time, but no day of the calendar, or a year that UTC does not reach
        try:
            return date.fromisoformat((error.value or "")[:10]).year in {1, 9999}
        except ValueError:
            return True
    return error.code == Code.EVENT_TIME_OUT_OF_RANGE or error.code in {f"rule:{rule.name}" for each in contract.majors for rule in each.rules}


# U+001C to U+001F, U+0085 and U+FEFF are blanks for some engines of regular expressions only; half surrogate pairs are for no schema.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x1c\x1d\x1e\x1f\x85\ufeff")
TEXT = st.text(st.sampled_from("aZ09_ \t\n\x00éß中𝒳") | CHARACTERS, max_size=8)
CLOCK = r"[0-2][0-9]:[0-6][0-9](:[0-6][0-9]([.,][0-9]{0,10})?)?"
TIMES = st.from_regex(rf"(0000|0001|2[0-9]{{3}}|9999)-[01][0-9]-[0-3][0-9][Tt _]{CLOCK}([Zz]|[+-][0-2][0-9](:?[0-9]{{2}})?)?", fullmatch=True)
DATES = st.from_regex(r"[0-9]{4}-[01][0-9]-[0-3][0-9]( ?)", fullmatch=True)
VERSIONS = st.from_regex(r"0{0,6}[0-3](\.[0-9]{1,2}){0,3}", fullmatch=True)
NUMBERS = st.integers(-(2**66), 2**66) | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([10**400, -1, 0, 1, 2, 2**63, -(2**63)])
ODD = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT, TIMES, DATES, VERSIONS, st.lists(st.integers(), max_size=1), st.dictionaries(TEXT, TEXT, max_size=1))
ABSENT = object()


def good(field: Field) -> st.SearchStrategy[Any]:
    """Values that are likely to be taken."""
    if field.enum:
        return st.sampled_from(field.enum)
    match field.logical_type:
        case LogicalType.STRING:
            wide = st.text("abc123é", min_size=1, max_size=field.max_length or 20)
            return st.from_regex(field.pattern, fullmatch=True, alphabet=CHARACTERS) if field.pattern else wide
        case LogicalType.INTEGER:
            return st.integers(int(-(2**63) if field.minimum is None else field.minimum), int(2**63 - 1 if field.maximum is None else field.maximum))
        case LogicalType.NUMBER:
            return st.floats(field.minimum, field.maximum, allow_nan=False, allow_infinity=False)
        case LogicalType.BOOLEAN:
            return st.booleans()
        case LogicalType.DATE:
            return st.dates().map(date.isoformat)
        case LogicalType.TIMESTAMP:
            return st.sampled_from(["2024-01-15T10:30:00.000Z", "2024-02-29t23:59:59,123456789+0530", "2025-12-31 00:00-08", "2026-02-28T12:00:00z"])


def edges(field: Field) -> list[Any]:
    """Values around what the field allows, and one of each kind."""
    near = [bound + step for bound in (field.minimum, field.maximum) if bound is not None for step in (-1, -0.5, 0, 0.5, 1)]
    long = [character * length for length in (field.max_length, (field.max_length or 0) + 1) if length and field.max_length for character in "a𝒳"]
    named = [text for value in field.enum or () for text in (value, value.upper(), f"{value} ")]
    times = ["2024-02-29", "2024-02-30", "2024-01-15T10:30:00Z", "2024-01-15T10:30", "2024-13-01T10:30:00Z", "2024-01-15 10:30:00,5+01"]
    kinds: list[Any] = [
        None,
        True,
        0,
        1,
        1.0,
        1.5,
        -1,
        2**63 - 1,
        2**63,
        1e300,
        10**309,
        "1",
        "",
        " ",
        "a",
        " a",
        "a ",
        "a b",
        "a\nb",
        "a\x00b",
        "AB",
        "ABC",
        [],
        {},
    ]
    return [*near, *long, *named, *times, *kinds, *field.examples]


@st.composite
def payloads(draw: st.DrawFn, contract: Contract) -> dict[str, Any]:
    """Rows with a few places that may be wrong."""
    followed = draw(st.sampled_from(contract.majors))
    spoiled = draw(st.lists(st.sampled_from([*followed.fields, None]), max_size=2))
    row: dict[str, Any] = {}
    for field in followed.fields:
        is_version = field.name == contract.schema_version_field
        if field in spoiled:
            value = draw(VERSIONS | st.integers(0, 4) | TEXT if is_version else ODD | st.sampled_from([*edges(field), ABSENT]))
        elif is_version or not (field.required or draw(st.booleans())):
            value = ABSENT
        else:
            value = draw(good(field))
        if value is not ABSENT:
            place = row
            for key in field.path[:-1]:
                place = place.setdefault(key, {})
            place[field.path[-1]] = value
    if None in spoiled:
        key = draw(st.sampled_from([field.path[0] for field in followed.fields] + [TENANT_PATH, "unknown"]))
        version = contract.by_name[contract.schema_version_field].path[0] if contract.schema_version_field else None
        storable = st.integers(-5, 5) | st.text("ab", max_size=3)  # what landing holds against unknown fields, no schema of the contract says
        row[key] = draw(storable if key in {"unknown", version} else TEXT | ODD)
    return row


def changed_row(row: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    """The row with another value at a place."""
    inner = value if len(path) == 1 else changed_row(row.get(path[0], {}), path[1:], value)
    return {**row, path[0]: inner}


def assert_agreed(contract: Contract, row: dict[str, Any], errors: list[rows.RowError], refusals: list[ValidationError]) -> None:
    if not errors:
        assert not refusals, f"landing takes {row}, the schema does not: {refusals[0].message}"
    elif not refusals:
        assert all(unsayable(contract, error) for error in errors), f"the schema takes {row}, landing does not: {errors}"


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_schema_and_landing_agree(name: str) -> None:
    contract = CONTRACTS[name]
    validator = Validator(row_schema(contract))
    seen = {"taken": 0, "refused": 0}

    @PROPERTY
    @given(payloads(contract))
    def agree(payload: dict[str, Any]) -> None:
        refusals = list(validator.iter_errors(payload))
        seen["refused" if refusals else "taken"] += 1
        assert_agreed(contract, payload, errors_of(contract, payload), refusals)

    agree()
    assert min(seen.values()) >= 10, f"the property saw hardly any rows of one kind: {seen}"


BASES: dict[str, dict[str, Any]] = {
    "gate": {"at": "2024-01-15T10:30:00Z", "gate": {"id": "g"}, "turns": 1, "locked": False},
    PRESS: {"pressId": "p", "at": "2024-01-15T10:30:00Z", "plate": {"temperature": 20.0}},
}


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_schema_and_landing_agree_at_every_edge(name: str) -> None:
    contract = CONTRACTS[name]
    base = BASES.get(name) or example_row(contract) or {}
    groups = {field.path[:depth] for field in contract.fields for depth in range(1, len(field.path))}
    changed = [changed_row(base, group, value) for group in sorted(groups) for value in (None, 1, "", [], {})]
    for field in contract.fields:
        # 2.0 and 2 are the same to JSON Schema, and 2.0 is no version to landing.
        values = [value for value in edges(field) if not (field.name == contract.schema_version_field and isinstance(value, float))]
        changed += [changed_row(base, field.path, value) for value in values]
    validator = Validator(row_schema(contract))
    for row, errors in zip(changed, judged(contract, changed), strict=True):
        assert_agreed(contract, row, errors, list(validator.iter_errors(row)))


@pytest.mark.parametrize(
    ("name", "changes", "is_taken"),
    [
        ("gate", {}, True),
        ("gate", {"gate": None}, False),
        ("gate", {"gate": {"id": "g", "side": "outer"}}, False),  # in the list, and too long
        ("gate", {"gate": {"id": "g", "more": {"a": 1}}}, True),
        ("gate", {"turns": 3.0}, True),
        ("gate", {"turns": 3.5}, False),
        ("gate", {"turns": "3"}, False),
        ("gate", {"turns": 2**63}, False),
        ("gate", {"locked": 1}, False),
        ("gate", {"force": 10**400}, False),
        ("gate", {"opened": "2024-02-29"}, True),
        ("gate", {"opened": "2024-2-29"}, False),
        ("gate", {"at": "2024-01-15T10:30"}, False),
        ("gate", {"at": "2024-01-15 10:30+0100"}, True),
        ("gate", {"at": "2024-01-15T10:30:00+05:99"}, False),
        ("gate", {"at": "2024-01-15T10:30:60Z"}, False),
        ("gate", {"version": 3}, True),
        ("gate", {"version": 2}, False),
        ("gate", {"tenantId": "acme"}, True),
        ("gate", {"tenantId": " acme"}, False),
        ("gate", {"tenantId": "a" * (MAX_TENANT_CHARACTERS + 1)}, False),
        ("gate", {"gate": {"id": "a\x00b"}}, False),
        (PRESS, {"temp": 70}, True),
        (PRESS, {"plate": {"temperature": 20}, "state": 1}, True),
        (PRESS, {"plate": {"temperature": 20}, "state": "idle"}, False),
        (PRESS, {"temp": 70, "schemaVersion": "1.4"}, True),
        (PRESS, {"temp": 70, "schemaVersion": "2"}, False),
        (PRESS, {"temp": 70, "schemaVersion": "3"}, False),
        (PRESS, {"temp": 70, "schemaVersion": "0000001"}, False),  # seven digits are no version
    ],
)
def test_both_say_the_same(name: str, changes: dict[str, Any], is_taken: bool) -> None:
    base = {key: value for key, value in BASES[name].items() if key != "plate"}
    payload = base | changes
    assert Validator(row_schema(CONTRACTS[name])).is_valid(payload) is is_taken
    assert (errors_of(CONTRACTS[name], payload) == []) is is_taken


def test_what_only_landing_can_say_is_named() -> None:
    contract = CONTRACTS["orders"]
    example = example_row(contract) or {}
    for changes, code in (
        ({"netAmount": 1.0}, "rule:net_adds_up"),
        ({"orderedAt": "2001-01-15T10:30:00Z"}, "event_time_out_of_range"),
    ):
        assert Validator(row_schema(contract)).is_valid(example | changes)
        assert [str(error.code) for error in errors_of(contract, example | changes)] == [code]
        assert code in row_schema(contract)["description"]


@pytest.mark.parametrize("stream", streams())
def test_examples_are_taken(stream: str) -> None:
    contract = load_contract(stream)
    document = schema_document(contract)
    Draft202012Validator.check_schema(document)
    assert document["$schema"] == DIALECT == Draft202012Validator.META_SCHEMA["$id"]
    assert document["$id"] == f"urn:tidemark:contract:{stream}:{contract.version}"
    (example,) = document["examples"]
    assert example.keys() <= document["properties"].keys()
    Validator(document, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(example)
    assert errors_of(contract, example) == []
    for field in contract.fields:
        for value in field.examples:
            (schema,) = [
                each for each in _values(document) if each.get("examples") == list(field.examples) and each["description"].startswith(field.description)
            ]
            Validator(schema).validate(value)


def _values(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for each in schema.get("properties", {}).values():
        yield each
        yield from _values(each)


def test_a_contract_that_gives_no_example_of_a_required_field_has_none() -> None:
    assert example_row(CONTRACTS["gate"]) is None
    assert "examples" not in row_schema(CONTRACTS["gate"])


def test_an_example_has_the_type_of_its_field() -> None:
    text = (CONTRACTS_FOLDER / "orders.yaml").read_text(encoding="utf-8")
    assert parse_contract(CONTRACTS_FOLDER / "orders.yaml").by_name["item_count"].examples == (2,)
    for wrong in ("[two]", "[2.5]", "[true]"):
        with pytest.raises(Exception, match=r"orders\.yaml.*quantity\.examples.*is no integer"):
            parse_contract_text(text.replace("examples: [2]", f"examples: {wrong}"), "orders.yaml")


def test_the_command_prints_the_schema() -> None:
    printed = CliRunner().invoke(app, ["contracts", "schema", "orders"])
    assert json.loads(printed.stdout) == json.loads(json.dumps(schema_document(load_contract("orders"))))


def test_constants_are_those_of_landing() -> None:
    assert (TENANT_PATH, MAX_TENANT_CHARACTERS) == (rows.TENANT_PATH, validate.MAX_TENANT_CHARACTERS)


def test_a_changed_contract_has_another_schema() -> None:
    text = (CONTRACTS_FOLDER / "ticket_counts.yaml").read_text(encoding="utf-8")
    changed = parse_contract_text(text.replace("maximum: 1000000", "maximum: 77"), "ticket_counts.yaml")
    assert row_schema(changed)["properties"]["soldCount"]["maximum"] == 77
    assert row_schema(load_contract("ticket_counts"))["properties"]["soldCount"]["maximum"] == 1_000_000
