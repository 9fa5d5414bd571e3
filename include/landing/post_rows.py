"""Rows of posts: what was posted as JSON object, JSON array or NDJSON becomes lines of one buffer, many posts at a time.

Row numbers run through the whole file. A post takes one number for an object, one for each element of an array, and one for each line of NDJSON, blank ones
included: within its post a row has the number of its element or line.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

import msgspec
import numpy as np
import pyarrow as pa
from isal import igzip_lib, isal_zlib

from include.landing.errors import UnreadableFile
from include.landing.json_files import Numbered, array_elements
from include.landing.lines import split_lines
from include.landing.posts import MAX_BODY_BYTES, BrokenFrames, read_frames
from include.landing.source import BLOCK_BYTES, Source, seekable

NDJSON = "application/x-ndjson"
JSON = "application/json"
_GZIP_WINDOW = 31  # of zlib: a gzip header and no other
_SPACE = b" \t\r\n"
_BOM_UTF8 = b"\xef\xbb\xbf"
_BOMS_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # the first also begins the byte order mark of UTF-32
_READ_BYTES = 1 << 20
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode


class UnreadableBody(Exception):
    """The body of a post has no rows that could be told apart; the message says why."""


@dataclass(frozen=True)
class LostPost:
    """A post that cannot be read, which makes one row of it.

    Attributes:
        number: Number of the row.
        body: The body: plain where it could be decompressed, else as it was received.
        reason: What is wrong with it.
    """

    number: int
    body: bytes
    reason: str


def plain_body(body: bytes, encoding: str, limit: int = MAX_BODY_BYTES) -> bytes:
    """A body without its compression, of which never more than `limit` bytes are unpacked.

    Args:
        body: As it was received; several gzip members or zstd frames are one body.
        encoding: `identity`, `gzip` or `zstd`.
        limit: Most bytes that it may have.

    Raises:
        UnreadableBody: If the compression is broken, not complete or unknown, or the body is larger.
    """
    if encoding == "identity":
        plain = body
    elif encoding == "gzip":
        plain = _gunzipped(body, limit)
    elif encoding == "zstd":
        try:
            plain = pa.CompressedInputStream(pa.BufferReader(body), "zstd").read(limit + 1)
        except OSError as error:
            raise UnreadableBody(f"not a complete zstd body: {error}") from error
        if not body:
            raise UnreadableBody("not a complete zstd body: it has no bytes")
    else:
        raise UnreadableBody(f"its encoding {encoding!r} is none of identity, gzip and zstd")
    if len(plain) > limit:
        raise UnreadableBody(f"larger than {limit:,} bytes without its compression")
    return plain


def _gunzipped(body: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    left, room = body, limit + 1
    while True:
        member = isal_zlib.decompressobj(wbits=_GZIP_WINDOW)
        try:
            parts.append(member.decompress(left, room))
        except (igzip_lib.IsalError, isal_zlib.error) as error:  # type: ignore[misc]  # its stub forgets what it derives from
            raise UnreadableBody(f"not a complete gzip body: {error}") from error
        room -= len(parts[-1])
        if room <= 0:
            return b"".join(parts)
        if not member.eof:
            raise UnreadableBody("not a complete gzip body: it breaks off")
        left = member.unused_data.lstrip(b"\0")  # padding between members is allowed
        if not left:
            return b"".join(parts)


class PostRows:
    """Gathers rows of posts, to be taken many at a time: a post of one row costs hardly more than a line of a file."""

    def __init__(self) -> None:
        self.next_number = 1
        self._ready: list[Numbered] = []
        self._texts: list[bytes] = []
        self._whole: list[tuple[int, int]] = []
        self._length = 0
        self._first_number = 1

    @property
    def is_full(self) -> bool:
        """Whether what was gathered is worth being taken."""
        return self._length >= BLOCK_BYTES or len(self._ready) > 0

    def add(self, plain: bytes, content_type: str) -> None:
        """Takes the rows of a post.

        Raises:
            UnreadableBody: If there are none to be told apart; nothing of it was taken.
        """
        if plain.startswith(_BOMS_UTF16):
            raise UnreadableBody("starts with a UTF-16 or UTF-32 byte order mark; JSON must be UTF-8")
        plain = plain.removeprefix(_BOM_UTF8)
        if content_type == NDJSON:
            plain = plain.removesuffix(b"\n")
            self._take(plain, plain.count(b"\n") + 1)
            return
        if content_type != JSON:
            raise UnreadableBody(f"its content type {content_type!r} is none of {JSON} and {NDJSON}")
        value = plain.strip(_SPACE)
        if not value.startswith(b"["):
            self._take_value(value)
            return
        try:
            elements = _elements(value)
        except (msgspec.MsgspecError, RecursionError):
            self._take_pieces(value)
            return
        if not elements:
            return
        if b"\n" not in value:
            self._take(b"\n".join(elements), len(elements))
        else:
            for element in elements:
                self._take_value(bytes(element))

    def lose(self, plain: bytes, reason: str) -> LostPost:
        """Takes a post that cannot be read for one row."""
        self._close()
        self.next_number += 1
        self._first_number = self.next_number
        return LostPost(self.next_number - 1, plain, reason)

    def taken(self) -> Iterator[Numbered]:
        """What was gathered, in order; from here on it is not held any more."""
        self._close()
        ready, self._ready = self._ready, []
        yield from ready

    def _take(self, text: bytes, rows: int) -> None:
        self._texts.append(text)
        self._length += len(text) + 1
        self.next_number += rows

    def _take_value(self, value: bytes) -> None:
        """Takes one row, which may stand on several lines."""
        if b"\n" in value:
            self._whole.append((self._length, self._length + len(value)))
        self._take(value, 1)

    def _take_pieces(self, value: bytes) -> None:
        """Takes what looks like an array and is none for a JSON parser: an element that is not JSON is one row, as in a file."""
        try:
            pieces = list(array_elements(Source(0, io.BytesIO(), "json", None), iter([value])))
        except UnreadableFile as error:
            raise UnreadableBody(error.reason) from error
        self._close()
        for lines, numbers in pieces:
            self._ready.append((lines, (numbers + (self._first_number - 1)).astype(np.int32)))
            self.next_number += len(lines)
        self._first_number = self.next_number

    def _close(self) -> None:
        if self._texts:
            lines, numbers, _ = split_lines(b"\n".join(self._texts), self._first_number, self._whole)
            self._ready.append((lines, numbers))
        self._texts, self._whole, self._length, self._first_number = [], [], 0, self.next_number


def post_rows(source: Source) -> Iterator[Numbered | LostPost]:
    """Rows of a file of posts with their numbers, some at a time. Fills `source.first_rows`.

    Raises:
        UnreadableFile: If the file is damaged, or holds a post for another tenant.
    """
    rows = PostRows()
    try:
        for number, (post, body) in enumerate(read_frames(_buffered(source)), start=1):
            if source.tenant is not None and post.tenant != source.tenant:
                raise UnreadableFile(source.position, f"frame {number}: posted for tenant {post.tenant}, in a file of tenant {source.tenant}")
            source.first_rows.append(rows.next_number)
            plain = body
            try:
                plain = plain_body(body, post.encoding)
                rows.add(plain, post.content_type)
            except UnreadableBody as error:
                lost = rows.lose(plain, str(error))
                yield from rows.taken()
                yield lost
            if rows.is_full:
                yield from rows.taken()
    except BrokenFrames as error:
        raise UnreadableFile(source.position, str(error)) from error
    yield from rows.taken()


def _buffered(source: Source) -> BinaryIO:
    """The frames of a file; headers are read line by line, which a store's own streams do a byte at a time."""
    stream = seekable(source)
    return stream if isinstance(stream, io.BytesIO) else cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), _READ_BYTES))
