"""Point-in-time data sets: features known at the end of a day joined with what happened after it, and their split by time.

A feature row says what was known by the end of its day (UTC): that is the *knowledge time*. Its outcome window is the half-open
interval (knowledge time, knowledge time + horizon]. Nothing of the window enters the features, and a row enters the data set only
when the warehouse has seen the whole window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from ml.lifecycle.schema import FeatureSchema, FeatureSchemaMismatch

OUTCOME = "outcome"
DAY = timedelta(days=1)


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


@dataclass(frozen=True)
class OutcomeSource:
    """Events that answer the question: did one happen to the entity within the horizon?"""

    relation: Relation
    time_column: str
    condition: Mapping[str, tuple[str, ...]]  # column → values that count
    horizon: timedelta
    settling: timedelta = timedelta(0)  # how long an event may take to be reported; a window is complete only after it


@dataclass(frozen=True)
class DatasetSpec:
    """One question put to the warehouse. The entity columns have the same names in both relations."""

    features: FeatureSource
    outcome: OutcomeSource


@dataclass(frozen=True)
class Dataset:
    """Rows with complete outcome windows, ordered by day and entity."""

    spec: DatasetSpec
    frame: pd.DataFrame  # entity columns, date column, features, context, outcome (0 or 1)
    known_until: datetime  # the warehouse is taken to know nothing after this
    incomplete_rows: int  # rows of the population left out because their outcome window is not over

    @property
    def dates(self) -> pd.Series:
        """The day of each row, as `datetime.date`."""
        return self.frame[self.spec.features.date_column]

    @property
    def content_hash(self) -> str:
        """Changes when any key, feature or outcome of the data set changes."""
        features = self.spec.features
        digest = hashlib.sha256()
        keys = self.frame[[*features.entity, features.date_column, OUTCOME]].itertuples(index=False, name=None)
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
            raise FeatureSchemaMismatch(f"{relation} does not exist yet: build the marts first (DAG build_marts)") from error
        types = connection.adapters.types
        return {column.name: info.name if (info := types.get(column.type_code)) else str(column.type_code) for column in cursor.description or ()}


def load_features(connection: psycopg.Connection[Any], source: FeatureSource, *, date_from: date | None = None) -> pd.DataFrame:
    """Feature rows of the population, for scoring.

    Args:
        connection: Open connection of a role that may read the features.
        source: What to read.
        date_from: First day; all days when None.

    Returns:
        Entity columns, date column, features and context, ordered by day and entity.

    Raises:
        FeatureSchemaMismatch: If the table does not fit the schema.
    """
    _check_source(connection, source)
    query = sql.SQL("select {columns} from {relation} as f where {population} and f.{day} >= %(date_from)s order by {order}").format(
        columns=_columns(source),
        relation=source.relation.identifier,
        population=_matches("f", source.population),
        day=sql.Identifier(source.date_column),
        order=_order(source),
    )
    return _fetch(connection, query, {"date_from": date_from or date.min})


def load_dataset(connection: psycopg.Connection[Any], spec: DatasetSpec) -> Dataset:
    """Join the features with the outcomes after them, leaving out rows whose outcome window is not over.

    The newest day of the feature table may still be filling, so the warehouse is taken to know everything up to the *start* of that
    day and nothing later; the clock is never asked.

    Raises:
        FeatureSchemaMismatch: If a table does not fit the specification.
        NotEnoughData: If the feature table is empty.
    """
    features, outcome = spec.features, spec.outcome
    _check_source(connection, features)
    _check_outcome(connection, spec)
    newest_query = sql.SQL("select max({day}) from {relation}").format(day=sql.Identifier(features.date_column), relation=features.relation.identifier)
    newest = connection.execute(newest_query).fetchone()
    if newest is None or newest[0] is None:
        raise NotEnoughData(f"{features.relation} is empty: land data and build the marts first (DAGs land_*, build_marts)")
    known_until = datetime.combine(newest[0], time(), tzinfo=UTC)
    # The end of the feature day in UTC, as in knowledge_time().
    parts = {
        "columns": _columns(features),
        "features": features.relation.identifier,
        "outcomes": outcome.relation.identifier,
        "population": _matches("f", features.population),
        "condition": _matches("o", outcome.condition),
        "same_entity": sql.SQL(" and ").join(sql.SQL("o.{0} = f.{0}").format(sql.Identifier(name)) for name in features.entity),
        "known_at": sql.SQL("((f.{} + 1)::timestamp at time zone 'UTC')").format(sql.Identifier(features.date_column)),
        "occurred_at": sql.Identifier("o", outcome.time_column),
        "order": _order(features),
    }
    values = {"horizon": outcome.horizon, "settled": known_until - outcome.settling}
    frame = _fetch(
        connection,
        sql.SQL(
            "select {columns}, exists (select from {outcomes} as o where {same_entity} and {condition}"
            " and {occurred_at} > {known_at} and {occurred_at} <= {known_at} + %(horizon)s)::int as outcome"
            " from {features} as f where {population} and {known_at} + %(horizon)s <= %(settled)s order by {order}"
        ).format(**parts),
        values,
    )
    left_out_query = sql.SQL("select count(*) from {features} as f where {population} and {known_at} + %(horizon)s > %(settled)s").format(**parts)
    left_out = connection.execute(left_out_query, values).fetchone()
    return Dataset(spec, frame, known_until, incomplete_rows=left_out[0] if left_out else 0)


@dataclass(frozen=True)
class Part:
    """Days from `first` to `last`, both included."""

    name: str
    first: date
    last: date

    def rows(self, dates: Sequence[date] | pd.Series) -> NDArray[np.bool_]:
        """Which rows belong to the part."""
        return np.array([self.first <= day <= self.last for day in dates], dtype=bool)


@dataclass(frozen=True)
class TimeSplit:
    """Three parts in time order; no outcome window that opens in one part reaches into the next."""

    train: Part
    validation: Part
    test: Part
    gap: timedelta

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """The parts, oldest first."""
        return self.train, self.validation, self.test


def split_by_time(dates: Sequence[date] | pd.Series, *, gap: timedelta, shares: tuple[float, float, float] = (0.70, 0.15, 0.15)) -> TimeSplit:
    """Cut a span of days into train, validation and test with a gap between them.

    Args:
        dates: Day of each row; need not be unique or sorted.
        gap: At least the label's horizon, in whole days (rounded up): rows of a gap belong to no part.
        shares: Share of the days (without the gaps) a part gets, summing to 1.

    Raises:
        NotEnoughData: If the days do not suffice for one day a part besides the gaps.
    """
    if abs(sum(shares) - 1) > 1e-9 or min(shares) <= 0:
        raise ValueError(f"shares must be positive and sum to 1, got {shares}")
    gap_days = -(-gap // DAY)
    if len(dates) == 0:
        raise NotEnoughData("no row has a complete outcome window yet: let the sources run on, or land older history")
    first, last = min(dates), max(dates)
    usable = (last - first).days + 1 - 2 * gap_days
    if usable < 3:
        raise NotEnoughData(f"{first} to {last} is too short for three parts with {gap_days} days between them: at least {2 * gap_days + 3} days are needed")
    validation_days = max(1, int(usable * shares[1]))
    train_days = max(1, min(int(usable * shares[0]), usable - validation_days - 1))
    validation_first = first + timedelta(days=train_days + gap_days)
    test_first = validation_first + timedelta(days=validation_days + gap_days)
    return TimeSplit(
        train=Part("train", first, first + timedelta(days=train_days - 1)),
        validation=Part("validation", validation_first, validation_first + timedelta(days=validation_days - 1)),
        test=Part("test", test_first, last),
        gap=timedelta(days=gap_days),
    )


def _check_source(connection: psycopg.Connection[Any], source: FeatureSource) -> None:
    offered = offered_columns(connection, source.relation)
    source.schema.check(str(source.relation), offered)
    _require(source.relation, offered, (*source.entity, source.date_column, *source.population, *source.context))
    if offered[source.date_column] != "date":
        raise FeatureSchemaMismatch(f"{source.relation}.{source.date_column} must be a date, is {offered[source.date_column]}")


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


def _columns(source: FeatureSource) -> sql.Composed:
    names = dict.fromkeys((*source.entity, source.date_column, *source.schema.names, *source.context))
    return sql.SQL(", ").join(sql.Identifier("f", name) for name in names)


def _order(source: FeatureSource) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier("f", name) for name in (source.date_column, *source.entity))


def _matches(alias: str, condition: Mapping[str, tuple[str, ...]]) -> sql.Composable:
    if not condition:
        return sql.SQL("true")
    return sql.SQL(" and ").join(sql.SQL("{} = any({})").format(sql.Identifier(alias, name), sql.Literal(list(values))) for name, values in condition.items())


def _fetch(connection: psycopg.Connection[Any], query: sql.Composed, values: Mapping[str, Any]) -> pd.DataFrame:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        names = [column.name for column in cursor.description or ()]
        rows = cursor.fetchall()
    # Objects throughout: the schema decides dtypes once, the same for one row as for thousands.
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return pd.DataFrame({name: pd.Series(list(column), dtype=object) for name, column in zip(names, columns, strict=True)})
