"""Point-in-time data sets: features known at the end of a day joined with what happened after it.

A feature row says what was known by the end of its day (UTC): that is the *knowledge time*. Its outcome window is the half-open
interval (knowledge time, knowledge time + horizon]. Nothing of the window enters the features, and a row enters the data set only
when the warehouse has seen the whole window. How far it has seen is asked of each tenant: where the sources of one fell silent, nobody knows whether its
machines failed, however current the others are.

The outcome is either whether an event happened in the window, or how many days passed until the first one, the whole horizon where none came: then "14 days"
means "14 or more". Because a row needs its whole window, whatever happened in it, the end of the data cuts nobody's life short: what is asked for, the
smaller of the remaining life and the horizon, is seen in full (the restriction of Candès, Lei and Ren, Conformalized survival analysis, JRSS B 2023). An
entity can still leave earlier than the data ends (scrapped, disconnected); it was there at least until its last row and its last event. Of a life such rows
are kept, with how long they were seen, and marked as not known: what to do with them is the estimator's business (`ml.lifecycle.quantiles`), and leaving them
out silently would make lives look shorter than they are. Of a yes or no they are left out, and counted: to call them "no" would teach that what looks worn
does not fail.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any, LiteralString

import numpy as np
import pandas as pd
import psycopg
from psycopg import sql

from ml.lifecycle.schema import FeatureSchema, FeatureSchemaMismatch, FeaturesNotBuilt

OUTCOME = "outcome"
IS_KNOWN = "outcome_is_known"  # of a time to an event: false where the entity left before it failed and before its window was over
DAY = timedelta(days=1)
FETCHED_ROWS = 5000  # rows that come from the server at once
REAL_TYPES = ("float4", "float8")


class NotEnoughData(ValueError):
    """There is too little history, or too few outcomes, to fit and judge a model."""


@dataclass(frozen=True)
class Relation:
    """A table or view of the warehouse."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        """The quoted name."""
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True)
class FeatureSource:
    """Where features stand: one row per entity and day, holding only what was known by the end of that day (UTC)."""

    relation: Relation
    entity: tuple[str, ...]  # tenant first
    date_column: str
    schema: FeatureSchema
    population: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # column → values that belong to the question
    context: tuple[str, ...] = ()  # columns for slices and baselines that are no features
    values: str | None = None  # jsonb column with numbers and texts by name, where features and context stand that are no columns themselves
    block: tuple[str, ...] = ()  # columns whose rows share their fate, such as the machine of components; the entity if empty

    def __post_init__(self) -> None:
        if not set(self.block) <= set(self.entity):
            raise ValueError(f"{self.relation}: a block is made of whole entities, so its columns {self.block} must be some of {self.entity}")

    @property
    def block_columns(self) -> tuple[str, ...]:
        """Columns that name what shares its fate."""
        return self.block or self.entity


class Measure(StrEnum):
    """What is asked of the events in an outcome window."""

    HAPPENED = "happened"  # 1 or 0: was there one?
    DAYS_UNTIL = "days_until"  # days from the knowledge time to the first one, the horizon where there was none


@dataclass(frozen=True)
class OutcomeSource:
    """Events that answer the question: did one happen to the entity within the horizon, or when did the first one?"""

    relation: Relation
    time_column: str
    condition: Mapping[str, tuple[str, ...]]  # column → values that count
    horizon: timedelta
    settling: timedelta = timedelta(0)  # how long an event may take to be reported; a window is complete only after it
    measure: Measure = Measure.HAPPENED
    is_closed: bool = False  # a finished history: every event that came is there, so no window is still open

    @property
    def horizon_days(self) -> float:
        """Length of the outcome window in days."""
        return self.horizon / DAY


class SplitBy(StrEnum):
    """What keeps the parts of a data set apart."""

    TIME = "time"  # one plant, and its past: train before validation before test, with gaps
    ENTITY = "entity"  # a collection of lives that know no common calendar: every unit lies whole in one part


@dataclass(frozen=True)
class DatasetSpec:
    """One question put to the warehouse. The entity columns have the same names in both relations."""

    features: FeatureSource
    outcome: OutcomeSource
    split_by: SplitBy = SplitBy.TIME


@dataclass(frozen=True)
class Dataset:
    """Rows with complete outcome windows, ordered by day and entity."""

    spec: DatasetSpec
    frame: pd.DataFrame  # entity columns, date column, features, context, outcome (0 or 1; days, and then whether they are known)
    known_until: datetime  # the warehouse is taken to know nothing after this, and of a tenant whose data end earlier, less
    incomplete_rows: int  # rows of the population left out because their outcome window is not over
    departed_rows: int = 0  # left out because their entity left before its window was over; of a time to an event they are in the frame

    @property
    def dates(self) -> pd.Series:
        """The day of each row, as `datetime.date`."""
        return self.frame[self.spec.features.date_column]

    @property
    def content_hash(self) -> str:
        """Changes when any key, feature or outcome of the data set changes."""
        features = self.spec.features
        digest = hashlib.sha256()
        of_outcome = [name for name in (OUTCOME, IS_KNOWN) if name in self.frame]
        keys = self.frame[[*features.entity, features.date_column, *of_outcome]].itertuples(index=False, name=None)
        for key, snapshot in zip(keys, features.schema.snapshots(self.frame), strict=True):
            digest.update(repr((*map(str, key), snapshot)).encode())
        return digest.hexdigest()[:32]


def knowledge_time(day: date) -> datetime:
    """The end of a feature day in UTC: the moment at which its row could first be used."""
    return datetime.combine(day, time(), tzinfo=UTC) + DAY


def offered_columns(connection: psycopg.Connection[Any], relation: Relation) -> dict[str, str]:
    """Postgres type name by column name of a relation."""
    with connection.cursor() as cursor:
        try:
            cursor.execute(sql.SQL("select * from {} limit 0").format(relation.identifier))
        except psycopg.errors.UndefinedTable as error:
            raise FeaturesNotBuilt(f"{relation} does not exist yet: build the marts first (DAG build_marts)") from error
        types = connection.adapters.types
        return {column.name: info.name if (info := types.get(column.type_code)) else str(column.type_code) for column in cursor.description or ()}


@dataclass(frozen=True)
class Touched:
    """Some buckets of a feature table: the values, as texts, that rows of them have in some columns of entity and day."""

    columns: tuple[str, ...]
    keys: frozenset[tuple[str, ...]]

    @property
    def values(self) -> dict[str, list[str]]:
        """Parameters of `matches`."""
        return {f"touched_{position}": [key[position] for key in self.keys] for position in range(len(self.columns))}

    def matches(self, alias: str, types: Mapping[str, str]) -> sql.Composed:
        """Which rows of a relation lie in one of the buckets.

        Args:
            alias: Its name in the query.
            types: Postgres type name of its columns.
        """
        lists = [sql.SQL("{}::text[]::{}[]").format(sql.Placeholder(f"touched_{at}"), sql.Identifier(types[name])) for at, name in enumerate(self.columns)]
        columns = sql.SQL(", ").join(sql.Identifier(alias, name) for name in self.columns)
        return sql.SQL("({}) in (select * from unnest({}))").format(columns, sql.SQL(", ").join(lists))


def load_features(
    connection: psycopg.Connection[Any],
    source: FeatureSource,
    *,
    date_from: date | None = None,
    date_to: date | None = None,
    touched: Touched | None = None,
) -> pd.DataFrame:
    """Feature rows of the population, for scoring.

    Args:
        connection: Open connection of a role that may read the features.
        source: What to read.
        date_from: First day; all days when None.
        date_to: Last day; all days when None.
        touched: Rows of these buckets only.

    Returns:
        Entity columns, date column, features and context, ordered by day and entity.

    Raises:
        FeatureSchemaMismatch: If the table does not fit the schema.
    """
    offered = _check_source(connection, source)
    where, values = _rows_of(source, offered, date_from, date_to, touched)
    query = sql.SQL("select {columns} from {relation} as f where {where} order by {order}").format(
        columns=_columns(source, offered), relation=source.relation.identifier, where=where, order=_order(source)
    )
    return _fetch(connection, query, values)


def count_features(
    connection: psycopg.Connection[Any], source: FeatureSource, *, date_from: date | None = None, touched: Touched | None = None
) -> list[tuple[date, int]]:
    """How many rows `load_features` would give of each day that has some, in order of the days.

    Raises:
        FeatureSchemaMismatch: If the table does not fit the schema.
    """
    offered = _check_source(connection, source)
    where, values = _rows_of(source, offered, date_from, None, touched)
    query = sql.SQL("select f.{day}, count(*) from {relation} as f where {where} group by 1 order by 1").format(
        day=sql.Identifier(source.date_column), relation=source.relation.identifier, where=where
    )
    return connection.execute(query, values).fetchall()


def _rows_of(
    source: FeatureSource, offered: Mapping[str, str], date_from: date | None, date_to: date | None, touched: Touched | None
) -> tuple[sql.Composed, dict[str, Any]]:
    where = sql.SQL("{population} and f.{day} >= %(date_from)s and f.{day} <= %(date_to)s").format(
        population=_matches("f", source.population), day=sql.Identifier(source.date_column)
    )
    values: dict[str, Any] = {"date_from": date_from or date.min, "date_to": date_to or date.max}
    if touched is None:
        return where, values
    return sql.SQL("{} and {}").format(where, touched.matches("f", offered)), values | touched.values


# Until when the outcomes of each tenant are known.
_SETTLED: LiteralString = """
from {features} as f
join (
    select {tenant}, case when %(is_closed)s then 'infinity' else (max({day})::timestamp at time zone 'UTC') - %(settling)s end as until
    from {features} group by {tenant}
) as settled on settled.{tenant} = f.{tenant}
"""
# How long each entity was there (to the end of its last feature day, or to a later event of its own), and its first event in the window.
_ROWS: LiteralString = """
{settled}
join (select {entity}, (max({day}) + 1)::timestamp at time zone 'UTC' as until from {features} group by {entity}) as present on {of_present}
left join (select {entity}, max({occurred_at}) as at from {outcomes} as o where {condition} group by {entity}) as last_event on {of_last_event}
cross join lateral (select least(settled.until, greatest(present.until, last_event.at)) as until) as seen
left join lateral (
    select min({occurred_at}) as occurred_at from {outcomes} as o
    where {same_entity} and {condition} and {occurred_at} > {known_at} and {occurred_at} <= {known_at} + %(horizon)s
) as first on true
where {population} and {known_at} + %(horizon)s <= settled.until
"""
_QUERIES: dict[Measure, LiteralString] = {
    # Where an entity left within the window and no event came, nobody knows what came after. A label of a finished history speaks of the row's own day, and
    # its entity was there on that day: hence the slack.
    Measure.HAPPENED: """
select {columns}, (first.occurred_at is not null)::int as outcome
{rows}
    and (first.occurred_at is not null or seen.until >= {known_at} + %(horizon)s - %(slack)s)
order by {order}
""",
    Measure.DAYS_UNTIL: """
select {columns},
    case
        when first.occurred_at is not null then extract(epoch from first.occurred_at - {known_at}) / 86400.0
        else least(%(horizon_days)s, extract(epoch from seen.until - {known_at}) / 86400.0)
    end::float8 as outcome,
    first.occurred_at is not null or seen.until >= {known_at} + %(horizon)s as outcome_is_known
{rows}
order by {order}
""",
}
_COUNTS: LiteralString = """
select count(*) filter (where {known_at} + %(horizon)s <= settled.until), count(*) filter (where {known_at} + %(horizon)s > settled.until)
{settled}
where {population}
"""


def load_dataset(connection: psycopg.Connection[Any], spec: DatasetSpec) -> Dataset:
    """Join the features with the outcomes after them, leaving out rows whose outcome window is not over.

    The newest day of a tenant may still be filling, so the warehouse is taken to know everything of it up to the *start* of that
    day and nothing later; the clock is never asked. Of a finished history everything is known.

    Raises:
        FeatureSchemaMismatch: If a table does not fit the specification.
        NotEnoughData: If the feature table is empty.
    """
    features, outcome = spec.features, spec.outcome
    offered = _check_source(connection, features)
    _check_outcome(connection, spec)
    newest_query = sql.SQL("select max(f.{day}) from {relation} as f where {population}").format(
        day=sql.Identifier(features.date_column),
        relation=features.relation.identifier,
        population=_matches("f", features.population) if outcome.is_closed else sql.SQL("true"),
    )
    newest = connection.execute(newest_query).fetchone()
    if newest is None or newest[0] is None:
        raise NotEnoughData(f"{features.relation} is empty: land data and build the marts first (DAGs land_*, build_marts)")
    known_until = datetime.combine(newest[0], time(), tzinfo=UTC)
    if outcome.is_closed:
        known_until = knowledge_time(newest[0]) + outcome.horizon + outcome.settling
    # The end of the feature day in UTC, as in knowledge_time().
    parts: dict[str, sql.Composable] = {
        "columns": _columns(features, offered),
        "features": features.relation.identifier,
        "outcomes": outcome.relation.identifier,
        "population": _matches("f", features.population),
        "condition": _matches("o", outcome.condition),
        "same_entity": _same(features.entity, "o", "f"),
        "known_at": sql.SQL("((f.{} + 1)::timestamp at time zone 'UTC')").format(sql.Identifier(features.date_column)),
        "occurred_at": sql.Identifier("o", outcome.time_column),
        "order": _order(features),
        "entity": sql.SQL(", ").join(sql.Identifier(name) for name in features.entity),
        "of_present": _same(features.entity, "present", "f"),
        "of_last_event": _same(features.entity, "last_event", "f"),
        "tenant": sql.Identifier(features.entity[0]),
        "day": sql.Identifier(features.date_column),
    }
    parts["settled"] = sql.SQL(_SETTLED).format(**parts)
    parts["rows"] = sql.SQL(_ROWS).format(**parts)
    values = {
        "horizon": outcome.horizon,
        "horizon_days": outcome.horizon_days,
        "settling": outcome.settling,
        "is_closed": outcome.is_closed,
        "slack": DAY if outcome.is_closed else timedelta(0),
    }
    frame = _fetch(connection, sql.SQL(_QUERIES[outcome.measure]).format(**parts), values)
    counted = connection.execute(sql.SQL(_COUNTS).format(**parts), values).fetchone()
    complete, incomplete = counted if counted is not None else (0, 0)
    return Dataset(spec, frame, known_until, incomplete_rows=incomplete, departed_rows=complete - len(frame))


def entities_of(source: FeatureSource, frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """The entity of each row, as texts."""
    return [tuple(map(str, key)) for key in frame[list(source.entity)].itertuples(index=False, name=None)]


def blocks_of(source: FeatureSource, frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """The block of each row, as texts: what is drawn as a whole, and lies whole in one part, because its rows are alike."""
    return [tuple(map(str, key)) for key in frame[list(source.block_columns)].itertuples(index=False, name=None)]


def offered_names(connection: psycopg.Connection[Any], source: FeatureSource) -> set[str]:
    """Everything that features of the population can be read from: columns, and keys of the column of values."""
    return set(offered_columns(connection, source.relation)) | _keys(connection, source)


def _keys(connection: psycopg.Connection[Any], source: FeatureSource) -> set[str]:
    if source.values is None:
        return set()
    query = sql.SQL("select distinct jsonb_object_keys(f.{values}) from {relation} as f where {population}").format(
        values=sql.Identifier(source.values), relation=source.relation.identifier, population=_matches("f", source.population)
    )
    return {row[0] for row in connection.execute(query)}


def _missing_keys(connection: psycopg.Connection[Any], source: FeatureSource, names: list[str]) -> list[str]:
    """Which of the names no row of the population has in its column of values. The first row that has one is enough: scoring asks for every span."""
    assert source.values is not None
    query = sql.SQL(
        "select wanted.name from unnest(%s::text[]) with ordinality as wanted (name, position) "
        "where not exists (select from {relation} as f where {population} and f.{values} ? wanted.name) order by wanted.position"
    ).format(values=sql.Identifier(source.values), relation=source.relation.identifier, population=_matches("f", source.population))
    return [row[0] for row in connection.execute(query, (names,))]


def _check_source(connection: psycopg.Connection[Any], source: FeatureSource) -> dict[str, str]:
    """Refuses a table that does not fit; returns the types of its columns by name."""
    offered = offered_columns(connection, source.relation)
    needed = (*source.entity, source.date_column, *source.population)
    if source.values is None:
        source.schema.check(str(source.relation), offered)
        _require(source.relation, offered, (*needed, *source.context))
    else:
        _require(source.relation, offered, (*needed, source.values))
        columns = tuple(feature for feature in source.schema.features if feature.name in offered)
        if columns:
            FeatureSchema(columns).check(str(source.relation), offered)
        missing = _missing_keys(connection, source, [name for name in (*source.schema.names, *source.context) if name not in offered])
        if missing:
            there_is = ", ".join(sorted(_keys(connection, source))) or "nothing: land the table and build its features first"
            raise FeatureSchemaMismatch(f"{source.relation} lacks {', '.join(missing)}; in {source.values} of the population there is {there_is}")
    if offered[source.date_column] != "date":
        raise FeatureSchemaMismatch(f"{source.relation}.{source.date_column} must be a date, is {offered[source.date_column]}")
    return offered


def _check_outcome(connection: psycopg.Connection[Any], spec: DatasetSpec) -> None:
    outcome = spec.outcome
    offered = offered_columns(connection, outcome.relation)
    _require(outcome.relation, offered, (*spec.features.entity, outcome.time_column, *outcome.condition))
    if offered[outcome.time_column] != "timestamptz":
        raise FeatureSchemaMismatch(f"{outcome.relation}.{outcome.time_column} must be a timestamptz, is {offered[outcome.time_column]}")


def _require(relation: Relation, offered: Mapping[str, str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in offered]
    if missing:
        raise FeatureSchemaMismatch(f"{relation} lacks the columns {', '.join(missing)}: build the marts again or correct the use case")


def _columns(source: FeatureSource, offered: Mapping[str, str]) -> sql.Composed:
    names = dict.fromkeys((*source.entity, source.date_column, *source.schema.names, *source.context))
    return sql.SQL(", ").join(_column(source, name, offered) for name in names)


def _column(source: FeatureSource, name: str, offered: Mapping[str, str]) -> sql.Composable:
    if name in offered or source.values is None:
        return sql.Identifier("f", name)
    escaped = name.replace("%", "%%")  # the query has parameters
    return sql.SQL("{} -> {} as {}").format(sql.Identifier("f", source.values), sql.Literal(escaped), sql.Identifier(escaped))


def _order(source: FeatureSource) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier("f", name) for name in (source.date_column, *source.entity))


def _same(columns: Sequence[str], one: str, other: str) -> sql.Composed:
    return sql.SQL(" and ").join(sql.SQL("{} = {}").format(sql.Identifier(one, name), sql.Identifier(other, name)) for name in columns)


def _matches(alias: str, condition: Mapping[str, tuple[str, ...]]) -> sql.Composable:
    if not condition:
        return sql.SQL("true")
    return sql.SQL(" and ").join(sql.SQL("{} = any({})").format(sql.Identifier(alias, name), sql.Literal(list(values))) for name, values in condition.items())


def _fetch(connection: psycopg.Connection[Any], query: sql.Composed, values: Mapping[str, Any]) -> pd.DataFrame:
    """Rows by a cursor of the server: what is held is the columns, real numbers as such, and not every row as objects beside them."""
    with connection.transaction(), connection.cursor(name="feature_rows") as cursor:
        connection.execute("set local cursor_tuple_fraction = 1")  # every row is wanted: plan for the last one, not for the first
        cursor.execute(query, values)
        types = connection.adapters.types
        names = [column.name for column in cursor.description or ()]
        are_real = [(info := types.get(column.type_code)) is not None and info.name in REAL_TYPES for column in cursor.description or ()]
        columns: list[Any] = [array("d") if is_real else [] for is_real in are_real]
        while rows := cursor.fetchmany(FETCHED_ROWS):
            for column, is_real, found in zip(columns, are_real, zip(*rows, strict=True), strict=True):
                column.extend([math.nan if value is None else value for value in found] if is_real else found)
    # Objects but for real numbers: the schema decides dtypes once, the same for one row as for thousands.
    return pd.DataFrame(
        {
            name: pd.Series(np.frombuffer(column) if is_real and len(column) else column, dtype=np.float64 if is_real else object)
            for name, is_real, column in zip(names, are_real, columns, strict=True)
        }
    )
