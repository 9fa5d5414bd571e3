"""From values as read to typed columns. What becomes of a value depends on the value alone, never on the other rows of its chunk.

Each way has a fast path for a whole column of plain values and a value-by-value path for the rest; both give the same result for the same value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from include.contracts.model import LogicalType
from include.landing.rows import FLAWED, Code, Column

MICROSECONDS = pl.Datetime("us")
DTYPES: dict[LogicalType, pl.DataType] = {
    LogicalType.STRING: pl.String(),
    LogicalType.INTEGER: pl.Int64(),
    LogicalType.NUMBER: pl.Float64(),
    LogicalType.BOOLEAN: pl.Boolean(),
    LogicalType.TIMESTAMP: MICROSECONDS,
    LogicalType.DATE: pl.Date(),
}
_EXPECTED = {
    LogicalType.STRING: "must be text",
    LogicalType.INTEGER: "must be a whole number",
    LogicalType.NUMBER: "must be a number",
    LogicalType.BOOLEAN: "must be true or false",
    LogicalType.TIMESTAMP: "must be an ISO 8601 time with Z or an offset",
    LogicalType.DATE: "must be an ISO 8601 date",
}
_PLAIN: dict[LogicalType, set[type]] = {
    LogicalType.STRING: {str},
    LogicalType.INTEGER: {int},
    LogicalType.NUMBER: {float},
    LogicalType.BOOLEAN: {bool},
    LogicalType.TIMESTAMP: {str},
    LogicalType.DATE: {str},
}
_INT64 = range(-(2**63), 2**63)
_COMMON_TIME = r"^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?Z$"
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?(Z|z|[+-][0-9]{2}(?::?[0-5][0-9])?)")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,9})?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,400}(\.0*)?")
_NON_FINITE = {"nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"}
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False, "t": True, "f": False}


@dataclass(frozen=True)
class TypedColumn:
    """A column after typing.

    Attributes:
        values: Typed series; null where missing or wrong.
        wrong: Rows whose value has no such type: (row, code, value, message).
        flawed: Rows whose value is present but unusable; includes those of `wrong`.
    """

    values: pl.Series
    wrong: list[tuple[int, Code, Any, str]]
    flawed: set[int]


def typed(values: Column, logical_type: LogicalType, *, is_text: bool) -> TypedColumn:
    """Types a column.

    Args:
        values: Python values as JSON gives them, text cells, or a series of a typed source. None is missing.
        logical_type: The contract's type.
        is_text: Values are text of a format without types, so that "1.5" is a number.
    """
    if isinstance(values, pl.Series):
        if values.dtype == pl.String and logical_type is LogicalType.TIMESTAMP and not is_text:
            return _times(values)
        if values.dtype == pl.String and (is_text or logical_type is LogicalType.DATE):
            return _typed_list(values.to_list(), logical_type, is_text=is_text)
        return _typed_series(values, logical_type)
    return _typed_list(values, logical_type, is_text=is_text)


def parse_time(text: str) -> datetime:
    """UTC time (naive, microseconds; further digits are cut off) of an ISO 8601 text with Z or an offset.

    Raises:
        ValueError: If it is not such a text, or not a time of the years 1 to 9999.
    """
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError(_EXPECTED[LogicalType.TIMESTAMP])
    day, minutes, seconds, fraction, offset = match.groups()
    micros = ((fraction or "") + "000000")[:6]
    try:
        moment = datetime.fromisoformat(f"{day}T{minutes}:{seconds or '00'}.{micros}{offset.upper()}")
        return moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"no such time: {error}") from None


def _typed_list(values: list[Any], logical_type: LogicalType, *, is_text: bool) -> TypedColumn:
    dtype = DTYPES[logical_type]
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return TypedColumn(pl.Series([None] * len(values), dtype=dtype), [], set())
    if kinds <= _PLAIN[logical_type] and (not is_text or logical_type is LogicalType.STRING):
        if logical_type is LogicalType.TIMESTAMP:
            return _times(pl.Series(values, dtype=pl.String))
        if logical_type not in {LogicalType.DATE, LogicalType.INTEGER}:
            return TypedColumn(pl.Series(values, dtype=dtype), [], set())
        if logical_type is LogicalType.INTEGER:
            try:
                return TypedColumn(pl.Series(values, dtype=dtype), [], set())
            except (OverflowError, TypeError, pl.exceptions.PolarsError):
                pass  # some number is beyond bigint: find it below
    if logical_type is LogicalType.NUMBER and kinds <= {int, float} and not is_text:
        try:
            return TypedColumn(pl.Series([None if value is None else float(value) for value in values], dtype=dtype), [], set())
        except OverflowError:
            pass  # a whole number beyond double precision: find it below
    clean = _TEXT_CLEANERS[logical_type] if is_text else _JSON_CLEANERS[logical_type]
    return _one_by_one(values, clean, dtype)


def _one_by_one(values: list[Any], clean: Callable[[Any], Any], dtype: pl.DataType) -> TypedColumn:
    out: list[Any] = []
    wrong: list[tuple[int, Code, Any, str]] = []
    flawed: set[int] = set()
    for row, value in enumerate(values):
        if value is FLAWED:
            flawed.add(row)
            value = None
        if value is None:
            out.append(None)
            continue
        try:
            out.append(clean(value))
        except _Wrong as error:
            out.append(None)
            flawed.add(row)
            wrong.append((row, error.code, value, error.message))
    return TypedColumn(pl.Series(out, dtype=dtype), wrong, flawed)


def _times(text: pl.Series) -> TypedColumn:
    common = text.str.contains(_COMMON_TIME)
    usual = text.zip_with(common.fill_null(value=False), pl.Series([None], dtype=pl.String))
    parsed = usual.str.strptime(MICROSECONDS, "%Y-%m-%dT%H:%M:%S%.fZ", strict=False)
    rest = (parsed.is_null() & text.is_not_null()).arg_true().to_list()
    if not rest:
        return TypedColumn(parsed, [], set())
    found: list[Any] = []
    wrong: list[tuple[int, Code, Any, str]] = []
    for row in rest:
        try:
            found.append(_json_time(text[row]))
        except _Wrong as error:
            found.append(None)
            wrong.append((row, error.code, text[row], error.message))
    parsed = parsed.scatter(rest, pl.Series(found, dtype=MICROSECONDS))
    return TypedColumn(parsed, wrong, {row for row, *_ in wrong})


class _Wrong(Exception):
    def __init__(self, code: Code, message: str) -> None:
        self.code, self.message = code, message


def _mismatch(logical_type: LogicalType, value: object) -> _Wrong:
    return _Wrong(Code.WRONG_TYPE, f"{_EXPECTED[logical_type]}, not {_KINDS.get(type(value), type(value).__name__)}")


_KINDS = {str: "text", int: "a number", float: "a number", bool: "true or false", dict: "an object", list: "a list"}


def _json_string(value: object) -> str:
    if not isinstance(value, str):
        raise _mismatch(LogicalType.STRING, value)
    return value


def _json_integer(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _mismatch(LogicalType.INTEGER, value)
    if value not in _INT64:
        raise _Wrong(Code.NUMBER_OUT_OF_RANGE, "must lie within 64 bits")
    return value


def _json_number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _mismatch(LogicalType.NUMBER, value)
    try:
        number = float(value)
    except OverflowError:
        raise _Wrong(Code.NUMBER_OUT_OF_RANGE, "must lie within double precision") from None
    if not math.isfinite(number):
        raise _Wrong(Code.NON_FINITE, "must be finite")
    return number


def _json_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _mismatch(LogicalType.BOOLEAN, value)
    return value


def _json_time(value: object) -> datetime:
    if not isinstance(value, str):
        raise _mismatch(LogicalType.TIMESTAMP, value)
    try:
        return parse_time(value)
    except ValueError as error:
        raise _Wrong(Code.BAD_TIMESTAMP, str(error)) from None


def _json_date(value: object) -> date:
    if not isinstance(value, str):
        raise _mismatch(LogicalType.DATE, value)
    try:
        if not _DATE.fullmatch(value):
            raise ValueError(_EXPECTED[LogicalType.DATE])
        return date.fromisoformat(value)
    except ValueError as error:
        raise _Wrong(Code.BAD_TIMESTAMP, str(error)) from None


def _text_integer(value: str) -> int:
    if _INTEGER.fullmatch(value):
        return _json_integer(int(value.partition(".")[0]))
    number = _text_number(value)
    if not number.is_integer():
        raise _Wrong(Code.WRONG_TYPE, _EXPECTED[LogicalType.INTEGER])
    return _json_integer(number)


def _text_number(value: str) -> float:
    if _NUMBER.fullmatch(value):
        number = float(value)
        if math.isfinite(number):
            return number
        raise _Wrong(Code.NUMBER_OUT_OF_RANGE, "must lie within double precision")
    if value.lower() in _NON_FINITE:
        raise _Wrong(Code.NON_FINITE, "must be finite")
    raise _Wrong(Code.WRONG_TYPE, _EXPECTED[LogicalType.NUMBER])


def _text_boolean(value: str) -> bool:
    found = _BOOLEANS.get(value.lower())
    if found is None:
        raise _Wrong(Code.WRONG_TYPE, _EXPECTED[LogicalType.BOOLEAN])
    return found


_JSON_CLEANERS: dict[LogicalType, Callable[[Any], Any]] = {
    LogicalType.STRING: _json_string,
    LogicalType.INTEGER: _json_integer,
    LogicalType.NUMBER: _json_number,
    LogicalType.BOOLEAN: _json_boolean,
    LogicalType.TIMESTAMP: _json_time,
    LogicalType.DATE: _json_date,
}
_TEXT_CLEANERS = _JSON_CLEANERS | {LogicalType.INTEGER: _text_integer, LogicalType.NUMBER: _text_number, LogicalType.BOOLEAN: _text_boolean}


def _typed_series(values: pl.Series, logical_type: LogicalType) -> TypedColumn:
    """Types a column whose source is typed. The source's type holds for the column, so a mismatch is a mismatch of every value."""
    dtype, source = DTYPES[logical_type], values.dtype
    if source == pl.Null:
        return TypedColumn(pl.Series([None] * len(values), dtype=dtype), [], set())
    if logical_type is LogicalType.STRING and isinstance(source, pl.Categorical | pl.Enum | pl.String):
        return TypedColumn(values.cast(pl.String), [], set())
    if logical_type is LogicalType.BOOLEAN and source == pl.Boolean:
        return TypedColumn(values, [], set())
    if logical_type is LogicalType.DATE and source == pl.Date:
        return TypedColumn(values, [], set())
    if logical_type is LogicalType.TIMESTAMP and isinstance(source, pl.Datetime) and source.time_zone is not None:
        utc = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return TypedColumn(utc.cast(MICROSECONDS), [], set())
    if logical_type is LogicalType.INTEGER and source.is_integer():
        return _cast_numbers(values, dtype)
    if logical_type in {LogicalType.INTEGER, LogicalType.NUMBER} and (source.is_numeric() or source.is_decimal()):
        if logical_type is LogicalType.INTEGER:
            return _one_by_one([float(value) if value is not None else None for value in values.to_list()], _finite_integer, dtype)
        return _cast_numbers(values, dtype)
    code = Code.BAD_TIMESTAMP if logical_type is LogicalType.TIMESTAMP and isinstance(source, pl.Datetime) else Code.WRONG_TYPE
    message = f"{_EXPECTED[logical_type]}, and the file's column is {source}"
    rows = values.is_not_null().arg_true().to_list()
    return TypedColumn(pl.Series([None] * len(values), dtype=dtype), [(row, code, values[row], message) for row in rows], set(rows))


def _finite_integer(value: float) -> int:
    if not math.isfinite(value):
        raise _Wrong(Code.NON_FINITE, "must be finite")
    return _json_integer(value)


def _cast_numbers(values: pl.Series, dtype: pl.DataType) -> TypedColumn:
    numbers = values.cast(dtype, strict=False)
    bad = numbers.is_null() & values.is_not_null()
    code, message = Code.NUMBER_OUT_OF_RANGE, "must lie within 64 bits"
    if dtype == pl.Float64:
        code, message = Code.NON_FINITE, "must be finite"
        bad = bad | (~numbers.is_finite()).fill_null(value=False)
    rows = bad.arg_true().to_list()
    if rows:
        numbers = numbers.zip_with(~bad, pl.Series([None], dtype=dtype))
    return TypedColumn(numbers, [(row, code, values[row], message) for row in rows], set(rows))
