"""What a mapping file says, as plain data, read strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from include.contracts import load_contract
from include.contracts.csv_dialect import RFC_4180, CsvDialect, parse_csv_dialect
from include.contracts.errors import MappingError
from include.contracts.model import EVENT_AT, Contract, LogicalType
from include.contracts.parse import UNITS_OF_TIME
from include.contracts.yaml_text import read_yaml

TENANT = "tenant_id"


class Ambiguous(StrEnum):
    """Which instant a local time means that a clock change doubled. A local time that a clock change skipped never means any."""

    REFUSE = "refuse"
    EARLIER = "earlier"
    LATER = "later"


class Unknown(StrEnum):
    """What becomes of a code that the table does not list."""

    ERROR = "error"
    PASS = "pass"  # noqa: S105 - a word of the mapping language
    NULL = "null"


@dataclass(frozen=True)
class SourceColumn:
    """A column of the foreign file.

    Attributes:
        column: Its name.
        extract: Regular expression with one group that is taken out of the text; None takes the text as it is.
        null_tokens: Words that mean "no value" in this column, besides blank and the mapping's own tokens.
    """

    column: str
    extract: str | None = None
    null_tokens: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parse:
    """How a text becomes a value of the target's type.

    Attributes:
        formats: Formats of a time or date (strftime), tried in order; empty for other types.
        time_zone: Zone of times that name none; None where every format has %z.
        ambiguous: Which instant a doubled local time means; where it means one, the local time is kept in `_extra` as `<column>_ambiguous`.
        money: Currency sign that is taken off (`$`); None for plain numbers.
        thousands: Sign between groups of three digits; None where there is none.
        factor: The number is multiplied by it,
        offset: and then this is added: unit conversion.
        words: Texts of a boolean, with their meaning.
        years_before: The text is an age in years of 365.25 days at this moment (UTC), and the time lies so long before it; None for times as such.
        days_after: The text is a number of days since this moment (UTC), such as cycles that are counted as days; None for times as such.
        codes: Code table; None where the text is taken as it is.
        unknown: What becomes of a text that `codes` does not list.
    """

    formats: tuple[str, ...] = ()
    time_zone: str | None = None
    ambiguous: Ambiguous = Ambiguous.REFUSE
    money: str | None = None
    thousands: str | None = None
    factor: float = 1.0
    offset: float = 0.0
    words: tuple[tuple[str, bool], ...] = ()
    years_before: datetime | None = None
    days_after: datetime | None = None
    codes: tuple[tuple[str, str], ...] | None = None
    unknown: Unknown = Unknown.ERROR


@dataclass(frozen=True)
class Target:
    """One column of the stream, or one key of `_extra`, and where its value comes from: exactly one of the three.

    Attributes:
        name: Column of the contract, `tenant_id`, or the key in `_extra`.
        logical_type: Type of the value.
        constant: The same value on every row.
        parts: Texts and source columns that are joined; one source column alone is a rename.
        hashed: Whether the joined parts are replaced by a hash (32 hexadecimal digits); texts then stand before it.
        parse: How the text becomes a value.
    """

    name: str
    logical_type: LogicalType
    constant: str | float | bool | datetime | None
    parts: tuple[str | SourceColumn, ...]
    hashed: bool
    parse: Parse

    @property
    def columns(self) -> tuple[str, ...]:
        """Source columns that it reads."""
        return tuple(part.column for part in self.parts if isinstance(part, SourceColumn))


@dataclass(frozen=True)
class Mapping:
    """How a foreign file becomes rows of a stream.

    Attributes:
        name: Name, as the zone address and `tidemark import --mapping` give it.
        stream: The stream.
        version: Semantic version of the mapping.
        description: What the file is and which assumptions the mapping makes.
        null_tokens: Words that mean "no value" in every column, besides blank.
        known_after: Delay between event time and the time the house could have known it; None: known at publication, or else at arrival.
        published: Times of which the newest in the whole file says when the file was published; None: a file is as new as its arrival.
        targets: Columns of the contract, in contract order, with `tenant_id` first where it is mapped.
        extra: Keys of `_extra` that are renamed or coded rather than passed on.
        ignore: Source columns that are dropped; the zone keeps them.
        csv: How its CSV files are written.
        major: Major version of the contract that it was written for; None: the newest.
    """

    name: str
    stream: str
    version: str
    description: str
    null_tokens: tuple[str, ...]
    known_after: timedelta | None
    published: Target | None
    targets: tuple[Target, ...]
    extra: tuple[Target, ...]
    ignore: tuple[str, ...]
    csv: CsvDialect = RFC_4180
    major: int | None = None

    @property
    def contract(self) -> Contract:
        """The contract that its rows follow."""
        return load_contract(self.stream).of_major(self.major)

    @property
    def source_columns(self) -> tuple[str, ...]:
        """Columns that the file must have, in order of first use."""
        return tuple(dict.fromkeys(column for target in (*self.targets, *self.extra, *filter(None, (self.published,))) for column in target.columns))


MAPPING_KEYS = {"name", "stream", "major", "version", "description", "null_tokens", "known_after", "published", "columns", "extra", "ignore", "csv"}
SOURCE_KEYS = {"column", "extract", "null_tokens"}
SHAPES = ("column", "constant", "concat", "hash")
PARSE_KEYS = {
    LogicalType.STRING: {"codes", "unknown"},
    LogicalType.NUMBER: {"money", "thousands", "factor", "offset"},
    LogicalType.INTEGER: {"thousands", "factor", "offset"},
    LogicalType.BOOLEAN: {"words"},
    LogicalType.TIMESTAMP: {"formats", "time_zone", "ambiguous", "years_before", "days_after"},
    LogicalType.DATE: {"formats"},
}


def parse_mapping(path: Path) -> Mapping:
    """Read one mapping file.

    Raises:
        MappingError: If the file is no mapping onto its contract; the message names file, column and what to do.
    """
    return parse_mapping_text(path.read_text(encoding="utf-8"), path.name)


def parse_mapping_text(text: str, file: str) -> Mapping:
    """Read a mapping from its text; `file` is the name that errors show, and its stem must be the mapping's name."""
    return _Reader(file).mapping(read_yaml(text, file, MappingError))


class _Reader:
    """One reading of one mapping file."""

    def __init__(self, file: str) -> None:
        self.file = file

    def error(self, place: str, problem: str, remedy: str) -> MappingError:
        return MappingError(self.file, place, problem, remedy)

    def mapping(self, document: dict[str, Any]) -> Mapping:
        self.check_keys("mapping", document, MAPPING_KEYS)
        for key in ("name", "stream", "version", "description"):
            if not isinstance(document.get(key), str) or not document[key].strip():
                raise self.error(key, "is missing or no text", "add it (quote the version)")
        if f"{document['name']}.yaml" != self.file:
            raise self.error("name", f"is {document['name']!r}", "name the file <name>.yaml after it")
        if not re.fullmatch(r"\d+\.\d+\.\d+", document["version"]):
            raise self.error("version", f"{document['version']!r} is not MAJOR.MINOR.PATCH", "write it as 1.0.0")
        major = document.get("major")
        contract = self.contract(document["stream"], major)
        columns, extra = self.section("columns", document), self.section("extra", document)
        targets = {name: self.target(f"columns.{name}", name, self.logical_type(name, contract), entry, contract) for name, entry in columns.items()}
        for field in contract.fields:
            if (field.required or field.key) and field.name not in targets:
                raise self.error(
                    f"columns.{field.name}", f"is required by stream {contract.stream}, but not mapped", "map a column, a constant or a computed value"
                )
        order = [TENANT, *contract.by_name]
        mapping = Mapping(
            name=document["name"],
            stream=contract.stream,
            version=document["version"],
            description=document["description"].strip(),
            null_tokens=self.texts("null_tokens", document.get("null_tokens", [])),
            known_after=self.known_after(document.get("known_after")),
            published=self.published(document),
            targets=tuple(sorted(targets.values(), key=lambda target: order.index(target.name))),
            extra=tuple(self.target(f"extra.{name}", name, LogicalType.STRING, entry, None) for name, entry in extra.items()),
            ignore=self.texts("ignore", document.get("ignore", [])),
            csv=parse_csv_dialect(document["csv"], "csv", self.error) if "csv" in document else RFC_4180,
            major=major,
        )
        used_and_ignored = sorted(set(mapping.source_columns) & set(mapping.ignore))
        if used_and_ignored:
            raise self.error("ignore", f"column {', '.join(used_and_ignored)} is also mapped", "keep it in one of them")
        return mapping

    def contract(self, stream: str, major: object) -> Contract:
        if major is not None and (isinstance(major, bool) or not isinstance(major, int)):
            raise self.error("major", f"{major!r} is no major version", "write a whole number, such as 1; leave it out for the newest")
        try:
            return load_contract(stream).of_major(major)
        except KeyError as error:
            raise self.error("major", str(error.args[0]), "name one of them, or leave it out for the newest") from None

    def section(self, name: str, document: dict[str, Any]) -> dict[str, Any]:
        section = document.get(name) or {}
        if not isinstance(section, dict) or not all(isinstance(key, str) and isinstance(entry, dict) for key, entry in section.items()):
            raise self.error(name, "is not a list of names with what they come from", "write name: {column: …}")
        return section

    def logical_type(self, name: str, contract: Contract) -> LogicalType:
        if name == TENANT:
            return LogicalType.STRING
        if name not in contract.by_name:
            raise self.error(f"columns.{name}", f"is no column of stream {contract.stream}", f"use one of {', '.join(contract.by_name)}, or put it under extra")
        return contract.field(name).logical_type

    def target(self, place: str, name: str, logical_type: LogicalType, entry: dict[str, Any], contract: Contract | None) -> Target:
        shapes = [shape for shape in SHAPES if shape in entry]
        if len(shapes) != 1:
            raise self.error(place, f"has {' and '.join(shapes) or 'no source'}", f"give exactly one of {', '.join(SHAPES)}")
        shape = shapes[0]
        if shape == "constant":
            self.check_keys(place, entry, {"constant"})
            return Target(name, logical_type, self.constant(place, logical_type, entry["constant"], name, contract), (), False, Parse())
        own = (SOURCE_KEYS if shape == "column" else {shape}) | PARSE_KEYS[logical_type]
        self.check_keys(place, entry, own)
        parts = (self.source(place, {key: entry[key] for key in SOURCE_KEYS & set(entry)}),) if shape == "column" else self.parts(place, entry[shape])
        parse = self.parse(place, logical_type, entry)
        if parse.codes is not None and contract is not None and name in contract.by_name:
            for _, value in parse.codes:
                self.check_enum(place, value, name, contract)
        return Target(name, logical_type, None, parts, shape == "hash", parse)

    def constant(self, place: str, logical_type: LogicalType, value: object, name: str, contract: Contract | None) -> str | float | bool | datetime:
        if logical_type is LogicalType.TIMESTAMP:
            return self.instant(f"{place}.constant", value)
        fitting: dict[LogicalType, tuple[type, ...]] = {
            LogicalType.STRING: (str,), LogicalType.NUMBER: (int, float), LogicalType.INTEGER: (int,), LogicalType.BOOLEAN: (bool,),
        }  # fmt: skip
        kinds = fitting.get(logical_type, ())
        if not isinstance(value, kinds) or (isinstance(value, bool) and logical_type is not LogicalType.BOOLEAN):
            raise self.error(place, f"constant {value!r} is no {logical_type}", "write a constant of the column's type (dates cannot be constant)")
        if contract is not None and isinstance(value, str):
            self.check_enum(place, value, name, contract)
        assert isinstance(value, str | int | float | bool)  # what `fitting` allows; for the type checker
        return value

    def instant(self, place: str, value: object) -> datetime:
        """A moment in UTC. YAML reads a bare one as a time without zone, so it has to be quoted."""
        try:
            moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise self.error(place, f"{value!r} is no timestamp with Z or an offset", "write it quoted, such as '2015-01-01T00:00:00Z'")
        return moment.astimezone(UTC)

    def parts(self, place: str, entry: object) -> tuple[str | SourceColumn, ...]:
        if not isinstance(entry, list) or not any(isinstance(part, dict) for part in entry):
            raise self.error(place, "joins no column", "list texts and {column: …}, at least one column")
        parts: list[str | SourceColumn] = []
        for part in entry:
            if isinstance(part, dict):
                self.check_keys(place, part, SOURCE_KEYS)
                parts.append(self.source(place, part))
            elif isinstance(part, str):
                parts.append(part)
            else:
                raise self.error(place, f"part {part!r} is no text", "quote it")
        return tuple(parts)

    def source(self, place: str, entry: dict[str, Any]) -> SourceColumn:
        column, extract = entry.get("column"), entry.get("extract")
        if not isinstance(column, str) or not column:
            raise self.error(place, f"column {column!r} is no name", "give the source column as the file's header has it")
        if extract is not None:
            try:
                groups = re.compile(extract).groups
            except (re.error, TypeError) as failure:
                raise self.error(place, f"extract {extract!r} is no regular expression ({failure})", "correct it") from failure
            if groups != 1:
                raise self.error(place, f"extract {extract!r} has {groups} groups", "put parentheses around the one part to take")
        return SourceColumn(column, extract, self.texts(f"{place}.null_tokens", entry.get("null_tokens", [])))

    def parse(self, place: str, logical_type: LogicalType, entry: dict[str, Any]) -> Parse:
        if logical_type in (LogicalType.TIMESTAMP, LogicalType.DATE):
            for key, kind in (("years_before", "an age"), ("days_after", "a number of days")):
                if key not in entry:
                    continue
                if other := sorted({"formats", "time_zone", "ambiguous", "years_before", "days_after"} & set(entry) - {key}):
                    raise self.error(place, f"is {kind} and has {', '.join(other)}", f"keep {key}, or the format of a time")
                moment = self.instant(f"{place}.{key}", entry[key])
                return Parse(years_before=moment) if key == "years_before" else Parse(days_after=moment)
            formats, zone = self.texts(f"{place}.formats", entry.get("formats", [])), entry.get("time_zone")
            if not formats:
                raise self.error(place, "has no formats", "add formats: ['%Y-%m-%d %H:%M:%S']")
            zoned = ["%z" in each for each in formats]
            if logical_type is LogicalType.TIMESTAMP and (any(zoned) if zone is not None else not all(zoned)):
                raise self.error(place, "has times without zone, or a zone twice", "give time_zone where the formats have no %z, and not where they have")
            if zone is not None:
                self.check_zone(place, zone)
            ambiguous = entry.get("ambiguous", Ambiguous.REFUSE)
            if ambiguous not in tuple(Ambiguous) or (zone is None and "ambiguous" in entry):
                raise self.error(place, f"ambiguous is {ambiguous!r}", f"use one of {', '.join(Ambiguous)}, with a time_zone whose clocks change")
            return Parse(formats=formats, time_zone=zone, ambiguous=Ambiguous(ambiguous))
        if logical_type is LogicalType.BOOLEAN:
            words = entry.get("words")
            if not isinstance(words, dict) or not words or not all(isinstance(word, str) and isinstance(value, bool) for word, value in words.items()):
                raise self.error(place, "has no words", "add words: {'TRUE': true, 'FALSE': false}, with quoted words")
            return Parse(words=tuple(words.items()))
        if logical_type is LogicalType.STRING:
            return self.parse_text(place, entry)
        factor, offset = entry.get("factor", 1), entry.get("offset", 0)
        if any(isinstance(number, bool) or not isinstance(number, int | float) for number in (factor, offset)) or factor == 0:
            raise self.error(place, f"factor {factor!r} or offset {offset!r} is no conversion", "give numbers, and no factor 0")
        money, thousands = entry.get("money"), entry.get("thousands")
        if not all(sign is None or (isinstance(sign, str) and sign and not re.search(r"[\d.+-]", sign)) for sign in (money, thousands)):
            raise self.error(place, f"money {money!r} or thousands {thousands!r} is no sign", "give the sign as quoted text, such as '$' and ','")
        return Parse(money=money, thousands=thousands, factor=float(factor), offset=float(offset))

    def parse_text(self, place: str, entry: dict[str, Any]) -> Parse:
        codes, unknown = entry.get("codes"), entry.get("unknown")
        if codes is None:
            if unknown is not None:
                raise self.error(place, "says what becomes of unknown codes, but has no codes", "remove unknown, or add codes")
            return Parse()
        if not isinstance(codes, dict) or not codes or not all(isinstance(key, str) and isinstance(value, str) for key, value in codes.items()):
            raise self.error(place, "codes are not texts", "quote codes and values (YAML reads a bare 0, No or off as something else)")
        if unknown not in (None, *Unknown):
            raise self.error(place, f"unknown is {unknown!r}", f"use one of {', '.join(Unknown)}, quoted")
        return Parse(codes=tuple(codes.items()), unknown=Unknown(unknown or Unknown.ERROR))

    def known_after(self, entry: object) -> timedelta | None:
        if entry in ("arrival", "publication"):
            return None
        if isinstance(entry, dict) and set(entry) == {"value", "unit"}:
            value, unit = entry["value"], entry["unit"]
            if isinstance(value, int) and value >= 0 and unit in UNITS_OF_TIME:
                return value * UNITS_OF_TIME[unit]
        raise self.error("known_after", f"is {entry!r}", "write arrival, publication, or {value: 1, unit: d}: how long after the event it could be known")

    def published(self, document: dict[str, Any]) -> Target | None:
        entry = document.get("published")
        if (entry is not None) != (document.get("known_after") == "publication"):
            remedy = "give both or neither: rows of a publication are known since it, and it is as new as the newest of these times"
            raise self.error("published", "and known_after: publication do not stand together", remedy)
        if entry is None:
            return None
        if not isinstance(entry, dict) or "column" not in entry:
            raise self.error("published", f"is {entry!r}", "write {column: …, formats: […], time_zone: …}")
        return self.target("published", "published", LogicalType.TIMESTAMP, entry, None)

    def texts(self, place: str, entry: object) -> tuple[str, ...]:
        if not isinstance(entry, list) or not all(isinstance(each, str) for each in entry):
            raise self.error(place, "is no list of texts", "write ['…', '…'], each quoted")
        return tuple(entry)

    def check_keys(self, place: str, given: dict[str, Any], known: set[str]) -> None:
        unknown = [str(key) for key in given if key not in known]
        if unknown:
            raise self.error(place, f"unknown key {', '.join(unknown)}", f"use one of {', '.join(sorted(known))}")

    def check_enum(self, place: str, value: str, name: str, contract: Contract) -> None:
        enum = contract.by_name[name].enum if name in contract.by_name and name != EVENT_AT else None
        if enum is not None and value not in enum:
            raise self.error(place, f"{value!r} is not allowed by the contract", f"use one of {', '.join(enum)}")

    def check_zone(self, place: str, zone: object) -> None:
        try:
            ZoneInfo(str(zone))
        except (ZoneInfoNotFoundError, ValueError, TypeError) as failure:
            raise self.error(place, f"time_zone {zone!r} is not known", "use an IANA name such as UTC or Europe/Berlin") from failure
