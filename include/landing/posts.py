"""Files of posts: what the gateway groups into one file of the zone, each post with its original bytes.

A file is a sequence of frames. A frame is one line of JSON (the header, ended by LF), the bytes as they were received, and one LF. The file is whole or it is
not there, so a frame that breaks off or whose bytes do not match their hash means that the storage is at fault: nothing of such a file is taken for rows.

A post is found by its receipt: `<stream>.<yyyymmddHHMMSSffffff>.<8 random>.<frame number>`, which with a tenant gives the address of its file.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

import msgspec

from include.landing.source import MAX_ROW_BYTES, POSTS_ENDING

MAX_HEADER_BYTES = 4096
MAX_BODY_BYTES = MAX_ROW_BYTES  # as stored; its plain bytes have the same bound, so that no row of it is longer than the readers take
_RECEIPT = re.compile(r"(?P<stream>[a-z][a-z0-9_]{0,62})\.(?P<stamp>[0-9]{20})\.(?P<mark>[0-9a-f]{8})\.(?P<frame>[1-9][0-9]{0,6})")
_STAMP = "%Y%m%d%H%M%S%f"


class BrokenFrames(Exception):
    """A file of posts is damaged; the message says in which frame and how."""


class Post(msgspec.Struct, frozen=True):
    """Header of a frame: what is known about a post.

    Attributes:
        receipt: Its receipt.
        tenant: Tenant that it was posted for; that of the key.
        key_id: Key that it was posted with.
        received_at: When its last byte had been received, UTC.
        content_type: `application/json` or `application/x-ndjson`, without parameters.
        encoding: `identity`, `gzip` or `zstd`.
        length: Bytes of the body as received.
        sha256: Of these bytes, hexadecimal.
    """

    receipt: str
    tenant: str
    key_id: str
    received_at: datetime
    content_type: str
    encoding: str
    length: int
    sha256: str


@dataclass(frozen=True)
class GroupName:
    """Where a group of posts lies.

    Attributes:
        stream: Its stream.
        closed_at: When the group was closed, UTC: the arrival of its file.
        mark: Eight hexadecimal digits drawn by chance, so that two gateways never give the same name.
    """

    stream: str
    closed_at: datetime
    mark: str

    @property
    def file_name(self) -> str:
        """Name of the file in its folder of the zone."""
        return f"{self.closed_at:%H%M%S%f}-gateway-{self.mark}{POSTS_ENDING}"

    def address(self, tenant: str) -> str:
        """Address of the file in the zone."""
        return f"{self.stream}/dt={self.closed_at:%Y-%m-%d}/hr={self.closed_at:%H}/tenant={tenant}/{self.file_name}"

    def receipt(self, frame: int) -> str:
        """Receipt of a post, given the number of its frame (from 1)."""
        return f"{self.stream}.{self.closed_at.strftime(_STAMP)}.{self.mark}.{frame}"


def new_group(stream: str, closed_at: datetime) -> GroupName:
    """A name that nobody else gives."""
    return GroupName(stream, closed_at.astimezone(UTC), secrets.token_hex(4))


def locate(receipt: str) -> tuple[GroupName, int] | None:
    """Group and frame number of a receipt; None where it is no receipt."""
    match = _RECEIPT.fullmatch(receipt)
    if match is None:
        return None
    try:
        closed_at = datetime.strptime(match["stamp"], _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
    return GroupName(match["stream"], closed_at, match["mark"]), int(match["frame"])


def frame(post: Post, body: bytes) -> bytes:
    """A post as it stands in its file."""
    return b"".join((msgspec.json.encode(post), b"\n", body, b"\n"))


_decode = msgspec.json.Decoder(Post).decode


def read_frames(stream: BinaryIO) -> Iterator[tuple[Post, bytes]]:
    """The posts of a file, one at a time.

    Raises:
        BrokenFrames: If the file is damaged.
    """
    number = 0
    while header := stream.readline(MAX_HEADER_BYTES):
        number += 1
        try:
            post = _decode(header)
        except msgspec.DecodeError as error:
            raise BrokenFrames(f"frame {number}: no header: {error}") from error
        if not header.endswith(b"\n") or not 0 <= post.length <= MAX_BODY_BYTES:
            raise BrokenFrames(f"frame {number}: a header of at most {MAX_HEADER_BYTES} bytes must name a length of at most {MAX_BODY_BYTES}")
        body = stream.read(post.length)
        if len(body) != post.length or stream.read(1) != b"\n":
            raise BrokenFrames(f"frame {number}: breaks off after {len(body)} of {post.length} bytes")
        if hashlib.sha256(body).hexdigest() != post.sha256:
            raise BrokenFrames(f"frame {number}: its bytes are not those that were received (SHA-256 differs)")
        yield post, body
