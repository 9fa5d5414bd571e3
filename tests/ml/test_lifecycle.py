"""Train, judge, register, promote, score and write back, on a real Postgres and a real MLflow database."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import psycopg
import pytest
from rich.console import Console

from include.settings import get_settings
from include.warehouse import Role, connect
from ml.lifecycle import promotion
from ml.lifecycle import use_case as lifecycle
from ml.lifecycle.champions import champion_version, history
from ml.lifecycle.dataset import NotEnoughData, SplitBy, load_dataset, load_features
from ml.lifecycle.gate import Gate
from ml.lifecycle.judging import too_few_events
from ml.lifecycle.registry import Registry
from ml.lifecycle.report import TrainingReport, render
from ml.lifecycle.schema import Feature, FeatureSchema, FeatureSchemaMismatch
from ml.lifecycle.training import GradientBoostingCandidate, LogisticRegressionCandidate, fit, probabilities
from ml.lifecycle.versions import ModelUnusable, enter_version, find_version
from tests.ml.conftest import FIRST_DAY, SCHEMA, SPEC, Pumps

PREDICTIONS = "select tenant_id, device_id, feature_date, model_version, feature_snapshot, known_at, outcome_from, outcome_to, failure_probability"


def champion(pumps: Pumps) -> int | None:
    return champion_version(pumps.connection, pumps.use_case.name)


def predictions(pumps: Pumps) -> list[tuple]:
    return pumps.connection.execute(f"{PREDICTIONS} from predictions.device_failure order by 1, 2, 3, 4").fetchall()


def test_a_training_run_reports_registers_and_promotes_once(pumps: Pumps) -> None:
    pumps.fill()
    report = lifecycle.train(pumps.use_case)

    assert report.gate.passed
    assert report.pr_auc_model > report.pr_auc_baseline
    assert report.difference.low > 0
    assert not report.difference.covers(0)
    assert {part.name: part.positives > 0 for part in report.parts} == {"train": True, "validation": True, "test": True}
    assert report.gap_days == 7
    assert report.rows_in_gaps == 2 * 7 * 24
    assert report.rows_without_complete_outcome == 24 * (7 + 2 + 1 + 0)
    assert report.baseline_name in {"age", "grease"}
    assert report.pr_auc_baseline == next(baseline.pr_auc_test for baseline in report.baselines if baseline.name == report.baseline_name)
    assert report.brier_model < report.brier_prevalence
    assert {(result.dimension, result.value) for result in report.slices} == {("site", "site_0"), ("site", "site_1")}
    stored = find_version(pumps.connection, pumps.use_case.name, 1)
    assert champion(pumps) == report.model_version == 1
    assert stored.report is not None
    assert TrainingReport.from_json(stored.report) == report
    written = get_settings().home / "reports" / pumps.use_case.name / "v1.json"
    assert TrainingReport.from_json(written.read_text()) == report
    screen = Console(file=io.StringIO(), width=200)
    screen.print(render(report))
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    for part in (report.baseline_name, report.candidate, "Model minus baseline", "Champion:", f"{report.parts[2].positives:,}", "Data set 1:"):
        assert part in shown
    assert report.dataset is not None
    assert (report.dataset.dataset_id, report.dataset.files) == (1, 0)
    assert report.dataset.horizon == {"device_registry": 0, "device_telemetry": 0, "maintenance_log": 0}
    assert stored.card.dataset_id == 1
    (reign,) = history(pumps.connection, pumps.use_case.name)
    assert (reign.decided_by, reign.reason, reign.champion_until) == ("gate", report.gate.reason, None)
    registry = Registry(pumps.use_case.name)
    assert registry.alias() == 1, "MLflow shows what the warehouse says"
    run = registry._client.get_run(registry._client.get_model_version(pumps.use_case.name, "1").run_id)
    assert run.data.metrics["slice/site/site_0/pr_auc_model"] == report.slices[0].pr_auc_model
    assert run.data.params["data_window"] == f"{report.parts[0].first} to {report.parts[2].last}"
    assert len(run.data.params["code_version"]) == 12
    assert "scikit-learn" in run.data.params["libraries"]

    again = lifecycle.train(pumps.use_case)
    assert again == report, "the same data registers nothing new"
    assert pumps.connection.execute("select count(*) from ops.dataset").fetchone() == (1,)
    assert history(pumps.connection, pumps.use_case.name) == [reign]

    # A run that died before it told MLflow is completed by the next one.
    registry._client.delete_registered_model_alias(pumps.use_case.name, "champion")
    assert lifecycle.train(pumps.use_case) == report
    assert registry.alias() == 1


def test_the_gate_alone_makes_champions_in_training(pumps: Pumps) -> None:
    pumps.fill(leak_every_days=20, seed=1)
    # Features that say nothing do not beat a ranking that says something.
    blind = FeatureSchema((Feature("grease"),))
    spec = replace(SPEC, features=replace(SPEC.features, schema=blind, context=("wear", "site", "age_days")))
    by_wear = replace(pumps.use_case.baselines[0], name="wear", column="wear")
    blind_case = replace(pumps.use_case, dataset=spec, training=replace(pumps.use_case.training, schema=blind), baselines=(by_wear,))
    refused = lifecycle.train(blind_case)
    assert not refused.gate.passed
    assert "not better than the baseline 'wear'" in refused.gate.reason
    assert champion(pumps) is None
    assert lifecycle.score(blind_case) == 0, "without a champion only a shadow scores"

    first = lifecycle.train(pumps.use_case)
    assert champion(pumps) == first.model_version == 2

    # Beats its (weak) baseline, but is worse than the champion on the same rows.
    pumps.execute("alter table features.feat_pump_daily add wear_blurred float8")
    pumps.execute("update features.feat_pump_daily set wear_blurred = wear + 1.5 * grease")
    weak = replace(SPEC, features=replace(SPEC.features, schema=FeatureSchema((Feature("wear_blurred"),))))
    weak_case = replace(
        pumps.use_case, dataset=weak, training=replace(pumps.use_case.training, schema=weak.features.schema), baselines=pumps.use_case.baselines[:1]
    )
    worse = lifecycle.train(weak_case)
    assert worse.champion is not None
    assert worse.champion.version == 2
    assert worse.champion.pr_auc > worse.champion.challenger_pr_auc
    assert "not better than the champion version 2" in worse.gate.reason
    assert worse.champion.difference is not None
    assert worse.champion.difference.high < 0
    stored = find_version(pumps.connection, pumps.use_case.name, worse.model_version)
    assert (stored.gate.passed, stored.gate.reason) == (False, worse.gate.reason), "why it stays challenger is stored"
    assert champion(pumps) == 2

    # A champion whose features are gone cannot defend itself, and the report says so.
    pumps.execute("alter table features.feat_pump_daily drop column maker")
    replaced = lifecycle.train(replace(weak_case, gate=Gate(sureness=0.8)))
    assert "can score no more, its features maker are gone" in replaced.gate.reason
    assert champion(pumps) == replaced.model_version == 4


def test_scoring_writes_once_and_again_only_what_changed(pumps: Pumps) -> None:
    pumps.fill()
    report = lifecycle.train(pumps.use_case)
    test_first = report.parts[2].first
    newest = FIRST_DAY + timedelta(days=119)

    written = lifecycle.score(pumps.use_case)
    assert written == 24 * ((newest - test_first).days + 1)
    first = predictions(pumps)
    assert len(first) == written
    assert min(row[2] for row in first) == test_first, "no day is scored whose outcomes the model learned from"
    known_at = datetime(2026, 4, 30, 0, 0, tzinfo=UTC) + timedelta(days=1)
    assert [row[5:8] for row in first if row[2] == date(2026, 4, 30)] == [(known_at, known_at, known_at + timedelta(days=7))] * 24
    assert all(0 <= row[8] <= 1 for row in first)

    stamps = pumps.connection.execute("select min(_scored_at), max(_scored_at) from predictions.device_failure").fetchone()
    assert lifecycle.score(pumps.use_case) == 0
    assert lifecycle.score(pumps.use_case, feature_date_from=newest) == 0
    assert lifecycle.score(pumps.use_case, feature_date_from=FIRST_DAY) == 0, "an early day asked for is not a day learned from"
    assert pumps.connection.execute("select min(_scored_at), max(_scored_at) from predictions.device_failure").fetchone() == stamps

    # A late change, a new day and a removed row: exactly these are touched.
    pumps.execute(f"update features.feat_pump_daily set wear = 3 where device_id = 'pump_03' and feature_date = '{newest}'")
    pumps.execute(f"delete from features.feat_pump_daily where device_id = 'pump_04' and feature_date = '{newest}'")
    pumps.execute(
        f"insert into features.feat_pump_daily select tenant_id, device_id, date '{newest}' + 1, device_type, wear, grease, is_outdoors, maker, age_days, site"
        f" from features.feat_pump_daily where device_id = 'pump_05' and feature_date = '{newest}'"
    )
    pumps.execute(f"update features.feat_pump_daily set age_days = 0 where device_id = 'pump_06' and feature_date = '{newest}'")  # no feature
    assert lifecycle.score(pumps.use_case) == 2
    second = predictions(pumps)
    changed = {row[:3] for row in set(second) ^ set(first)}
    assert changed == {("default", "pump_03", newest), ("default", "pump_04", newest), ("default", "pump_05", newest + timedelta(days=1))}
    assert len(second) == len(first)


def test_units_of_another_time_are_scored(pumps: Pumps) -> None:
    """Of a split by entity no day has been learned from: test units may lie years before those that a model has learned from."""
    pumps.fill(days=100, pumps=48)  # seven units in each smaller part
    pumps.execute(
        "insert into features.feat_pump_daily select 'fans', device_id, feature_date - 1000, 'fan', wear, grease, is_outdoors, maker, age_days, site"
        " from features.feat_pump_daily where device_id in ('pump_01', 'pump_02')"
    )
    spec = replace(SPEC, split_by=SplitBy.ENTITY, outcome=replace(SPEC.outcome, is_closed=True))
    use_case = replace(pumps.use_case, dataset=spec, scores={"tenant_id": ("fans",)})
    lifecycle.train(use_case)
    pumps.follow()
    assert lifecycle.score_champion(use_case) + lifecycle.score_shadows(use_case) == 200
    assert lifecycle.score_champion(use_case) + lifecycle.score_shadows(use_case) == 0, "no row to look at"
    assert predictions(pumps)[0][2] == FIRST_DAY - timedelta(days=1000)


def test_a_scoring_run_that_dies_leaves_everything_or_nothing(pumps: Pumps) -> None:
    pumps.fill()
    lifecycle.train(pumps.use_case)
    pumps.execute("create function predictions.refuse() returns trigger language plpgsql as $$ begin raise exception 'disk full'; end $$")
    pumps.execute(
        "create trigger refuse before insert on predictions.device_failure for each row when (new.device_id = 'pump_20') execute function predictions.refuse()"
    )
    with pytest.raises(psycopg.errors.RaiseException):
        lifecycle.score(pumps.use_case)
    assert predictions(pumps) == []
    pumps.execute("drop trigger refuse on predictions.device_failure")
    assert lifecycle.score(pumps.use_case) == len(predictions(pumps)) > 0


def test_scoring_refuses_features_that_the_champion_was_not_trained_on(pumps: Pumps) -> None:
    pumps.fill()
    lifecycle.train(pumps.use_case)
    pumps.execute("alter table features.feat_pump_daily alter column is_outdoors type text")
    with pytest.raises(FeatureSchemaMismatch, match="is_outdoors is text but must be a flag"):
        lifecycle.score(pumps.use_case)
    pumps.execute("alter table features.feat_pump_daily drop column is_outdoors")
    with pytest.raises(FeatureSchemaMismatch, match="missing: is_outdoors"):
        lifecycle.score(pumps.use_case)
    assert predictions(pumps) == []


def test_a_model_file_that_was_changed_is_not_loaded(pumps: Pumps) -> None:
    pumps.fill(days=90)
    lifecycle.train(pumps.use_case)
    (file,) = (get_settings().home / "mlflow" / pumps.use_case.name).rglob("model.skops")
    original = file.read_bytes()
    file.write_bytes(original + b" ")
    with pytest.raises(ModelUnusable, match="is not the one that was registered"):
        lifecycle.score(pumps.use_case)
    file.unlink()
    with pytest.raises(ModelUnusable, match="is gone"):
        lifecycle.score(pumps.use_case)


def test_too_few_failures_are_said_with_their_number(pumps: Pumps) -> None:
    pumps.fill(leak_every_days=float("inf"))
    with pytest.raises(NotEnoughData, match=r"at least 10 positive rows .* test .*: 0 of \d+ rows"):
        lifecycle.train(pumps.use_case)


def test_the_failures_of_a_few_machines_prove_nothing(pumps: Pumps) -> None:
    """Each failure has a week of positive rows, so ten rows may be those of one machine, which any ranking may fit by chance."""
    pumps.fill()
    pumps.execute("delete from maintenance.fct_leak where device_id > 'pump_03'")
    with pytest.raises(NotEnoughData, match=r"10 positive rows of 5 entities .* train .*, 4 of 24 entities"):
        lifecycle.train(pumps.use_case)


def test_a_champion_is_met_on_the_failures_of_several_machines_or_not_at_all(pumps: Pumps) -> None:
    pumps.fill()
    first = lifecycle.train(pumps.use_case)
    with connect(Role.ML) as connection:
        dataset = load_dataset(connection, SPEC)
    stored = find_version(pumps.connection, pumps.use_case.name, 1)
    rows = dataset.frame[[day >= first.parts[2].first for day in dataset.dates]]
    happened = rows["outcome"].to_numpy(dtype=int)
    failed = list(dict.fromkeys(rows["device_id"][happened == 1]))
    assert too_few_events(pumps.use_case, stored.load(), rows, happened) is None
    for count, is_enough in ((4, False), (5, True)):
        said = too_few_events(pumps.use_case, stored.load(), rows, happened * rows["device_id"].isin(failed[:count]).to_numpy())
        assert (said is None) is is_enough, said

    enter_version(pumps.connection, replace(stored, version=2))
    with pytest.raises(NotEnoughData, match=r"those of \d+ entities; at least 25 are needed"):
        promotion.compare(replace(pumps.use_case, training=replace(pumps.use_case.training, min_positive_entities=25)), 2, 1)

    # Of a shorter history the champion has learned from the whole test part, so it stays.
    pumps.execute("delete from ops.model_version where model_version = 2")
    pumps.execute(f"delete from features.feat_pump_daily where feature_date >= date '{FIRST_DAY}' + 100")
    second = lifecycle.train(pumps.use_case)
    assert not second.gate.passed
    assert "but of the events of the test part those of 0 entities are new to the champion (version 1), at least 5 are needed" in second.gate.reason
    assert champion(pumps) == 1


@pytest.mark.parametrize("candidate", [LogisticRegressionCandidate(), GradientBoostingCandidate(trees=30)], ids=lambda candidate: candidate.name)
def test_the_same_row_scores_the_same_alone_and_in_a_batch(pumps: Pumps, candidate: LogisticRegressionCandidate | GradientBoostingCandidate) -> None:
    pumps.fill(days=60)
    pumps.execute("update features.feat_pump_daily set maker = null, wear = null where device_id = 'pump_07'")
    with connect(Role.ML) as connection:
        dataset = load_dataset(connection, SPEC)
        rows = load_features(connection, SPEC.features, date_from=FIRST_DAY + timedelta(days=58))
    half = len(dataset.frame) // 2
    outcome = dataset.frame["outcome"].to_numpy(dtype=int)
    config = replace(pumps.use_case.training, candidates=(candidate,))
    model = fit(config, dataset.frame[:half], outcome[:half], dataset.frame[half:], outcome[half:])
    rows.loc[3, "maker"] = "never seen"
    together = probabilities(model.estimator, SCHEMA, rows)
    alone = np.concatenate([probabilities(model.estimator, SCHEMA, rows.iloc[[index]]) for index in range(len(rows))])
    shuffled = rows.sample(frac=1, random_state=1)
    assert np.array_equal(together, alone)
    assert np.array_equal(probabilities(model.estimator, SCHEMA, shuffled), together[shuffled.index])
    assert probabilities(model.estimator, SCHEMA, rows.iloc[:0]).shape == (0,)
    with pytest.raises(FeatureSchemaMismatch):
        probabilities(model.estimator, SCHEMA, pd.DataFrame(rows.drop(columns="grease")))
