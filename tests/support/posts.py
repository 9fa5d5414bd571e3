"""Files of posts as the gateway writes them, without a gateway."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from include.landing.post_rows import JSON, NDJSON
from include.landing.posts import GroupName, Post, frame, new_group
from tests.support.payloads import zone

PACK = {"identity": bytes, "gzip": gzip.compress, "zstd": lambda data: pa.compress(data, codec="zstd", asbytes=True)}


@dataclass(frozen=True)
class Sent:
    """A body and what its headers say.

    Attributes:
        stored: The bytes as sent.
        content_type: Its content type.
        encoding: Its encoding.
    """

    stored: bytes
    content_type: str = NDJSON
    encoding: str = "identity"


def ndjson(*payloads: Mapping[str, Any] | str, encoding: str = "identity") -> Sent:
    """Rows a line each; one given as text is sent as it is."""
    lines = [payload if isinstance(payload, str) else json.dumps(payload) for payload in payloads]
    return Sent(PACK[encoding]("".join(f"{line}\n" for line in lines).encode()), NDJSON, encoding)


def array(*payloads: Mapping[str, Any], indent: int | None = None, encoding: str = "identity") -> Sent:
    """Rows as an array."""
    return Sent(PACK[encoding](json.dumps(payloads, indent=indent).encode()), JSON, encoding)


def single(payload: Mapping[str, Any], indent: int | None = None) -> Sent:
    """A row as an object."""
    return Sent(json.dumps(payload, indent=indent).encode(), JSON)


def frames(group: GroupName, tenant: str, posts: Iterable[Sent]) -> bytes:
    """A file of posts."""
    parts = []
    for number, sent in enumerate(posts, start=1):
        digest = hashlib.sha256(sent.stored).hexdigest()
        head = Post(group.receipt(number), tenant, "k1", group.closed_at, sent.content_type, sent.encoding, len(sent.stored), digest)
        parts.append(frame(head, sent.stored))
    return b"".join(parts)


def put_posts(stream: str, posts: Sequence[Sent], *, arrived_at: datetime, tenant: str = "acme") -> list[str]:
    """Writes one file of posts into the test's zone. Returns the receipts."""
    group = new_group(stream, arrived_at)
    file = zone().put(stream, frames(group, tenant, posts), arrived_at=arrived_at, name=group.file_name, tenant=tenant)
    assert file.address == group.address(tenant)
    return [group.receipt(number) for number in range(1, len(posts) + 1)]
