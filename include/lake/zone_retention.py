"""The zone's own retention: bytes of files that landed long ago, and whose rows the lake has, are deleted. Their lines stay in the ledger for ever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql

from include.contracts import load_contract
from include.contracts.model import Contract
from include.lake.files import lock_loads
from include.lake.steps import LakeStep
from include.landing.crash import crash_point
from include.landing.originals import find_landed
from include.landing.zone import Zone
from include.settings import get_settings
from include.warehouse import Role, connect

FILES_AT_ONCE = 500

# Rows of these formats are in the quarantine whole; rows of others, and files quarantined whole, can only be replayed from their file (decision 0017).
_DUE = sql.SQL("""
select f.file_id, f.address, f.version_tag, f.content_hash, f.size_bytes
from ops.file as f
where f.kind = 'arrival' and f.stream = %(stream)s and f.state in ('landed', 'quarantined') and f.landed_at < %(before)s
    and greatest(f.batch_id, (select max(r.batch_id) from ops.file_replay as r where r.file_id = f.file_id))
        <= (select s.exported_batch_id from ops.lake_state as s where s.stream = %(stream)s)
    and not exists (
        select from ops.quarantine as q
        where q.file_id = f.file_id and q.state = 'open' and (q.row_number is null or split_part(f.file_format, '.', 1) not in ('ndjson', 'json', 'posts'))
    )
order by f.file_id
""")


@dataclass(frozen=True)
class ZoneExpiry:
    """Files of a stream whose bytes left the zone, or are to leave it.

    Attributes:
        stream: The stream.
        files: Number of files.
        size_bytes: Their size as stored.
    """

    stream: str
    files: int
    size_bytes: int


def due_in_zone(connection: psycopg.Connection, contract: Contract, at: datetime) -> ZoneExpiry:
    """What `expire_zone` would delete at a time."""
    query = sql.SQL("select count(*), coalesce(sum(size_bytes), 0)::bigint from ({}) as due").format(_DUE)
    row = connection.execute(query, {"stream": contract.stream, "before": at - contract.zone_retention}).fetchone()
    return ZoneExpiry(contract.stream, *(row or (0, 0)))


def expire_zone(stream: str, at: datetime) -> ZoneExpiry:
    """Deletes the bytes of files that landed longer ago than the contract keeps them, that the lake has, and that no open row of the quarantine needs.

    Each file is marked `expiring`, deleted, and marked `expired`: a process killed in between is made good by the next run, which begins with what is
    `expiring`. A file that was written anew since it landed is another arrival and stays.

    Args:
        stream: The stream.
        at: The time that counts as now.

    Returns:
        Files that became `expired`.

    Raises:
        LakeBusy: If the stream is being loaded for longer than 30 seconds; run it again.
        ZoneError: If the zone cannot be reached or refuses; what was marked is tried again by the next run.
    """
    contract, zone = load_contract(stream), Zone(get_settings().zone_url)
    files = size = 0
    with connect(Role.LOADER, autocommit=True) as connection:
        while True:
            marked = connection.execute(
                "select file_id, address, version_tag, content_hash, size_bytes from ops.file "
                "where kind = 'arrival' and stream = %s and state = 'expiring' order by file_id limit %s",
                (stream, FILES_AT_ONCE),
            ).fetchall()
            if not marked:
                if not _mark(connection, contract, at):
                    return ZoneExpiry(stream, files, size)
                crash_point(LakeStep.ZONE_AFTER_MARK)
                continue
            for number, (_, address, version_tag, content_hash, _) in enumerate(marked):
                found = find_landed(zone, address, version_tag, bytes(content_hash))
                if found is not None:
                    zone.remove(found.address)
                if number == 0:
                    crash_point(LakeStep.ZONE_MID_DELETE)
            connection.execute(
                "update ops.file set state = 'expired', expired_at = clock_timestamp() where file_id = any(%s) and state = 'expiring'",
                ([file_id for file_id, *_ in marked],),
            )
            files += len(marked)
            size += sum(row[4] for row in marked)


def _mark(connection: psycopg.Connection, contract: Contract, at: datetime) -> int:
    """Marks files `expiring`, under the lock of the stream's loads and replays. Returns how many."""
    with connection.transaction():
        lock_loads(connection, contract.stream)
        query = sql.SQL("update ops.file as f set state = 'expiring' from ({} limit %(limit)s) as due where due.file_id = f.file_id").format(_DUE)
        return connection.execute(query, {"stream": contract.stream, "before": at - contract.zone_retention, "limit": FILES_AT_ONCE}).rowcount
