"""What landing decided about a chunk, before any of it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from include.landing.winner import Copy, Refused, Verdict


@dataclass
class Settled:
    """What becomes of a chunk's rows and of the stored copies of their events.

    Attributes:
        rows: Rows to write.
        replaced: Event time of stored rows that rows to write replace, by event_id.
        restated: Stored rows that another copy repeats, with the envelope that counts now and their event time, by event_id.
        conflicts: Rows of the chunk that go to the quarantine because they say something else than the copy that counts.
        displaced: What stored rows count as that lost their place to an earlier arrival, by event_id.
        released: Copies in quarantine that are duplicates from now on, by event_id.
    """

    rows: pl.DataFrame
    replaced: dict[bytes, datetime] = field(default_factory=dict)
    restated: dict[bytes, tuple[Copy, datetime]] = field(default_factory=dict)
    conflicts: list[tuple[bytes, Copy]] = field(default_factory=list)
    displaced: dict[bytes, Verdict] = field(default_factory=dict)
    released: dict[bytes, tuple[Refused, ...]] = field(default_factory=dict)
