"""What landing would say about the rows of a body, before anything is stored and without a warehouse.

Landing's own readers and checks decide. What only the warehouse knows is left out: months that have left the raw table (`partition_expired`), copies that say
something else (`conflict`), and what the server refuses (`copy_refused`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain

import numpy as np
import polars as pl

from include.contracts.model import Contract
from include.landing.majors import judge
from include.landing.post_rows import PostRows, UnreadableBody
from include.landing.readers import JsonLines
from include.landing.rows import CHUNK_ROWS, Code, RowError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class BadRow:
    """A row that would be quarantined.

    Attributes:
        row: Element of the array, or line of NDJSON, from 1.
        errors: Everything that is wrong with it.
    """

    row: int
    errors: tuple[RowError, ...]


def row_errors(contract: Contract, plain: bytes, content_type: str, tenant: str, received_at: datetime) -> list[BadRow]:
    """Judges a body as landing judges it once it is in a file of the gateway.

    Args:
        contract: Of the stream that it is for.
        plain: The body without its encoding.
        content_type: `application/json` or `application/x-ndjson`.
        tenant: Tenant that it is posted for.
        received_at: When it came; landing takes the moment at which its file is closed, some milliseconds later.

    Returns:
        The rows that would be quarantined, in order; none if all would land.
    """
    rows, lines = PostRows(), JsonLines(contract, CHUNK_ROWS)
    try:
        rows.add(plain, content_type)
    except UnreadableBody as error:
        return [BadRow(1, (RowError(Code.MALFORMED_JSON, None, None, str(error)),))]
    bad: list[BadRow] = []
    arrived = (received_at - _EPOCH) // _MICROSECOND
    for chunk in chain.from_iterable((*(lines.add(*part, 0) for part in rows.taken()), lines.finish())):
        owners = pl.Series([tenant], dtype=pl.String).new_from_index(0, len(chunk))
        validated = judge(chunk, contract, np.full(len(chunk), arrived, dtype=np.int64), owners=owners)
        bad += [BadRow(row.row_number, row.errors) for row in validated.rejected]
    return sorted(bad, key=lambda each: each.row)
