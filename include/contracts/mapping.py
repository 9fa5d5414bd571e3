"""Foreign files as streams: loads a mapping and applies it to a frame of texts.

A mapping is a YAML file in `mappings/` beside this module; docs/runbooks/add-a-stream.md describes it by example. `apply_mapping` is a pure function of the
mapping and the rows: it knows nothing of files, tenants or arrival.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Literal

import polars as pl

from include.contracts.errors import ColumnsMissing, MappingError
from include.contracts.mapping_definition import TENANT, Ambiguous, Mapping, Parse, SourceColumn, Target, Unknown, parse_mapping
from include.contracts.model import LogicalType

__all__ = ["POLARS_TYPES", "Mapped", "Mapping", "MappingFault", "apply_mapping", "load_mapping", "mappings", "newest_time"]

MAPPINGS_FOLDER = Path(__file__).parent / "mappings"
POLARS_TYPES: dict[LogicalType, pl.DataType] = {
    LogicalType.STRING: pl.String(),
    LogicalType.INTEGER: pl.Int64(),
    LogicalType.NUMBER: pl.Float64(),
    LogicalType.BOOLEAN: pl.Boolean(),
    LogicalType.TIMESTAMP: pl.Datetime("us", "UTC"),
    LogicalType.DATE: pl.Date(),
}
UNPARSABLE = "unparsable"
NUL_CHARACTER = "nul_character"
SIGNIFICANT_DIGITS = 15  # of a converted number: 2.01 bar are 2010 hPa and not 2009.9999999999998
MICROSECONDS_A_DAY = int(timedelta(days=1) / timedelta(microseconds=1))
MICROSECONDS_A_YEAR = int(timedelta(days=365.25) / timedelta(microseconds=1))
_AMBIGUOUS: dict[Ambiguous, Literal["null", "earliest", "latest"]] = {Ambiguous.REFUSE: "null", Ambiguous.EARLIER: "earliest", Ambiguous.LATER: "latest"}
_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"


@dataclass(frozen=True)
class MappingFault:
    """One value that the mapping could not turn into the stream's value.

    Attributes:
        row: Position of the row in the frame, from 0.
        code: `unparsable`, or `nul_character` for a text bound for `_extra` that cannot be stored.
        field: Column of the contract, or key of `_extra`.
        value: The source text.
        message: What was expected, with the source column.
    """

    row: int
    code: str
    field: str
    value: str
    message: str


@dataclass(frozen=True)
class Mapped:
    """Rows of the stream.

    Attributes:
        frame: Shape (rows, columns): every field of the contract by column name, in contract order, typed as `POLARS_TYPES` says, NULL where there is no
            value or a fault; with `tenant_id` (text) first if the mapping maps it. Same rows, same order as the input. Ranges, lengths, allowed values
            and missing required fields are not checked here: that is the validator's work, the same for every source.
        errors: What could not be turned; ordered by row. A row's value with a fault is NULL in `frame`, so it is not missing as well.
        extra: Shape (rows,), JSON object text with sorted keys of what the contract does not know; NULL where a row has none.
        known_after: Delay between event time and knowledge; None: the row was known when its file was published, or else arrived.
    """

    frame: pl.DataFrame
    errors: list[MappingFault]
    extra: pl.Series
    known_after: timedelta | None


@cache
def mappings() -> tuple[str, ...]:
    """Names of all mappings, in alphabetical order."""
    return tuple(sorted(path.stem for path in MAPPINGS_FOLDER.glob("*.yaml")))


@cache
def load_mapping(name: str) -> Mapping:
    """Mapping of a name; read once a process.

    Raises:
        MappingError: If there is none of that name, or its file breaks a rule.
    """
    if name not in mappings():
        raise MappingError(f"{name}.yaml", "mapping", "does not exist", f"use one of {', '.join(mappings())}")
    return parse_mapping(MAPPINGS_FOLDER / f"{name}.yaml")


def apply_mapping(mapping: Mapping, frame: pl.DataFrame) -> Mapped:
    """Turn rows of a foreign file into rows of the mapping's stream.

    Args:
        mapping: The mapping.
        frame: Shape (rows, source columns), as texts; other types are turned into text first. White space around a text does not count, and a blank is NULL.

    Returns:
        Rows in the same order; see `Mapped`.

    Raises:
        MappingError: If the file lacks a column that the mapping reads: it is another file than the mapping was written for.
    """
    _check_columns(mapping, frame)
    texts = frame.with_columns(_cleaned(pl.col(column), mapping.null_tokens) for column in frame.columns)
    faults: list[MappingFault] = []
    values = {target.name: _value(target, texts, faults) for target in mapping.targets}
    contract = mapping.contract
    columns = [values[TENANT]] if TENANT in values else []
    columns += [
        values[field.name] if field.name in values else pl.Series(field.name, [None], dtype=POLARS_TYPES[field.logical_type]).new_from_index(0, texts.height)
        for field in contract.fields
    ]
    extra = _extra(mapping, texts, faults)
    return Mapped(pl.DataFrame(columns), sorted(faults, key=lambda fault: fault.row), extra, mapping.known_after)


def newest_time(mapping: Mapping, frame: pl.DataFrame, before: datetime) -> datetime | None:
    """The newest of the times by which the mapping dates a publication.

    Args:
        mapping: A mapping that says `published`.
        frame: Rows of the file, as `apply_mapping` takes them.
        before: Later times are those of broken clocks and do not count, UTC.

    Returns:
        A time in UTC; None where no row has one.
    """
    target = mapping.published
    if target is None:
        raise ValueError(f"mapping {mapping.name} does not say when its files were published")
    _check_columns(mapping, frame)
    texts = frame.select(_cleaned(pl.col(column), mapping.null_tokens) for column in target.columns)
    times = _value(target, texts, [])
    found = times.filter(times <= before).max()
    return found if isinstance(found, datetime) else None


def _check_columns(mapping: Mapping, frame: pl.DataFrame) -> None:
    missing = [column for column in mapping.source_columns if column not in frame.columns]
    if missing:
        used = {*mapping.source_columns, *mapping.ignore}
        unknown, found = [column for column in frame.columns if column not in used], ", ".join(frame.columns)
        if mapping.contract.personal_fields:
            # Of a file without a header the first row stands here, and what is said of it where everyone reads it.
            unknown = unknown if len(unknown) < frame.width else []
            found = f"{frame.width} columns, not named here because {mapping.stream} holds personal data"
        raise ColumnsMissing(mapping.name, missing, unknown, found)


def _cleaned(column: pl.Expr, null_tokens: tuple[str, ...]) -> pl.Expr:
    text = column.cast(pl.String).str.strip_chars()
    return pl.when(text.is_in(["", *null_tokens])).then(None).otherwise(text).name.keep()


def _value(target: Target, texts: pl.DataFrame, faults: list[MappingFault]) -> pl.Series:
    """Typed values of one target; what could not be turned is NULL and added to `faults`."""
    dtype = POLARS_TYPES[target.logical_type]
    if target.constant is not None:
        return pl.Series(target.name, [target.constant], dtype=dtype).new_from_index(0, texts.height)
    parts = _pieces(target, texts)
    source = ", ".join(target.columns)
    for part, definition in zip(parts, target.parts, strict=True):
        if isinstance(part, pl.Series) and isinstance(definition, SourceColumn) and definition.extract is not None:
            lost = texts[definition.column].is_not_null() & part.is_null() & ~texts[definition.column].is_in(list(definition.null_tokens))
            _record(faults, target.name, texts[definition.column], lost, f"{definition.column} does not match {definition.extract}")
    text = _hashed(parts) if target.hashed else _joined(parts)
    series, expected = _parsed(text, target)
    _record(faults, target.name, text, text.is_not_null() & series.is_null() & ~_set_to_null(text, target.parse), f"{source} must be {expected}")
    return series.cast(dtype).alias(target.name)


def _pieces(target: Target, texts: pl.DataFrame) -> list[str | pl.Series]:
    return [_part(part, texts) if isinstance(part, SourceColumn) else part for part in target.parts]


def _part(part: SourceColumn, texts: pl.DataFrame) -> pl.Series:
    text = texts[part.column]
    if part.null_tokens:
        text = texts.select(pl.when(pl.col(part.column).is_in(list(part.null_tokens))).then(None).otherwise(pl.col(part.column)).alias(part.column)).to_series()
    return text if part.extract is None else text.str.extract(part.extract, 1)


def _joined(parts: list[str | pl.Series]) -> pl.Series:
    """Texts joined by row; NULL where a source column is NULL."""
    frame = pl.DataFrame([part.alias(str(number)) for number, part in enumerate(parts) if isinstance(part, pl.Series)])
    pieces = [pl.col(str(number)) if isinstance(part, pl.Series) else pl.lit(part) for number, part in enumerate(parts)]
    return frame.select(pl.concat_str(pieces, ignore_nulls=False).alias("text")).to_series()


def _hashed(parts: list[str | pl.Series]) -> pl.Series:
    """Leading texts, then 32 hexadecimal digits of SHA-256 over the length-prefixed values; NULL where one of them is NULL."""
    prefix = "".join(part for part in parts if isinstance(part, str))
    rows = zip(*(part.to_list() for part in parts if isinstance(part, pl.Series)), strict=True)
    digests = [None if None in row else prefix + hashlib.sha256("".join(f"{len(value)}:{value}" for value in row).encode()).hexdigest()[:32] for row in rows]
    return pl.Series("text", digests, dtype=pl.String)


def _parsed(text: pl.Series, target: Target) -> tuple[pl.Series, str]:
    """Values with the words for what was expected; NULL where the text is something else."""
    parse = target.parse
    match target.logical_type:
        case LogicalType.TIMESTAMP if parse.years_before is not None:
            return _years_before(text, parse.years_before), "an age in years, from 0 to 1000"
        case LogicalType.TIMESTAMP if parse.days_after is not None:
            return _days_after(text, parse.days_after), "a number of days, from 0 to 1000000"
        case LogicalType.TIMESTAMP:
            return _times(text, parse), f"a time of format {' or '.join(parse.formats)}"
        case LogicalType.DATE:
            return _first([text.str.to_date(each, strict=False) for each in parse.formats]), f"a date of format {' or '.join(parse.formats)}"
        case LogicalType.NUMBER:
            return _numbers(text, parse), f"an amount of {parse.money}" if parse.money else "a number"
        case LogicalType.INTEGER:
            return _integers(text, parse), "a whole number"
        case LogicalType.BOOLEAN:
            words = dict(parse.words)
            return text.replace_strict(list(words), list(words.values()), default=None, return_dtype=pl.Boolean), f"one of {', '.join(words)}"
        case _:
            return _coded(text, parse), f"one of {', '.join(code for code, _ in parse.codes or ())}"


def _times(text: pl.Series, parse: Parse) -> pl.Series:
    """Instants in UTC. A local time that the clock change skipped names no instant and is NULL; so is a doubled one, unless the mapping says which it means."""
    read = []
    for each in parse.formats:
        if "%z" in each:
            read.append(text.str.to_datetime(each, time_unit="us", time_zone="UTC", strict=False))
            continue
        has_time = re.search(r"%[HIkTRXcs]", each) is not None
        local = text.str.to_datetime(each, time_unit="us", strict=False) if has_time else text.str.to_date(each, strict=False).cast(pl.Datetime("us"))
        assert parse.time_zone is not None  # the reader of the mapping sees to it
        read.append(local.dt.replace_time_zone(parse.time_zone, ambiguous=_AMBIGUOUS[parse.ambiguous], non_existent="null").dt.convert_time_zone("UTC"))
    return _first(read)


def _years_before(text: pl.Series, moment: datetime) -> pl.Series:
    """The moment less an age in years."""
    age = _numbers(text, Parse())
    lasted = pl.select(pl.when(age.is_between(0, 1000)).then((age * MICROSECONDS_A_YEAR).round().cast(pl.Int64)).otherwise(None)).to_series()
    return pl.select(pl.lit(moment, dtype=pl.Datetime("us", "UTC")) - lasted.cast(pl.Duration("us"))).to_series()


def _days_after(text: pl.Series, moment: datetime) -> pl.Series:
    """The moment and so many days."""
    days = _numbers(text, Parse())
    passed = pl.select(pl.when(days.is_between(0, 1_000_000)).then((days * MICROSECONDS_A_DAY).round().cast(pl.Int64)).otherwise(None)).to_series()
    return pl.select(pl.lit(moment, dtype=pl.Datetime("us", "UTC")) + passed.cast(pl.Duration("us"))).to_series()


def _ambiguous(text: pl.Series, parse: Parse) -> pl.Series:
    """The texts of local times that a clock change doubled and that the mapping takes as one of the two; NULL elsewhere."""
    earlier, later = (_times(text, replace(parse, ambiguous=each)) for each in (Ambiguous.EARLIER, Ambiguous.LATER))
    return pl.select(pl.when(earlier != later).then(text)).to_series()


def _numbers(text: pl.Series, parse: Parse) -> pl.Series:
    digits = rf"(?:\d{{1,3}}(?:{re.escape(parse.thousands)}\d{{3}})+(?:\.\d*)?|{_NUMBER})" if parse.thousands else _NUMBER
    sign = rf"(?:{re.escape(parse.money)}\s*)?" if parse.money else ""
    # The sign of currency may stand before or after the number, as in -$5.00 and 5.00 $.
    found = text.str.extract_groups(rf"^(?P<minus>[+-]?){sign}(?P<number>{digits})\s*{sign}$") if len(text) else None
    if found is None:
        return pl.Series(text.name, [], dtype=pl.Float64)
    fields = found.struct.unnest()
    plain = fields["minus"] + (fields["number"].str.replace_all(parse.thousands, "", literal=True) if parse.thousands else fields["number"])
    value = plain.cast(pl.Float64, strict=False)
    if parse.factor != 1 or parse.offset != 0:
        value = (value * parse.factor + parse.offset).round_sig_figs(SIGNIFICANT_DIGITS)
    return pl.select(pl.when(value.is_finite()).then(value).otherwise(None)).to_series()


def _integers(text: pl.Series, parse: Parse) -> pl.Series:
    value = _numbers(text, parse)
    whole = pl.select(pl.when((value == value.floor()) & (value.abs() < 2**53)).then(value).otherwise(None)).to_series().cast(pl.Int64, strict=False)
    if parse.factor == 1 and parse.offset == 0 and parse.thousands is None:
        return _first([pl.select(pl.when(text.str.contains(r"^[+-]?\d+$")).then(text).otherwise(None)).to_series().cast(pl.Int64, strict=False), whole])
    return whole


def _coded(text: pl.Series, parse: Parse) -> pl.Series:
    if parse.codes is None:
        return text
    codes = dict(parse.codes)
    if parse.unknown is Unknown.PASS:
        return text.replace(list(codes), list(codes.values()))
    return text.replace_strict(list(codes), list(codes.values()), default=None, return_dtype=pl.String)


def _set_to_null(text: pl.Series, parse: Parse) -> pl.Series:
    """Where NULL is what the mapping asks for: unknown codes of a table that says so."""
    return pl.Series([parse.codes is not None and parse.unknown is Unknown.NULL], dtype=pl.Boolean).new_from_index(0, len(text))


def _first(candidates: list[pl.Series]) -> pl.Series:
    return pl.select(pl.coalesce(candidates)).to_series()


def _record(faults: list[MappingFault], field: str, text: pl.Series, where: pl.Series, message: str) -> None:
    rows = where.fill_null(False).arg_true()
    faults.extend(MappingFault(row, UNPARSABLE, field, value, message) for row, value in zip(rows.to_list(), text.gather(rows).to_list(), strict=True))


def _extra(mapping: Mapping, texts: pl.DataFrame, faults: list[MappingFault]) -> pl.Series:
    """JSON text by row of renamed or coded extras and of source columns that nothing reads; keys sorted, NULL values left out."""
    used = {*mapping.source_columns, *mapping.ignore}
    values = {column: texts[column] for column in texts.columns if column not in used}
    values |= {target.name: _value(target, texts, faults) for target in mapping.extra}
    for target in mapping.targets:
        if target.parse.ambiguous is not Ambiguous.REFUSE:  # a choice between two instants is never silent
            values[f"{target.name}_ambiguous"] = _ambiguous(_joined(_pieces(target, texts)), target.parse)
    if not values:
        return pl.Series("_extra", [None], dtype=pl.String).new_from_index(0, texts.height)
    for key, series in values.items():
        rows = series.str.contains("\x00", literal=True).fill_null(False).arg_true()
        message = "the character NUL cannot be stored"
        faults.extend(MappingFault(row, NUL_CHARACTER, key, value, message) for row, value in zip(rows, series.gather(rows), strict=True))
    joined = (
        pl.DataFrame([_json_pairs(key, series).alias(str(number)) for number, (key, series) in enumerate(sorted(values.items()))])
        .select(pl.concat_str(pl.all(), separator=",", ignore_nulls=True).alias("_extra"))
        .to_series()
    )
    return pl.select(pl.when(joined != "").then(pl.lit("{") + joined + "}")).to_series().alias("_extra")


def _json_pairs(key: str, series: pl.Series) -> pl.Series:
    """`"key":"value"` by row, NULL where the value is: polars would write the NULL fields of a struct, so each pair is encoded alone."""
    encoded = pl.struct(series.alias("v")).struct.json_encode().str.slice(len('{"v":')).str.head(-1)
    return pl.select(pl.when(series.is_not_null()).then(pl.lit(json.dumps(key, ensure_ascii=False) + ":") + encoded)).to_series()
