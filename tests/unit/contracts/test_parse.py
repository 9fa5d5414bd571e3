# ruff: noqa: E501 - a line a case reads best
"""Contract files are read strictly: what the house would ignore or could not keep is an error that says what to do."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from importlib import resources

import jsonschema
import pytest
import yaml

from include.contracts import (
    CONTRACTS_FOLDER,
    ContractError,
    LogicalType,
    OnConflict,
    Source,
    StreamKind,
    commerce_streams,
    device_streams,
    load_contract,
    streams,
    table_streams,
)
from include.contracts.parse import parse_contract_text

GOLDEN = {
    "deviceId": "sensor_12345",
    "deviceType": "temperature_sensor",
    "timestamp": "2024-01-15T10:30:00.000Z",
    "location": {"facility": "factory_01", "line": "assembly_line_A", "station": "station_05", "coordinates": {"lat": 37.7749, "lon": -122.4194}},
    "measurements": {"temperature": 72.5, "humidity": 45.2, "pressure": 1013.25, "vibration": {"x": 0.02, "y": 0.01, "z": 0.03}},
    "metadata": {"firmware_version": "1.2.3", "battery_level": 85, "signal_strength": -45, "last_maintenance": "2024-01-10T08:00:00.000Z"},
    "quality": {"accuracy": 99.5, "calibration_date": "2024-01-01T00:00:00.000Z", "status": "operational"},
}
MINIMAL = """
apiVersion: v3.2.0
kind: DataContract
id: tidemark-door-event
name: door_event
version: 1.0.0
status: active
team: {name: porters}
schema:
  - name: door_event
    physicalName: raw.door_event
    logicalType: object
    description: Doors that were opened.
    properties:
      - {name: doorId, physicalName: door_id, logicalType: string, required: true, primaryKey: true, primaryKeyPosition: 1, description: Which door.}
      - {name: at, physicalName: event_at, logicalType: timestamp, required: true, primaryKey: true, primaryKeyPosition: 2, description: When.}
      - name: force
        logicalType: object
        properties:
          - {name: peak, physicalName: peak_n, logicalType: number, logicalTypeOptions: {minimum: 0, maximum: 500}, description: Greatest force.}
          - {name: mean, physicalName: mean_n, logicalType: number, description: Mean force.}
      - {name: hand, physicalName: hand_code, logicalType: string, enum: [{value: left}, {value: right}], description: Which hand.}
    quality:
      - {name: mean_below_peak, type: custom, engine: tidemark, implementation: mean_n <= peak_n, description: A mean is no peak.}
slaProperties:
  - {property: freshness, value: 90, unit: min}
customProperties:
  - {property: streamKind, value: event}
  - {property: source, value: device}
  - {property: eventTime, value: event_at}
  - {property: onConflict, value: keep_first}
  - {property: partitioning, value: month}
  - {property: bucketColumns, value: [door_id]}
  - {property: earliest, value: '2020-01-01T01:00:00+01:00'}
  - {property: futureToleranceMinutes, value: 10}
  - {property: maxQuarantinedShare, value: 0.05}
  - {property: quarantineWindow, value: 1000}
"""


def test_a_small_contract_is_read_whole():
    contract = parse_contract_text(MINIMAL, "door_event.yaml")
    assert (contract.stream, contract.version, contract.owner) == ("door_event", "1.0.0", "porters")
    assert (contract.kind, contract.source, contract.on_conflict, contract.partition) == (StreamKind.EVENT, Source.DEVICE, OnConflict.KEEP_FIRST, "month")
    assert contract.key == ("door_id", "event_at")
    assert contract.version_field is None
    assert contract.freshness == timedelta(minutes=90)
    assert contract.earliest == datetime(2020, 1, 1, tzinfo=UTC)
    assert contract.bucket_columns == ("door_id",)
    assert list(contract.paths) == ["doorId", "at", "force.peak", "force.mean", "hand"]
    assert contract.field("peak_n").path == ("force", "peak")
    assert (contract.field("peak_n").minimum, contract.field("peak_n").maximum) == (0, 500)
    assert contract.field("hand_code").enum == ("left", "right")
    assert [rule.expression for rule in contract.rules] == ["mean_n <= peak_n"]
    with pytest.raises(KeyError, match="stream door_event has no field 'peak'; it has door_id"):
        contract.field("peak")


HOT, LAKE = "\n  - {property: hotRetentionDays, value: %s}", "\n  - {property: lakeRetentionDays, value: %s}"


def test_months_of_events_expire_and_nothing_else_does():
    contract = parse_contract_text(MINIMAL, "door_event.yaml")
    assert (contract.hot_retention, contract.lake_retention, contract.zone_retention) == (timedelta(days=90), timedelta(days=365), timedelta(days=30))
    stated = parse_contract_text(MINIMAL.rstrip() + HOT % 10 + LAKE % 10 + "\n  - {property: zoneRetentionDays, value: 3}\n", "door_event.yaml")
    assert (stated.hot_retention, stated.lake_retention, stated.zone_retention) == (timedelta(days=10), timedelta(days=10), timedelta(days=3))
    for change in (("streamKind, value: event", "streamKind, value: entity"), ("partitioning, value: month", "partitioning, value: hash")):
        kept = parse_contract_text(MINIMAL.replace(*change), "door_event.yaml")
        assert (kept.expires, kept.hot_retention, kept.lake_retention, kept.zone_retention) == (False, None, None, timedelta(days=30))
    assert [stream for stream in streams() if load_contract(stream).expires] == ["device_events", "device_telemetry", "gps_positions"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL.replace("streamKind, value: event", "streamKind, value: entity") + HOT % 9, "its kind is entity: the newest version of an entity holds"),
        (MINIMAL.replace("partitioning, value: month", "partitioning, value: hash") + LAKE % 9, "a late copy could not be told from a new event; remove lake"),
        (MINIMAL + HOT % 0, "hotRetentionDays: is 0; give a whole number of days from 1"),
        (MINIMAL + HOT % "true", "hotRetentionDays: is True"),
        (MINIMAL + LAKE % 89, "lakeRetentionDays: is 89 days, less than the 90 days of hotRetentionDays"),
    ],
)
def test_a_retention_that_cannot_be_kept_is_refused(text, message):
    with pytest.raises(ContractError, match=message):
        parse_contract_text(text, "door_event.yaml")


def test_key_follows_its_positions_and_not_the_order_of_fields():
    text = (
        MINIMAL.replace("primaryKeyPosition: 1", "primaryKeyPosition: 9")
        .replace("primaryKeyPosition: 2", "primaryKeyPosition: 1")
        .replace("primaryKeyPosition: 9", "primaryKeyPosition: 2")
    )
    assert parse_contract_text(text, "door_event.yaml").key == ("event_at", "door_id")


WRONG = {
    "unknown key of the document": ("status: active", "status: active\ncolour: red", "contract: unknown key colour"),
    "unknown key of a field": ("description: Which door.", "description: Which door., physicalNme: x", "doorId: unknown key physicalNme"),
    "key of the standard that nobody obeys": ("description: Which door.", "description: Which door., unique: true", "doorId: unknown key unique"),
    "unknown option": ("maximum: 500", "exclusiveMaximum: 500", "force.peak.logicalTypeOptions: unknown key exclusiveMaximum"),
    "option of another type": ("{minimum: 0, maximum: 500}", "{maxLength: 5}", "force.peak.logicalTypeOptions: unknown key maxLength"),
    "unknown custom property": ("property: onConflict", "property: onConfict", "customProperties: unknown key onConfict"),
    "custom property twice": ("value: keep_first}", "value: keep_first}\n  - {property: onConflict, value: keep_latest}", "property onConflict is given twice"),
    "key of YAML twice": ("name: door_event\nversion", "name: door_event\nname: other\nversion", "key 'name' is given twice"),
    "no YAML": ("kind: DataContract", "kind: [DataContract", "not valid YAML"),
    "wrong type": ("version: 1.0.0", "version: [1]", "version: Input should be a valid string"),
    "version": ("version: 1.0.0", "version: 1.0.0-beta", "is not MAJOR.MINOR.PATCH"),
    "old standard": ("apiVersion: v3.2.0", "apiVersion: v2.2.2", "set kind: DataContract and apiVersion"),
    "other name than the file": ("name: door_event\nversion", "name: window_event\nversion", "name the file <stream>.yaml"),
    "other object than the stream": ("- name: door_event\n", "- name: window_event\n", "schema: must hold exactly one object"),
    "other table": ("physicalName: raw.door_event", "physicalName: public.door_event", "set it to raw.door_event"),
    "missing column name": ("physicalName: door_id, ", "", "doorId: has no column name; add physicalName"),
    "bad column name": ("physicalName: door_id", "physicalName: doorId", "physicalName 'doorId' is no column name"),
    "duplicate column": ("physicalName: mean_n", "physicalName: peak_n", "force.mean: column peak_n is already that of force.peak"),
    "duplicate field": ("{name: mean,", "{name: peak,", "field force.peak is given twice"),
    "column of the envelope": ("physicalName: hand_code", "physicalName: tenant_id", "column tenant_id belongs to the envelope"),
    "unknown type": ("name: hand, physicalName: hand_code, logicalType: string", "name: hand, physicalName: hand_code, logicalType: array", "logicalType 'array' is not known"),
    "no description": ("description: Which door.", "description: ''", "doorId.description: is missing"),
    "empty object": ("logicalType: object\n        properties:", "logicalType: object\n        propertes:", "force: unknown key propertes"),
    "key field not required": ("logicalType: string, required: true, primaryKey", "logicalType: string, primaryKey", "doorId: is part of the key, but not required"),
    "no key": (", primaryKey: true, primaryKeyPosition", ", primaryKey: false, primaryKeyPosition", "has no primary key"),
    "gap in the key": ("primaryKeyPosition: 2", "primaryKeyPosition: 3", "is not 1, 2, …"),
    "month without event time in the key": (", primaryKey: true, primaryKeyPosition: 2", "", "is month, but the event time is not part of the key; set it to hash"),
    "event time under another name": ("physicalName: event_at", "physicalName: opened_at", "give the field of the event time physicalName: event_at"),
    "event time that is no time": ("logicalType: timestamp", "logicalType: date", "is the event time, but not a required timestamp"),
    "unknown bucket column": ("value: [door_id]", "value: [door_number]", "column 'door_number' is not in this contract"),
    "optional bucket column": ("value: [door_id]", "value: [hand_code]", "column 'hand_code' is the event time, optional or personal"),
    "no bucket column": ("value: [door_id]", "value: []", "name at least one column"),
    "no winner": ("  - {property: onConflict, value: keep_first}\n", "", "must hold either versionField or onConflict"),
    "two winners": ("property: onConflict, value: keep_first}", "property: onConflict, value: keep_first}\n  - {property: versionField, value: event_at}", "must hold either versionField or onConflict"),
    "unknown winner": ("value: keep_first", "value: keep_best", "use one of keep_first, keep_latest, quarantine"),
    "version field that has no order": ("property: onConflict, value: keep_first", "property: versionField, value: hand_code", "'hand_code' is not a required timestamp or number"),
    "share above one": ("value: 0.05", "value: 5", "give a number from 0 to 1"),
    "earliest without zone": ("2020-01-01T01:00:00+01:00", "2020-01-01T01:00:00", "has no time zone"),
    "earliest that is no time": ("2020-01-01T01:00:00+01:00", "long ago", "give a quoted time"),
    "no freshness": ("property: freshness", "property: latency", "property 'latency' is not acted upon"),
    "freshness in parsecs": ("unit: min", "unit: pc", "is no duration"),
    "range upside down": ("{minimum: 0, maximum: 500}", "{minimum: 500, maximum: 0}", "minimum 500 is above maximum 0"),
    "range of words": ("{minimum: 0,", "{minimum: low,", "'low' is no number"),
    "bare off in an enum": ("{value: left}", "{value: off}", "hand.enum: must list texts of a string field; quote"),
    "enum value twice": ("{value: left}", "{value: right}", "value right is given twice"),
    "open pattern": ("name: doorId, physicalName: door_id, logicalType: string", "name: doorId, physicalName: door_id, logicalType: string, logicalTypeOptions: {pattern: '[a-z]+'}", "is not anchored"),
    "broken pattern": ("name: doorId, physicalName: door_id, logicalType: string", "name: doorId, physicalName: door_id, logicalType: string, logicalTypeOptions: {pattern: '^[$'}", "is no regular expression"),
    "no length": ("name: doorId, physicalName: door_id, logicalType: string", "name: doorId, physicalName: door_id, logicalType: string, logicalTypeOptions: {maxLength: 0}", "0 is no length"),
    "unknown classification": ("description: Which hand.", "description: Which hand., classification: secret", "use one of personal, internal"),
    "personal without twin": ("description: Which hand.", "description: Which hand., classification: personal", "set it to hand_code_pseudonym"),
    "twin of what is not personal": ("description: Which hand.", "description: Which hand., encryptedName: x", "remove it: the field is not personal"),
    "rule on an unknown column": ("implementation: mean_n <= peak_n", "implementation: mean_n <= top_n", "uses unknown columns top_n"),
    "rule that is no expression": ("implementation: mean_n <= peak_n", "implementation: mean_n <=", "cannot be evaluated"),
    "rule of another engine": ("engine: tidemark", "engine: soda", "is not a row rule"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_contract_is_refused_with_file_place_and_remedy(case):
    before, after, message = WRONG[case]
    text = MINIMAL.replace(before, after)
    assert text != MINIMAL, "the case must change the contract"
    with pytest.raises(ContractError) as caught:
        parse_contract_text(text, "door_event.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("door_event.yaml: ")
    assert caught.value.remedy


def test_personal_field_with_its_twin_is_read():
    text = MINIMAL.replace("description: Which hand.", "description: Which hand., classification: personal, encryptedName: hand_code_pseudonym")
    contract = parse_contract_text(text, "door_event.yaml")
    assert [field.pseudonym for field in contract.personal_fields] == ["hand_code_pseudonym"]


def test_the_streams_are_exactly_these():
    assert streams() == (
        "customers",
        "device_desired_state",
        "device_events",
        "device_registry",
        "device_telemetry",
        "gps_positions",
        "maintenance_log",
        "orders",
        "ticket_counts",
        "unit_lives",
        "unit_readings",
        "work_order_feedback",
    )
    assert device_streams() == (
        "device_desired_state",
        "device_events",
        "device_registry",
        "device_telemetry",
        "gps_positions",
        "maintenance_log",
        "work_order_feedback",
    )
    assert table_streams() == ("unit_lives", "unit_readings")
    assert commerce_streams() == ("customers", "orders", "ticket_counts")
    with pytest.raises(ContractError, match=r"parcels\.yaml: contract: does not exist; use one of customers"):
        load_contract("parcels")


@pytest.mark.parametrize("stream", streams())
def test_contract_files_keep_the_standard(stream):
    schema = json.loads((resources.files("open_data_contract_standard") / "schema.json").read_text())
    document = yaml.safe_load((CONTRACTS_FOLDER / f"{stream}.yaml").read_text())
    validator = jsonschema.Draft201909Validator(schema)
    assert [error.message for error in validator.iter_errors(document)] == []
    document["schema"][0]["properties"][0]["primaryKey"] = "yes"
    assert list(validator.iter_errors(document)), "the schema must be able to refuse"


@pytest.mark.parametrize("stream", streams())
def test_measured_numbers_state_their_unit(stream):
    contract = load_contract(stream)
    assert [field.name for field in contract.fields if field.logical_type in (LogicalType.NUMBER, LogicalType.INTEGER) and field.unit is None] == []


def test_every_leaf_of_the_golden_payload_is_a_field_within_range():
    paths = load_contract("device_telemetry").paths

    def leaves(value: dict, above: str = "") -> dict:
        return {
            path: leaf
            for key, item in value.items()
            for path, leaf in (leaves(item, f"{above}{key}.").items() if isinstance(item, dict) else [(above + key, item)])
        }

    for path, value in leaves(GOLDEN).items():
        field = paths[path]
        assert field.enum is None or value in field.enum
        if isinstance(value, int | float):
            assert field.minimum is not None
            assert field.maximum is not None
            assert field.minimum <= value <= field.maximum


def test_personal_data_is_marked():
    assert {field.name for field in load_contract("customers").personal_fields} == {"full_name", "email", "phone", "birth_year", "gender_code"}
    assert [stream for stream in streams() if load_contract(stream).personal_fields] == ["customers", "device_events"]
    assert [field.name for field in load_contract("device_events").personal_fields] == ["actor_id"]
