"""How far a version has scored its feature table, and what has changed there since.

Feature tables that are built bucket by bucket log each bucket they recompute or empty (`ops.bucket_change`, decision 5). A version keeps its position in that
log (`ops.scoring_state`) and reads what was logged after it. Everything is read where there is no position, where the table was rebuilt, where the version
is asked about other rows than before, and where a table has no log. What reads too much costs time and changes nothing: a prediction is compared before it is
written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import psycopg
from psycopg import sql

from ml.lifecycle.dataset import FeatureSource, Touched

CHUNK_ROWS = 20_000  # feature rows that are held at once, about 50 MB: 80 features as Python objects, their hashes and predictions


@dataclass(frozen=True)
class News:
    """What a version has to look at.

    Attributes:
        head: Line of the log up to which its predictions stand once it has; None of a table without a log.
        touched: Buckets that changed; None: everything.
        asked: Fingerprint of what the version is asked; a position counts for this only.
    """

    head: int | None
    touched: Touched | None
    asked: str


# One statement, so one snapshot: a position that pruning has just removed must not be read beside a log that it has cut.
_NEWS = """
with own as (
    select position from ops.scoring_state
    where use_case = %(use_case)s and model_version = %(version)s and relation = %(relation)s and asked = %(asked)s
), logged as (
    select bucket from ops.bucket_change where relation = %(relation)s and change_id > (select position from own)
)
select
    exists (select from ops.model_state where model = %(relation)s and input = 'touch'),
    (select position from own),
    (select max(change_id) from ops.bucket_change where relation = %(relation)s),
    exists (select from logged where bucket is null),
    (select coalesce(jsonb_agg(distinct bucket), '[]') from logged where bucket is not null)
"""


def read_news(connection: psycopg.Connection[Any], source: FeatureSource, use_case: str, version: int, asked: Sequence[object]) -> News:
    """What has changed in the feature table since a version last scored it.

    Args:
        connection: Of the role that scores.
        source: The feature table.
        use_case: Whose version.
        version: Its number.
        asked: Everything else that decides which predictions there must be, with a `repr` that says all of it.
    """
    fingerprint = hashlib.sha256(repr((source, *asked)).encode()).hexdigest()[:32]
    values = {"use_case": use_case, "version": version, "relation": str(source.relation), "asked": fingerprint}
    row = connection.execute(_NEWS, values).fetchone()
    assert row is not None
    is_logged, position, newest, is_rebuilt, buckets = row
    if not is_logged:
        return News(None, None, fingerprint)
    head = max(newest or 0, position or 0)
    return News(head, None if position is None or is_rebuilt else _touched(source, buckets), fingerprint)


def _touched(source: FeatureSource, buckets: Sequence[Mapping[str, object]]) -> Touched | None:
    """The buckets by the columns that predictions have too; None where they share none."""
    columns = tuple(name for name in (*source.entity, source.date_column) if all(name in bucket for bucket in buckets))
    return Touched(columns, frozenset(tuple(str(bucket[name]) for name in columns) for bucket in buckets)) if columns else None


def spans(days: Sequence[tuple[date, int]], date_from: date) -> list[tuple[date, date]]:
    """Cuts the days from one on into spans of about `CHUNK_ROWS` rows, a day whole.

    Args:
        days: Rows by day, in order of the days.
        date_from: First day of the first span.

    Returns:
        First and last day of each span. They leave no day out, because predictions may stand on days that have no row any more; the last one has no end.
    """
    found, first, held = [], date_from, 0
    for day, rows in days:
        if held and held + rows > CHUNK_ROWS:
            found.append((first, day - timedelta(days=1)))
            first, held = day, 0
        held += rows
    return [*found, (first, date.max)]


def move_position(connection: psycopg.Connection[Any], source: FeatureSource, use_case: str, version: int, news: News) -> None:
    """Remembers that the predictions stand up to the news, in the transaction of the caller, who commits it. Never goes back: another may have been further."""
    if news.head is None:
        return
    connection.execute(
        sql.SQL(
            "insert into ops.scoring_state as own (use_case, model_version, relation, position, asked) values (%s, %s, %s, %s, %s) "
            "on conflict (use_case, model_version) do update set relation = excluded.relation, asked = excluded.asked, scored_at = clock_timestamp(), "
            "position = case when (own.relation, own.asked) = (excluded.relation, excluded.asked) then greatest(own.position, excluded.position) "
            "else excluded.position end"
        ),
        (use_case, version, str(source.relation), news.head, news.asked),
    )
