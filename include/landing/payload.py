"""From JSON lines to columns: decodes each line on its own and takes it apart along the contract's paths."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from include.contracts.model import Contract, LogicalType
from include.landing.rows import FLAWED, TENANT, TENANT_PATH, Chunk, Code, RowError, shown

_MAX_INTEGER_DIGITS = 400
_EMPTY: dict[str, Any] = {}
_REFUSALS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_TYPES: dict[LogicalType, type] = {
    LogicalType.STRING: str,
    LogicalType.INTEGER: int,
    LogicalType.NUMBER: float,
    LogicalType.BOOLEAN: bool,
    LogicalType.TIMESTAMP: str,
    LogicalType.DATE: str,
}
Leaf = tuple[tuple[str, ...], str, LogicalType]
_decode = msgspec.json.Decoder().decode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class _Literal:
    """A number literal that no column can hold: NaN, Infinity, or beyond the range of double precision."""

    def __init__(self, text: str, code: Code) -> None:
        self.text, self.code = text, code


@dataclass(frozen=True)
class _Node:
    """An object of the payload.

    Attributes:
        leaves: Known leaves: key, column.
        children: Known children: key, node.
        known: All known keys.
        flawed: Stand-in for an object that cannot be used.
        struct: Class that decodes an object without unknown fields whose values are of the contract's types.
    """

    leaves: tuple[tuple[str, str], ...]
    children: tuple[tuple[str, _Node], ...]
    known: frozenset[str]
    flawed: dict[str, Any]
    struct: type[msgspec.Struct]


@contextmanager
def collector_paused() -> Iterator[None]:
    """Stops the cyclic garbage collector: decoding makes a million dictionaries without cycles, and its passes triple the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def chunk_of_lines(contract: Contract, lines: Sequence[bytes], file_position: NDArray[np.int32], row_number: NDArray[np.int32]) -> Chunk:
    """Decodes JSON lines and splits them into the contract's columns.

    Every line is decoded alone. Of a key that stands twice in an object the last value counts, as in every JSON parser of the house. `null` is the same
    as absent. A line that is not JSON, or not an object, has its error and no values.
    """
    chunk = Chunk(file_position, row_number, lines, {}, [], [None] * len(lines))
    root, _ = _tree(contract)
    found: dict[str, list[Any]] = {}
    unknown: dict[int, dict[str, Any]] = {}
    with collector_paused():
        objects = [_object(line, root, contract, chunk, row) for row, line in enumerate(lines)]
        _split(objects, range(len(lines)), root, (), chunk, found, unknown)
    chunk.tenants = found.pop(TENANT)
    chunk.columns.update(found)
    for row, extra in unknown.items():
        _keep_extra(chunk, row, extra)
    return chunk


def unusual_lines(contract: Contract, lines: Iterable[bytes]) -> list[int]:
    """Positions of lines that are not one JSON object of known keys with values of the contract's types."""
    _, decode = _tree(contract)
    found = []
    with collector_paused():
        for row, line in enumerate(lines):
            try:
                decode(line)
            except _REFUSALS:
                found.append(row)
    return found


def encode_extra(extra: dict[str, Any]) -> str:
    """Canonical JSON text (sorted keys) of unknown fields.

    Raises:
        ValueError: If a value cannot be written as JSON.
    """
    try:
        return _encode_sorted(extra).decode()
    except (OverflowError, msgspec.MsgspecError):
        return json.dumps(extra, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@cache
def _tree(contract: Contract) -> tuple[_Node, Callable[[bytes], Any]]:
    """The contract's payload as a tree, and a decoder that refuses what is unusual."""
    leaves = [(field.path, field.name, field.logical_type) for field in contract.fields]
    if TENANT not in contract.by_name and TENANT_PATH not in contract.paths:
        leaves.append(((TENANT_PATH,), TENANT, LogicalType.STRING))
    root = _node(leaves)
    return root, msgspec.json.Decoder(root.struct).decode


def _node(leaves: list[Leaf]) -> _Node:
    own = tuple((path[0], name) for path, name, _ in leaves if len(path) == 1)
    below: dict[str, list[Leaf]] = {}
    for path, name, logical_type in leaves:
        if len(path) > 1:
            below.setdefault(path[0], []).append((path[1:], name, logical_type))
    children = tuple((key, _node(paths)) for key, paths in below.items())
    flawed: dict[str, Any] = {key: FLAWED for key, _ in own} | {key: child.flawed for key, child in children}
    types: list[Any] = [_TYPES[logical_type] | None for path, _, logical_type in leaves if len(path) == 1] + [child.struct | None for _, child in children]
    fields = [(f"f{place}", kind, None) for place, kind in enumerate(types)]
    keys = {f"f{place}": key for place, key in enumerate(flawed)}
    struct = msgspec.defstruct("Payload", fields, rename=keys, forbid_unknown_fields=True, gc=False)
    return _Node(own, children, frozenset(flawed), flawed, struct)


def _object(line: bytes, root: _Node, contract: Contract, chunk: Chunk, row: int) -> dict[str, Any]:
    try:
        value = _decode(line)
    except _REFUSALS:
        try:
            value = _decode_tolerant(line)
        except (ValueError, RecursionError) as error:
            chunk.give_up(row, RowError(Code.MALFORMED_JSON, None, shown(line.decode("utf-8", "replace")), _first_line(error)))
            return root.flawed
        value = _scrub(value, (), contract, chunk, row)
    if isinstance(value, dict):
        return value
    if value is not FLAWED:
        chunk.give_up(row, RowError(Code.NOT_AN_OBJECT, None, shown(value), "a row must be one JSON object"))
    return root.flawed


def _first_line(error: BaseException) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: {error.reason} at byte {error.start}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"not JSON: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


def _decode_tolerant(line: bytes) -> object:
    """Decodes what strict JSON refuses but people send (NaN, 1e400, lone surrogates), so that the error can name the field."""
    return json.loads(line.decode("utf-8"), parse_constant=lambda text: _Literal(text, Code.NON_FINITE), parse_float=_float, parse_int=_int)


def _float(text: str) -> object:
    value = float(text)
    return _Literal(text, Code.NUMBER_OUT_OF_RANGE) if value in (float("inf"), float("-inf")) else value


def _int(text: str) -> object:
    return int(text) if len(text) <= _MAX_INTEGER_DIGITS else _Literal(text, Code.NUMBER_OUT_OF_RANGE)


def _scrub(value: object, path: tuple[str, ...], contract: Contract, chunk: Chunk, row: int) -> object:
    """Records and replaces what cannot be stored: number literals out of range and strings with half a surrogate pair."""
    if isinstance(value, dict):
        return {key: _scrub(item, (*path, key), contract, chunk, row) for key, item in value.items() if _fit_key(key, path, chunk, row)}
    if isinstance(value, list):
        return [_scrub(item, path, contract, chunk, row) for item in value]
    if isinstance(value, _Literal):
        what = "NaN and Infinity are not JSON" if value.code is Code.NON_FINITE else "beyond the range of double precision"
        chunk.refuse(row, RowError(value.code, _column(path, contract), shown(value.text), what))
        return FLAWED
    if isinstance(value, str) and _has_lone_surrogate(value):
        chunk.refuse(row, RowError(Code.LONE_SURROGATE, _column(path, contract), shown(value), "half of a surrogate pair is not a character"))
        return FLAWED
    return value


def _fit_key(key: str, path: tuple[str, ...], chunk: Chunk, row: int) -> bool:
    if not _has_lone_surrogate(key):
        return True
    chunk.refuse(row, RowError(Code.LONE_SURROGATE, shown(".".join((*path, key))), None, "the name of a field holds half of a surrogate pair"))
    return False


def _has_lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _column(path: tuple[str, ...], contract: Contract) -> str | None:
    dotted = ".".join(path)
    field = contract.paths.get(dotted)
    if field is not None:
        return field.name
    return TENANT if dotted == TENANT_PATH else (shown(dotted) or None)


def _split(
    objects: list[dict[str, Any]],
    rows: Sequence[int],
    node: _Node,
    path: tuple[str, ...],
    chunk: Chunk,
    columns: dict[str, list[Any]],
    unknown: dict[int, dict[str, Any]],
) -> None:
    for key, name in node.leaves:
        columns[name] = [item.get(key) for item in objects]
    known = node.known
    for row, item in zip(rows, objects, strict=True):
        if not known.issuperset(item):
            _add_unknown(unknown.setdefault(row, {}), path, {key: value for key, value in item.items() if key not in known})
    for key, child in node.children:
        inner = [item.get(key, _EMPTY) for item in objects]
        for place, item in enumerate(inner):
            if not isinstance(item, dict):
                inner[place] = _stand_in(item, child, (*path, key), chunk, rows[place])
        _split(inner, rows, child, (*path, key), chunk, columns, unknown)


def _stand_in(value: object, child: _Node, path: tuple[str, ...], chunk: Chunk, row: int) -> dict[str, Any]:
    if value is None:
        return _EMPTY
    if value is not FLAWED:
        chunk.refuse(row, RowError(Code.WRONG_TYPE, ".".join(path), shown(value), "must be an object"))
    return child.flawed


def _add_unknown(extra: dict[str, Any], path: tuple[str, ...], values: dict[str, Any]) -> None:
    for key in path:
        extra = extra.setdefault(key, {})
    extra.update(values)


def _keep_extra(chunk: Chunk, row: int, extra: dict[str, Any]) -> None:
    if row in chunk.errors and _holds_flawed(extra):
        return  # the row is refused, and its original has everything
    text = encode_extra(extra)
    if "\\u0000" in text and _holds_nul(extra):
        place = next((key for key, value in extra.items() if "\x00" in key or _holds_nul(value)), None)
        chunk.refuse(row, RowError(Code.NUL_CHARACTER, shown(place), None, "the character NUL cannot be stored"))
        return
    chunk.extra[row] = text


def _holds_flawed(value: object) -> bool:
    if isinstance(value, dict):
        return any(_holds_flawed(item) for item in value.values())
    return any(_holds_flawed(item) for item in value) if isinstance(value, list) else value is FLAWED


def _holds_nul(value: object) -> bool:
    if isinstance(value, dict):
        return any("\x00" in key or _holds_nul(item) for key, item in value.items())
    if isinstance(value, list):
        return any(_holds_nul(item) for item in value)
    return isinstance(value, str) and "\x00" in value
