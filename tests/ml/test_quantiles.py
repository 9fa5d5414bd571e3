"""Quantiles of days: weights for what left, an interval that covers, losses, naive answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from skops.io import dumps, loads

from ml.lifecycle.evaluation import bootstrap_mean, bootstrap_skill
from ml.lifecycle.explain import QuantileScorer
from ml.lifecycle.gate import Gate
from ml.lifecycle.quantile_judging import covered, figures
from ml.lifecycle.quantiles import (
    FittedQuantiles,
    Lives,
    NaiveQuantiles,
    QuantileBoostingCandidate,
    QuantileTraining,
    censoring_weights,
    fit_quantiles,
    interval_scores,
    pinball_losses,
    weighted_quantiles,
)
from ml.lifecycle.schema import Feature, FeatureKind, FeatureSchema
from ml.lifecycle.versions import TRUSTED_TYPES

CEILING = 40.0
SCHEMA = FeatureSchema((Feature("wear"), Feature("noise"), Feature("maker", FeatureKind.CATEGORY)))
CONFIG = QuantileTraining(SCHEMA, (QuantileBoostingCandidate(trees=40, depth=3), QuantileBoostingCandidate(trees=3, depth=1)))


def made_up(entities: int, seed: int, *, rows: int = 40) -> tuple[pd.DataFrame, Lives]:
    """Lives that get shorter with wear, spread more where there is little of it."""
    random = np.random.default_rng(seed)
    count = entities * rows
    wear = random.uniform(0, 1, count)
    days = np.clip(35 * (1 - wear) * random.gamma(6, 1 / 6, count), 0, CEILING)
    table = pd.DataFrame({"wear": wear, "noise": random.normal(size=count), "maker": [f"m{number % 3}" for number in range(count)]})
    return table, Lives(days, np.ones(count, dtype=bool), [number // rows for number in range(count)])


def fitted() -> FittedQuantiles:
    return fit_quantiles(CONFIG, *made_up(30, 1), *made_up(12, 2), ceiling=CEILING)


def test_what_left_weighs_in_what_stayed() -> None:
    # Of two that were still there after two days one left, so the one that stayed stands for both; the event on the second day itself was seen.
    weights = censoring_weights(np.array([1.0, 2.0, 2.0, 3.0]), np.array([True, False, True, True]))
    assert weights.tolist() == [1.0, 0.0, 1.0, 2.0]
    assert censoring_weights(np.array([1.0, 5.0]), np.array([True, True])).tolist() == [1.0, 1.0]


def test_weights_undo_what_leaving_hides() -> None:
    random = np.random.default_rng(3)
    lives, leaves = random.exponential(20, 20_000), random.exponential(25, 20_000)
    truth = np.minimum(lives, CEILING)
    is_known = (lives <= leaves) | (leaves >= CEILING)
    days = np.where(is_known, truth, np.minimum(leaves, CEILING))
    median = np.median(truth)
    (weighted,) = weighted_quantiles(days, censoring_weights(days, is_known), [0.5])
    assert weighted == pytest.approx(median, rel=0.05)
    assert np.median(days[is_known]) < 0.85 * median, "leaving out what left makes lives look short"


def test_quantiles_count_weights() -> None:
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0])
    assert weighted_quantiles(values, weights, [0.0, 0.25, 0.26, 0.75, 0.76, 1.0]).tolist() == [1, 1, 2, 2, 3, 3]
    assert weighted_quantiles(values, weights, [1.01]).tolist() == [np.inf], "more than there is"
    with pytest.raises(ValueError, match="at least one row"):
        weighted_quantiles(values, np.zeros(3), [0.5])


def test_losses_by_hand() -> None:
    quantiles = np.array([[2.0, 4.0, 8.0]])
    # 0.05 quantile: 3 above it; median: 1 above; 0.95 quantile: 3 below.
    assert pinball_losses(np.array([5.0]), quantiles, (0.05, 0.5, 0.95))[0] == pytest.approx((0.05 * 3 + 0.5 * 1 + 0.05 * 3) / 3)
    assert interval_scores(np.array([5.0]), quantiles, 0.9)[0] == 6
    assert interval_scores(np.array([9.0]), quantiles, 0.9)[0] == pytest.approx(6 + 20 * 1)


def test_the_interval_covers_where_the_fitted_quantiles_do_not() -> None:
    eager = QuantileTraining(SCHEMA, (QuantileBoostingCandidate(trees=300, depth=6, learning_rate=0.1, min_rows_in_leaf=3, l2=0),))
    model = fit_quantiles(eager, *made_up(20, 1), *made_up(40, 2), ceiling=CEILING).estimator
    table, lives = made_up(60, 4)
    quantiles = model.predict(SCHEMA.frame(table))
    inside = (quantiles[:, 0] <= lives.days) & (lives.days <= quantiles[:, -1])
    raw = np.stack([trees.predict(model.prepare.transform(SCHEMA.frame(table))) for trees in model.regressors], axis=1)
    fitted_inside = (raw[:, 0] <= lives.days) & (lives.days <= raw[:, -1])
    assert model.widening > 0
    assert fitted_inside.mean() < 0.9 <= inside.mean() < 0.99
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert quantiles.min() >= 0
    assert quantiles.max() <= CEILING


def test_few_entities_promise_less_exactly() -> None:
    """The same rows of fewer entities say less, so the interval gets wider."""
    table, lives = made_up(40, 2)
    many = fit_quantiles(CONFIG, *made_up(30, 1), table, lives, ceiling=CEILING).estimator.widening
    as_twelve = Lives(lives.days, lives.is_known, [number % 12 for number in range(len(table))])
    few = fit_quantiles(CONFIG, *made_up(30, 1), table, as_twelve, ceiling=CEILING).estimator.widening
    as_five = Lives(lives.days, lives.is_known, [number % 5 for number in range(len(table))])
    none = fit_quantiles(CONFIG, *made_up(30, 1), table, as_five, ceiling=CEILING).estimator.widening
    assert many < few < none == CEILING


def rare(entities: int, seed: int, *, rows: int = 40) -> tuple[pd.DataFrame, Lives, np.ndarray]:
    """Failures are rare: of 100 rows eight are at risk and show it, two more fail soon and show nothing; the others live on. Third, which show it."""
    random = np.random.default_rng(seed)
    count = entities * rows
    shows = random.random(count) < 0.08
    wear = np.where(shows, random.uniform(0.5, 1, count), random.uniform(0, 0.1, count))
    days = np.where(shows, np.clip(35 * (1 - wear) * random.gamma(6, 1 / 6, count), 0, CEILING), CEILING)
    days = np.where(~shows & (random.random(count) < 0.02), random.uniform(0, CEILING, count), days)
    table = pd.DataFrame({"wear": wear, "noise": random.normal(size=count), "maker": [f"m{number % 3}" for number in range(count)]})
    return table, Lives(days, np.ones(count, dtype=bool), [number // rows for number in range(count)]), shows


def test_where_failures_are_rare_rows_at_risk_keep_the_promise_by_themselves() -> None:
    """Nine of ten lives are the ceiling, which anything covers: an interval for all rows alike would never hold a failure and yet hold 90 %."""
    eager = replace(CONFIG, candidates=(QuantileBoostingCandidate(trees=300, depth=6, learning_rate=0.1, min_rows_in_leaf=3, l2=0),))
    train, taught, _ = rare(30, 1)
    validation, held_out, _ = rare(60, 2)
    model = fit_quantiles(eager, train, taught, validation, held_out, ceiling=CEILING).estimator
    table, lives, shows = rare(80, 3)
    quantiles = model.predict(SCHEMA.frame(table))
    found = figures(lives, quantiles, eager, CEILING)
    assert found.coverage >= 0.9
    assert covered(lives.days, quantiles)[shows].mean() >= 0.87
    assert found.coverage_of_events is not None
    assert found.coverage_of_events == pytest.approx(covered(lives.days, quantiles)[lives.days < CEILING].mean())
    assert 0.6 < found.coverage_of_events < 0.87, "of what nothing announced, none can be promised"
    said_by_all = fit_quantiles(replace(eager, min_entities=10_000), train, taught, validation, held_out, ceiling=CEILING).estimator
    pooled = said_by_all.predict(SCHEMA.frame(table))
    assert covered(lives.days, pooled).mean() >= 0.9
    assert covered(lives.days, pooled)[shows].mean() < 0.8
    assert model.widening > model.widening_at_ceiling == said_by_all.widening == said_by_all.widening_at_ceiling


def test_a_group_of_too_few_entities_is_not_conformalised_by_itself() -> None:
    train, taught, _ = rare(30, 1)
    validation, held_out, shows = rare(60, 2)
    few = [f"at risk {number % 4}" if shown else f"healthy {number % 50}" for number, shown in enumerate(shows)]
    config = replace(CONFIG, candidates=CONFIG.candidates[:1])
    apart, together = (
        fit_quantiles(config, train, taught, validation, Lives(held_out.days, held_out.is_known, entities), ceiling=CEILING).estimator
        for entities in (held_out.entities, few)
    )
    assert apart.widening != apart.widening_at_ceiling
    assert together.widening == together.widening_at_ceiling


def test_what_is_widened_is_what_was_found_to_be_missing() -> None:
    """Trees say a little more than is possible; cut to it they missed an outcome by 1.5 days, so 2 days of widening must reach it."""
    model = fitted().estimator
    model.widening_at_ceiling = 2.0
    low, middle, high = model.finish(np.array([[CEILING + 3, CEILING + 3, CEILING + 4]]))[0]
    assert (low, middle, high) == (CEILING - 2, CEILING, CEILING)
    model.widening = 3.0
    assert model.finish(np.array([[-4.0, 1.0, 2.0]]))[0].tolist() == [0.0, 1.0, 5.0], "below the ceiling the other widening counts"


def test_no_event_no_coverage_of_events() -> None:
    lives = Lives(np.array([5.0, 40.0, 40.0, 7.0]), np.array([True, True, True, False]), list("abcd"))
    quantiles = np.array([[6.0, 40.0, 40.0]] * 4)
    assert figures(lives, quantiles, CONFIG, CEILING).coverage_of_events == 0
    assert figures(lives, quantiles, CONFIG, 5.0).coverage_of_events is None


def test_the_candidate_with_less_loss_is_chosen() -> None:
    found = fitted()
    assert found.candidate == CONFIG.candidates[0].name
    assert found.validation_loss[CONFIG.candidates[0].name] < found.validation_loss[CONFIG.candidates[1].name]


def test_a_stored_model_says_the_same_and_why() -> None:
    model = fitted().estimator
    again = loads(dumps(model), trusted=TRUSTED_TYPES)
    table, _ = made_up(3, 5)
    table.loc[7, "maker"] = "never seen"
    table.loc[8, "wear"] = None
    scorer = QuantileScorer(again, SCHEMA)
    together = scorer.score(table)
    assert np.array_equal(together.values, model.predict(SCHEMA.frame(table)))
    alone = np.concatenate([scorer.score(table.iloc[[row]]).values for row in range(len(table))])
    assert np.array_equal(together.values, alone)
    median = model.regressors[1].predict(model.prepare.transform(SCHEMA.frame(table)))
    assert together.base + together.contributions.sum(axis=1) == pytest.approx(median, abs=1e-4)
    assert (np.abs(together.contributions[:, 0]) > np.abs(together.contributions[:, 1])).mean() > 0.9, "wear says more than noise"
    assert scorer.score(table.iloc[:0]).values.shape == (0, 3)


def test_naive_answers_are_lives_of_the_like() -> None:
    count = 400
    table = pd.DataFrame({"age": np.arange(count) % 10 * 10.0, "model": ["A", "B"] * (count // 2)})
    lives = Lives(100 - table["age"].to_numpy() + np.where(table["model"] == "A", 0.0, 5.0), np.ones(count, dtype=bool), range(count))
    naive = NaiveQuantiles("age", "by age and model", "age", "model").fit(table, lives, (0.05, 0.5, 0.95))
    asked = pd.DataFrame({"age": [0.0, 90.0, None, 90.0], "model": ["A", "B", "A", "C"]})
    medians = naive.quantiles(asked)[:, 1]
    assert medians[0] == pytest.approx(100, abs=20)
    assert medians[1] == pytest.approx(15, abs=11)
    assert medians[2] == np.median(lives.days[table["model"] == "A"]) or medians[2] in lives.days, "no age: all of the model"
    assert medians[3] == naive.overall[1], "a model that nobody knows: all lives"
    every = NaiveQuantiles("all", "all lives").fit(table, lives, (0.05, 0.5, 0.95)).quantiles(asked)
    assert (every == every[0]).all()


def test_skill_is_the_share_of_loss_saved() -> None:
    blocks = [number // 10 for number in range(200)]
    second = np.ones(200)
    found = bootstrap_skill(second * 0.8, second, second, blocks, margin=0.1, seed=1)
    assert found.difference == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2, 0.2))
    assert (found.share_above_margin, found.blocks) == (1.0, 20)
    random = np.random.default_rng(1)
    uncertain = bootstrap_skill(random.gamma(1, 1, 200), random.gamma(1, 1, 200), second, blocks, seed=1)
    assert uncertain.low < uncertain.difference < uncertain.high
    with pytest.raises(ValueError, match="no loss"):
        bootstrap_skill(second, second * 0, second, blocks)
    low, high = bootstrap_mean(random.random(200) < 0.9, second, blocks, seed=1)
    assert low < 0.9 < high + 0.05


def test_an_interval_that_does_not_keep_its_promise_is_refused() -> None:
    gate = Gate(undercoverage=0.05)
    assert not gate.decide_coverage(0.84, 0.9).passed
    assert "holds 84.0%" in gate.decide_coverage(0.84, 0.9).reason
    assert gate.decide_coverage(0.86, 0.9).passed
    assert gate.decide_coverage(0.99, 0.9).passed, "its width costs loss, that is enough"
