"""Folds for choosing: never the future, never the same unit, and the choice rests on all of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.pipeline import Pipeline

from ml.lifecycle.schema import Feature, FeatureSchema
from ml.lifecycle.search import Fold, folds_in_time, folds_of_entities, mean_over_folds
from ml.lifecycle.training import LogisticRegressionCandidate, TrainingConfig, fit

FIRST = date(2026, 1, 1)


@given(days=st.lists(st.integers(0, 120), min_size=1, max_size=200), gap=st.integers(0, 30), count=st.integers(2, 5))
def test_a_fold_learns_from_days_that_end_a_gap_before_those_it_judges(days: list[int], gap: int, count: int) -> None:
    dates = [FIRST + timedelta(days=day) for day in days]
    folds = folds_in_time(dates, gap=timedelta(days=gap), count=count)
    assert len(folds) <= count
    judged: set[int] = set()
    for fold in folds:
        before, after = [days[row] for row in fold.learned], [days[row] for row in fold.judged]
        assert not before or not after or max(before) + gap < min(after)
        assert not judged & set(fold.judged.tolist())
        judged |= set(fold.judged.tolist())


def test_a_long_history_has_all_folds_and_a_short_one_fewer_or_none() -> None:
    year = [FIRST + timedelta(days=day) for day in range(365)]
    folds = folds_in_time(year, gap=timedelta(days=7), count=3)
    assert [len(fold.judged) for fold in folds] == [91, 91, 91]
    assert [fold.learned.max() for fold in folds] == [84, 175, 266]
    assert max(fold.judged.max() for fold in folds) == 364
    assert len(folds_in_time(year[:100], gap=timedelta(days=28), count=3)) == 2
    assert folds_in_time(year[:30], gap=timedelta(days=28), count=3) == ()
    assert folds_in_time([], gap=timedelta(days=28), count=3) == ()


def test_no_unit_is_on_both_sides() -> None:
    units = [f"unit_{number % 10}" for number in range(200)]
    folds = folds_of_entities(units, count=3)
    assert len(folds) == 3
    for fold in folds:
        assert not {units[row] for row in fold.learned} & {units[row] for row in fold.judged}
    assert sorted(np.concatenate([fold.judged for fold in folds])) == list(range(200))
    assert folds_of_entities(["a", "b"] * 50, count=3) == ()


def test_a_fold_weighs_by_what_it_judges() -> None:
    found = mean_over_folds([({"a": 0.5, "b": 1.0}, 3.0), ({"a": 0.9, "b": 0.0}, 1.0)])
    assert found.scores == pytest.approx({"a": 0.6, "b": 0.75})
    assert found.folds == 2


@dataclass(frozen=True)
class Only:
    """Looks at one column."""

    column: str

    @property
    def name(self) -> str:
        return self.column

    def pipeline(self, schema: FeatureSchema, seed: int) -> Pipeline:
        return LogisticRegressionCandidate().pipeline(FeatureSchema((Feature(self.column),)), seed)


def test_the_candidate_that_is_best_over_all_folds_is_chosen_though_another_wins_the_last() -> None:
    random = np.random.default_rng(5)
    outcome = (random.random(600) < 0.3).astype(int)
    steady = outcome + random.normal(scale=0.6, size=600)
    lucky = np.where(np.arange(600) < 450, random.normal(size=600), outcome)  # knows all from row 450 on, and nothing before
    lucky[:150] = outcome[:150]
    table = pd.DataFrame({"steady": steady.astype(object), "lucky": lucky.astype(object)})
    config = TrainingConfig(FeatureSchema((Feature("steady"), Feature("lucky"))), (Only("steady"), Only("lucky")))
    parts = (table[:450], outcome[:450], table[450:], outcome[450:])
    alone = fit(config, *parts)
    assert (alone.candidate, alone.search.folds) == ("lucky", 1)
    folds = tuple(Fold(np.arange(start), np.arange(start, start + 100)) for start in (150, 250, 350))
    one_sided = Fold(np.flatnonzero(outcome[:450] == 0), np.arange(450))
    chosen = fit(config, *parts, (*folds, one_sided))
    assert (chosen.candidate, chosen.search.folds) == ("steady", 4), "a fold without both outcomes says nothing"
    assert chosen.validation_pr_auc["lucky"] > chosen.validation_pr_auc["steady"]
