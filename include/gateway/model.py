"""What the parts of the gateway say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Caller:
    """Who sends a request, as his API key says.

    Attributes:
        key_id: The key.
        tenant_id: Tenant that he writes and reads for.
        streams: Streams that he may use; None for all.
        rate: How often he may post, as the `limits` library writes it, e.g. `50/second;1000/minute`; None for no bound.
    """

    key_id: str
    tenant_id: str
    streams: frozenset[str] | None
    rate: str | None

    def may_use(self, stream: str) -> bool:
        """Whether the key covers a stream."""
        return self.streams is None or stream in self.streams


@dataclass(frozen=True)
class Body:
    """A body that was received whole and can be read.

    Attributes:
        stored: The bytes as received.
        content_type: `application/json` or `application/x-ndjson`.
        encoding: `identity`, `gzip` or `zstd`.
        plain: The bytes without their encoding.
        rows: Number of rows: 1 for an object, elements of an array, lines that are not blank.
        received_at: When the last byte had come, UTC.
        plain_size: Bytes without the encoding; also said where `plain` is kept no longer.
    """

    stored: bytes
    content_type: str
    encoding: str
    plain: bytes
    rows: int
    received_at: datetime
    plain_size: int = 0
