"""A chunk on its way: made ready without the server, then decided upon, before any of it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from include.landing import store
from include.landing.drift import Drift
from include.landing.errors import LandingUnbalanced
from include.landing.rows import Chunk
from include.landing.validate import FILE_POSITION, RejectedRow
from include.landing.winner import Copy, Refused, Verdict


@dataclass(frozen=True)
class Stamp:
    """What every row of a batch carries: the batch, when it began, and the row's file.

    Attributes:
        batch_id: The batch.
        started_at: When it began.
        file_ids: Shape (files,), `ops.file.file_id` by position of the file.
    """

    batch_id: int
    started_at: datetime
    file_ids: NDArray[np.int64]

    def on(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame with the columns that say so."""
        return frame.with_columns(
            pl.Series(store.FILE_ID, self.file_ids[frame[FILE_POSITION].to_numpy()]),
            pl.lit(self.batch_id, dtype=pl.Int64).alias(store.BATCH_ID),
            pl.lit(self.started_at.astimezone(UTC).replace(tzinfo=None), dtype=pl.Datetime("us")).alias(store.LANDED_AT),
        )


@dataclass(frozen=True)
class Prepared:
    """A chunk ready for the warehouse.

    Attributes:
        frame: Rows with all raw columns, in order of event time.
        repeated: Shape (rows,), which rows share their event with another of the chunk.
        data: The rows, `encoded`.
        rejected: Rows for the quarantine.
        read: Shape (files,), how many rows were read of each file.
        chunk: The chunk as it was read, where rows may still go to the quarantine with their originals.
        drift: Fields that the contract does not know, and which of those it knows had values.
    """

    frame: pl.DataFrame
    repeated: pl.Series
    data: bytes
    rejected: list[RejectedRow]
    read: NDArray[np.int64]
    chunk: Chunk | None
    drift: Drift

    def original(self, file_position: int, row_number: int) -> bytes:
        """A row as it stood in its file.

        Raises:
            LandingUnbalanced: If the chunk was not kept.
        """
        if self.chunk is None:
            raise LandingUnbalanced("a row is to be quarantined whose original was not kept; nothing of the batch was kept")
        row = np.flatnonzero((self.chunk.file_position == file_position) & (self.chunk.row_number == row_number))[0]
        return self.chunk.originals[int(row)]


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
