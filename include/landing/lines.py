"""Lines of text files as spans of one buffer: nothing is copied or made an object of until somebody asks for a line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

_LF, _CR = 10, 13
_BLANKS = np.isin(np.arange(256), np.frombuffer(b" \t\n\r\v\f", dtype=np.uint8))


@dataclass(frozen=True)
class Lines(Sequence[bytes]):
    """Lines without their ends.

    Attributes:
        text: The buffer; between two neighbouring lines stand only line ends and blanks.
        starts: Shape (lines,), where each line begins.
        ends: Shape (lines,), where each line ends, exclusive.
    """

    text: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Lines: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Lines(self.text, self.starts[index], self.ends[index])
        return self.text[self.starts[index] : self.ends[index]]

    def __iter__(self) -> Iterator[bytes]:
        text = self.text
        return (text[start:end] for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True))

    def each_stands_in(self, first: bytes, last: bytes) -> bool:
        """Whether every line begins and ends with the given characters."""
        if (self.starts == self.ends).any():
            return False  # an array may lack an element
        data = np.frombuffer(self.text, dtype=np.uint8)
        return bool((data[self.starts] == first[0]).all() and (data[self.ends - 1] == last[0]).all())

    def joined(self) -> bytes:
        """The part of the buffer that the lines cover."""
        return self.text[self.starts[0] : self.ends[-1]] if len(self) else b""


def split_lines(text: bytes, first_number: int, whole: Sequence[tuple[int, int]] = ()) -> tuple[Lines, NDArray[np.int32], int]:
    """Splits a text at LF or CRLF and leaves out lines of blanks only.

    Args:
        text: Whole lines; the last one may lack its end.
        first_number: Number of the first line.
        whole: Spans of the text, begin and end, in ascending order: within them LF ends no line.

    Returns:
        The lines, shape (lines,) their numbers, and the number of the line after the text.
    """
    data = np.frombuffer(text, dtype=np.uint8)
    breaks = np.flatnonzero(data == _LF)
    if len(whole):
        begins, closes = np.array(whole, dtype=np.int64).T
        span = np.searchsorted(begins, breaks, side="right") - 1
        breaks = breaks[(span < 0) | (breaks >= closes[span])]
    ends = breaks if text.endswith(b"\n") or not text else np.append(breaks, len(text))
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    numbers = np.arange(first_number, first_number + len(ends), dtype=np.int32)
    next_number = first_number + len(ends)
    filled = ends > starts
    if not filled.all():
        starts, ends, numbers = starts[filled], ends[filled], numbers[filled]
    ends = ends - (data[ends - 1] == _CR)
    doubtful = np.flatnonzero((ends == starts) | _BLANKS[data[starts]])
    if len(doubtful):
        blank = [row for row in doubtful.tolist() if not text[starts[row] : ends[row]].strip()]
        starts, ends, numbers = np.delete(starts, blank), np.delete(ends, blank), np.delete(numbers, blank)
    return Lines(text, starts, ends), numbers, next_number


def join_lines(parts: Sequence[Lines]) -> Lines:
    """Lines of several buffers in one."""
    if len(parts) == 1:
        return parts[0]
    texts = [part.joined() for part in parts]
    shifts = [0, *itertools.accumulate(len(text) + 1 for text in texts)][: len(texts)]
    starts = [part.starts - part.starts[0] + shift for part, shift in zip(parts, shifts, strict=True) if len(part)]
    ends = [part.ends - part.starts[0] + shift for part, shift in zip(parts, shifts, strict=True) if len(part)]
    if not starts:
        return Lines(b"", np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    return Lines(b"\n".join(texts), np.concatenate(starts), np.concatenate(ends))


def compact(lines: Lines, kept: NDArray[np.bool_]) -> Lines:
    """Some of the lines, in a buffer that holds no others."""
    starts, ends = lines.starts[kept], lines.ends[kept]
    parts = [lines.text[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    begins = np.concatenate([[0], np.cumsum(ends - starts + 1)[:-1]]).astype(np.int64) if len(parts) else starts
    return Lines(b"\n".join(parts), begins, begins + ends - starts)


def line_buffers(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Regroups blocks of bytes into buffers that end with a line's end; the last one may lack it."""
    parts: list[bytes] = []
    for block in blocks:
        cut = block.rfind(b"\n") + 1
        if not cut:
            parts.append(block)
            continue
        parts.append(block[:cut])
        yield b"".join(parts)
        parts = [block[cut:]] if cut < len(block) else []
    if parts:
        yield b"".join(parts)
