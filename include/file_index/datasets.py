"""Data sets that models were trained on, and where the files they were made of lie today.

A data set names files as they lay when it was read. Since then the lake may have merged them or written them anew, and the zone may have let arrivals go that
the lake holds. Both are followed here; nothing is brought back or rebuilt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from include.file_index.errors import FileIndexError
from include.file_index.find import COVERS, LINE, IndexedFile
from include.file_index.kinds import FileState
from include.file_index.stores import Stores
from include.warehouse import Role, connect

GONE = (FileState.EXPIRING, FileState.EXPIRED)


@dataclass(frozen=True)
class StoredDataset:
    """A data set.

    Attributes:
        dataset_id: Its number.
        name: The use case whose it is.
        content_hash: Hash of every key, feature and outcome.
        feature_relation: Table that the features were read from.
        outcome_relation: Table that the outcomes were read from.
        first_date: First feature day.
        last_date: Last feature day.
        row_count: Rows.
        event_until: End of the last outcome window, inclusive: nothing that happened later is in it.
        shown: Up to which batch of each stream each table showed everything.
        horizon: Greatest of these by stream: no row of a later batch is in it.
        created_at: When it was first read.
        file_count: Files that it names.
    """

    dataset_id: int
    name: str
    content_hash: str
    feature_relation: str
    outcome_relation: str
    first_date: date
    last_date: date
    row_count: int
    event_until: datetime
    shown: dict[str, dict[str, int]]
    horizon: dict[str, int]
    created_at: datetime
    file_count: int


@dataclass(frozen=True)
class HeldFile:
    """A file that holds rows of a data set today.

    Attributes:
        file: The file.
        named: Numbers of the files of the data set that lead to it; the file's own where it is as it was.
        is_there: Whether its bytes are.
    """

    file: IndexedFile
    named: list[int]
    is_there: bool


@dataclass(frozen=True)
class DatasetFiles:
    """A data set and its files.

    Attributes:
        dataset: The data set.
        files: Where its rows lie today, by stream and event time.
        corrected: Events by stream that a batch beyond the horizon corrected, up to the end of the data set: the files hold what they say now, what they said
            before is in `ops.correction`.
    """

    dataset: StoredDataset
    files: list[HeldFile]
    corrected: dict[str, int] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether the bytes of all files are there."""
        return all(held.is_there for held in self.files)


_DATASET = sql.SQL(
    "select d.dataset_id, d.name, d.content_hash, d.feature_relation, d.outcome_relation, d.first_date, d.last_date, d.row_count, d.event_until, d.shown, "
    "d.horizon, d.created_at, (select count(*) from ops.dataset_file as f where f.dataset_id = d.dataset_id) as file_count from ops.dataset as d "
)
# A named file leads to the last of those that replaced it, and to none where its day has no rows any more. An arrival whose bytes are gone leads to the lake
# files that cover its batches and its days, those among them whose bytes are gone too: else what is left would pass for the whole. Rows that a replay landed
# may be of any day.
_TODAY = sql.SQL(
    """
    with recursive named as (
        select f.file_id as named_id, f.file_id, f.replaced_by from ops.dataset_file as d join ops.file as f using (file_id) where d.dataset_id = %(id)s
        union
        select n.named_id, f.file_id, f.replaced_by from named as n join ops.file as f on f.file_id = n.replaced_by
    ), last as (
        select n.named_id, f.* from named as n join ops.file as f using (file_id) where n.replaced_by is null and f.replaced_at is null
    ), held as (
        select l.named_id, coalesce(lake.file_id, l.file_id) as file_id from last as l
        left join lateral (
            select c.file_id from ops.file as c
            where l.kind = 'arrival' and l.state = any(%(gone)s) and c.kind = 'lake' and c.stream = l.stream and c.state <> 'replaced' and c.replaced_at is null
                and ({covers} or exists (
                    select from ops.file_replay as r where r.file_id = l.file_id and r.accepted + r.corrected > 0
                        and r.batch_id between c.first_batch_id and c.last_batch_id
                ))
        ) as lake on true
    )
    select {line}, array_agg(h.named_id order by h.named_id) as named from held as h join ops.file as f using (file_id)
    group by f.file_id order by f.stream, f.first_event_at nulls first, f.file_id
    """
).format(line=LINE, covers=COVERS)
_CORRECTED = """
select c.stream, count(distinct c.event_id) from ops.dataset as d cross join jsonb_each_text(d.horizon) as h
join ops.correction as c on c.stream = h.key and c.batch_id > h.value::bigint
where d.dataset_id = %s and c.is_applied and (c.old_content ->> 'event_at')::timestamptz <= d.event_until group by c.stream order by c.stream
"""


def list_datasets(*, limit: int = 100) -> list[StoredDataset]:
    """Data sets, newest first."""
    with connect(Role.ANALYST) as connection, connection.cursor(row_factory=class_row(StoredDataset)) as cursor:
        return cursor.execute(_DATASET + sql.SQL("order by d.dataset_id desc limit %s"), (limit,)).fetchall()


def files_of_dataset(dataset_id: int, *, by_content: bool = False) -> DatasetFiles:
    """A data set, and where its rows lie today.

    Args:
        dataset_id: Its number.
        by_content: Read all bytes and compare their SHA-256; otherwise the stores are asked whether the files are there.

    Raises:
        FileIndexError: If there is no such data set.
        ZoneError: If a store cannot be reached.
    """
    with connect(Role.LOADER) as connection:  # only the loader reads corrections, which may hold personal data
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.cursor(row_factory=class_row(StoredDataset)) as cursor:
            dataset = cursor.execute(_DATASET + sql.SQL("where d.dataset_id = %s"), (dataset_id,)).fetchone()
        if dataset is None:
            raise FileIndexError(f"there is no data set {dataset_id}; `tidemark files dataset` lists them")
        rows = connection.execute(_TODAY, {"id": dataset_id, "gone": [state.value for state in GONE]}).fetchall()
        corrected: dict[str, int] = dict(connection.execute(_CORRECTED, (dataset_id,)).fetchall())
    found = [(IndexedFile(*row[:-1]), row[-1]) for row in rows]
    missing = Stores().missing((file for file, _ in found if file.state != FileState.EXPIRED), by_content=by_content)
    files = [HeldFile(file, named, file.state != FileState.EXPIRED and file.file_id not in missing) for file, named in found]
    return DatasetFiles(dataset, files, corrected)
