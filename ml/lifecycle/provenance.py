"""Which files a data set was made of, entered in the warehouse beside it, so that it can be read again later.

A data set names a horizon, the batch of each stream that the tables it was read from certainly showed, and the files that held the rows up to there: those of
the lake, and arrivals that the lake had not exported yet. `tidemark files dataset` follows them to where they lie today.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from ml.lifecycle.dataset import Dataset, DatasetSpec, knowledge_time

# Of the lake every file that is no copy of another one, also where its bytes are gone: then the data set says that it cannot be read whole again.
# Corrections and replays do not date their rows, so files that a replay took rows from are named whatever the span of their event time is.
_RECORD = """
with made as (
    insert into ops.dataset
        (name, content_hash, feature_relation, outcome_relation, first_date, last_date, row_count, event_until, shown, horizon)
    values (%(name)s, %(hash)s, %(features)s, %(outcomes)s, %(first)s, %(last)s, %(rows)s, %(until)s, %(shown)s, %(horizon)s)
    on conflict (name, content_hash) do nothing
    returning dataset_id, event_until, horizon
), reached as (
    select made.dataset_id, made.event_until, shown.key as stream, shown.value::bigint as batch_id, coalesce(l.exported_batch_id, 0) as exported_batch_id
    from made cross join jsonb_each_text(made.horizon) as shown left join ops.lake_state as l on l.stream = shown.key
), held as (
    select r.dataset_id, f.file_id from reached as r join ops.file as f on f.stream = r.stream and f.kind = 'lake'
    where f.state in ('live', 'expiring', 'expired') and f.replaced_at is null and f.first_batch_id <= r.batch_id and f.first_event_at <= r.event_until
    union
    select r.dataset_id, f.file_id from reached as r join ops.file as f on f.stream = r.stream and f.kind = 'arrival'
    where f.batch_id > r.exported_batch_id and f.batch_id <= r.batch_id and f.first_event_at <= r.event_until
    union
    select r.dataset_id, f.file_id from reached as r join ops.file as f on f.stream = r.stream and f.kind = 'arrival'
    join ops.file_replay as again on again.file_id = f.file_id
    where again.batch_id > r.exported_batch_id and again.batch_id <= r.batch_id and again.accepted + again.corrected > 0
), listed as (
    insert into ops.dataset_file (dataset_id, file_id) select dataset_id, file_id from held
)
select dataset_id from made
"""


class DatasetUntraceable(RuntimeError):
    """Nobody can say which rows a table was made of, so no data set is read from it; the message says what would make it so."""


@dataclass(frozen=True)
class Sources:
    """What the tables of a data set showed when it was read.

    Attributes:
        shown: Up to which batch of each stream each table certainly showed everything: relation → stream → batch.
    """

    shown: Mapping[str, Mapping[str, int]]

    @property
    def horizon(self) -> dict[str, int]:
        """The greatest batch by stream: no row of a later one can be in the data set."""
        streams = sorted({stream for batches in self.shown.values() for stream in batches})
        return {stream: max(batches.get(stream, 0) for batches in self.shown.values()) for stream in streams}


@dataclass(frozen=True)
class DatasetReference:
    """A data set as the warehouse knows it; `tidemark files dataset <dataset_id>` says where its files lie today.

    Attributes:
        dataset_id: Its number.
        rows: Rows in it.
        files: Files that held the rows it was made of when it was first read.
        horizon: Batch by stream, up to which it was read.
        event_until: End of its last outcome window, inclusive.
    """

    dataset_id: int
    rows: int
    files: int
    horizon: Mapping[str, int]
    event_until: datetime


def sources_of(connection: psycopg.Connection[Any], spec: DatasetSpec) -> Sources:
    """Up to where the tables of a specification show their streams. Call it in the transaction, and the snapshot, that reads the data set.

    Raises:
        DatasetUntraceable: If a table is not one that dbt builds, or was never built whole.
    """
    relations = [str(spec.features.relation), str(spec.outcome.relation)]
    try:
        rows = connection.execute(
            "select mart_name, stream, consumed_batch_id from platform.rpt_freshness where mart_name = any(%s) order by mart_name, stream", (relations,)
        ).fetchall()
    except psycopg.errors.UndefinedTable as error:
        raise DatasetUntraceable("platform.rpt_freshness does not exist yet, so nobody can say what the features are made of: run `tidemark up`") from error
    shown: dict[str, dict[str, int]] = {}
    for relation, stream, batch_id in rows:
        if batch_id is None:
            raise DatasetUntraceable(f"a model between {relation} and stream {stream} was never built: build the marts first (DAG build_marts)")
        shown.setdefault(relation, {})[stream] = batch_id
    if unknown := [relation for relation in relations if relation not in shown]:
        raise DatasetUntraceable(
            f"platform.rpt_freshness does not know {', '.join(unknown)}: a data set names the files it was made of, so it is read from tables that dbt builds"
        )
    return Sources(shown)


def record_dataset(connection: psycopg.Connection[Any], name: str, dataset: Dataset, sources: Sources) -> DatasetReference:
    """Enters a data set and its files, in one statement. The same content under the same name is entered once and keeps its first files.

    Args:
        connection: Of a role that may write `ops.dataset`; committed here.
        name: Whose data set it is: the use case.
        dataset: With at least one row.
        sources: What its tables showed when it was read.
    """
    spec, first, last = dataset.spec, min(dataset.dates), max(dataset.dates)
    values = {
        "name": name,
        "hash": dataset.content_hash,
        "features": str(spec.features.relation),
        "outcomes": str(spec.outcome.relation),
        "first": first,
        "last": last,
        "rows": len(dataset.frame),
        "until": knowledge_time(last) + spec.outcome.horizon,
        "shown": Jsonb({relation: dict(batches) for relation, batches in sources.shown.items()}),
        "horizon": Jsonb(sources.horizon),
    }
    connection.execute(_RECORD, values)
    row = connection.execute(
        "select d.dataset_id, d.row_count, d.horizon, d.event_until, (select count(*) from ops.dataset_file as f where f.dataset_id = d.dataset_id) "
        "from ops.dataset as d where d.name = %(name)s and d.content_hash = %(hash)s",
        values,
    ).fetchone()
    assert row is not None
    connection.commit()
    return DatasetReference(dataset_id=row[0], rows=row[1], horizon=row[2], event_until=row[3], files=row[4])
