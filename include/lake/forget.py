"""Marts forget persons: rows made of months that raw and lake have deleted for good, of every model that says it forgets."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

import psycopg
from psycopg import sql

from include.lake.errors import LakeBusy
from include.lake.months import MonthState, months
from include.lake.steps import LakeStep
from include.landing.crash import crash_point
from include.transform.forgetting import Forgetful

ASKED_BY = "retention"
"""What the log of changed buckets names in the place of a build."""

_GONE = sql.SQL(
    "exists (select from unnest(%(months)s::date[]) as gone (month) where gone.month <= stored.{day}::date + %(last_day)s::int "
    "and (gone.month + interval '1 month')::date > stored.{day}::date + %(first_day)s::int)"
)


def forgotten_months(connection: psycopg.Connection, stream: str) -> set[date]:
    """Months of a stream that raw and lake have deleted for good."""
    return {month.month for month in months(connection, stream).values() if month.state is MonthState.DELETED}


def rows_to_forget(connection: psycopg.Connection, model: Forgetful, gone: Collection[date]) -> int:
    """Rows of a model that are made of any of these months; 0 where it was never built.

    Args:
        connection: As the transformer.
        model: The model.
        gone: First days of months.
    """
    if not gone or not _is_built(connection, model):
        return 0
    query = sql.SQL("select count(*) from {table} as stored where {gone}").format(table=_table(model), gone=_gone(model))
    row = connection.execute(query, _values(model, gone)).fetchone()
    return int(row[0]) if row else 0


def forget(connection: psycopg.Connection, model: Forgetful) -> int:
    """Deletes the rows of a model that are made of months deleted for good, and logs their buckets for the models below, in one transaction.

    The months are `deleted` before: from then on no build recomputes these buckets. One that began earlier holds the lock of the model, and what it writes is
    there when this gets the lock. A run that was killed changed nothing of a model, or all of it; the next one finds what is left by looking.

    Args:
        connection: As the transformer, in autocommit.
        model: The model.

    Returns:
        Rows that went.

    Raises:
        LakeBusy: If a build held the model for longer than 30 seconds. Run it again.
    """
    try:
        with connection.transaction():
            connection.execute("select ops.lock_model(%s)", (model.model,))
            gone = forgotten_months(connection, model.stream)
            if not gone or not _is_built(connection, model):
                return 0
            bucket = sql.SQL(", ").join(map(sql.Identifier, model.bucket))
            query = sql.SQL(
                "with left_now as (delete from {table} as stored where {gone} returning {bucket}), "
                "logged as (insert into ops.bucket_change (relation, bucket, build_id) "
                "select %(model)s, to_jsonb(each), %(asked_by)s from (select distinct {bucket} from left_now) as each) "
                "select count(*) from left_now"
            ).format(table=_table(model), gone=_gone(model), bucket=bucket)
            row = connection.execute(query, {**_values(model, gone), "model": model.model, "asked_by": ASKED_BY}).fetchone()
            rows = int(row[0]) if row else 0
            if rows:
                crash_point(LakeStep.FORGET_BEFORE_COMMIT)
    except psycopg.errors.LockNotAvailable as error:
        raise LakeBusy(f"{model.model} keeps rows of deleted months of {model.stream}: a build held it for longer than 30 s; run it again") from error
    if rows:
        crash_point(LakeStep.FORGET_AFTER_COMMIT)
    return rows


def _is_built(connection: psycopg.Connection, model: Forgetful) -> bool:
    row = connection.execute("select to_regclass(%s) is not null", (model.model,)).fetchone()
    return row == (True,)


def _table(model: Forgetful) -> sql.Identifier:
    return sql.Identifier(*model.model.split("."))


def _gone(model: Forgetful) -> sql.Composed:
    return _GONE.format(day=sql.Identifier(model.day_column))


def _values(model: Forgetful, gone: Collection[date]) -> dict[str, object]:
    return {"months": sorted(gone), "first_day": model.first_day, "last_day": model.last_day}
