"""Checks rows against their contract, a column at a time, and says everything that is wrong with a row, not only the first thing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from include.contracts.model import Contract, Field, LogicalType, RowRule
from include.landing.columns import MICROSECONDS, TypedColumn, typed
from include.landing.identity import EXTRA
from include.landing.rows import TENANT, Chunk, Code, RowError, shown

FILE_POSITION = "file_position"
ROW_NUMBER = "_row_number"
ARRIVED_AT = "_arrived_at"
MAX_TENANT_CHARACTERS = 128
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class RejectedRow:
    """A row that no table may take.

    Attributes:
        file_position: Position of its file in the batch.
        row_number: Row in its file.
        tenant_id: Tenant the row names, if that much could be read.
        original: The row as it stood in its file.
        errors: Everything that is wrong with it, at least one.
        extra: JSON text of its unknown fields, if that much could be read.
    """

    file_position: int
    row_number: int
    tenant_id: str | None
    original: bytes
    errors: tuple[RowError, ...]
    extra: str | None = None


@dataclass(frozen=True)
class Validated:
    """A chunk after validation: every row is in exactly one of the two.

    Attributes:
        accepted: Columns `file_position`, `_row_number`, `_arrived_at`, `tenant_id` (null where the row names none), the contract's fields, `_extra`.
        rejected: Rows for the quarantine, in order.
    """

    accepted: pl.DataFrame
    rejected: list[RejectedRow]


def validate(chunk: Chunk, contract: Contract, arrived_at: NDArray[np.int64], expired: Collection[date] = (), owners: pl.Series | None = None) -> Validated:
    """Types and checks a chunk.

    Args:
        chunk: Rows as read. Its errors are added to.
        contract: The stream's contract.
        arrived_at: Shape (rows,), arrival of each row's file, microseconds since 1970 UTC.
        expired: First days of months that have left the raw table.
        owners: Shape (rows,), the one tenant that a row may be of; null where it may name any. None where every row may.

    Returns:
        Accepted and rejected rows. A row's verdict depends on nothing but the row, its arrival, and whether its month has left the raw table.
    """
    arrivals = pl.Series(ARRIVED_AT, arrived_at).cast(MICROSECONDS)
    columns: dict[str, pl.Series] = {}
    for field in contract.fields:
        column = typed(chunk.columns[field.name], field.logical_type, is_text=chunk.is_text)
        check_field(field, column, chunk)
        columns[field.name] = column.values
    _check_event_time(contract, columns[contract.event_time], arrivals, chunk)
    if expired:
        _check_expired(contract, columns[contract.event_time], expired, chunk)
    tenants = _tenants(chunk, owners)
    frame = pl.DataFrame(
        [
            pl.Series(FILE_POSITION, chunk.file_position),
            pl.Series(ROW_NUMBER, chunk.row_number),
            arrivals,
            tenants.alias(TENANT),
            *(values.alias(name) for name, values in columns.items()),
            pl.Series(EXTRA, chunk.extra, dtype=pl.String),
        ]
    )
    for rule in contract.rules:
        check_rule(rule, frame, chunk)
    if not chunk.errors:
        return Validated(frame, [])
    good = np.ones(len(chunk), dtype=bool)
    good[list(chunk.errors)] = False
    rejected = [
        RejectedRow(int(chunk.file_position[row]), int(chunk.row_number[row]), tenants[row], chunk.originals[row], tuple(chunk.errors[row]), chunk.extra[row])
        for row in sorted(chunk.errors)
    ]
    return Validated(frame.filter(pl.Series(good)), rejected)


def check_field(field: Field, column: TypedColumn, chunk: Chunk) -> None:
    """Refuses the rows of a chunk whose value the field may not have."""
    values = column.values
    for row, code, value, message in column.wrong:
        chunk.refuse(row, RowError(code, field.name, shown(value), message))
    nulls = values.null_count()
    if field.required and nulls > len(column.flawed):
        for row in values.is_null().arg_true().to_list():
            if row not in column.flawed and not any(error.field == field.name for error in chunk.errors.get(row, ())):
                chunk.refuse(row, RowError(Code.MISSING_REQUIRED, field.name, None, f"{'.'.join(field.path)} is required"))
    if nulls == len(values):
        return
    if field.logical_type is LogicalType.STRING:
        _check_text(field, values, chunk)
    elif field.minimum is not None or field.maximum is not None:
        _check_range(field, values, chunk)


def _check_text(field: Field, values: pl.Series, chunk: Chunk) -> None:
    _refuse(values.str.contains("\x00", literal=True), Code.NUL_CHARACTER, field, values, "the character NUL cannot be stored", chunk)
    if field.enum is not None:
        _refuse(~values.is_in(list(field.enum)), Code.NOT_IN_ENUM, field, values, f"must be one of {', '.join(field.enum)}", chunk)
    if field.max_length is not None:
        _refuse(values.str.len_chars() > field.max_length, Code.TOO_LONG, field, values, f"must have at most {field.max_length} characters", chunk)
    if field.pattern is not None:
        _refuse(~values.str.contains(f"^(?:{field.pattern})$"), Code.BAD_PATTERN, field, values, f"must match {field.pattern}", chunk)


def _check_range(field: Field, values: pl.Series, chunk: Chunk) -> None:
    low, high = field.minimum, field.maximum
    bad = pl.Series([False]).new_from_index(0, len(values))
    bad = bad if low is None else bad | (values < low)
    bad = bad if high is None else bad | (values > high)
    unit = f" {field.unit}" if field.unit else ""
    span = f"between {low:g} and {high:g}" if low is not None and high is not None else f"at least {low:g}" if low is not None else f"at most {high:g}"
    _refuse(bad, Code.OUT_OF_RANGE, field, values, f"must be {span}{unit}", chunk)


def _refuse(bad: pl.Series, code: Code, field: Field, values: pl.Series, message: str, chunk: Chunk) -> None:
    if not bad.any():
        return
    for row in bad.arg_true().to_list():
        chunk.refuse(row, RowError(code, field.name, shown(values[row]), message))


def _check_event_time(contract: Contract, event_at: pl.Series, arrivals: pl.Series, chunk: Chunk) -> None:
    earliest = (contract.earliest - _EPOCH) // _MICROSECOND
    latest = arrivals.to_physical() + contract.future_tolerance // _MICROSECOND
    moments = event_at.to_physical()
    bad = (moments < earliest) | (moments > latest)
    if not bad.any():
        return
    minutes = contract.future_tolerance // timedelta(minutes=1)
    message = f"must not lie before {contract.earliest:%Y-%m-%d} nor more than {minutes} minutes after the arrival"
    for row in bad.arg_true().to_list():
        moment, arrival = (f"{times[row].isoformat()}Z" for times in (event_at, arrivals))
        chunk.refuse(row, RowError(Code.EVENT_TIME_OUT_OF_RANGE, contract.event_time, moment, f"{message} ({arrival})"))


def _check_expired(contract: Contract, event_at: pl.Series, expired: Collection[date], chunk: Chunk) -> None:
    """Of an event whose month has left the raw table nobody can say whether it is new, a copy or a correction."""
    months = event_at.dt.truncate("1mo").dt.date()
    for row in months.is_in(list(expired)).fill_null(value=False).arg_true().to_list():
        moment = event_at[row]
        remedy = f"tidemark lake restore {contract.stream} {moment:%Y-%m-%d}"
        message = f"{moment:%B %Y} of {contract.stream} has left the hot store: `{remedy}` brings the month back and replays the row"
        chunk.refuse(row, RowError(Code.PARTITION_EXPIRED, contract.event_time, f"{moment.isoformat()}Z", message))


def check_rule(rule: RowRule, frame: pl.DataFrame, chunk: Chunk) -> None:
    """Refuses the rows of a chunk that break a condition between their columns."""
    expression = pl.sql_expr(rule.expression)
    holds = frame.select(expression.alias("holds"))["holds"]
    broken = (~holds).arg_true().to_list() if holds.dtype == pl.Boolean else []
    if not broken:
        return
    names = expression.meta.root_names()
    for row in broken:
        found = ", ".join(f"{name}={_plain(frame[name][row])}" for name in names)
        chunk.refuse(row, RowError(f"rule:{rule.name}", ",".join(names), shown(found), rule.description or rule.expression))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _tenants(chunk: Chunk, owners: pl.Series | None) -> pl.Series:
    """Tenant that each row names; a tenant is text of 1 to 128 characters. Null where it names one that it may not be of."""
    column = typed([None if value == "" else value for value in chunk.tenants] if chunk.is_text else chunk.tenants, LogicalType.STRING, is_text=chunk.is_text)
    for row, code, value, message in column.wrong:
        chunk.refuse(row, RowError(code, TENANT, shown(value), message))
    values = column.values
    if values.null_count() == len(values):
        return values
    bad = values.str.contains("\x00", literal=True) | ~values.str.len_chars().is_between(1, MAX_TENANT_CHARACTERS) | (values.str.strip_chars() != values)
    rows = bad.arg_true().to_list()
    for row in rows:
        code = Code.NUL_CHARACTER if "\x00" in values[row] else Code.BAD_PATTERN
        message = f"a tenant has 1 to {MAX_TENANT_CHARACTERS} characters, without NUL and without blanks around it"
        chunk.refuse(row, RowError(code, TENANT, shown(values[row]), message))
    if owners is not None:
        foreign = (values != owners) & ~bad
        for row in foreign.arg_true().to_list():
            message = f"posted with a key of tenant {owners[row]}, which writes for no other: leave the tenant out, or use a key of that tenant"
            chunk.refuse(row, RowError(Code.FOREIGN_TENANT, TENANT, shown(values[row]), message))
        bad = bad | foreign
    return values.zip_with((~bad).fill_null(value=True), pl.Series([None], dtype=pl.String)) if bad.any() else values
