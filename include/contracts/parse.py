"""From an Open Data Contract Standard file to a `Contract`, strictly: what the house would ignore is an error, not a wish."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from open_data_contract_standard.model import CustomProperty, DataQuality, OpenDataContractStandard, SchemaObject, SchemaProperty
from pydantic import ValidationError

from include.contracts.csv_dialect import RFC_4180, parse_csv_dialect
from include.contracts.errors import ContractError
from include.contracts.model import COLUMN_NAME, EVENT_AT, PERSONAL, Contract, Field, LogicalType, OnConflict, RowRule, Source, StreamKind
from include.contracts.yaml_text import read_yaml

RETIRED = "retired"
ENVELOPE = ("tenant_id", "event_id", "event_at", "_arrived_at", "_known_at", "_landed_at", "_batch_id", "_file_id", "_row_number", "_content_hash", "_extra")
CLASSIFICATIONS = (PERSONAL, "internal")
UNITS_OF_TIME = {"min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}

# The part of the standard that the house acts on. A key outside it would be read by people and obeyed by nobody, so it is refused.
DOCUMENT_KEYS = {
    "apiVersion", "kind", "id", "name", "version", "status", "domain", "dataProduct", "description", "team", "schema", "slaProperties",
    "customProperties", "tags",
}  # fmt: skip
OBJECT_KEYS = {"name", "physicalName", "physicalType", "logicalType", "description", "dataGranularityDescription", "properties", "quality", "tags"}
GROUP_KEYS = {"name", "logicalType", "description", "properties"}
FIELD_KEYS = {
    "name", "physicalName", "logicalType", "logicalTypeOptions", "required", "primaryKey", "primaryKeyPosition", "classification", "encryptedName",
    "description", "enum", "customProperties", "examples", "tags",
}  # fmt: skip
RULE_KEYS = {"name", "type", "engine", "dimension", "severity", "description", "implementation", "businessImpact"}
OPTION_KEYS = {
    LogicalType.STRING: {"maxLength", "pattern"},
    LogicalType.INTEGER: {"minimum", "maximum"},
    LogicalType.NUMBER: {"minimum", "maximum"},
    LogicalType.BOOLEAN: set(),
    LogicalType.TIMESTAMP: {"format", "timezone"},
    LogicalType.DATE: {"format"},
}
EXAMPLE_TYPES: dict[LogicalType, tuple[type, ...]] = {
    LogicalType.STRING: (str,),
    LogicalType.INTEGER: (int,),
    LogicalType.NUMBER: (int, float),
    LogicalType.BOOLEAN: (bool,),
    LogicalType.TIMESTAMP: (str,),
    LogicalType.DATE: (str,),
}
STREAM_PROPERTIES = {
    "streamKind", "source", "eventTime", "versionField", "onConflict", "partitioning", "bucketColumns", "earliest", "futureToleranceMinutes",
    "maxQuarantinedShare", "quarantineWindow", "csv", "hotRetentionDays", "lakeRetentionDays", "zoneRetentionDays", "schemaVersionField",
}  # fmt: skip
FIELD_PROPERTIES = {"unit"}
HOT_DAYS, LAKE_DAYS, ZONE_DAYS = 90, 365, 30  # where a contract states no retention
MAX_DAYS = 36_500


def parse_contract(path: Path) -> Contract:
    """Read one contract file.

    Raises:
        ContractError: If the file is not a contract the house can keep; the message names file, field and what to do.
    """
    return parse_contract_text(path.read_text(encoding="utf-8"), path.name)


def parse_contract_text(text: str, file: str) -> Contract:
    """Read a contract from its text; `file` is the name that errors show, and its stem must be the stream's name."""
    return _Parser(file).contract(read_yaml(text, file, ContractError))


class _Parser:
    """One reading of one file; holds its name for the messages."""

    def __init__(self, file: str) -> None:
        self.file = file

    def error(self, place: str, problem: str, remedy: str) -> ContractError:
        return ContractError(self.file, place, problem, remedy)

    def contract(self, document: dict[str, Any]) -> Contract:
        self.check_keys("contract", document, DOCUMENT_KEYS)
        for number, schema in enumerate(document.get("schema") or [], start=1):
            self.check_object_keys(number, schema)
        try:
            odcs = OpenDataContractStandard(**document)
        except ValidationError as failure:
            first = failure.errors()[0]
            raise self.error(".".join(str(part) for part in first["loc"]), first["msg"], "see the Open Data Contract Standard") from failure
        stream = self.present("name", odcs.name)
        if odcs.kind != "DataContract" or not odcs.apiVersion or not odcs.apiVersion.startswith("v3."):
            raise self.error("kind, apiVersion", f"are {odcs.kind!r}, {odcs.apiVersion!r}", "set kind: DataContract and apiVersion: v3.2.0")
        version = self.present("version", odcs.version)
        if not re.fullmatch(r"\d+\.\d+\.\d+", version):
            raise self.error("version", f"{version!r} is not MAJOR.MINOR.PATCH", "write it as 1.0.0")
        is_older = self.file == f"{stream}.v{version.partition('.')[0]}.yaml"
        if self.file != f"{stream}.yaml" and not is_older:
            raise self.error("name", f"is {stream!r}", "name the file <stream>.yaml after it, or <stream>.v<major>.yaml for an older major")
        if odcs.status == RETIRED and not is_older:
            raise self.error("status", "is retired, but this is the newest version", "only an older major (<stream>.v<major>.yaml) can be retired")
        if not odcs.schema_ or len(odcs.schema_) != 1 or odcs.schema_[0].name != stream:
            raise self.error("schema", "must hold exactly one object, named as the stream", f"keep one object with name: {stream}")
        schema = odcs.schema_[0]
        if schema.physicalName != f"raw.{stream}":
            raise self.error(f"schema.{stream}.physicalName", f"is {schema.physicalName!r}", f"set it to raw.{stream}")
        described = list(self.fields(schema.properties or [], ()))
        fields = tuple(field for field, _ in described)
        self.check_names(fields)
        key = self.key(described)
        rules = tuple(self.rule(quality, fields) for quality in schema.quality or [])
        self.check_unique("schema.quality", "rule", [rule.name for rule in rules])
        return self.stream(odcs, schema, stream, version, fields, key, rules)

    def stream(
        self,
        odcs: OpenDataContractStandard,
        schema: SchemaObject,
        stream: str,
        version: str,
        fields: tuple[Field, ...],
        key: tuple[str, ...],
        rules: tuple[RowRule, ...],
    ) -> Contract:
        properties = self.custom("customProperties", odcs.customProperties, STREAM_PROPERTIES)
        by_name = {field.name: field for field in fields}
        event_time = properties.get("eventTime")
        if event_time != EVENT_AT or EVENT_AT not in by_name:
            raise self.error(
                "customProperties.eventTime", f"is {event_time!r}", f"give the field of the event time physicalName: {EVENT_AT}, and set it to that"
            )
        if by_name[EVENT_AT].logical_type is not LogicalType.TIMESTAMP or not by_name[EVENT_AT].required:
            place = ".".join(by_name[EVENT_AT].path)
            raise self.error(place, "is the event time, but not a required timestamp", "set logicalType: timestamp and required: true")
        partition = self.choice("partitioning", properties, ("month", "hash"))
        if partition == "month" and EVENT_AT not in key:
            problem = "is month, but the event time is not part of the key"
            raise self.error("customProperties.partitioning", problem, "set it to hash: a unique index over months would not cover identity")
        version_field, on_conflict = properties.get("versionField"), properties.get("onConflict")
        if (version_field is None) == (on_conflict is None):
            raise self.error("customProperties", "must hold either versionField or onConflict", "keep one of them: what decides among differing copies")
        if version_field is not None:
            self.check_ranked(version_field, by_name)
        bucket_columns = properties.get("bucketColumns")
        if not isinstance(bucket_columns, list) or not bucket_columns:
            raise self.error("customProperties.bucketColumns", "is not a list of columns", "name at least one column by which models bucket")
        self.check_buckets(bucket_columns, by_name)
        share = self.number("maxQuarantinedShare", properties, 0, 1)
        kind = StreamKind(self.choice("streamKind", properties, tuple(StreamKind)))
        hot_retention, lake_retention = self.retention(properties, kind, str(partition))
        return Contract(
            stream=stream,
            version=version,
            kind=kind,
            source=Source(self.choice("source", properties, tuple(Source))),
            owner=self.present("team.name", getattr(odcs.team, "name", None)),
            description=self.present(f"schema.{stream}.description", schema.description),
            fields=fields,
            rules=rules,
            key=key,
            event_time=EVENT_AT,
            version_field=version_field,
            on_conflict=OnConflict(self.choice("onConflict", properties, tuple(OnConflict))) if on_conflict is not None else None,
            partition="month" if partition == "month" else "hash",
            bucket_columns=tuple(bucket_columns),
            earliest=self.instant("earliest", properties),
            future_tolerance=timedelta(minutes=self.number("futureToleranceMinutes", properties, 0, 24 * 60)),
            freshness=self.freshness(odcs),
            max_quarantined_share=share,
            quarantine_window=int(self.number("quarantineWindow", properties, 1, 1_000_000)),
            csv=parse_csv_dialect(properties["csv"], "customProperties.csv", self.error) if "csv" in properties else RFC_4180,
            hot_retention=hot_retention,
            lake_retention=lake_retention,
            zone_retention=self.days("zoneRetentionDays", properties, ZONE_DAYS),
            schema_version_field=self.schema_version_field(properties, by_name),
            is_retired=odcs.status == RETIRED,
        )

    # fields

    def fields(self, properties: Iterable[SchemaProperty], above: tuple[str, ...]) -> Iterator[tuple[Field, int]]:
        """Fields in order, depth first, each with its position in the key (0 where it is no part of it)."""
        for each in properties:
            path = (*above, each.name or "")
            if each.logicalType == "object":
                yield from self.fields(each.properties or [], path)
            else:
                yield self.field(each, path), (each.primaryKeyPosition or 0) if each.primaryKey else 0

    def field(self, each: SchemaProperty, path: tuple[str, ...]) -> Field:
        place = ".".join(path)
        if each.physicalName is None:
            raise self.error(place, "has no column name", "add physicalName: snake_case with a unit suffix, such as temperature_c")
        if not COLUMN_NAME.fullmatch(each.physicalName):
            raise self.error(place, f"physicalName {each.physicalName!r} is no column name", "use snake_case, starting with a letter, at most 50 characters")
        if each.logicalType not in tuple(LogicalType):
            raise self.error(place, f"logicalType {each.logicalType!r} is not known", f"use one of {', '.join(LogicalType)}, or object with properties")
        logical_type = LogicalType(each.logicalType)
        options = each.logicalTypeOptions or {}
        self.check_keys(f"{place}.logicalTypeOptions", options, OPTION_KEYS[logical_type])
        minimum, maximum = self.bound(place, options, "minimum"), self.bound(place, options, "maximum")
        if minimum is not None and maximum is not None and minimum > maximum:
            raise self.error(place, f"minimum {minimum:g} is above maximum {maximum:g}", "swap them")
        if each.classification is not None and each.classification not in CLASSIFICATIONS:
            raise self.error(place, f"classification {each.classification!r} is not known", f"use one of {', '.join(CLASSIFICATIONS)}, or leave it out")
        if each.primaryKey and not each.required:
            raise self.error(place, "is part of the key, but not required", "set required: true; an event without identity cannot be counted once")
        field = Field(
            name=each.physicalName,
            path=path,
            logical_type=logical_type,
            required=bool(each.required),
            unit=self.custom(f"{place}.customProperties", each.customProperties, FIELD_PROPERTIES).get("unit"),
            enum=self.enum(place, each, logical_type),
            minimum=minimum,
            maximum=maximum,
            max_length=self.max_length(place, options),
            pattern=self.pattern(place, options),
            classification=each.classification,
            key=bool(each.primaryKey),
            description=self.present(f"{place}.description", each.description),
            examples=self.examples(place, each.examples or [], logical_type),
        )
        if each.encryptedName != field.pseudonym:
            remedy = f"set it to {field.pseudonym}" if field.is_personal else "remove it: the field is not personal"
            raise self.error(place, f"encryptedName is {each.encryptedName!r}", remedy)
        return field

    def enum(self, place: str, each: SchemaProperty, logical_type: LogicalType) -> tuple[str, ...] | None:
        if each.enum is None:
            return None
        values = [value.value for value in each.enum if isinstance(value.value, str)]
        if logical_type is not LogicalType.STRING or not values or len(values) < len(each.enum):
            raise self.error(f"{place}.enum", "must list texts of a string field", "quote the values (YAML reads a bare no, on or 1 as something else)")
        self.check_unique(f"{place}.enum", "value", values)
        return tuple(values)

    def examples(self, place: str, values: list[Any], logical_type: LogicalType) -> tuple[str | float | bool, ...]:
        for value in values:
            if not isinstance(value, EXAMPLE_TYPES[logical_type]) or (isinstance(value, bool) and logical_type is not LogicalType.BOOLEAN):
                raise self.error(f"{place}.examples", f"{value!r} is no {logical_type}", "give values as they stand in the payload; quote texts and times")
        return tuple(values)

    def bound(self, place: str, options: dict[str, Any], name: str) -> float | None:
        value = options.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(f"{place}.{name}", f"{value!r} is no number", "write a plain number")
        return float(value)

    def max_length(self, place: str, options: dict[str, Any]) -> int | None:
        value = options.get("maxLength")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise self.error(f"{place}.maxLength", f"{value!r} is no length", "write a whole number above 0")
        return value

    def pattern(self, place: str, options: dict[str, Any]) -> str | None:
        value = options.get("pattern")
        if value is None:
            return None
        try:
            re.compile(value)
        except (re.error, TypeError) as failure:
            raise self.error(f"{place}.pattern", f"{value!r} is no regular expression ({failure})", "correct it") from failure
        if not (value.startswith("^") and value.endswith("$")):
            raise self.error(f"{place}.pattern", f"{value!r} is not anchored", "start it with ^ and end it with $: it must match the whole text")
        return str(value)

    def key(self, described: list[tuple[Field, int]]) -> tuple[str, ...]:
        parts = sorted((position, field.name) for field, position in described if field.key)
        if not parts:
            raise self.error("schema", "has no primary key", "set primaryKey: true and primaryKeyPosition on the fields that are the event's identity")
        if [position for position, _ in parts] != list(range(1, len(parts) + 1)):
            names = ", ".join(name for _, name in parts)
            raise self.error("schema", f"primaryKeyPosition of {names} is not 1, 2, …", "number the key fields from 1 without gaps")
        return tuple(name for _, name in parts)

    def rule(self, quality: DataQuality, fields: tuple[Field, ...]) -> RowRule:
        name = self.present("schema.quality.name", quality.name)
        place = f"schema.quality.{name}"
        if not COLUMN_NAME.fullmatch(name):
            raise self.error(place, "is no identifier", "use snake_case: it becomes the error code rule:<name>")
        if quality.type != "custom" or quality.engine != "tidemark" or not isinstance(quality.implementation, str):
            raise self.error(place, "is not a row rule", "set type: custom, engine: tidemark and implementation: a SQL boolean over columns of one row")
        import polars  # here, because contracts are read where DAGs are parsed and few of those need it

        try:
            used = polars.sql_expr(quality.implementation).meta.root_names()
        except polars.exceptions.PolarsError as failure:
            problem = f"{quality.implementation!r} cannot be evaluated ({failure})"
            raise self.error(place, problem, "use columns, numbers, comparison, and, or, abs, coalesce") from failure
        unknown = sorted(set(used) - {field.name for field in fields})
        if unknown:
            raise self.error(place, f"uses unknown columns {', '.join(unknown)}", "use physical names of this contract")
        return RowRule(name=name, expression=quality.implementation, description=self.present(f"{place}.description", quality.description))

    # parts of the stream

    def freshness(self, odcs: OpenDataContractStandard) -> timedelta:
        for sla in odcs.slaProperties or []:
            if sla.property != "freshness":
                raise self.error("slaProperties", f"property {sla.property!r} is not acted upon", "keep freshness only")
            if isinstance(sla.value, bool) or not isinstance(sla.value, int | float) or sla.value <= 0 or sla.unit not in UNITS_OF_TIME:
                remedy = f"give a number above 0 and a unit of {', '.join(UNITS_OF_TIME)}"
                raise self.error("slaProperties.freshness", f"{sla.value!r} {sla.unit!r} is no duration", remedy)
            return sla.value * UNITS_OF_TIME[sla.unit]
        raise self.error("slaProperties", "has no freshness", "add property: freshness with value and unit: how long silence may last")

    def retention(self, properties: dict[str, Any], kind: StreamKind, partition: str) -> tuple[timedelta | None, timedelta | None]:
        """How long rows stay in raw and in the lake; None, None for a stream whose rows stay for ever."""
        stated = [name for name in ("hotRetentionDays", "lakeRetentionDays") if name in properties]
        if kind is not StreamKind.EVENT or partition != "month":
            if stated:
                reason = (
                    f"its kind is {kind}: the newest version of an entity holds however old it is"
                    if kind is not StreamKind.EVENT
                    else "it is not partitioned by month of event time: once its rows were gone, a late copy could not be told from a new event"
                )
                raise self.error(f"customProperties.{stated[0]}", f"cannot be kept, because {reason}", f"remove {' and '.join(stated)}: its rows stay")
            return None, None
        hot, lake = self.days("hotRetentionDays", properties, HOT_DAYS), self.days("lakeRetentionDays", properties, LAKE_DAYS)
        if lake < hot:
            problem = f"is {lake.days} days, less than the {hot.days} days of hotRetentionDays"
            raise self.error("customProperties.lakeRetentionDays", problem, "give it at least as many: what is in raw is in the lake too")
        return hot, lake

    def days(self, name: str, properties: dict[str, Any], default: int) -> timedelta:
        value = properties.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_DAYS:
            raise self.error(f"customProperties.{name}", f"is {value!r}", f"give a whole number of days from 1 to {MAX_DAYS:,}")
        return timedelta(days=value)

    def custom(self, place: str, properties: list[CustomProperty] | None, known: set[str]) -> dict[str, Any]:
        named = {each.property or "": each.value for each in properties or []}
        self.check_keys(place, named, known)
        self.check_unique(place, "property", [each.property or "" for each in properties or []])
        return named

    def choice(self, name: str, properties: dict[str, Any], allowed: tuple[str, ...]) -> str:
        value = properties.get(name)
        if value not in allowed:
            raise self.error(f"customProperties.{name}", f"is {value!r}", f"use one of {', '.join(allowed)}")
        return str(value)

    def number(self, name: str, properties: dict[str, Any], least: float, greatest: float) -> float:
        value = properties.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= greatest:
            raise self.error(f"customProperties.{name}", f"is {value!r}", f"give a number from {least:g} to {greatest:g}")
        return float(value)

    def instant(self, name: str, properties: dict[str, Any]) -> datetime:
        value = properties.get(name)
        try:
            instant = datetime.fromisoformat(str(value))
        except ValueError as failure:
            raise self.error(f"customProperties.{name}", f"is {value!r}", "give a quoted time such as '2015-01-01T00:00:00Z'") from failure
        if instant.tzinfo is None:
            raise self.error(f"customProperties.{name}", f"{value!r} has no time zone", "add Z or an offset, and quote it")
        return instant.astimezone(UTC)

    def schema_version_field(self, properties: dict[str, Any], by_name: dict[str, Field]) -> str | None:
        name = properties.get("schemaVersionField")
        if name is None:
            return None
        field = by_name.get(str(name))
        if field is None or field.key or field.is_personal or field.logical_type not in (LogicalType.STRING, LogicalType.INTEGER):
            remedy = "name a string or integer field of this contract, such as schema_version"
            raise self.error("customProperties.schemaVersionField", f"{name!r} is no field in which a row could name its version", remedy)
        return field.name

    # checks

    def present(self, place: str, value: str | None) -> str:
        if value is None or not value.strip():
            raise self.error(place, "is missing", "add it: people and generated pages rely on it")
        return value.strip()

    def check_keys(self, place: str, given: dict[str, Any], known: set[str]) -> None:
        unknown = [str(key) for key in given if key not in known]
        if unknown:
            raise self.error(place, f"unknown key {', '.join(unknown)}", f"use one of {', '.join(sorted(known)) or 'none'}")

    def check_object_keys(self, number: int, schema: object) -> None:
        if not isinstance(schema, dict):
            raise self.error(f"schema.{number}", "is not an object", "start from a contract beside it")
        self.check_keys(f"schema.{schema.get('name', number)}", schema, OBJECT_KEYS)
        for quality in schema.get("quality") or []:
            self.check_keys(f"schema.quality.{quality.get('name')}", quality, RULE_KEYS)
        self.check_property_keys(schema.get("properties") or [], ())

    def check_property_keys(self, properties: list[dict[str, Any]], above: tuple[str, ...]) -> None:
        for each in properties:
            path = (*above, str(each.get("name", "?")))
            place = ".".join(path)
            if not each.get("name"):
                raise self.error(place, "has no name", "add name: the key in the payload")
            is_group = each.get("logicalType") == "object"
            self.check_keys(place, each, GROUP_KEYS if is_group else FIELD_KEYS)
            if is_group:
                if not each.get("properties"):
                    raise self.error(place, "is an object without properties", "list its fields under properties")
                self.check_property_keys(each["properties"], path)

    def check_unique(self, place: str, what: str, values: list[str]) -> None:
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise self.error(place, f"{what} {', '.join(twice)} is given twice", "keep one")

    def check_names(self, fields: tuple[Field, ...]) -> None:
        self.check_unique("schema", "field", [".".join(field.path) for field in fields])
        columns: dict[str, str] = {}
        for field in fields:
            for column in (field.name, field.pseudonym):
                place = ".".join(field.path)
                if column is None:
                    continue
                if column in ENVELOPE and column != EVENT_AT:
                    raise self.error(place, f"column {column} belongs to the envelope", "choose another physicalName")
                if column in columns:
                    raise self.error(place, f"column {column} is already that of {columns[column]}", "give each field a physicalName of its own")
                columns[column] = place

    def check_ranked(self, version_field: str, by_name: dict[str, Field]) -> None:
        field = by_name.get(version_field)
        if field is None or not field.required or field.logical_type not in (LogicalType.TIMESTAMP, LogicalType.INTEGER, LogicalType.NUMBER):
            raise self.error("customProperties.versionField", f"{version_field!r} is not a required timestamp or number of this contract", "name one that is")

    def check_buckets(self, bucket_columns: list[str], by_name: dict[str, Field]) -> None:
        self.check_unique("customProperties.bucketColumns", "column", bucket_columns)
        for column in bucket_columns:
            field = by_name.get(column)
            if field is None:
                raise self.error("customProperties.bucketColumns", f"column {column!r} is not in this contract", "use a physicalName")
            if column == EVENT_AT or not field.required or field.is_personal:
                problem = f"column {column!r} is the event time, optional or personal"
                raise self.error("customProperties.bucketColumns", problem, "bucket by required, impersonal fields; the event time is always there")
