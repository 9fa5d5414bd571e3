"""Performance by outcomes: losses that are there are found, and chance and seasons are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from ml.lifecycle.live import (
    Lead,
    LivePerformance,
    PerformanceBounds,
    RankingQuality,
    live_performance,
    losses,
    measure_lead,
    ranking_quality,
    weighted_roc_auc,
)

BOUNDS = PerformanceBounds()
MACHINES = 60
# A seed whose first resample of two entities is one of them twice.
ONE_ENTITY_TWICE = next(seed for seed in range(20) if 2 in np.random.default_rng(seed).multinomial(2, [0.5, 0.5], size=1))


def outcomes(seed: int, days: int, *, skill: float = 1.0, rate: float = 1.0, blind: bool = False) -> pd.DataFrame:
    """Predictions and what happened to machines whose risk wanders.

    Args:
        seed: Of everything.
        days: Of predictions.
        skill: How much of the risk the model sees; it says the right probabilities for a skill of 1.
        rate: Events for each promised one.
        blind: Whether what it says has nothing to do with the machine.
    """
    random = np.random.default_rng(seed)
    rows = []
    for machine in range(MACHINES):
        risk = random.normal(-3, 1)
        for _ in range(days):
            risk = -3 + 0.9 * (risk + 3) + 0.6 * random.normal()
            said = 1 / (1 + np.exp(-(skill * (risk + 3) - 3 if not blind else random.normal(-3, 1.3))))
            happened = random.random() < min(1.0, rate / (1 + np.exp(-risk)))
            rows.append(("default", f"m{machine}", None, said, happened, None))
    return pd.DataFrame(rows, columns=["tenant_id", "device_id", "component_code", "predicted_probability", "has_occurred", "is_within_interval"])


def ranked(seed: int) -> RankingQuality:
    found = live_performance(outcomes(seed, 20), BOUNDS).ranking
    assert found is not None
    return found


def said(live: pd.DataFrame, test: RankingQuality | None) -> list[str]:
    return losses(live_performance(live, BOUNDS), test, BOUNDS)


def test_the_same_model_on_the_same_plant_has_lost_nothing() -> None:
    """Fifty plants, each looked at once; seasons change the rate of failures by a fifth, up and down."""
    wrong = [seed for seed in range(50) if said(outcomes(seed + 1000, 28, rate=1 + 0.2 * np.sin(seed)), ranked(seed))]
    assert len(wrong) <= 1, wrong


def test_a_model_that_ranks_no_more_is_found() -> None:
    found = [said(outcomes(seed + 1000, 28, blind=True), ranked(seed)) for seed in range(20)]
    assert sum(any("ranking has been lost" in reason for reason in reasons) for reasons in found) >= 19


def test_probabilities_that_promise_too_little_or_too_much_are_found() -> None:
    for rate, word in ((3.0, "probabilities are wrong"), (0.3, "probabilities are wrong")):
        found = [said(outcomes(seed, 28, rate=rate), None) for seed in range(10)]
        assert all(any(word in reason for reason in reasons) for reasons in found), rate


def test_intervals_that_hold_too_little_are_found_and_others_are_not() -> None:
    random = np.random.default_rng(1)
    table = outcomes(1, 28).assign(predicted_probability=None)
    good = live_performance(table.assign(is_within_interval=random.random(len(table)) < 0.9), BOUNDS)
    bad = live_performance(table.assign(is_within_interval=random.random(len(table)) < 0.7), BOUNDS)
    assert losses(good, None, BOUNDS) == []
    assert len(losses(bad, None, BOUNDS)) == 1
    assert "intervals hold too little (71% of outcomes, at most 74%; 90% promised)" in losses(bad, None, BOUNDS)[0]
    assert good.ranking is None
    assert good.brier is None
    assert good.coverage is not None
    assert good.coverage.value == pytest.approx(0.9, abs=0.02)


def test_few_events_say_nothing() -> None:
    table = outcomes(3, 3).assign(has_occurred=False)
    table.loc[table.index[:4], "has_occurred"] = True
    live = live_performance(table, BOUNDS)
    assert (live.ranking, live.events_to_promised) == (None, None)
    assert "too few to say" in live.summary()
    assert losses(live, ranked(1), BOUNDS) == []


def test_all_events_at_one_machine_say_nothing_of_the_others() -> None:
    table = outcomes(3, 28)
    table["has_occurred"] = table["device_id"] == "m0"
    assert live_performance(table, BOUNDS).ranking is None


def test_components_of_a_machine_share_its_fate() -> None:
    """Asked twice of the same machines, nothing is surer than asked once."""
    once = live_performance(outcomes(1, 28), BOUNDS)
    twice = live_performance(pd.concat([outcomes(1, 28).assign(component_code=part) for part in ("pump", "motor")]), BOUNDS)
    assert twice.entities == MACHINES
    assert once.ranking is not None
    assert twice.ranking is not None
    assert (twice.ranking.low, twice.ranking.high) == pytest.approx((once.ranking.low, once.ranking.high))


def test_figures_are_those_of_the_rows() -> None:
    table = outcomes(2, 28)
    live: LivePerformance = live_performance(table, BOUNDS)
    truth, probability = table["has_occurred"].astype(int), table["predicted_probability"]
    assert live.brier == pytest.approx(float(((truth - probability) ** 2).mean()))
    assert live.events_to_promised is not None
    assert live.events_to_promised.value == pytest.approx(truth.sum() / probability.sum())
    assert live.ranking is not None
    above = probability[truth == 1].to_numpy()[:, None] > probability[truth == 0].to_numpy()
    assert live.ranking.auc == pytest.approx(above.mean())
    assert live.ranking.low < live.ranking.auc < live.ranking.high
    assert live.calibration_error is not None
    assert live.calibration_error < 0.03


def test_ranking_under_weights_is_that_of_the_library() -> None:
    """With ties, and with rows that do not count."""
    random = np.random.default_rng(4)
    outcome, score = random.integers(0, 2, 300), random.integers(0, 12, 300) / 12
    weights = random.integers(0, 3, (20, 300)).astype(np.float64)
    expected = [roc_auc_score(outcome[row > 0], score[row > 0], sample_weight=row[row > 0]) for row in weights]
    assert weighted_roc_auc(outcome, score, weights) == pytest.approx(expected)
    assert np.isnan(weighted_roc_auc(np.ones(3, dtype=int), np.arange(3.0), np.ones((1, 3)))).all()


def test_where_no_resample_can_rank_nothing_is_sure() -> None:
    found = ranking_quality(np.array([0, 1]), np.array([0.1, 0.2]), ["a", "a"], replace(BOUNDS, replicates=5))
    assert (found.auc, found.low, found.high) == (1.0, 1.0, 1.0), "the one entity holds both"
    apart = ranking_quality(np.array([0, 1]), np.array([0.1, 0.2]), ["a", "b"], replace(BOUNDS, replicates=1, seed=ONE_ENTITY_TWICE))
    assert (apart.auc, apart.low, apart.high) == (1.0, 0.0, 1.0)


def lead(live: pd.DataFrame, other: np.ndarray) -> Lead:
    found = measure_lead(live.assign(other_predicted_probability=other), 2, BOUNDS, None)
    assert found is not None
    return found


def test_two_versions_that_see_the_same_are_not_ahead_of_each_other() -> None:
    """Fifty plants: the other version says what the champion says, and each errs by itself."""
    wrong = []
    for seed in range(50):
        live, random = outcomes(seed, 28), np.random.default_rng(seed)
        logit = np.log(live["predicted_probability"] / (1 - live["predicted_probability"])).to_numpy()
        own, other = (1 / (1 + np.exp(-(logit + 0.5 * random.normal(size=len(live))))) for _ in range(2))
        wrong += [seed] if lead(live.assign(predicted_probability=own), other).counts(BOUNDS) else []
    assert wrong == []


def test_a_version_that_sees_more_is_ahead_of_a_blind_one() -> None:
    ahead = behind = 0
    for seed in range(20):
        live = outcomes(seed, 28)
        better, blind = live["predicted_probability"].to_numpy(), np.random.default_rng(seed).random(len(live))
        ahead += lead(live.assign(predicted_probability=blind), better).counts(BOUNDS)
        behind += lead(live, blind).counts(BOUNDS)
    assert (ahead, behind) == (20, 0)


def test_days_left_are_compared_by_their_loss() -> None:
    random = np.random.default_rng(1)
    days = random.uniform(1, 28, size=600)
    names = [f"{whose}predicted_{which}_days" for whose in ("", "other_") for which in ("low", "median", "high")]
    said = np.column_stack([np.full(600, 1.0), np.full(600, 14.0), np.full(600, 28.0), days - 1, days, days + 1])
    pairs = pd.DataFrame(said, columns=names).assign(
        tenant_id="default", device_id=[f"m{row % 20}" for row in range(600)], outcome_days=days, has_occurred=True
    )
    found = measure_lead(pairs, 3, BOUNDS, (0.05, 0.5, 0.95))
    assert found is not None
    assert (found.version, found.measure, found.rows) == (3, "pinball loss", 600)
    assert 0.9 < found.low <= found.value <= found.high < 1
    assert found.counts(BOUNDS)
    assert "of the pinball loss" in str(found)
    assert measure_lead(pairs.assign(has_occurred=False), 3, BOUNDS, (0.05, 0.5, 0.95)) is None, "no event: nobody can say"
