"""From contracts to JSON Schema (2020-12): what senders may check before they send.

The schema takes every payload that landing takes, and refuses what landing refuses as far as JSON Schema can say it. Of the rest the description tells:

- Landing alone knows when a row arrives: how early and how late event time may lie, and whether its month has left the raw table, is its business.
- Conditions between fields (`rule:<name>`) cannot be said; the description names each.
- A pattern knows the digits of a date and no calendar: 30 February matches, and landing refuses it. `format` is a note for tools, as the standard has it:
  landing also takes times that RFC 3339 does not (a blank for the T, no seconds, a comma before fractions, `+0200`), and no leap second.
- Characters: half a surrogate pair is refused by landing and by no schema; so is NUL in a field that the contract does not know. Which characters `\\s` stands
  for differs a little between engines of regular expressions (U+001C to U+001F, U+0085, U+FEFF); landing's is that of Rust.
- Numbers: JSON Schema calls 2.0 and 2 the same. So does landing, except in the field that names the version of a row, where 2.0 is no version. A number
  beyond double precision (1e400) and objects nested a thousand deep are refused by landing, wherever they stand.
- What the gateway adds: a row that names another tenant than that of the key is refused.

Coercions between types are none: in JSON, landing takes "1" for no number and 1 for no text. `null` is the same as absent, for landing and schema alike.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from include.contracts.model import Contract, Field, LogicalType

Schema = dict[str, Any]
Paths = list[tuple[tuple[str, ...], Field]]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TENANT_PATH = "tenantId"
MAX_TENANT_CHARACTERS = 128
WITHOUT_NUL = r"^[^\x00]*$"
_DATE = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_OFFSET = r"([Zz]|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)"
DATE = rf"^{_DATE}$"
TIME = rf"^{_DATE}[Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.,][0-9]{{1,9}})?)?{_OFFSET}$"
_VERSION_DIGITS = 6
_INT64 = (-(2**63), 2**63 - 1)
_DOUBLE = (-sys.float_info.max, sys.float_info.max)
_JSON_TYPES = {
    LogicalType.STRING: "string",
    LogicalType.INTEGER: "integer",
    LogicalType.NUMBER: "number",
    LogicalType.BOOLEAN: "boolean",
    LogicalType.TIMESTAMP: "string",
    LogicalType.DATE: "string",
}


def schema_document(contract: Contract) -> Schema:
    """JSON Schema of one row of a stream, as a document of its own."""
    return {"$schema": DIALECT, "$id": f"urn:tidemark:contract:{contract.stream}:{contract.version}", **row_schema(contract)}


def row_schema(contract: Contract) -> Schema:
    """JSON Schema of one row of a stream, to stand within another document. A row may follow any major that the contract takes."""
    majors = [_major(each, contract.schema_version_field) for each in contract.majors]
    body = (
        majors[0]
        if len(majors) == 1
        else {"anyOf": [{"title": f"Version {each.version}", **schema} for each, schema in zip(contract.majors, majors, strict=True)]}
    )
    example = example_row(contract)
    return {"title": contract.stream, "description": describe(contract), **body, **({"examples": [example]} if example is not None else {})}


def example_row(contract: Contract) -> Schema | None:
    """A row made of the first example of each field; None where the contract gives none for a required one."""
    row: Schema = {}
    for field in contract.fields:
        if not field.examples:
            if field.required:
                return None
            continue
        place = row
        for key in field.path[:-1]:
            place = place.setdefault(key, {})
        place[field.path[-1]] = field.examples[0]
    return row


def describe(contract: Contract) -> str:
    """What a row is, and what must hold that no schema can say; CommonMark."""
    event_time = ".".join(contract.field(contract.event_time).path)
    minutes = contract.future_tolerance // timedelta(minutes=1)
    lines = [
        contract.description,
        "",
        f"Version {contract.version}. What a schema cannot say, and landing checks too:",
        "",
        f"- `{event_time}` lies not before {contract.earliest:%Y-%m-%d} and at most {minutes} minutes after the arrival (`event_time_out_of_range`).",
        *(f"- {text} (`{code}`)." for code, text in rules(contract).items()),
        "",
        "`null` is the same as absent. Fields that are not listed are kept.",
    ]
    return "\n".join(lines)


def rules(contract: Contract) -> dict[str, str]:
    """Conditions between fields of a row, by error code: what must hold, in column names, and why."""
    found: dict[str, str] = {}
    for each in contract.majors:
        for rule in each.rules:
            found.setdefault(f"rule:{rule.name}", f"`{rule.expression}`: {rule.description.rstrip('.')}")
    return found


def _major(contract: Contract, version_field: str | None) -> Schema:
    paths: Paths = [(field.path, field) for field in contract.fields]
    schema, _ = _object(paths, contract.major, version_field)
    if TENANT_PATH not in contract.paths and "tenant_id" not in contract.by_name:
        schema["properties"][TENANT_PATH] = {
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": MAX_TENANT_CHARACTERS,
            "pattern": r"^\S([^\x00]*\S)?$",
            "description": "Tenant of the row. Not needed: it is that of the key, and a row that names another one is refused.",
        }
    return schema


def _object(paths: Paths, major: int, version_field: str | None) -> tuple[Schema, bool]:
    """Schema of an object, and whether anything in it is required."""
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for key, below in _by_key(paths):
        (path, field) = below[0]
        if len(path) == 1:
            properties[key], is_required = _value(field, major if field.name == version_field else None), field.required
        else:
            properties[key], is_required = _object([(each[1:], inner) for each, inner in below], major, version_field)
            if not is_required:
                properties[key]["type"] = ["object", "null"]
        if is_required:
            required.append(key)
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}, bool(required)


def _by_key(paths: Paths) -> Iterable[tuple[str, Paths]]:
    below: dict[str, Paths] = {}
    for path, field in paths:
        below.setdefault(path[0], []).append((path, field))
    return below.items()


def _value(field: Field, major: int | None) -> Schema:
    """Schema of a value.

    Args:
        field: Its field.
        major: Major version that the value may name; None where it names none.
    """
    json_type = _JSON_TYPES[field.logical_type]
    schema: Schema = {"type": json_type if field.required else [json_type, "null"]}
    if field.logical_type is LogicalType.STRING:
        schema |= _text(field, major)
    elif field.logical_type is LogicalType.INTEGER and major is not None:
        schema["enum"] = [major] if field.required else [major, None]
    elif field.logical_type in {LogicalType.INTEGER, LogicalType.NUMBER}:
        least, greatest = _INT64 if field.logical_type is LogicalType.INTEGER else _DOUBLE
        schema["minimum"] = _plain(least if field.minimum is None else max(field.minimum, least))
        schema["maximum"] = _plain(greatest if field.maximum is None else min(field.maximum, greatest))
    elif field.logical_type is LogicalType.TIMESTAMP:
        schema |= {"format": "date-time", "pattern": TIME}
    elif field.logical_type is LogicalType.DATE:
        schema |= {"format": "date", "pattern": DATE}
    schema["description"] = field.description + (f" Unit: {field.unit}." if field.unit else "")
    if field.examples:
        schema["examples"] = list(field.examples)
    return schema


def _text(field: Field, major: int | None) -> Schema:
    schema: Schema = {}
    if field.enum is not None:
        schema["enum"] = [*field.enum] if field.required else [*field.enum, None]
    if field.max_length is not None:
        schema["maxLength"] = field.max_length
    patterns = [field.pattern] if field.pattern is not None else []
    if major is not None:
        zeros = _VERSION_DIGITS - len(str(major))
        patterns.append(rf"^(0{{0,{zeros}}}{major}(\.[0-9]+){{0,2}})?$")
    elif field.enum is None:
        patterns.append(WITHOUT_NUL)
    if patterns:
        schema["pattern"] = patterns[0]
    if len(patterns) > 1:
        schema["allOf"] = [{"pattern": pattern} for pattern in patterns[1:]]
    return schema


def _plain(number: float) -> float:
    """The number as people write it: 400 and not 400.0."""
    return int(number) if abs(number) < 2**53 and number == int(number) else number
