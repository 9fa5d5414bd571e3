"""What became of the rows of each post of a gateway file: counted while its batch lands, written in its transaction, read by receipts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import psycopg
from numpy.typing import NDArray

from include.landing.errors import LandingUnbalanced
from include.landing.ledger import Arrival, FileCounts
from include.landing.source import POSTS
from include.landing.winner import Verdict

_SHIFT = 32  # a row number has 31 bits
_Places = tuple[NDArray[np.int64], int]  # file position and row number in one, and how often each counts: once, or once less


class PostCounts:
    """Rows of a batch by post and verdict.

    Attributes:
        first_rows: Number of the first row of each post, by position of the file; the reader fills it. Files of other formats have no entry.
    """

    def __init__(self, arrivals: Sequence[Arrival]) -> None:
        self.first_rows: dict[int, list[int]] = {position: [] for position, arrival in enumerate(arrivals) if arrival.file.file_format == POSTS}
        self._positions = np.array(list(self.first_rows), dtype=np.int64)
        self._places: dict[Verdict, list[_Places]] = {verdict: [] for verdict in Verdict}

    def count(self, verdict: Verdict, positions: NDArray[np.int64], numbers: NDArray[np.int64], by: int = 1) -> None:
        """Counts rows, given by file position and row number; those of other files than the gateway's are left out."""
        if len(self._positions):
            chosen = np.isin(positions, self._positions)
            self._places[verdict].append((positions[chosen].astype(np.int64) << _SHIFT | numbers[chosen].astype(np.int64), by))

    def write(self, connection: psycopg.Connection, files: Mapping[int, int], counts: Sequence[FileCounts]) -> None:
        """Writes the results of files.

        Args:
            connection: In the transaction of the batch.
            files: Ledger line by position, of files that were read.
            counts: What became of the rows of each file, by position.

        Raises:
            LandingUnbalanced: If the posts of a file do not add up to the file.
        """
        chosen = [position for position in files if position in self.first_rows]
        if not chosen:
            return
        firsts = [np.array(self.first_rows[position], dtype=np.int64) for position in chosen]
        begins = np.concatenate([position << _SHIFT | first for position, first in zip(chosen, firsts, strict=True)])
        cuts = np.cumsum([len(first) for first in firsts])[:-1]
        by_verdict = {verdict: np.split(self._by_post(begins, places), cuts) for verdict, places in self._places.items()}
        for at, position in enumerate(chosen):
            sums = {verdict: int(parts[at].sum()) for verdict, parts in by_verdict.items()}
            if sums != {verdict: getattr(counts[position], verdict.value) for verdict in Verdict}:
                raise LandingUnbalanced(f"the posts of file {files[position]} add up to {sums}, the file to {counts[position]}; nothing of the batch was kept")
        with connection.cursor() as cursor:
            cursor.executemany(
                "insert into ops.post_result (file_id, first_rows, accepted, quarantined, duplicate, corrected) values (%s, %s, %s, %s, %s, %s)",
                [
                    (
                        files[position],
                        self.first_rows[position],
                        *(by_verdict[verdict][at].tolist() for verdict in (Verdict.ACCEPTED, Verdict.QUARANTINED, Verdict.DUPLICATE, Verdict.CORRECTED)),
                    )
                    for at, position in enumerate(chosen)
                ],
            )

    @staticmethod
    def _by_post(begins: NDArray[np.int64], places: Sequence[_Places]) -> NDArray[np.int64]:
        """Shape (posts,): how many rows stand at each post; `begins` is where each begins, in ascending order."""
        total = np.zeros(len(begins), dtype=np.int64)
        for found, by in places:
            at = np.searchsorted(begins, found, side="right") - 1
            at = at[(at >= 0) & (begins[at] >> _SHIFT == found >> _SHIFT)]  # rows of files that are not asked for
            total += by * np.bincount(at, minlength=len(begins))
        return total


def recount(connection: psycopg.Connection, file_id: int | None, replay_batch_id: int | None, row_number: int, change: FileCounts) -> None:
    """Counts a row of a post anew, where the reading of its file had counted it; a replay of single rows never changes what a receipt counts.

    Args:
        connection: In the transaction that recounts it.
        file_id: Ledger line of its file.
        replay_batch_id: Batch of the replay that it came through; None where it landed with its file.
        row_number: Row in the file.
        change: By how much; `landed` does not change.
    """
    connection.execute(
        """
        update ops.post_result as p set
            accepted[width_bucket(%(row)s, p.first_rows)] = p.accepted[width_bucket(%(row)s, p.first_rows)] + %(accepted)s,
            quarantined[width_bucket(%(row)s, p.first_rows)] = p.quarantined[width_bucket(%(row)s, p.first_rows)] + %(quarantined)s,
            duplicate[width_bucket(%(row)s, p.first_rows)] = p.duplicate[width_bucket(%(row)s, p.first_rows)] + %(duplicate)s
        where p.file_id = %(file)s and (
            %(batch)s::bigint is null
            or exists (select from ops.file_replay as r where r.file_id = p.file_id and r.batch_id = %(batch)s and r.is_whole)
        )
        """,
        {
            "file": file_id,
            "batch": replay_batch_id,
            "row": row_number,
            "accepted": change.accepted,
            "quarantined": change.quarantined,
            "duplicate": change.duplicate,
        },
    )
