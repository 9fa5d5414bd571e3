"""Predictions into the warehouse: keyed, and nothing written where nothing changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from ml.lifecycle.dataset import FeatureSource, Relation, Touched, knowledge_time, offered_columns
from ml.lifecycle.explain import reasons
from ml.lifecycle.versions import LoadedModel


@dataclass(frozen=True)
class PredictionTarget:
    """The table of a use case's predictions; besides the values it has the columns that every prediction has, reasons among them (decision 9)."""

    relation: Relation
    value_columns: tuple[str, ...]  # a probability, or quantiles

    def __post_init__(self) -> None:
        if isinstance(self.value_columns, str) or not self.value_columns:
            raise ValueError(f"{self.relation}: name the columns of the values as a tuple, got {self.value_columns!r}")


@dataclass(frozen=True)
class Predictions:
    """What a model says of rows.

    Attributes:
        values: Shape (rows, value columns of the target).
        contributions: Shape (rows, features), what each feature added.
    """

    values: NDArray[np.float64]
    contributions: NDArray[np.float64]


def lock_predictions(connection: psycopg.Connection[Any], target: PredictionTarget) -> None:
    """One writer a table, until the transaction ends.

    Two runs that overlap would each see the other's rows as missing; and one that has read its features before the other wrote would put the older ones back.
    """
    connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"tidemark.predictions.{target.relation}"])


def write_predictions(
    connection: psycopg.Connection[Any],
    target: PredictionTarget,
    source: FeatureSource,
    model: LoadedModel,
    rows: pd.DataFrame,
    predict: Callable[[pd.DataFrame], Predictions],
    *,
    horizon: timedelta,
    date_from: date,
    date_to: date = date.max,
    touched: Touched | None = None,
) -> int:
    """Make the predictions of one model version in a span of days equal to what it says of the rows.

    A stored prediction stays untouched where the model would be given the same feature row; it is replaced where the features changed and
    removed where the feature row is gone. So scoring again, or after a run that died, changes nothing.

    Args:
        connection: Of a role that may write the target, in a transaction that holds `lock_predictions` since before the rows were read. The caller commits it.
        target: Where to write.
        source: Where the rows came from: names of entity and date columns.
        model: Version that scored.
        rows: Every feature row of the population in the span.
        predict: Asks the model; called with the rows that are new or have changed, and only if there are any.
        horizon: Length of the outcome window.
        date_from: First day of the span.
        date_to: Last day of the span.
        touched: Of the span, these buckets only.

    Returns:
        Rows written anew.
    """
    key_columns = [*source.entity, source.date_column]
    scored = {
        tuple(key): (snapshot, position)
        for position, (key, snapshot) in enumerate(zip(rows[key_columns].itertuples(index=False, name=None), model.card.schema.snapshots(rows), strict=True))
    }
    key_list = sql.SQL(", ").join(map(sql.Identifier, key_columns))
    where = sql.SQL("p.model_name = %(name)s and p.model_version = %(version)s and p.{day} >= %(from)s and p.{day} <= %(to)s").format(
        day=sql.Identifier(source.date_column)
    )
    values: dict[str, Any] = {"name": model.name, "version": model.version, "from": date_from, "to": date_to}
    if touched is not None:
        where = sql.SQL("{} and {}").format(where, touched.matches("p", offered_columns(connection, target.relation)))
        values |= touched.values
    with connection.cursor() as cursor:
        cursor.execute(
            sql.SQL("select {keys}, feature_snapshot from {table} as p where {where}").format(keys=key_list, table=target.relation.identifier, where=where),
            values,
        )
        stored = {tuple(row[:-1]): row[-1] for row in cursor}
        outdated = [key for key, snapshot in stored.items() if key not in scored or scored[key][0] != snapshot]
        fresh = [key for key, (snapshot, _) in scored.items() if stored.get(key) != snapshot]
        if outdated:
            same_key = sql.SQL(" and ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in [*key_columns, "model_name", "model_version"])
            cursor.executemany(
                sql.SQL("delete from {table} where {filter}").format(table=target.relation.identifier, filter=same_key),
                [(*key, model.name, model.version) for key in outdated],
            )
        if fresh:
            positions = [scored[key][1] for key in fresh]
            predictions = predict(rows.iloc[positions])
            because = reasons(model.card.schema, rows.iloc[positions], predictions.contributions)
            columns = [*key_columns, "model_name", "model_version", "feature_snapshot", "known_at", "outcome_from", "outcome_to", "reasons"]
            columns += target.value_columns
            statement = sql.SQL("copy {table} ({columns}) from stdin").format(
                table=target.relation.identifier, columns=sql.SQL(", ").join(map(sql.Identifier, columns))
            )
            with cursor.copy(statement) as copy:
                for key, said, reason in zip(fresh, predictions.values.tolist(), because, strict=True):
                    known_at = knowledge_time(key[-1])
                    row = (*key, model.name, model.version, scored[key][0], known_at, known_at, known_at + horizon, json.dumps(reason))
                    copy.write_row((*row, *said))
        if changed := sorted({(key[0], key[-1]) for key in (*outdated, *fresh)}):
            tenants, days = zip(*changed, strict=True)
            cursor.execute("select ops.log_predictions(%s, %s, %s)", [model.name, list(tenants), list(days)])
    return len(fresh)
