"""Watching a champion in the warehouse: calm while nothing happens, a training where something does, within a budget and with its reason."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import date, timedelta

import psycopg
import pytest
from skops.io import dumps

from include.settings import get_settings
from include.warehouse import Role, connect
from ml.lifecycle import use_case as lifecycle
from ml.lifecycle.champions import champion_version
from ml.lifecycle.dataset import NotEnoughData, SplitBy
from ml.lifecycle.gate import Gate
from ml.lifecycle.monitoring import (
    BY_HAND,
    Monitoring,
    MonitoringFailed,
    MonitorLine,
    answer_requests,
    find_reference,
    lines,
    monitor,
    monitor_all,
    train_if_due,
    training_due,
)
from ml.lifecycle.registry import Registry
from ml.lifecycle.report import TrainingReport
from ml.lifecycle.schema import FeatureSchema
from ml.lifecycle.use_case import UseCase
from ml.lifecycle.versions import ModelUnreadable, versions
from tests.ml.conftest import FIRST_DAY, SCHEMA, Pumps, pump_leak

DAYS = 120
AS_OF = FIRST_DAY + timedelta(days=DAYS - 2)  # the newest day may still be filling


def look(use_case: UseCase) -> MonitorLine:
    line = monitor(use_case)
    assert line is not None
    return line


@pytest.fixture
def champion(pumps: Pumps) -> Pumps:
    """The plant of 120 days with a champion that was trained on it, which has scored."""
    pumps.fill(days=DAYS)
    assert lifecycle.train(pumps.use_case).gate.passed
    lifecycle.score(pumps.use_case)
    return pumps


def make_outcomes(pumps: Pumps) -> None:
    """A platform.fct_prediction_outcome of the plant, as dbt would make it of machines."""
    pumps.execute(
        "create or replace view platform.fct_prediction_outcome as select p.tenant_id, p.device_id, null::text as component_code, p.model_name as use_case, "
        "p.model_version, p.feature_date, p.failure_probability as predicted_probability, null::boolean as is_within_interval, "
        "null::float8 as predicted_low_days, null::float8 as predicted_median_days, null::float8 as predicted_high_days, 7.0 as outcome_days, "
        "exists (select from maintenance.fct_leak l where l.device_id = p.device_id and l.occurred_at > p.outcome_from and l.occurred_at <= p.outcome_to) "
        "as has_occurred from predictions.device_failure p "
        "where p.outcome_to + interval '2 days' <= (select max(feature_date) from features.feat_pump_daily)::timestamp at time zone 'UTC'"
    )
    pumps.execute("grant usage on schema platform to tidemark_ml; grant select on platform.fct_prediction_outcome to tidemark_ml")


def shift(pumps: Pumps, by: float, last: int = 7) -> None:
    """Wear reads higher on the newest days."""
    pumps.connection.execute("update features.feat_pump_daily set wear = wear + %s where feature_date > %s", (by, AS_OF - timedelta(days=last)))


def another_day(pumps: Pumps) -> date:
    """The newest day comes again, a day later."""
    pumps.execute(
        "insert into features.feat_pump_daily select tenant_id, device_id, feature_date + 1, device_type, wear, grease, is_outdoors, maker, age_days, site "
        "from features.feat_pump_daily where feature_date = (select max(feature_date) from features.feat_pump_daily)"
    )
    row = pumps.connection.execute("select max(feature_date) - 1 from features.feat_pump_daily").fetchone()
    assert row is not None
    return row[0]


def answer(pumps: Pumps) -> tuple[TrainingReport | None, str]:
    """What the DAG of training does every night."""
    return train_if_due(pumps.use_case, lambda because: lifecycle.train(pumps.use_case, because), by_hand=False)


def reasons(pumps: Pumps) -> list[str | None]:
    """Why each version was trained, the oldest first."""
    return [version.trained_because for version in versions(pumps.connection, pumps.use_case.name)][::-1]


def pretend_training(pumps: Pumps, because: str = "made up") -> None:
    """A version as a training on the data of today would make it, and the answer to what was asked for."""
    (number,) = pumps.connection.execute(
        "insert into ops.model_version (use_case, model_version, snapshot, card, model_file, report, has_passed, gate_reason, trained_because) "
        "select use_case, model_version + 1, md5(model_version::text), card, model_file, jsonb_set(report, '{known_until}', to_jsonb(("
        "select (max(feature_date)::timestamp at time zone 'UTC')::text from features.feat_pump_daily))), false, 'made up', %s "
        "from ops.model_version where use_case = %s order by model_version desc limit 1 returning model_version",
        (because, pumps.use_case.name),
    ).fetchone() or (0,)
    answer_requests(pumps.connection, pumps.use_case.name, number)


def test_a_version_remembers_what_it_was_trained_on(champion: Pumps) -> None:
    reference = find_reference(champion.connection, champion.use_case.name, 1)
    assert reference is not None
    assert [profile.name for profile in reference.profiles] == SCHEMA.names
    importance = {profile.name: profile.importance for profile in reference.profiles}
    assert sum(importance.values()) == pytest.approx(1)
    assert max(importance, key=lambda name: importance[name]) == "wear"
    assert reference.first == FIRST_DAY
    assert reference.test is not None
    assert 0.6 < reference.test.low < reference.test.auc < reference.test.high <= 1
    assert all(profile.usual is not None for profile in reference.profiles)


def test_a_calm_plant_asks_for_nothing(champion: Pumps) -> None:
    make_outcomes(champion)
    line = look(champion.use_case)
    assert (line.model_version, line.as_of_date, line.wants_retraining, line.is_due) == (1, AS_OF, False, False)
    assert "no drift that counts in 4 features" in line.reason
    assert "ROC-AUC" in line.reason
    assert line.findings.rows == 7 * 24
    again = look(champion.use_case)
    assert replace(again, monitored_at=None) == replace(line, monitored_at=None)
    assert lines(champion.connection, champion.use_case.name) == [again]
    report, reason = answer(champion)
    assert report is None
    assert f"no training of {champion.use_case.name} is due" in reason
    assert "no drift that counts" in reason


def test_a_sensor_that_reads_too_high_asks_for_one_training(champion: Pumps) -> None:
    shift(champion, 1.5, last=30)  # also days whose outcomes are known: there is something new to learn
    line = look(champion.use_case)
    assert (line.wants_retraining, line.is_due) == (True, True)
    assert line.reason.startswith("wear has drifted (stability index ")
    assert line.findings.drift[0].feature == "wear"
    assert training_due(champion.connection, champion.use_case) == (True, f"asked for on {AS_OF}: {line.reason}")
    assert "% of what moves the predictions rests on what has drifted" in line.reason
    assert 0.05 < line.findings.at_stake <= 1
    report, reason = answer(champion)
    assert report is not None
    assert line.reason in reason
    assert reasons(champion) == [BY_HAND, reason]
    (stored,) = lines(champion.connection, champion.use_case.name)
    assert stored.trained_version == report.model_version
    assert answer(champion)[0] is None, "one request is answered once"
    assert look(champion.use_case).trained_version == report.model_version, "looking again takes back nothing"


def test_trainings_have_a_budget(champion: Pumps) -> None:
    """Drift goes on for ten days: two trainings in the first week, and the third when a week has passed since the first. Those by hand do not count."""
    shift(champion, 1.5)
    for _ in range(3):
        pretend_training(champion, BY_HAND)
    asked, days = [], []
    for _ in range(9):
        line = look(champion.use_case)
        assert line.wants_retraining
        days.append(line.as_of_date)
        if line.is_due:
            asked.append(line.as_of_date)
            pretend_training(champion)
        else:
            assert "the budget of 2 trainings a week is spent" in line.reason
        another_day(champion)
    assert asked == [days[0], days[1], days[7], days[8]]


def test_a_request_that_waits_is_not_made_again(champion: Pumps) -> None:
    shift(champion, 1.5)
    first = look(champion.use_case)
    another_day(champion)
    second = look(champion.use_case)
    assert (first.is_due, second.is_due, second.wants_retraining) == (True, False, True)
    assert f"asked for on {first.as_of_date} has not run yet" in second.reason


def test_a_loss_by_outcomes_asks_for_a_training(champion: Pumps) -> None:
    """Leaks come where the model did not see them, and none where it did: features look as ever."""
    make_outcomes(champion)
    assert not look(champion.use_case).wants_retraining
    champion.execute("update predictions.device_failure set failure_probability = 1 - failure_probability")
    line = look(champion.use_case)
    assert line.is_due
    assert line.reason.startswith("ranking has been lost (ROC-AUC 0.")
    assert "drifted" not in line.reason
    champion.execute("update predictions.device_failure set failure_probability = (1 - failure_probability) / 4")  # it ranks as ever, and promises too little
    line = look(champion.use_case)
    assert line.is_due
    assert line.reason.startswith("probabilities are wrong (")
    assert "ranking" not in line.reason


def test_without_a_champion_training_is_due_and_nothing_is_watched(pumps: Pumps) -> None:
    pumps.fill(days=DAYS)
    assert monitor(pumps.use_case) is None
    assert training_due(pumps.connection, pumps.use_case) == (True, "there is no champion yet")
    report, reason = answer(pumps)
    assert report is not None
    assert reason == "there is no champion yet"
    assert reasons(pumps) == ["there is no champion yet"]
    assert champion_version(pumps.connection, pumps.use_case.name) == 1
    assert training_due(pumps.connection, pumps.use_case)[0] is False


def test_a_plant_whose_models_never_pass_has_a_budget_too(pumps: Pumps) -> None:
    pumps.fill(days=DAYS)
    assert not lifecycle.train(replace(pumps.use_case, gate=Gate(margin=0.9)), "there is no champion yet").gate.passed
    assert training_due(pumps.connection, pumps.use_case) == (True, "there is no champion yet")
    pretend_training(pumps)
    is_due, reason = training_due(pumps.connection, pumps.use_case)
    assert not is_due
    assert reason.startswith("there is no champion yet. Not trained: the budget of 2 trainings a week is spent")
    for _ in range(6):
        another_day(pumps)
        assert not training_due(pumps.connection, pumps.use_case)[0]
    another_day(pumps)
    assert training_due(pumps.connection, pumps.use_case) == (True, "there is no champion yet")


def test_a_champion_whose_file_cannot_be_read_now_is_not_replaced(champion: Pumps) -> None:
    """A disk that fails for a moment says nothing about the version."""
    (version,) = versions(champion.connection, champion.use_case.name)
    kept = version.file.rename(version.file.with_name("kept"))
    version.file.mkdir()
    is_due, reason = training_due(champion.connection, champion.use_case)
    assert not is_due
    assert "cannot be read now" in reason
    with pytest.raises(ModelUnreadable, match="look at the disk"):
        lifecycle.train(replace(champion.use_case, question="Another one?"))
    version.file.rmdir()
    kept.rename(version.file)
    home = get_settings().home / "mlflow"
    away = home.rename(home.with_name("mlflow-away"))
    try:
        with pytest.raises(ModelUnreadable):
            version.read()
    finally:
        away.rename(home)


def test_a_champion_that_the_libraries_of_today_cannot_load_is_trained_anew(champion: Pumps) -> None:
    """Its bytes are the registered ones, so reading them alone does not tell."""
    (version,) = versions(champion.connection, champion.use_case.name)
    version.file.write_bytes(dumps(SCHEMA))
    digest = hashlib.sha256(version.file.read_bytes()).hexdigest()
    champion.execute(f"update ops.model_version set card = jsonb_set(card, '{{model_sha256}}', '\"{digest}\"')")
    is_due, reason = training_due(champion.connection, champion.use_case)
    assert is_due
    assert reason.startswith("the champion can score no more: the file")


def test_numbers_go_on_where_mlflow_has_lost_its_own(champion: Pumps) -> None:
    name = champion.use_case.name
    Registry(name)._client.delete_registered_model(name)
    assert Registry(name).alias() is None
    another_day(champion)
    report = lifecycle.train(champion.use_case)
    assert report.model_version == 2
    assert [version.version for version in versions(champion.connection, name)] == [2, 1]
    assert [int(version.version) for version in Registry(name)._client.search_model_versions(f"name = '{name}'")] == [2]


def test_units_without_a_calendar_are_not_watched(champion: Pumps) -> None:
    units = replace(champion.use_case, dataset=replace(champion.use_case.dataset, split_by=SplitBy.ENTITY))
    assert monitor(units) is None
    assert monitor_all([units]) == 0
    assert lines(champion.connection, units.name) == []
    is_due, reason = training_due(champion.connection, units)
    assert not is_due
    assert "no common calendar" in reason


def test_a_tenant_that_fell_silent_is_no_drift(champion: Pumps) -> None:
    """Its newest week is its own: what it looks like when it is there stays in the window."""
    champion.execute(
        "insert into features.feat_pump_daily "
        "select 'acme', 'acme_' || device_id, feature_date, device_type, wear, grease, is_outdoors, 'maker_9', age_days, site "
        f"from features.feat_pump_daily where feature_date < '{AS_OF - timedelta(days=20)}'"
    )
    line = look(champion.use_case)
    assert line.as_of_date == AS_OF
    assert line.findings.rows == 2 * 7 * 24
    (makers,) = [drift for drift in line.findings.drift if drift.feature == "maker"]
    assert makers.psi > 1, "its maker is not in the reference, and half of the window"
    champion.execute(f"delete from features.feat_pump_daily where tenant_id = 'acme' and feature_date > date '{AS_OF}' - 29")
    assert look(champion.use_case).findings.rows == 7 * 24, "a plant that was switched off long ago is no drift for ever"


def test_a_version_that_is_ahead_in_the_shadow_is_a_gain_that_was_measured(champion: Pumps) -> None:
    make_outcomes(champion)
    pretend_training(champion, BY_HAND)
    predictions = (
        "insert into predictions.device_failure "
        "select tenant_id, device_id, feature_date, model_name, 2, feature_snapshot, known_at, outcome_from, outcome_to, {}, _scored_at, reasons "
        "from predictions.device_failure where model_version = 1"
    )
    champion.execute(predictions.format("failure_probability"))
    calm = look(champion.use_case)
    assert not calm.wants_retraining
    assert calm.findings.lead is not None
    assert (calm.findings.lead.version, calm.findings.lead.value) == (2, 0.0)
    assert "version 2 in the shadow: +0.000 of the ROC-AUC (+0.000 to +0.000) on the same " in calm.reason
    happened = (
        "exists (select from maintenance.fct_leak l where l.device_id = p.device_id and l.occurred_at > p.outcome_from and l.occurred_at <= p.outcome_to)::int"
    )
    champion.execute(f"update predictions.device_failure p set failure_probability = (failure_probability + {happened}) / 2 where model_version = 2")
    line = look(champion.use_case)
    assert line.is_due
    assert line.findings.lead is not None
    assert 0 < line.findings.lead.low <= line.findings.lead.value <= line.findings.lead.high
    assert line.reason.startswith("version 2, in the shadow, is ahead of the champion by +0.")
    champion.execute("update predictions.device_failure set failure_probability = 0.5 where model_version = 2")
    assert not look(champion.use_case).wants_retraining, "one that is behind asks for nothing"
    champion.execute("update ops.model_history set champion_until = now()")
    champion.execute(
        "insert into ops.model_history (use_case, model_version, champion_from, decided_by, reason) "
        "select use_case, 2, champion_until, 'gate', 'x' from ops.model_history"
    )
    assert look(champion.use_case).findings.lead is None, "an older version that is ahead is a reason to roll back, not to train"


def test_a_champion_that_can_score_no_more_is_trained_anew(champion: Pumps) -> None:
    """Its file is gone; its features are gone; the use case asks for others."""
    (version,) = versions(champion.connection, champion.use_case.name)
    data = version.file.read_bytes()
    version.file.unlink()
    is_due, reason = training_due(champion.connection, champion.use_case)
    assert is_due
    assert "can score no more: the file" in reason
    version.file.write_bytes(data)
    assert training_due(champion.connection, champion.use_case)[0] is False
    schema = FeatureSchema(SCHEMA.features[:3])
    features = replace(champion.use_case.dataset.features, schema=schema)
    fewer = replace(
        champion.use_case,
        dataset=replace(champion.use_case.dataset, features=features),
        training=replace(champion.use_case.training, schema=schema),
    )
    assert training_due(champion.connection, fewer) == (True, "the use case asks for other features than version 1, the newest, has learned from")
    champion.execute("alter table features.feat_pump_daily drop column maker")
    is_due, reason = training_due(champion.connection, champion.use_case)
    assert is_due
    assert "can score no more" in reason
    assert "maker" in reason


def test_one_that_cannot_be_looked_at_keeps_nobody_from_the_others(champion: Pumps) -> None:
    broken = pump_leak("pump_broken")
    champion.execute(
        "insert into ops.model_version (use_case, model_version, snapshot, card, model_file, has_passed, gate_reason) "
        "select 'pump_broken', 1, snapshot, jsonb_set(card, '{schema,0,0}', '\"no_such\"'), model_file, has_passed, gate_reason from ops.model_version"
    )
    champion.execute("insert into ops.model_history (use_case, model_version, champion_from, decided_by, reason) values ('pump_broken', 1, now(), 'gate', 'x')")
    with pytest.raises(MonitoringFailed, match=r"^pump_broken: .*no_such"):
        monitor_all([broken, champion.use_case])
    assert len(lines(champion.connection, champion.use_case.name)) == 1
    assert monitor_all([champion.use_case, pump_leak("nobody_trained_it")]) == 1


def test_by_hand_needs_no_reason_and_answers_what_was_asked_for(champion: Pumps) -> None:
    shift(champion, 1.5, last=30)
    assert look(champion.use_case).is_due
    report, reason = train_if_due(champion.use_case, lambda because: lifecycle.train(champion.use_case, because), by_hand=True)
    assert report is not None
    assert reason == BY_HAND
    assert reasons(champion) == [BY_HAND, BY_HAND]
    assert lines(champion.connection, champion.use_case.name)[0].trained_version == report.model_version
    assert training_due(champion.connection, champion.use_case)[0] is False


def test_a_training_that_fails_stays_asked_for(champion: Pumps) -> None:
    shift(champion, 1.5)
    look(champion.use_case)

    def fails(because: str) -> TrainingReport:
        raise NotEnoughData("no")

    with pytest.raises(NotEnoughData):
        train_if_due(champion.use_case, fails, by_hand=False)
    assert training_due(champion.connection, champion.use_case)[0] is True


def test_a_version_older_than_monitoring_is_judged_by_outcomes_alone(champion: Pumps) -> None:
    make_outcomes(champion)
    champion.execute("delete from ops.model_reference")
    shift(champion, 1.5)
    line = look(champion.use_case)
    assert not line.wants_retraining
    assert "older than monitoring" in line.reason
    assert line.findings.performance is not None


def test_a_window_is_whole_weeks() -> None:
    for wrong in ({"window_days": 5}, {"window_days": 10}, {"trainings_a_week": 0}):
        with pytest.raises(ValueError, match="whole weeks"):
            Monitoring(**wrong)


def test_scoring_may_read_and_write_lines_but_not_take_them_away(ml: psycopg.Connection) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ml.execute("update ops.model_monitor set as_of_date = as_of_date + 1")
    ml.rollback()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ml.execute("delete from ops.model_monitor")
    ml.rollback()
    with connect(Role.LOADER) as loader, pytest.raises(psycopg.errors.InsufficientPrivilege):
        loader.execute("update ops.model_monitor set is_due = true")
