"""Figures that decide about a model: exact where they can be, honest where they are drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from ml.lifecycle.evaluation import Baseline, Interval, Riskier, bootstrap_difference, brier, calibration, pr_auc, slices, weighted_pr_auc
from ml.lifecycle.gate import ChampionResult, Gate


def made_up(seed: int, devices: int = 40, days: int = 30) -> tuple[np.ndarray, list[str], np.random.Generator]:
    """Outcomes in runs of seven days within devices, as overlapping windows make them."""
    random = np.random.default_rng(seed)
    outcome = np.zeros((devices, days))
    for device in range(devices):
        for start in np.flatnonzero(random.random(days) < 0.02):
            outcome[device, start : start + 7] = 1
    return outcome.ravel(), [f"d{device}" for device in range(devices) for _ in range(days)], random


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_average_precision_agrees_with_scikit_learn_also_with_ties_and_weights(decimals: int) -> None:
    random = np.random.default_rng(decimals)
    outcome = (random.random(300) < 0.1).astype(float)
    score = np.round(random.normal(size=300) + outcome, decimals)
    assert pr_auc(outcome, score) == pytest.approx(average_precision_score(outcome, score), abs=1e-12)
    weights = random.integers(0, 4, size=(5, 300)).astype(float)
    expected = [average_precision_score(outcome, score, sample_weight=weight) for weight in weights]
    assert weighted_pr_auc(outcome, score, weights) == pytest.approx(expected, abs=1e-12)


def test_a_constant_score_gives_the_prevalence_and_no_positive_gives_nothing() -> None:
    assert pr_auc([1, 0, 0, 0], [5, 5, 5, 5]) == 0.25
    assert np.isnan(pr_auc([0, 0], [1, 2]))
    with pytest.raises(ValueError, match="at least one positive"):
        bootstrap_difference([0, 0], [1, 2], [2, 1], ["a", "b"])


def test_the_interval_of_a_ranking_against_itself_is_zero() -> None:
    outcome, blocks, random = made_up(1)
    score = random.normal(size=len(outcome))
    interval = bootstrap_difference(outcome, score, score, blocks, replicates=200)
    assert (interval.low, interval.difference, interval.high, interval.share_above_zero) == (0, 0, 0, 0)
    assert interval.covers(0)


def test_the_interval_covers_zero_when_both_rankings_are_equally_good() -> None:
    covered = 0
    for seed in range(20):
        outcome, blocks, random = made_up(seed)
        first, second = (outcome + random.normal(scale=1.0, size=len(outcome)) for _ in range(2))
        covered += bootstrap_difference(outcome, first, second, blocks, replicates=200, seed=seed).covers(0)
    assert covered >= 17  # 95 % of 20 is 19; fewer than 17 has a chance below 2 %


def test_the_interval_excludes_zero_when_the_model_is_perfect() -> None:
    outcome, blocks, random = made_up(3)
    interval = bootstrap_difference(outcome, outcome, random.normal(size=len(outcome)), blocks)
    assert interval.low > 0.5
    assert interval.share_above_zero == 1
    assert interval.difference == pytest.approx(1 - pr_auc(outcome, np.zeros(len(outcome))), abs=0.1)
    assert interval.blocks == 40


def test_drawing_whole_devices_is_wider_than_drawing_rows() -> None:
    outcome, blocks, random = made_up(4)
    noise = np.repeat(random.normal(size=40), 30)  # a ranking that is right or wrong for whole devices
    first, second = outcome + noise, random.normal(size=len(outcome))
    by_device = bootstrap_difference(outcome, first, second, blocks)
    by_row = bootstrap_difference(outcome, first, second, list(range(len(outcome))))
    assert by_device.high - by_device.low > 1.3 * (by_row.high - by_row.low)


def test_the_same_seed_draws_the_same_interval() -> None:
    outcome, blocks, random = made_up(5)
    score = random.normal(size=len(outcome))
    assert bootstrap_difference(outcome, score, -score, blocks, seed=1) == bootstrap_difference(outcome, score, -score, blocks, seed=1)


def test_a_baseline_ranks_what_it_does_not_know_last() -> None:
    table = pd.DataFrame({"age": [3.0, None, 9.0]}, dtype=object)
    assert list(np.argsort(-Baseline("old", "", "age").scores(table))) == [2, 0, 1]
    assert list(np.argsort(-Baseline("young", "", "age", Riskier.LOW).scores(table))) == [0, 2, 1]


def test_calibration_compares_promise_and_share() -> None:
    random = np.random.default_rng(6)
    probability = random.random(20_000)
    outcome = (random.random(20_000) < probability).astype(int)
    bins = calibration(outcome, probability)
    assert sum(part.rows for part in bins) == 20_000
    assert all(part.mean_probability == pytest.approx(part.observed_share, abs=0.03) for part in bins)
    assert [part.mean_probability for part in bins] == sorted(part.mean_probability for part in bins)
    assert len(calibration([0, 1], [0.5, 0.5])) == 1
    assert brier([1, 0], [1, 0]) == 0
    assert brier([1, 0], [0.5, 0.5]) == 0.25


def test_slices_say_where_the_model_loses() -> None:
    table = pd.DataFrame({"site": ["a", "a", "b", "b", None, None]}, dtype=object)
    outcome, model, naive = [1, 0, 1, 0, 0, 0], [2, 1, 1, 2, 0, 0], [1, 2, 2, 1, 0, 0]
    found = {result.value: result for result in slices(table, ["site"], outcome, model, naive)}
    assert [found[value].is_lost for value in ("a", "b", "(unknown)")] == [False, True, False]
    assert (found["(unknown)"].rows, found["(unknown)"].positives, found["(unknown)"].pr_auc_model) == (2, 0, None)


def interval(difference: float, share: float) -> Interval:
    return Interval(difference, difference - 0.1, difference + 0.1, 0.95, 0.99, blocks=10, replicates=100, margin=0.01, share_above_margin=share)


def champion(difference: float, share: float) -> ChampionResult:
    return ChampionResult(3, 50, 5, pr_auc=0.4, challenger_pr_auc=0.4 + difference, difference=interval(difference, share))


@pytest.mark.parametrize(
    ("against_baseline", "against_champion", "passed", "reason"),
    [
        (interval(0.2, 0.99), None, True, "there is no champion yet"),
        (interval(-0.1, 0.20), None, False, "not better than the baseline 'age'"),
        (interval(0.01, 0.99), None, False, "not better than the baseline 'age'"),  # the margin itself is no more than the margin
        (interval(0.2, 0.60), None, False, "better by more than 0.01 in 60% of bootstrap replicates, 90% needed"),
        (interval(0.2, 0.99), champion(0.1, 0.95), True, "and than the champion version 3 (0.500 against 0.400 on 50 rows, better by more than 0.01 in 95%"),
        (interval(0.2, 0.99), champion(0.0, 0.95), False, "but not better than the champion version 3"),
        (interval(0.2, 0.99), champion(0.1, 0.89), False, "but not better than the champion version 3"),
        (interval(0.2, 0.99), champion(-0.1, 0.0), False, "but not better than the champion version 3"),
        (interval(-0.1, 0.20), champion(0.3, 0.99), False, "not better than the baseline"),
    ],
)
def test_the_gate_opens_only_for_what_beats_baseline_and_champion_by_the_margin(
    against_baseline: Interval, against_champion: ChampionResult | None, passed: bool, reason: str
) -> None:
    decision = Gate().decide(against_baseline, "age", against_champion)
    assert decision.passed is passed
    assert reason in decision.reason


def test_a_champion_that_cannot_be_compared_stays_and_one_that_is_gone_does_not_block() -> None:
    undecided = Gate().decide(interval(0.2, 0.99), "age", None, undecided="it has learned from them all")
    assert (undecided.passed, "but it has learned from them all" in undecided.reason) == (False, True)
    gone = Gate().decide(interval(0.2, 0.99), "age", None, no_champion="its file is gone")
    assert (gone.passed, "its file is gone" in gone.reason) == (True, True)


def test_a_gate_takes_only_differences_that_were_drawn_for_its_margin() -> None:
    with pytest.raises(ValueError, match=r"drawn for a margin of 0.01, the gate asks for 0.2"):
        Gate(margin=0.2).decide(interval(0.3, 0.99), "age", None)
    for wrong in ({"margin": -0.1}, {"sureness": 1.0}):
        with pytest.raises(ValueError, match="a gate has a margin"):
            Gate(**wrong)


def test_the_share_above_a_margin_counts_replicates_beyond_it() -> None:
    outcome, blocks, random = made_up(7)
    first, second = (outcome + random.normal(scale=scale, size=len(outcome)) for scale in (0.4, 0.8))
    plain = bootstrap_difference(outcome, first, second, blocks)
    assert plain.share_above_margin == plain.share_above_zero == 1
    strict = bootstrap_difference(outcome, first, second, blocks, margin=plain.difference)
    assert strict.share_above_margin is not None
    assert 0.3 < strict.share_above_margin < 0.7
    assert strict.share_above_zero == 1
