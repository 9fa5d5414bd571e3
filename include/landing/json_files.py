"""Files of JSON text: objects line by line, or one array of objects. A row is the bytes of its line or element, which stands for itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from include.landing.errors import UnreadableFile
from include.landing.lines import Lines, line_buffers, split_lines
from include.landing.source import MAX_ROW_BYTES, Source, json_text

Numbered = tuple[Lines, NDArray[np.int32]]

_QUOTE, _BACKSLASH, _COMMA, _CLOSE = b'"\\,]'
_SPACE = b" \t\r\n"
_LF = 10
_COUNTED_BYTES = 256 << 10
_STEP = np.zeros(256, dtype=np.int8)  # what a character does to the depth
_STEP[list(b"[{")], _STEP[list(b"]}")] = 1, -1
_STRUCTURAL = _STEP != 0
_STRUCTURAL[[_QUOTE, _COMMA]] = True


def json_lines(source: Source) -> Iterator[Numbered]:
    """Rows of an NDJSON or JSON file with their numbers, some at a time.

    Lines, of which those of blanks only are left out; in a `.json` file that begins with a bracket the elements of the array, without the blanks around them.

    Raises:
        UnreadableFile: If the compression is broken, a row is longer than `MAX_ROW_BYTES`, or an array is not complete or followed by something.
    """
    text = json_text(source)
    if source.file_format == "ndjson":
        yield from _lines(source, text)
        return
    head = b""
    for block in text:
        head += block
        if head.strip() or len(head) > MAX_ROW_BYTES:
            break
    rest = chain([head], text)
    yield from array_elements(source, rest) if head.lstrip()[:1] == b"[" else _lines(source, rest)


def _lines(source: Source, text: Iterator[bytes]) -> Iterator[Numbered]:
    number = 1
    for buffer in line_buffers(_with_line_ends(source, text)):
        lines, numbers, number = split_lines(buffer, number)
        yield lines, numbers


def _with_line_ends(source: Source, text: Iterator[bytes]) -> Iterator[bytes]:
    """The same blocks, unless a line is so long that it would have to be held as a whole."""
    length, number = 0, 1
    for block in text:
        breaks = block.count(b"\n")
        length = len(block) - block.rfind(b"\n") - 1 if breaks else length + len(block)
        number += breaks
        if length > MAX_ROW_BYTES:
            raise UnreadableFile(source.position, f"line {number} is longer than {MAX_ROW_BYTES >> 20} MiB: no line ends, or one array (name that .json)")
        yield block


def array_elements(source: Source, text: Iterator[bytes]) -> Iterator[Numbered]:
    """Elements of an array with their numbers, some at a time. One that is not JSON is given as it is, for its row to say so.

    Args:
        source: What is read, for messages.
        text: The array in blocks; the bracket that opens it stands in the first one.

    Raises:
        UnreadableFile: If the array is not complete, followed by something, or an element is longer than `MAX_ROW_BYTES`.
    """
    scanner, number, rest, is_first, is_over = _Scanner(), 0, b"", True, False
    for block in text:
        if is_first:
            block, is_first = block[block.index(b"[") + 1 :], False
        if is_over:
            _refuse_more(source, block, number)
            continue
        places, end = scanner.scan(block)
        if end is not None:
            if block[end] != _CLOSE:
                raise UnreadableFile(source.position, f"the JSON array is closed by {chr(block[end])} after element {number + len(places) + 1}")
            is_over, places = True, np.append(places, end)
        if len(places):
            cut = int(places[-1]) + 1
            lines = _between(bytearray(rest + block[:cut]), places + len(rest))
            rest = block[cut:]
            if is_over and not number and len(lines) == 1 and not lines[0]:
                lines = lines[:0]  # a comma promises an element, which is then a row with an error; an array without comma may be empty
            yield lines, np.arange(number + 1, number + len(lines) + 1, dtype=np.int32)
            number += len(lines)
        else:
            rest += block
        if is_over:
            _refuse_more(source, rest, number)
        elif len(rest) > MAX_ROW_BYTES:
            raise UnreadableFile(
                source.position, f"element {number + 1} of the JSON array is longer than {MAX_ROW_BYTES >> 20} MiB: a quote, comma or bracket is missing"
            )
    if not is_over:
        raise UnreadableFile(source.position, f"the JSON array is not complete: it breaks off in element {number + 1}, or a quote or bracket is missing")


def count_elements(array: bytes) -> int:
    """Number of elements of a JSON array, given as valid JSON. Takes about twenty times `_COUNTED_BYTES` of memory, whatever the array is."""
    scanner, start, commas = _Scanner(), array.index(b"[") + 1, 0
    for begin in range(start, len(array), _COUNTED_BYTES):
        places, end = scanner.scan(array[begin : begin + _COUNTED_BYTES])
        commas += len(places)
        if end is not None:
            break
    return commas + 1 if commas or array[start : array.rindex(b"]")].strip(_SPACE) else 0


def _between(text: bytearray, separators: NDArray[np.int64]) -> Lines:
    """The pieces before each separator as lines: separators become line ends, as the reader of many lines at once needs it."""
    np.frombuffer(text, dtype=np.uint8)[separators] = _LF
    starts, ends = [], []
    start = 0
    for end in separators.tolist():
        piece = text[start:end].lstrip(_SPACE)
        starts.append(end - len(piece))
        ends.append(end - len(piece) + len(piece.rstrip(_SPACE)))
        start = end + 1
    return Lines(bytes(text), np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64))


def _refuse_more(source: Source, block: bytes, number: int) -> None:
    if block.strip(_SPACE):
        raise UnreadableFile(source.position, f"something stands after the end of the JSON array of {number} elements")


class _Scanner:
    """Finds the commas between elements of an array, and its end, block by block. Exact for JSON; of anything else it makes pieces that are no JSON."""

    def __init__(self) -> None:
        self._depth, self._is_in_text, self._is_escaped = 1, False, False

    def scan(self, block: bytes) -> tuple[NDArray[np.int64], int | None]:
        """Places in a block of the commas at depth 1, and of the bracket that closes the array (None while it is open)."""
        characters = np.frombuffer(block, dtype=np.uint8)
        places = np.flatnonzero(_STRUCTURAL[characters])
        kinds = characters[places]
        quotes = kinds == _QUOTE
        escaped = self._escaped(characters)
        if len(escaped):
            quotes &= ~np.isin(places, escaped, assume_unique=True)
        in_text = (np.cumsum(quotes) + self._is_in_text) & 1 == 1
        steps = np.where(in_text, 0, _STEP[kinds])
        depths = self._depth + np.cumsum(steps, dtype=np.int64)
        between = (kinds == _COMMA) & ~in_text & (depths == 1)
        ends = np.flatnonzero((depths == 0) & (steps < 0))
        if len(ends):
            end = int(ends[0])
            return places[:end][between[:end]], int(places[end])
        if len(places):
            self._is_in_text, self._depth = bool(in_text[-1]), int(depths[-1])
        return places[between], None

    def _escaped(self, characters: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Places of characters after an odd number of backslashes; the last one may lie in the next block."""
        carried = [0] if self._is_escaped and len(characters) else []
        slashes = np.flatnonzero(characters == _BACKSLASH)
        if carried:
            slashes, self._is_escaped = slashes[slashes > 0], False
        if not len(slashes):
            return np.array(carried, dtype=np.int64)
        starts = np.concatenate(([True], np.diff(slashes) != 1))
        first = np.maximum.accumulate(np.where(starts, slashes, 0))
        escaped = slashes[(slashes - first) % 2 == 0] + 1
        if escaped[-1] == len(characters):
            self._is_escaped = True
        return np.concatenate((np.array(carried, dtype=np.int64), escaped))
