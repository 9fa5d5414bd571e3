"""What a stream promises, as plain data: every other room reads a stream through these classes and never through its YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

from include.contracts.csv_dialect import RFC_4180, CsvDialect

PERSONAL = "personal"
PSEUDONYM_SUFFIX = "_pseudonym"
EVENT_AT = "event_at"
COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
_VERSION = re.compile(r"([0-9]{1,6})(\.[0-9]+){0,2}")


class LogicalType(StrEnum):
    """Logical types of the Open Data Contract Standard that a field may have."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    DATE = "date"


class StreamKind(StrEnum):
    """An event happened once; an entity has versions that follow each other."""

    EVENT = "event"
    ENTITY = "entity"


class Source(StrEnum):
    """Kind of source; one landing DAG each."""

    DEVICE = "device"
    COMMERCE = "commerce"
    TABLE = "table"  # brought once by a person


class OnConflict(StrEnum):
    """What becomes of differing copies of an event, by publication or zone arrival, where the contract names no version field."""

    KEEP_FIRST = "keep_first"
    KEEP_LATEST = "keep_latest"
    QUARANTINE = "quarantine"


@dataclass(frozen=True)
class Field:
    """One field of a stream.

    Attributes:
        name: Column name in raw and staging (snake_case with unit suffix), e.g. `temperature_c`.
        path: Where the field stands in the JSON payload, e.g. `("measurements", "temperature")`.
        logical_type: Type of the value; see `include.contracts.compile.POSTGRES_TYPES` for the column type.
        required: A payload without a value is refused.
        unit: Unit for humans (`°C`); None where a unit makes no sense.
        enum: Allowed values; None where any value is.
        minimum: Least allowed number, inclusive.
        maximum: Greatest allowed number, inclusive.
        max_length: Most characters of a text.
        pattern: Regular expression that the whole text must match (anchored with ^ and $).
        classification: `"personal"` for personal data, else None or `"internal"`.
        key: Part of the event's identity.
        description: One or two sentences for humans.
        examples: Values that a sender may send, for pages and schemas; words, no promise, so they may change without a new version.
    """

    name: str
    path: tuple[str, ...]
    logical_type: LogicalType
    required: bool
    unit: str | None
    enum: tuple[str, ...] | None
    minimum: float | None
    maximum: float | None
    max_length: int | None
    pattern: str | None
    classification: str | None
    key: bool
    description: str
    examples: tuple[str | float | bool, ...] = ()

    @property
    def is_personal(self) -> bool:
        """Whether the clear value may stand in zone, raw, quarantine, correction and lake only."""
        return self.classification == PERSONAL

    @property
    def pseudonym(self) -> str | None:
        """Name of the twin column that holds the keyed pseudonym; None for a field that is not personal."""
        return f"{self.name}{PSEUDONYM_SUFFIX}" if self.is_personal else None


@dataclass(frozen=True)
class RowRule:
    """A condition between fields of one row.

    Attributes:
        name: Identifier; the error code of a row that breaks it is `rule:<name>`.
        expression: SQL boolean over column names, e.g. `dew_point_c <= temperature_c`. NULL passes.
        description: Why the rule holds.
    """

    name: str
    expression: str
    description: str


def named_major(value: object) -> int | None:
    """The major version that a row names: of 2, "2", "2.1" or "2.1.0" it is 2. None where the value is no version."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    match = _VERSION.fullmatch(str(value))
    return int(match.group(1)) if match else None


@dataclass(frozen=True)
class Contract:
    """Everything that rooms of the house need to know about one stream.

    Attributes:
        stream: Name of the stream, of its raw table and of its zone folder.
        version: Semantic version of the contract.
        kind: Event or entity.
        source: Kind of source, which decides the landing DAG.
        owner: Team that answers for the data.
        description: What the stream is, for humans.
        fields: In column order. The event time is among them, under the name `event_at`.
        rules: Conditions between fields of a row.
        key: Names of the fields that are the event's identity, together with tenant and stream.
        event_time: Name of the field that says when the event happened; always `event_at`.
        version_field: Field whose greatest value wins among copies; None where `on_conflict` decides.
        on_conflict: Rule among copies where there is no version field; None where there is one.
        partition: Month of event time (only where event time is part of the key), or hash of `event_id`.
        bucket_columns: Fields, besides `tenant_id` and `event_at`, by which models bucket; indexed, and logged when a row changes.
        earliest: Events before it are refused (`event_time_out_of_range`).
        future_tolerance: How far event time may lie after arrival.
        freshness: Silence longer than this is red.
        max_quarantined_share: Greatest share of quarantined rows, in [0, 1], among the last `quarantine_window` rows.
        quarantine_window: Number of rows that the share looks at.
        csv: How CSV files in the stream's own shape are written.
        hot_retention: Age of event time above which a month leaves the raw table; None where rows never leave it (see `expires`).
        lake_retention: Age of event time above which a month is deleted from the lake too; None where it stays for ever.
        zone_retention: How long a file's bytes stay in the zone after it landed.
        schema_version_field: Field in which a row may name the version it follows; None where rows do not say.
        is_retired: An older major that rows may no longer follow; its columns stay, because rows are stored in them.
        older: Older majors whose rows stand in the same table, newest first.
    """

    stream: str
    version: str
    kind: StreamKind
    source: Source
    owner: str
    description: str
    fields: tuple[Field, ...]
    rules: tuple[RowRule, ...]
    key: tuple[str, ...]
    event_time: str
    version_field: str | None
    on_conflict: OnConflict | None
    partition: Literal["month", "hash"]
    bucket_columns: tuple[str, ...]
    earliest: datetime
    future_tolerance: timedelta
    freshness: timedelta
    max_quarantined_share: float
    quarantine_window: int
    csv: CsvDialect = RFC_4180
    hot_retention: timedelta | None = None
    lake_retention: timedelta | None = None
    zone_retention: timedelta = timedelta(days=30)
    schema_version_field: str | None = None
    is_retired: bool = False
    older: tuple[Contract, ...] = ()

    @property
    def expires(self) -> bool:
        """Whether months of the stream leave the raw table: only where a late copy of an event can be told by its time to belong to such a month."""
        return self.hot_retention is not None

    @property
    def major(self) -> int:
        """Major version; contracts of one major are compatible, and breaking changes need a new one."""
        return int(self.version.partition(".")[0])

    @cached_property
    def majors(self) -> tuple[Contract, ...]:
        """The contracts that rows may follow, newest first."""
        return (self, *(each for each in self.older if not each.is_retired))

    @cached_property
    def columns(self) -> tuple[Field, ...]:
        """Fields of all majors, one a column of the raw table: this contract's, then those that only older majors have. Required is what all require."""
        if not self.older:
            return self.fields
        everyone = (self, *self.older)
        found: dict[str, list[Field]] = {}
        for contract in everyone:
            for field in contract.fields:
                found.setdefault(field.name, []).append(field)
        return tuple(replace(same[0], required=len(same) == len(everyone) and all(field.required for field in same)) for same in found.values())

    @cached_property
    def column_by_name(self) -> dict[str, Field]:
        """Fields of all majors by column name."""
        return {field.name: field for field in self.columns}

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """Fields by column name, in column order."""
        return {field.name: field for field in self.fields}

    @cached_property
    def paths(self) -> dict[str, Field]:
        """Fields by dotted payload path: `{"measurements.temperature": Field(...)}`."""
        return {".".join(field.path): field for field in self.fields}

    @cached_property
    def personal_fields(self) -> tuple[Field, ...]:
        """Columns that hold personal data, each with a pseudonym column beside it."""
        return tuple(field for field in self.columns if field.is_personal)

    def of_major(self, major: int | None) -> Contract:
        """The contract of a major version that rows may follow; this one for None.

        Raises:
            KeyError: If there is no such major, or it is retired; the message lists those there are.
        """
        for contract in self.majors:
            if major in (None, contract.major):
                return contract
        raise KeyError(f"stream {self.stream} takes no rows of major version {major}; it takes {', '.join(str(each.major) for each in self.majors)}")

    def written_by(self, content: Mapping[str, Any]) -> Contract:
        """The major that a stored row follows: the one it names, else the newest that has all columns in which the row has values."""
        named = named_major(content.get(self.schema_version_field)) if self.schema_version_field else None
        filled = {name for name, value in content.items() if value is not None and name in self.column_by_name}
        fitting = [contract for contract in (self, *self.older) if filled <= contract.by_name.keys()]
        return next((contract for contract in fitting if contract.major == named), fitting[0] if fitting else self)

    def field(self, name: str) -> Field:
        """Field of a column name.

        Raises:
            KeyError: If the contract has no such field; the message lists those it has.
        """
        try:
            return self.by_name[name]
        except KeyError:
            raise KeyError(f"stream {self.stream} has no field {name!r}; it has {', '.join(self.by_name)}") from None
