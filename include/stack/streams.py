"""How each stream is doing: what its contract promises against what the ledger says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import dict_row

from include.contracts import load_contract, streams
from include.warehouse import Role, connect

LEDGER = """
select s.stream, state.last_batch_id, state.last_arrived_at, state.last_landed_at, state.last_event_at, coalesce(state.is_held, false) as is_held,
    state.held_reason,
    coalesce(batches.landed, 0)::bigint as landed, coalesce(batches.accepted, 0)::bigint as accepted, coalesce(batches.quarantined, 0)::bigint as quarantined,
    coalesce(batches.duplicate, 0)::bigint as duplicate, coalesce(batches.corrected, 0)::bigint as corrected,
    coalesce(batches.replayed, 0)::bigint as replayed,
    coalesce(files.failed, 0)::bigint as failed_files, coalesce(quarantine.waiting, 0)::bigint as open_quarantine
from unnest(%(streams)s::text[]) as s (stream)
left join ops.stream_state as state on state.stream = s.stream
left join (
    select stream, sum(landed) filter (where kind = 'load') as landed, sum(accepted) filter (where kind = 'load') as accepted,
        sum(quarantined) filter (where kind = 'load') as quarantined, sum(duplicate) filter (where kind = 'load') as duplicate,
        sum(corrected) filter (where kind = 'load') as corrected, sum(accepted + duplicate + corrected) filter (where kind = 'replay') as replayed
    from ops.batch group by stream
) as batches on batches.stream = s.stream
left join (select stream, count(*) as failed from ops.file where state = 'failed' group by stream) as files on files.stream = s.stream
left join (select stream, count(*) as waiting from ops.quarantine where state = 'open' group by stream) as quarantine on quarantine.stream = s.stream
order by s.stream
"""


@dataclass(frozen=True)
class StreamStatus:
    """One stream. Counts are over everything that ever landed, as the files landed; `silence_s` is since the last arrival.

    `replayed` rows are among `quarantined` (or were rows of a file quarantined whole) and landed later; `open_quarantine` is what waits now.
    """

    stream: str
    is_healthy: bool
    problems: tuple[str, ...]
    last_batch_id: int | None
    last_landed_at: datetime | None
    last_arrived_at: datetime | None
    last_event_at: datetime | None
    silence_s: float | None
    freshness_s: float
    landed: int
    accepted: int
    quarantined: int
    duplicate: int
    corrected: int
    replayed: int
    open_quarantine: int
    failed_files: int
    is_held: bool


def stream_statuses(at: datetime) -> list[StreamStatus]:
    """Status of every stream at a moment.

    Raises:
        WarehouseUnavailable: If the warehouse does not answer.
    """
    with connect(Role.LOADER) as connection, connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(LEDGER, {"streams": list(streams())}).fetchall()
    found = []
    for row in rows:
        freshness = load_contract(row["stream"]).freshness.total_seconds()
        silence = (at - row["last_arrived_at"]).total_seconds() if row["last_arrived_at"] else None
        problems = []
        # A stream in which nothing ever arrived promises nothing yet: a house need not have a source for each.
        if silence is not None and silence > freshness:
            problems.append("silent for too long")
        if row["failed_files"]:
            problems.append(f"{row['failed_files']} failed files")
        if row["is_held"]:
            problems.append(f"held: {row['held_reason'] or 'no reason given'}")
        names = ("landed", "accepted", "quarantined", "duplicate", "corrected", "replayed", "open_quarantine", "failed_files", "is_held")
        counts = {name: row[name] for name in names}
        times = {name: row[name] for name in ("last_batch_id", "last_landed_at", "last_arrived_at", "last_event_at")}
        found.append(
            StreamStatus(stream=row["stream"], is_healthy=not problems, problems=tuple(problems), silence_s=silence, freshness_s=freshness, **times, **counts)
        )
    return found
