"""Plain data that passes from readers to the validator: chunks of rows, and what is wrong with a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from include.contracts.model import Contract

CHUNK_ROWS = 30_000
TENANT = "tenant_id"
TENANT_PATH = "tenantId"
_SHOWN_CHARACTERS = 200


class Code(StrEnum):
    """Why a row is in quarantine. A broken row rule has the code `rule:<name>`."""

    MALFORMED_JSON = "malformed_json"
    MALFORMED_CSV = "malformed_csv"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_REQUIRED = "missing_required"
    WRONG_TYPE = "wrong_type"
    NOT_IN_ENUM = "not_in_enum"
    OUT_OF_RANGE = "out_of_range"
    BAD_PATTERN = "bad_pattern"
    TOO_LONG = "too_long"
    BAD_TIMESTAMP = "bad_timestamp"
    EVENT_TIME_OUT_OF_RANGE = "event_time_out_of_range"
    NUL_CHARACTER = "nul_character"
    LONE_SURROGATE = "lone_surrogate"
    NON_FINITE = "non_finite"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    UNPARSABLE = "unparsable"
    UNREADABLE_FILE = "unreadable_file"
    COPY_REFUSED = "copy_refused"
    ROW_NOT_FOUND = "row_not_found"
    CONFLICT = "conflict"
    PARTITION_EXPIRED = "partition_expired"
    UNKNOWN_VERSION = "unknown_version"
    FOREIGN_TENANT = "foreign_tenant"


@dataclass(frozen=True)
class RowError:
    """One thing that is wrong with a row.

    Attributes:
        code: A `Code`, or `rule:<name>`.
        field: Column name, or dotted payload path of what is no column; None for the row as a whole.
        value: The value as text, shortened, fit to be stored; None where there is none.
        message: What was expected.
    """

    code: str
    field: str | None
    value: str | None
    message: str

    def as_dict(self) -> dict[str, str | None]:
        """The error as it stands in `ops.quarantine.errors`."""
        return {"code": self.code, "field": self.field, "value": self.value, "message": self.message}


class _Flawed:
    """Stands for a value whose error is already recorded: it is neither missing nor checked again."""

    def __repr__(self) -> str:
        return "FLAWED"


FLAWED = _Flawed()

Column = list[Any] | pl.Series
Errors = dict[int, list[RowError]]


@dataclass
class Chunk:
    """Some rows, as read and not yet validated.

    Attributes:
        file_position: Shape (rows,), position of the row's file in its batch.
        row_number: Shape (rows,), 1-based line, record or row in its file.
        originals: The row as it stood in its file.
        columns: Values by column name; Python values, or a series where the source is typed (Parquet, mapped files).
        tenants: Tenant that the row names itself.
        extra: JSON text of what the contract does not know, by row; None where there is none.
        errors: What is already known to be wrong, by row.
        hopeless: Rows whose structure is broken: they have the one error that says so, and no others.
        known_after: Delay between event time and knowledge that a mapping states; None where a row was known when its file was published or arrived.
        is_text: Values are text of a format without types (CSV): "1.5" is then a number.
        major: Major version of the contract that the rows were mapped to; None where they may follow any.
        again: Makes a chunk of some of the rows, by position, along another major of the contract; None where originals stand for themselves (JSON).
    """

    file_position: NDArray[np.int32]
    row_number: NDArray[np.int32]
    originals: Sequence[bytes]
    columns: dict[str, Column]
    tenants: Column
    extra: list[str | None]
    errors: Errors = field(default_factory=dict)
    hopeless: set[int] = field(default_factory=set)
    known_after: timedelta | None = None
    is_text: bool = False
    major: int | None = None
    again: Callable[[Contract, Sequence[int]], Chunk] | None = None

    def __len__(self) -> int:
        return len(self.row_number)

    def refuse(self, row: int, error: RowError) -> None:
        """Records that a row has an error; of a hopeless row only the first one."""
        if row not in self.hopeless:
            self.errors.setdefault(row, []).append(error)

    def only(self, rows: Sequence[int]) -> Chunk:
        """A chunk of some of the rows, by their positions in ascending order."""
        places = {row: place for place, row in enumerate(rows)}
        again = self.again
        return Chunk(
            file_position=self.file_position[rows],
            row_number=self.row_number[rows],
            originals=[self.originals[row] for row in rows],
            columns={name: _only(column, rows) for name, column in self.columns.items()},
            tenants=_only(self.tenants, rows),
            extra=[self.extra[row] for row in rows],
            errors={places[row]: errors for row, errors in self.errors.items() if row in places},
            hopeless={places[row] for row in self.hopeless if row in places},
            known_after=self.known_after,
            is_text=self.is_text,
            major=self.major,
            again=None if again is None else lambda contract, part: again(contract, [rows[place] for place in part]),
        )

    def give_up(self, row: int, error: RowError) -> None:
        """Records that the structure of a row is broken."""
        self.refuse(row, error)
        self.hopeless.add(row)


def _only(column: Column, rows: Sequence[int]) -> Column:
    return column[rows] if isinstance(column, pl.Series) else [column[row] for row in rows]


def shown(value: object) -> str | None:
    """A value as short text that Postgres can store, for people who read the quarantine."""
    if value is None:
        return None
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
