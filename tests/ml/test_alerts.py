"""Alert budgets: what a ranking finds when a crew can look at so many machines a month."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ml.lifecycle.alerts import AlertResult, judge_alerts
from ml.lifecycle.dataset import knowledge_time

FIRST = date(2026, 1, 1)
DAY = timedelta(days=1)
WEEK = timedelta(days=7)


def judge(scores: dict[str, list[float]], failures: dict[str, list[datetime]], *, horizon: timedelta = WEEK, a_month: float = 1.0) -> AlertResult:
    """Scores of machines on the days from the first on."""
    rows = [(("t", machine), FIRST + DAY * day, score) for machine, own in scores.items() for day, score in enumerate(own)]
    entities, days, score = zip(*rows, strict=True)
    return judge_alerts(entities, days, score, {("t", machine): own for machine, own in failures.items()}, horizon=horizon, a_month=a_month, replicates=200)


def after(day: int, hours: float) -> datetime:
    """Hours after the end of a day."""
    return knowledge_time(FIRST + DAY * day) + timedelta(hours=hours)


def test_an_alert_before_a_failure_counts_with_its_lead_time() -> None:
    quiet = [0.0] * 30
    loud = [*quiet[:10], 0.9, 0.8, *quiet[12:]]
    result = judge({"a": loud, "b": quiet}, {"a": [after(12, 6)], "b": [after(20, 6)]})
    # Two machines, 30 days, one alert each: the loud day is one; the second is drawn among equals.
    assert (result.alerts, result.failures) == (2, 2)
    assert result.caught >= 1
    assert result.recall.value == result.caught / 2
    alone = judge({"a": loud}, {"a": [after(12, 6)]})
    assert (alone.alerts, alone.caught, alone.precision.value, alone.lead_h.value) == (1, 1, 1.0, 54.0)


def test_a_window_is_open_at_its_beginning_and_closed_at_its_end() -> None:
    scores = {"a": [*[0.0] * 5, 1.0, *[0.0] * 24]}
    for moment, caught in ((after(5, 0), 0), (after(5, 0.001), 1), (after(5, 168), 1), (after(5, 168.001), 0)):
        assert judge(scores, {"a": [moment]}).caught == caught, moment


def test_a_machine_is_silent_for_the_horizon_after_an_alert() -> None:
    result = judge({"a": [1.0] * 30}, {}, a_month=30)
    assert result.alerts == 5  # days 0, 7, 14, 21, 28
    assert judge({"a": [1.0] * 30}, {}, a_month=30, horizon=timedelta(hours=24)).alerts == 30
    assert (result.failures, result.precision.value) == (0, 0.0)
    assert math.isnan(result.recall.value)


def test_failures_that_no_row_could_announce_do_not_count() -> None:
    scores = {"a": [1.0] * 30}
    long_before, long_after = datetime(2025, 12, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    assert judge(scores, {"a": [long_before, long_after, after(3, 5), after(3, 5)], "elsewhere": [after(3, 5)]}).failures == 1


@given(st.integers(1, 6), st.integers(10, 60), st.floats(0.2, 4.0), st.integers(0, 5), st.integers(0, 10_000))
def test_the_budget_is_kept_and_all_but_spent(machines: int, days: int, a_month: float, values: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = {f"m{number}": random.integers(0, values + 1, size=days).astype(float).tolist() for number in range(machines)}
    result = judge(scores, {}, a_month=a_month)
    budget = int(machines * days / 30 * a_month)
    most = machines * -(-days // 7)
    # One more rank may raise at most one more alert, so nothing is left but where no more fit.
    assert result.alerts == min(budget, most)


def test_a_perfect_ranking_beats_a_drawn_one_and_the_interval_says_so() -> None:
    random = np.random.default_rng(3)
    scores, failures, drawn = {}, {}, {}
    for number in range(40):
        day = int(random.integers(5, 25))
        scores[f"m{number}"] = [1.0 if day - 2 <= each < day else random.random() * 0.5 for each in range(30)]
        drawn[f"m{number}"] = random.random(30).tolist()
        failures[f"m{number}"] = [after(day, 6)]
    perfect, chance = judge(scores, failures), judge(drawn, failures)
    assert perfect.recall.value == 1.0
    assert perfect.recall.low > chance.recall.high
    assert perfect.precision.low > chance.precision.high
    assert perfect.lead_h.low <= perfect.lead_h.value <= perfect.lead_h.high


def test_equal_scores_are_drawn_and_the_draw_is_seeded() -> None:
    scores = {f"m{number}": [0.0] * 30 for number in range(10)}
    failures = {f"m{number}": [after(15, 6)] for number in range(10)}
    first, again = judge(scores, failures), judge(scores, failures)
    assert first == again
    assert first.alerts == 10
    assert 0 < first.caught < 10, "alerts on equal scores are spread over the days, not all on the first"


def test_more_confidence_gives_a_wider_interval() -> None:
    random = np.random.default_rng(1)
    entities = [("t", f"m{number}") for number in range(20) for _ in range(30)]
    days = [FIRST + DAY * day for _ in range(20) for day in range(30)]
    failures = {("t", f"m{number}"): [after(int(random.integers(2, 28)), 6)] for number in range(20)}
    score = random.random(600)
    narrow, wide = (judge_alerts(entities, days, score, failures, horizon=WEEK, confidence=confidence).recall for confidence in (0.5, 0.95))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
