"""Which major version of its contract a row follows: the one it names, else the one that knows it best. Without older majors this is plain validation."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from include.contracts.model import Contract, named_major
from include.landing.columns import DTYPES
from include.landing.drift import flattened
from include.landing.identity import EXTRA
from include.landing.payload import chunk_of_lines
from include.landing.rows import FLAWED, Chunk, Code, RowError, shown
from include.landing.validate import RejectedRow, Validated, validate

_ANY, _NONE = 0, -1


def judge(
    chunk: Chunk, contract: Contract, arrived_at: NDArray[np.int64], expired: Collection[date] = frozenset(), owners: pl.Series | None = None
) -> Validated:
    """Checks each row against the major of the contract that it follows.

    A row that names its version is judged by that major alone; one that names a major which the stream does not take is refused (`unknown_version`). A row that
    names none follows the major that accepts it and leaves the fewest fields unknown which any major knows; of equals the newest. A row that no major accepts
    is refused for what the newest one says.

    Args:
        chunk: Rows as read along the newest major. Its errors are added to.
        contract: The stream's contract with its older majors.
        arrived_at: Shape (rows,), arrival of each row's file, microseconds since 1970 UTC.
        expired: Months that have left the raw table.
        owners: Shape (rows,), the one tenant that a row may be of, as `validate` takes it.

    Returns:
        As `validate`; accepted rows have the columns of all majors.
    """
    if chunk.major is not None:
        validated = validate(chunk, contract.of_major(chunk.major), arrived_at, expired, owners)
        return Validated(_widened(validated.accepted, contract), validated.rejected)
    wanted = _wanted_majors(chunk, contract)
    if not contract.older and not wanted.any():
        return validate(chunk, contract, arrived_at, expired, owners)
    known = {name for each in contract.majors for name in (*each.paths, *each.by_name)}
    unknown_fields = np.full(len(chunk), np.inf)
    taken_by = np.full(len(chunk), _NONE)
    accepted: list[tuple[int, NDArray[np.int64], pl.DataFrame]] = []
    rejected: dict[int, RejectedRow] = {}
    for each in contract.majors:
        is_newest = each is contract
        rows = np.flatnonzero((wanted == each.major) | ((wanted == _ANY) & (unknown_fields > 0)) | (is_newest & (wanted == _NONE)))
        if not len(rows):
            continue
        part = _along(each, chunk, rows.tolist(), is_newest=is_newest)
        validated = validate(part, each, arrived_at[rows], expired, None if owners is None else owners.gather(rows))
        bad = sorted(part.errors)
        for at, rejection in zip(bad, validated.rejected, strict=True):
            rejected.setdefault(int(rows[at]), rejection)
        good = np.delete(rows, bad)
        found = _unknown_fields(validated.accepted[EXTRA], known)
        better = found < unknown_fields[good]
        unknown_fields[good[better]], taken_by[good[better]] = found[better], each.major
        accepted.append((each.major, good, validated.accepted))
    frames = [_widened(frame.filter(pl.Series(taken_by[rows] == major)), contract) for major, rows, frame in accepted]
    return Validated(pl.concat(frames, how="diagonal"), [rejected[row] for row in sorted(rejected) if taken_by[row] == _NONE])


def _wanted_majors(chunk: Chunk, contract: Contract) -> NDArray[np.int64]:
    """Shape (rows,): the major that each row names; 0 where it names none; -1 where it names one that the stream does not take: its only error."""
    wanted = np.full(len(chunk), _ANY, dtype=np.int64)
    name = contract.schema_version_field
    if name is None:
        return wanted
    taken = [each.major for each in contract.majors]
    column = chunk.columns[name]
    for row, value in enumerate(column):
        if value is None or value is FLAWED or value == "":
            continue
        major = named_major(value)
        wanted[row] = major if major in taken else _NONE
        if wanted[row] == _NONE:
            message = (
                f"names a version that {contract.stream} does not take; it takes {', '.join(f'{each.major} ({each.version})' for each in contract.majors)}"
            )
            chunk.give_up(row, RowError(Code.UNKNOWN_VERSION, name, shown(value), message))
    return wanted


def _along(contract: Contract, chunk: Chunk, rows: list[int], *, is_newest: bool) -> Chunk:
    """Some rows of a chunk, read along a major. What the server refused stays refused: it would refuse the row again, and the batch would never end."""
    if is_newest:
        return chunk if len(rows) == len(chunk) else chunk.only(rows)
    if chunk.again is not None:
        part = chunk.again(contract, rows)
    else:
        part = chunk_of_lines(contract, [chunk.originals[row] for row in rows], chunk.file_position[rows], chunk.row_number[rows])
    for place, row in enumerate(rows):
        for error in chunk.errors.get(row, ()):
            if error.code == Code.COPY_REFUSED:
                part.refuse(place, error)
    return part


def _unknown_fields(extra: pl.Series, known: set[str]) -> NDArray[np.float64]:
    """Shape (rows,): how many fields of a row, that any major knows, are unknown to the one it was read along."""
    return np.array([0 if text is None else sum(name in known for name, _ in flattened(text)) for text in extra.to_list()], dtype=np.float64)


def _widened(frame: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """The frame with the columns that only other majors have, empty."""
    return frame.with_columns(
        [pl.lit(None, dtype=DTYPES[field.logical_type]).alias(field.name) for field in contract.columns if field.name not in frame.columns]
    )
