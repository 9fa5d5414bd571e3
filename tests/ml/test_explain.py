"""Reasons of a prediction: they add up to it, they name what moved it, and they do not depend on the company of the row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.pipeline import Pipeline
from skops.io import dumps, loads

from ml.lifecycle.explain import NotExplainable, Scorer, reasons
from ml.lifecycle.schema import Feature, FeatureKind, FeatureSchema, FeatureSchemaMismatch
from ml.lifecycle.training import Candidate, GradientBoostingCandidate, LogisticRegressionCandidate, TrainingConfig, fit
from ml.lifecycle.versions import TRUSTED_TYPES

SCHEMA = FeatureSchema((Feature("maker", FeatureKind.CATEGORY), Feature("wear"), Feature("noise"), Feature("is_outdoors", FeatureKind.FLAG), Feature("heat")))


@dataclass(frozen=True)
class Forest:
    """A forest of scikit-learn as a candidate."""

    kind: type
    name: str = "forest"

    def pipeline(self, schema: FeatureSchema, seed: int) -> Pipeline:
        inputs = GradientBoostingCandidate().pipeline(schema, seed).named_steps["prepare"]  # values that are not known reach the trees
        return Pipeline([("prepare", inputs), ("classify", self.kind(n_estimators=30, min_samples_leaf=5, random_state=seed))])


CANDIDATES = [LogisticRegressionCandidate(1.0), GradientBoostingCandidate(trees=40, depth=4, min_rows_in_leaf=10), Forest(RandomForestClassifier)]


def table(rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Wear and heat raise the risk, one maker lowers it, noise says nothing; some values are not known."""
    random = np.random.default_rng(seed)
    wear, noise, heat = random.normal(size=(3, rows))
    maker, outdoors = random.choice(["a", "b", "c"], size=rows), random.random(rows) < 0.5
    risk = 2 * wear + heat - 3 * (maker == "c") + random.normal(size=rows)
    frame = pd.DataFrame({"noise": noise, "heat": heat, "wear": wear, "maker": maker, "is_outdoors": outdoors}).astype(object)
    for column in ("heat", "maker", "is_outdoors"):
        frame.loc[random.random(rows) < 0.1, column] = None
    return frame, (risk > 1).astype(int)


def fitted(candidate: Any) -> Any:
    config = TrainingConfig(schema=SCHEMA, candidates=(candidate,))
    return fit(config, *table(1500, 1), *table(800, 2)).estimator


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda candidate: candidate.name)
def test_contributions_add_up_to_the_probability(candidate: Candidate) -> None:
    estimator, (rows, _) = fitted(candidate), table(500, 3)
    rows.loc[7, "maker"] = "never seen"
    scored = Scorer(estimator, SCHEMA).score(rows)
    by_library = np.round(estimator.predict_proba(SCHEMA.frame(rows))[:, 1], 9)
    if isinstance(candidate, Forest):  # its trees are summed in another order
        assert scored.probabilities == pytest.approx(by_library, abs=2e-9)
    else:
        assert np.array_equal(scored.probabilities, by_library)
    log_odds = scored.base + scored.contributions.sum(axis=1)
    assert 1 / (1 + np.exp(-log_odds)) == pytest.approx(scored.probabilities, abs=2e-6)
    assert scored.contributions.shape == (500, len(SCHEMA.features))


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda candidate: candidate.name)
def test_reasons_name_what_moved_the_prediction_and_which_way(candidate: Candidate) -> None:
    scorer, (rows, _) = Scorer(fitted(candidate), SCHEMA), table(400, 4)
    rows.loc[0, ["wear", "heat", "maker", "noise", "is_outdoors"]] = [3.0, 0.0, "a", 0.0, True]
    rows.loc[1, ["wear", "heat", "maker", "noise", "is_outdoors"]] = [0.0, 0.0, "c", 2.0, None]
    rows.loc[2, ["wear", "heat"]] = [None, None]
    scored = scorer.score(rows)
    found = reasons(SCHEMA, rows, scored.contributions)
    assert (found[0][0]["feature"], found[0][0]["value"]) == ("wear", 3.0)
    assert found[0][0]["contribution"] > 0.5
    assert (found[1][0]["feature"], found[1][0]["value"]) == ("maker", "c")
    assert found[1][0]["contribution"] < -0.5
    assert all(reason["value"] is None for reason in found[2] if reason["feature"] in {"wear", "heat"})
    for row, each in zip(scored.contributions, found, strict=True):
        sizes = [abs(reason["contribution"]) for reason in each]
        assert sizes == sorted(sizes, reverse=True)
        assert len(each) <= 3
        assert sizes[0] == pytest.approx(np.abs(row).max())
    strength = dict(zip(SCHEMA.names, np.abs(scored.contributions).mean(axis=0), strict=True))
    assert strength["wear"] > 3 * strength["noise"]


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda candidate: candidate.name)
def test_the_same_row_has_the_same_reasons_alone_and_in_a_batch(candidate: Candidate) -> None:
    scorer, (rows, _) = Scorer(fitted(candidate), SCHEMA), table(4500, 5)  # more than are walked at once
    together = scorer.score(rows)
    for position in (0, 1, 1999, 2000, 4499):
        alone = scorer.score(rows.iloc[[position]])
        assert np.array_equal(alone.probabilities, together.probabilities[[position]])
        assert np.array_equal(alone.contributions, together.contributions[[position]])
    assert scorer.score(rows.iloc[:0]).contributions.shape == (0, len(SCHEMA.features))
    with pytest.raises(FeatureSchemaMismatch, match="lack the features wear"):
        scorer.score(rows.drop(columns="wear"))


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda candidate: candidate.name)
def test_what_gives_reasons_can_be_stored_and_loaded_and_says_the_same(candidate: Candidate) -> None:
    estimator, (rows, _) = fitted(candidate), table(50, 8)
    again = Scorer(loads(dumps(estimator), trusted=TRUSTED_TYPES), SCHEMA).score(rows)
    assert np.array_equal(again.contributions, Scorer(estimator, SCHEMA).score(rows).contributions)


def test_features_that_add_nothing_are_no_reason() -> None:
    rows, _ = table(2, 6)
    contributions = np.array([[0.0, 0.5, 0.0, 0.0, -0.7], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert [[reason["feature"] for reason in each] for each in reasons(SCHEMA, rows, contributions)] == [["heat", "wear"], []]


def test_a_classifier_that_gives_no_reasons_is_refused() -> None:
    with pytest.raises(NotExplainable, match=r"ExtraTreesClassifier gives no reasons yet: teach ml/lifecycle/explain\.py"):
        Scorer(fitted(Forest(ExtraTreesClassifier)), SCHEMA)


def test_a_schema_of_numbers_only_and_one_of_categories_only() -> None:
    for names in (("wear", "heat"), ("maker",)):
        schema = FeatureSchema(tuple(feature for feature in SCHEMA.features if feature.name in names))
        for candidate in (LogisticRegressionCandidate(), GradientBoostingCandidate(trees=10)):
            train, outcome = table(600, 7)
            estimator = fit(TrainingConfig(schema=schema, candidates=(candidate,)), train, outcome, train, outcome).estimator
            scored = Scorer(estimator, schema).score(train)
            assert np.array_equal(scored.probabilities, np.round(estimator.predict_proba(schema.frame(train))[:, 1], 9))
