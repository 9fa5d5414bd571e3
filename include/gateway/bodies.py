"""Bodies of posts: what they may be, how they are received and unpacked in bounded memory, and what they must be before they are taken.

Bodies are unpacked by what landing unpacks files with, so that no body is taken that landing could not read.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

import msgspec
import numpy as np
from starlette.requests import ClientDisconnect

from include.gateway.model import Body
from include.gateway.problems import Problem
from include.landing.errors import UnreadableFile
from include.landing.json_files import count_elements
from include.landing.source import Source, blocks

JSON, NDJSON = "application/json", "application/x-ndjson"
CONTENT_TYPES = (JSON, NDJSON)
ENCODINGS = ("identity", "gzip", "zstd")
MAX_ROWS = 1_000_000  # of lines, blank ones too, or elements: a line of nothing takes landing thirty times its size, an element a hundred times
QUICK_BYTES = 64 << 10  # a plain body up to this size is judged in less time than handing it to a thread takes

_ALIASES = {"": "identity", "x-gzip": "gzip"}  # RFC 9110, 8.4.1.3
_PIECE_BYTES = 256 << 10
_BOM_UTF8 = b"\xef\xbb\xbf"
_BOMS_UTF16 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")  # the first also begins the byte order mark of UTF-32
_SPACE = b" \t\r\n"
_BLANKS = b" \t\r\v\f"  # what landing takes for blank in a line
_LF = 10


@dataclass(frozen=True)
class Kind:
    """What a body is, as its headers say.

    Attributes:
        content_type: One of `CONTENT_TYPES`.
        encoding: One of `ENCODINGS`.
    """

    content_type: str
    encoding: str

    def is_quick(self, size: int) -> bool:
        """Whether a body of so many stored bytes is judged at once."""
        return self.encoding == "identity" and size <= QUICK_BYTES


def kind_of(headers: Mapping[str, str]) -> Kind:
    """Kind of a body.

    Args:
        headers: Headers of its request, by names in lower case.

    Raises:
        Problem: 415 with what would be taken, as RFC 9110 (15.5.16) names it.
    """
    content_type, _, parameters = headers.get("content-type", "").partition(";")
    content_type = content_type.strip().lower()
    charset = dict(_parameter(part) for part in parameters.split(";")).get("charset", "utf-8")
    if content_type not in CONTENT_TYPES or charset not in ("utf-8", "utf8", "us-ascii"):
        detail = f"a body is {JSON} (an object or an array of objects) or {NDJSON} (an object a line), in UTF-8; say which in Content-Type"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, headers={"Accept": ", ".join(CONTENT_TYPES)})
    encoding = headers.get("content-encoding", "").strip().lower()
    encoding = _ALIASES.get(encoding, encoding)
    if encoding not in ENCODINGS:
        detail = "a body is sent as it is or compressed once, with gzip or zstd; say which in Content-Encoding"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, headers={"Accept-Encoding": ", ".join(reversed(ENCODINGS))})
    return Kind(content_type, encoding)


def check_length(headers: Mapping[str, str], most: int) -> None:
    """Refuses a body by the length that its request states, before a byte of it is read.

    Raises:
        Problem: 413.
    """
    stated = headers.get("content-length", "0")
    if not stated.isdecimal() or int(stated) > most:
        raise too_large(most)


def too_large(most: int) -> Problem:
    """Why a body of more than so many bytes is not taken."""
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {most:,} bytes as sent; send its rows in several posts", limit_bytes=most)


async def receive(receive: Callable[[], Awaitable[Any]], most: int, reserve: Callable[[int], None]) -> bytes:
    """Reads the body of a request whole.

    Args:
        receive: The request's ASGI channel.
        most: Most bytes.
        reserve: Called with the size of each piece before it is kept; refuses by raising.

    Raises:
        Problem: 413.
        ClientDisconnect: If the connection ends before the body does, or the body breaks the protocol.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        part = message.get("body", b"")
        if part:
            size += len(part)
            if size > most:
                raise too_large(most)
            reserve(len(part))
            parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def read_body(stored: bytes, kind: Kind, most_plain: int, received_at: datetime) -> Body:
    """Unpacks and judges a body. Takes at most about four times `most_plain` of memory, whatever is sent.

    Args:
        stored: The bytes as received.
        kind: What they are.
        most_plain: Most bytes without their encoding.
        received_at: When the last byte had come.

    Raises:
        Problem: 400 if it cannot be read or has no row, 413 if it is too large unpacked or has too many rows.
    """
    plain = _unpacked(stored, kind.encoding, most_plain)
    _check_text(plain)
    _check_rows(plain.count(b"\n"))
    rows = _filled_lines(plain) if kind.content_type == NDJSON else _json_rows(plain.removeprefix(_BOM_UTF8))
    if not rows:
        raise Problem(HTTPStatus.BAD_REQUEST, "the body has no row; send at least one")
    _check_rows(rows)
    return Body(stored=stored, content_type=kind.content_type, encoding=kind.encoding, plain=plain, rows=rows, received_at=received_at, plain_size=len(plain))


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().lower(), value.strip().strip('"').lower()


def _unpacked(stored: bytes, encoding: str, most: int) -> bytes:
    if encoding == "identity":
        parts, size = [stored], len(stored)
        _check_plain(size, most)
    else:
        parts, size = [], 0
        try:
            for block in blocks(Source(0, io.BytesIO(stored), "ndjson", encoding)):
                size += len(block)
                _check_plain(size, most)
                parts.append(block)
        except UnreadableFile as error:
            raise Problem(HTTPStatus.BAD_REQUEST, f"the body is {error.reason}; compress it anew, or send it as it is without Content-Encoding") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _check_plain(size: int, most: int) -> None:
    if size > most:
        detail = f"a body has at most {most:,} bytes once it is unpacked; send its rows in several posts"
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, limit_bytes=most)


def _check_rows(count: int) -> None:
    if count > MAX_ROWS:
        detail = f"a body has at most {MAX_ROWS:,} lines, or elements of an array; send its rows in several posts"
        raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, limit_rows=MAX_ROWS)


def _check_text(plain: bytes) -> None:
    if plain.startswith(_BOMS_UTF16):
        raise Problem(HTTPStatus.BAD_REQUEST, "the body is UTF-16 or UTF-32; JSON that is exchanged is UTF-8 (RFC 8259)")
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(plain), _PIECE_BYTES):
            decoder.decode(plain[start : start + _PIECE_BYTES], final=start + _PIECE_BYTES >= len(plain))
    except UnicodeDecodeError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body is not UTF-8 near byte {start + error.start + 1}: {error.reason}") from error


def _filled_lines(plain: bytes) -> int:
    """Number of lines that are not blank, as landing counts them."""
    data = np.frombuffer(plain.removeprefix(_BOM_UTF8).translate(None, _BLANKS), dtype=np.uint8)
    if not len(data):
        return 0
    is_text = data != _LF
    return int(is_text[0]) + int(np.count_nonzero(is_text[1:] > is_text[:-1]))


def _json_rows(text: bytes) -> int:
    """Number of rows of a JSON document: 1 for an object, its elements for an array."""
    first = text[:_PIECE_BYTES].lstrip(_SPACE)[:1] or text.lstrip(_SPACE)[:1]
    is_array = first == b"["
    is_short = is_array and len(text) <= QUICK_BYTES
    try:
        # Raw checks the grammar without making objects: sixteen million brackets take no more memory than they are.
        decoded = msgspec.json.decode(text, type=list[msgspec.Raw]) if is_short else msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body is not one JSON document: {_told(error)}; objects line by line are {NDJSON}") from error
    except RecursionError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "the body is JSON that is nested too deeply") from error
    if first == b"{":
        return 1
    if not is_array:
        raise Problem(HTTPStatus.BAD_REQUEST, "the body is neither a JSON object nor an array of objects")
    return len(decoded) if is_short else count_elements(text)


def _told(error: msgspec.DecodeError) -> str:
    return str(error).removeprefix("JSON is malformed: ")
