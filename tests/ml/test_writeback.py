"""What stands in the warehouse after scoring: values, reasons, and nothing twice."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from include.warehouse import Role, connect
from ml.lifecycle import use_case as lifecycle
from ml.lifecycle.champions import champion_version
from ml.lifecycle.dataset import Relation, load_features
from ml.lifecycle.versions import find_version
from ml.lifecycle.writeback import Predictions, PredictionTarget, write_predictions
from tests.ml.conftest import FIRST_DAY, SPEC, Pumps

HORIZON = timedelta(days=7)
QUANTILES = PredictionTarget(Relation("predictions", "days_to_leak"), ("days_p05", "days_p50", "days_p95"))


def test_every_prediction_has_its_reasons(pumps: Pumps) -> None:
    pumps.fill(days=100)
    lifecycle.train(pumps.use_case)
    lifecycle.score(pumps.use_case)
    rows = pumps.connection.execute(
        "select p.failure_probability, p.reasons, f.wear, f.grease, f.maker from predictions.device_failure as p"
        " join features.feat_pump_daily as f using (tenant_id, device_id, feature_date) order by p.failure_probability desc"
    ).fetchall()
    assert rows
    for _, reasons, wear, grease, maker in rows:
        assert 1 <= len(reasons) <= 3
        sizes = [abs(reason["contribution"]) for reason in reasons]
        assert sizes == sorted(sizes, reverse=True)
        known = {"wear": wear, "grease": grease, "maker": maker}
        for reason in reasons:
            assert reason["value"] == known.get(reason["feature"], reason["value"]), "the value that was scored"
    riskiest = rows[:20]
    assert all(reasons[0]["feature"] == "wear" and reasons[0]["contribution"] > 0 for _, reasons, *_ in riskiest), "wear rises before a leak"


def test_quantiles_are_written_as_idempotently_as_a_probability(pumps: Pumps) -> None:
    pumps.fill(days=100)
    lifecycle.train(pumps.use_case)
    pumps.execute("create table predictions.days_to_leak (like predictions.device_failure including all)")
    pumps.execute("alter table predictions.days_to_leak drop column failure_probability, add days_p05 float8, add days_p50 float8, add days_p95 float8")
    pumps.execute("grant select, insert, delete on predictions.days_to_leak to tidemark_ml")
    date_from = FIRST_DAY + timedelta(days=97)
    with connect(Role.ML) as connection:
        version = champion_version(connection, pumps.use_case.name)
        assert version is not None
        model = find_version(connection, pumps.use_case.name, version).load()
        rows = load_features(connection, SPEC.features, date_from=date_from)
        values = np.arange(3.0 * len(rows)).reshape(len(rows), 3)
        asked: list[int] = []

        def predict(some: pd.DataFrame) -> Predictions:
            asked.append(len(some))
            return Predictions(values[some.index], model.scorer.score(some).contributions)

        written = [write_predictions(connection, QUANTILES, SPEC.features, model, rows, predict, horizon=HORIZON, date_from=date_from) for _ in range(2)]
        connection.commit()
    assert written == [72, 0]
    assert asked == [72], "the model is not asked again what it has said"
    stored = pumps.connection.execute(
        "select days_p05, days_p50, days_p95 from predictions.days_to_leak order by feature_date, tenant_id, device_id"
    ).fetchall()
    assert stored == [tuple(row) for row in values.tolist()]


def test_a_target_names_its_columns_as_a_tuple() -> None:
    with pytest.raises(ValueError, match=r"predictions.x: name the columns of the values as a tuple, got 'probability'"):
        PredictionTarget(Relation("predictions", "x"), "probability")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name the columns"):
        PredictionTarget(Relation("predictions", "x"), ())


def test_marts_are_told_which_days_have_changed(pumps: Pumps) -> None:
    """Days that were written, changed or taken away, and no other; nothing where nothing changed."""
    pumps.fill(days=100)
    lifecycle.train(pumps.use_case)

    def told() -> list[tuple[str, str, str]]:
        rows = pumps.connection.execute(
            "delete from ops.bucket_change where relation = 'intermediate.int_platform__prediction' "
            "returning bucket ->> 'use_case', bucket ->> 'tenant_id', bucket ->> 'feature_date'"
        )
        return sorted(rows.fetchall())

    lifecycle.score(pumps.use_case)
    scored = pumps.connection.execute("select distinct model_name, tenant_id, feature_date::text from predictions.device_failure order by 3").fetchall()
    assert scored
    assert told() == scored
    lifecycle.score(pumps.use_case)
    assert told() == []
    changed, gone = scored[3], scored[5]
    pumps.connection.execute("update features.feat_pump_daily set wear = wear + 1 where feature_date = %s and device_id = 'pump_03'", (changed[2],))
    pumps.connection.execute("delete from features.feat_pump_daily where feature_date = %s and device_id = 'pump_03'", (gone[2],))
    lifecycle.score(pumps.use_case)
    assert told() == [changed, gone]
