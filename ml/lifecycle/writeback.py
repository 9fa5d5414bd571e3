"""Predictions into the warehouse: one transaction, keyed, and nothing written where nothing changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pandas as pd
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from ml.lifecycle.dataset import FeatureSource, Relation, knowledge_time
from ml.lifecycle.registry import LoadedModel


@dataclass(frozen=True)
class PredictionTarget:
    """The table of a use case's predictions; besides the value it has the columns that every prediction has (decision 9)."""

    relation: Relation
    value_column: str


def write_predictions(
    connection: psycopg.Connection[Any],
    target: PredictionTarget,
    source: FeatureSource,
    model: LoadedModel,
    rows: pd.DataFrame,
    values: NDArray[Any],
    *,
    horizon: timedelta,
    date_from: date,
) -> int:
    """Make the predictions of one model version from one day on equal to what was just scored.

    A stored prediction stays untouched where the model would be given the same feature row; it is replaced where the features changed and
    removed where the feature row is gone. So scoring again, or after a run that died, changes nothing.

    Args:
        connection: Of a role that may write the target; committed here.
        target: Where to write.
        source: Where the rows came from: names of entity and date columns.
        model: Version that scored.
        rows: Every feature row of the population from `date_from` on.
        values: Shape (rows,), the predictions.
        horizon: Length of the outcome window.
        date_from: First day that was scored.

    Returns:
        Rows written anew.
    """
    key_columns = [*source.entity, source.date_column]
    scored = {
        tuple(key): (snapshot, float(value))
        for key, snapshot, value in zip(rows[key_columns].itertuples(index=False, name=None), model.card.schema.snapshots(rows), values, strict=True)
    }
    version = {"name": model.name, "version": model.version, "from": date_from}
    key_list = sql.SQL(", ").join(map(sql.Identifier, key_columns))
    of_version = sql.SQL("model_name = %(name)s and model_version = %(version)s and {} >= %(from)s").format(sql.Identifier(source.date_column))
    with connection.transaction(), connection.cursor() as cursor:
        # One writer a table: two runs that overlap would each see the other's rows as missing.
        cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"tidemark.predictions.{target.relation}"])
        cursor.execute(
            sql.SQL("select {keys}, feature_snapshot from {table} where {filter}").format(keys=key_list, table=target.relation.identifier, filter=of_version),
            version,
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
            columns = [*key_columns, "model_name", "model_version", "feature_snapshot", "known_at", "outcome_from", "outcome_to", target.value_column]
            statement = sql.SQL("copy {table} ({columns}) from stdin").format(
                table=target.relation.identifier, columns=sql.SQL(", ").join(map(sql.Identifier, columns))
            )
            with cursor.copy(statement) as copy:
                for key in fresh:
                    known_at = knowledge_time(key[-1])
                    snapshot, value = scored[key]
                    copy.write_row((*key, model.name, model.version, snapshot, known_at, known_at, known_at + horizon, value))
    connection.commit()
    return len(fresh)
