"""One file in full: what the ledger says about it, where its rows lie today, and who refers to it."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from include.file_index.find import COVERS, LINE, IndexedFile, lines_of
from include.file_index.kinds import FileState, Kind
from include.file_index.stores import Stores
from include.warehouse import Role, connect


@dataclass(frozen=True)
class FileDetail:
    """A file and what is known about it.

    Attributes:
        file: Its line.
        is_there: Whether its bytes are where the line says.
        counts: Of an arrival: rows accepted, quarantined, duplicate and corrected when it landed.
        replays: Of an arrival: batches that replayed rows of it, with the rows they landed (accepted or corrected).
        quarantine: Of an arrival: rows that came to the quarantine by state.
        raw: Of an arrival: rows that its batches still have in raw, by partition. A batch may hold other files too.
        lake: Of an arrival: live lake files that cover its batches and days; of a lake file: the files it replaced.
        datasets: Data sets that name it, with their use case.
    """

    file: IndexedFile
    is_there: bool
    counts: dict[str, int]
    replays: dict[int, int]
    quarantine: dict[str, int]
    raw: dict[str, int]
    lake: list[IndexedFile]
    datasets: dict[int, str]


_COUNTS = "select accepted, quarantined, duplicate, corrected from ops.file where file_id = %(id)s"
_REPLAYS = "select batch_id, accepted + corrected from ops.file_replay where file_id = %(id)s order by batch_id"
_QUARANTINE = "select state, count(*) from ops.quarantine where file_id = %(id)s group by state order by state"
_RAW = """
select partition, sum(row_count)::bigint from ops.movement
where stream = %(stream)s
    and rows_of_batch in (select batch_id from ops.file where file_id = %(id)s union all select batch_id from ops.file_replay where file_id = %(id)s)
group by partition having sum(row_count) <> 0 order by partition
"""
_DATASETS = "select d.dataset_id, d.name from ops.dataset_file as f join ops.dataset as d using (dataset_id) where f.file_id = %(id)s order by 1"
_COVERING = sql.SQL(
    "select {} from ops.file as l join ops.file as c on c.kind = 'lake' and c.state = 'live' and c.stream = l.stream and {} "
    "join ops.file as f on f.file_id = c.file_id where l.file_id = %(id)s order by f.file_id"
)
_REPLACED = sql.SQL("select {} from ops.file as f where f.replaced_by = %(id)s order by f.file_id")


def show_files(name: str) -> list[FileDetail]:
    """Files by number or address, newest content first.

    Raises:
        FileIndexError: If there is none.
        ZoneError: If a store cannot be reached.
    """
    with connect(Role.LOADER) as connection:  # only the loader reads the quarantine
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        stores = Stores()
        return [_detail(connection, file, stores) for file in lines_of(connection, name)]


def _detail(connection: psycopg.Connection, file: IndexedFile, stores: Stores) -> FileDetail:
    values = {"id": file.file_id, "stream": file.stream}
    is_arrival = file.kind == Kind.ARRIVAL
    counts = connection.execute(_COUNTS, values).fetchone() if is_arrival else None
    lake = connection.execute((_COVERING.format(LINE, COVERS) if is_arrival else _REPLACED.format(LINE)), values).fetchall()
    return FileDetail(
        file=file,
        is_there=file.state != FileState.EXPIRED and stores.holds(file),
        counts=dict(zip(("accepted", "quarantined", "duplicate", "corrected"), counts, strict=True)) if counts else {},
        replays=dict(connection.execute(_REPLAYS, values).fetchall()),
        quarantine=dict(connection.execute(_QUARANTINE, values).fetchall()),
        raw=dict(connection.execute(_RAW, values).fetchall()) if is_arrival else {},
        lake=[IndexedFile(*row) for row in lake],
        datasets=dict(connection.execute(_DATASETS, values).fetchall()),
    )
