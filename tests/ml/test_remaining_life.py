"""Days until a pump leaks: the data set, and the whole way from training to predictions that cover."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import numpy as np
import psycopg
import pytest
from rich.console import Console

from ml.lifecycle import promotion
from ml.lifecycle import use_case as lifecycle
from ml.lifecycle.champions import champion_version
from ml.lifecycle.dataset import IS_KNOWN, OUTCOME, Measure, NotEnoughData, Relation, load_dataset
from ml.lifecycle.gate import Gate
from ml.lifecycle.quantiles import NaiveQuantiles, QuantileBoostingCandidate, QuantileTraining
from ml.lifecycle.report import QuantileReport, read_report, render
from ml.lifecycle.use_case import UseCase
from ml.lifecycle.versions import find_version
from ml.lifecycle.writeback import PredictionTarget
from ml.usecases.remaining_life import REMAINING_LIFE
from tests.ml.conftest import FIRST_DAY, SCHEMA, SPEC, Pumps

HORIZON = timedelta(days=14)
DAYS_UNTIL = replace(SPEC, outcome=replace(SPEC.outcome, horizon=HORIZON, measure=Measure.DAYS_UNTIL))
VALUES = "remaining_life_p05_d, remaining_life_p50_d, remaining_life_p95_d"


@pytest.fixture
def life(pumps: Pumps) -> UseCase:
    """How many days until a pump leaks?"""
    return replace(
        pumps.use_case,
        question="How many days until the pump leaks, of at most 14?",
        dataset=DAYS_UNTIL,
        training=QuantileTraining(SCHEMA, (QuantileBoostingCandidate(trees=60, depth=3),)),
        baselines=(NaiveQuantiles("lives by age", "By age and site.", "age_days", "site"), NaiveQuantiles("all lives", "Any.")),
        target=PredictionTarget(Relation("predictions", "remaining_life"), ("remaining_life_p05_d", "remaining_life_p50_d", "remaining_life_p95_d")),
    )


def put(pumps: Pumps, pump: str, days: int, leaks: list[tuple[int, float]]) -> None:
    """A pump with rows for its first days, and leaks so many days after the beginning of day n."""
    for day in range(days):
        pumps.execute(
            "insert into features.feat_pump_daily (tenant_id, device_id, feature_date, device_type, wear, grease, is_outdoors, maker, age_days, site) "
            f"values ('default', '{pump}', date '{FIRST_DAY}' + {day}, 'pump', 1, 1, true, 'm', {day}, 's')"
        )
    for day, part in leaks:
        at = datetime.combine(FIRST_DAY, time(), tzinfo=UTC) + timedelta(days=day + part)
        pumps.execute(f"insert into maintenance.fct_leak values ('default', '{pump}', 'leak', '{at.isoformat()}')")


def test_days_are_counted_from_the_knowledge_time_and_end_at_the_horizon(pumps: Pumps, ml: psycopg.Connection) -> None:
    put(pumps, "leaks", 40, [(10, 0.5), (11, 0.0), (35, 0.0)])
    put(pumps, "leaves", 12, [])
    put(pumps, "ends", 20, [(20, 0.25)])  # fails for good: no row after it
    dataset = load_dataset(ml, DAYS_UNTIL)
    known_until = FIRST_DAY + timedelta(days=39)
    last = known_until - timedelta(days=2 + 14 + 1)  # settling, window, and the day itself
    found = {(row.device_id, (row.feature_date - FIRST_DAY).days): (row.outcome, row.outcome_is_known) for row in dataset.frame.itertuples()}
    assert max(dataset.dates) == last
    assert found["leaks", 0] == (9.5, True)
    assert found["leaks", 9] == (0.5, True)
    assert found["leaks", 10] == (14.0, True), "what happens at the knowledge time itself has happened; the next one is beyond the window"
    assert found["leaks", 21] == (13.0, True)
    assert found["leaves", 0] == (11.0, False), "seen for eleven days, and nobody knows what came then"
    assert found["leaves", 11] == (0.0, False)
    assert found["ends", 19] == (0.25, True)
    assert found["ends", 0] == (14.0, True)
    assert dataset.incomplete_rows == 40 - 1 - (last - FIRST_DAY).days


def test_the_end_of_the_data_cuts_no_life_short(pumps: Pumps, ml: psycopg.Connection) -> None:
    """A row without its whole window is left out even where the event has come: to keep only those that failed early would make lives look short."""
    put(pumps, "leaks", 30, [(14, 0.0)])
    dataset = load_dataset(ml, DAYS_UNTIL)
    assert max(dataset.dates) == FIRST_DAY + timedelta(days=29 - 2 - 14 - 1)
    assert bool(dataset.frame[IS_KNOWN].all())
    before = dataset.content_hash
    pumps.execute("update maintenance.fct_leak set occurred_at = occurred_at + interval '1 hour'")
    assert load_dataset(ml, DAYS_UNTIL).content_hash != before


def test_the_whole_way_to_an_interval_that_covers(pumps: Pumps, life: UseCase) -> None:
    pumps.fill(days=200, pumps=30)
    report = lifecycle.train(life)
    assert isinstance(report, QuantileReport)
    assert report.gate.passed, report.gate.reason
    assert report.loss_model < report.loss_baseline
    assert report.difference.low > 0
    assert report.coverage >= 0.85
    assert report.coverage_low <= report.coverage <= report.coverage_high
    assert report.coverage_of_events is not None
    assert report.coverage_of_events_low is not None
    assert report.coverage_of_events_high is not None
    assert report.coverage_of_events_low <= report.coverage_of_events <= report.coverage_of_events_high
    assert report.metrics()["coverage_of_events"] == report.coverage_of_events
    assert any(lost.startswith("coverage of events within 14 days") for lost in report.loses_on) == (report.coverage_of_events < 0.9)
    assert report.median_error_model < report.median_error_baseline
    assert report.censored_rows == 0
    assert report.gap_days == 14
    stored = find_version(pumps.connection, life.name, report.model_version)
    assert stored.report is not None
    assert read_report(stored.report) == report
    newer = {"coverage_of_events", "coverage_of_events_low", "coverage_of_events_high", "widening_at_ceiling_days", "rows_of_departed"}
    older = read_report(json.dumps({name: value for name, value in json.loads(stored.report).items() if name not in newer}))
    assert isinstance(older, QuantileReport)
    assert (older.coverage_of_events, older.rows_of_departed, older.loss_model) == (None, 0, report.loss_model)
    render(older)
    screen = Console(file=io.StringIO(), width=220)
    screen.print(render(report))
    for part in (report.candidate, report.baseline_name, "interval of 90%", "Of the events within 14 days it holds", "Champion:"):
        assert part in screen.file.getvalue()  # type: ignore[attr-defined]
    assert lifecycle.train(life) == report, "the same data registers nothing new"

    written = lifecycle.score(life)
    newest = FIRST_DAY + timedelta(days=199)
    assert written == 30 * ((newest - report.parts[2].first).days + 1)
    assert lifecycle.score(life) == 0
    rows = pumps.connection.execute(
        f"select device_id, outcome_from, outcome_to, reasons, {VALUES} from predictions.remaining_life where model_name = %s and feature_date <= %s",
        (life.name, newest - HORIZON),
    ).fetchall()
    assert {row[2] - row[1] for row in rows} == {HORIZON}
    assert all(0 <= row[4] <= row[5] <= row[6] <= 14 for row in rows)
    assert any(row[3][0]["feature"] == "wear" for row in rows)
    leaks = pumps.connection.execute("select device_id, occurred_at from maintenance.fct_leak").fetchall()
    inside, truth = [], []
    for device, known_at, until, _, low, _, high in rows:
        days = min([(at - known_at) / timedelta(days=1) for leaking, at in leaks if leaking == device and known_at < at <= until], default=14.0)
        truth.append(days)
        inside.append(low <= days <= high)
    assert np.mean(inside) >= 0.85
    medians = np.array([row[5] for row in rows])
    assert np.abs(medians - truth).mean() < np.abs(np.median(truth) - truth).mean()


def test_an_answer_that_says_nothing_new_stays_challenger(pumps: Pumps, life: UseCase) -> None:
    pumps.fill(days=150, leak_every_days=20)
    pumps.execute("update features.feat_pump_daily set wear = grease")
    report = lifecycle.train(life)
    assert not report.gate.passed
    assert "not better than the baseline" in report.gate.reason
    assert champion_version(pumps.connection, life.name) is None


def test_a_challenger_meets_the_champion_by_loss(pumps: Pumps, life: UseCase) -> None:
    pumps.fill(days=200, pumps=30)
    first = lifecycle.train(life)
    weak = replace(life, training=replace(life.training, candidates=(QuantileBoostingCandidate(trees=2, depth=1),)), gate=Gate(sureness=0.5))
    second = lifecycle.train(weak)
    assert isinstance(second, QuantileReport)
    assert second.champion is not None
    assert second.champion.version == first.model_version
    assert second.champion.loss < second.champion.challenger_loss
    assert not second.gate.passed
    assert champion_version(pumps.connection, life.name) == 1
    lines = promotion.list_versions(life.name)
    assert [(line.version, line.state, line.measure) for line in lines] == [
        (2, "challenger", "pinball loss (d)"),
        (1, "champion", "pinball loss (d)"),
    ]
    assert lines[1].figure == first.loss_model
    found = promotion.compare(life, 2)
    assert isinstance(found, promotion.QuantileComparison)
    assert found.first.loss > found.second.loss
    assert found.difference.difference == pytest.approx(1 - found.first.loss / found.second.loss)
    assert found.difference.high < 0


def test_what_left_is_counted_and_too_little_is_said(pumps: Pumps, life: UseCase) -> None:
    pumps.fill(days=200, pumps=30)
    pumps.execute(f"delete from features.feat_pump_daily where device_id >= 'pump_25' and feature_date > date '{FIRST_DAY}' + 60")
    pumps.execute(f"delete from maintenance.fct_leak where device_id >= 'pump_25' and occurred_at > date '{FIRST_DAY}' + 60")  # an event says that it was there
    report = lifecycle.train(life)
    assert isinstance(report, QuantileReport)
    assert report.censored_rows > 0
    with pytest.raises(NotEnoughData, match=r"40 entities.*of 30 entities"):
        lifecycle.train(replace(life, training=replace(life.training, min_entities=40)))


def test_a_use_case_says_what_it_measures(life: UseCase) -> None:
    with pytest.raises(ValueError, match="an outcome of kind happened is trained by TrainingConfig and Baseline"):
        replace(life, dataset=replace(SPEC, outcome=SPEC.outcome))
    with pytest.raises(ValueError, match=r"its intervals promise 0\.8, but monitoring is told that they promise 0\.9"):
        replace(life, training=replace(life.training, levels=(0.1, 0.5, 0.9)))
    with pytest.raises(ValueError, match="needs 3 columns of values"):
        replace(life, target=PredictionTarget(Relation("predictions", "remaining_life"), ("remaining_life_p50_d",)))


def test_the_house_asks_it_of_every_machine() -> None:
    source = REMAINING_LIFE.dataset.features
    assert REMAINING_LIFE.dataset.outcome.measure is Measure.DAYS_UNTIL
    assert {naive.column for naive in REMAINING_LIFE.baselines} - {None} <= set(source.schema.names)
    assert OUTCOME not in source.schema.names
