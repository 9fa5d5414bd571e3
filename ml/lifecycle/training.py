"""Fitting: typed configuration in, one calibrated Pipeline with its preprocessing inside out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.lifecycle.evaluation import pr_auc
from ml.lifecycle.schema import FeatureKind, FeatureSchema

if TYPE_CHECKING:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

# Threads of numerical libraries while fitting and scoring. A few ten thousand rows gain nothing from more, and threads that spin while they wait for a busy
# core make a fit twenty times slower beside a running stack.
NUMERICAL_THREADS = 1
# Probabilities are rounded here: matrix products of one row and of thousands differ in the last bits, and a stored number must not.
PROBABILITY_DECIMALS = 9


class Candidate(Protocol):
    """An estimator that may be chosen: its hyper-parameters are the fields of a frozen dataclass."""

    @property
    def name(self) -> str:
        """Name in the report."""
        ...

    def pipeline(self, schema: FeatureSchema, seed: int) -> Pipeline:
        """A fresh Pipeline, preprocessing included, that takes `FeatureSchema.frame`."""
        ...


@dataclass(frozen=True)
class LogisticRegressionCandidate:
    """Standardised linear model; what is not known takes the median and a flag."""

    inverse_regularisation: float = 0.1

    @property
    def name(self) -> str:
        """Name in the report."""
        return f"logistic regression, C={self.inverse_regularisation:g}"

    def pipeline(self, schema: FeatureSchema, seed: int) -> Pipeline:
        """Impute, scale, encode, then fit."""
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import Pipeline
        from sklearn.preprocessing import StandardScaler

        numbers = Pipeline([("impute", SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)), ("scale", StandardScaler())])
        return Pipeline(
            [
                ("prepare", _by_kind(schema, numbers)),
                ("classify", LogisticRegression(C=self.inverse_regularisation, max_iter=2000, random_state=seed)),
            ]
        )


@dataclass(frozen=True)
class GradientBoostingCandidate:
    """Shallow boosted trees; a missing value is a branch of its own."""

    trees: int = 150
    depth: int = 3
    learning_rate: float = 0.05
    min_rows_in_leaf: int = 40
    l2: float = 1.0

    @property
    def name(self) -> str:
        """Name in the report."""
        return f"gradient boosting, {self.trees} trees of depth {self.depth}, learning rate {self.learning_rate:g}"

    def pipeline(self, schema: FeatureSchema, seed: int) -> Pipeline:
        """Encode, then fit. No early stopping: it would split at random."""
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.pipeline import Pipeline

        boosting = HistGradientBoostingClassifier(
            max_iter=self.trees,
            max_depth=self.depth,
            learning_rate=self.learning_rate,
            min_samples_leaf=self.min_rows_in_leaf,
            l2_regularization=self.l2,
            early_stopping=False,
            random_state=seed,
        )
        return Pipeline([("prepare", _by_kind(schema, "passthrough")), ("classify", boosting)])


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what is fitted, besides the data."""

    schema: FeatureSchema
    candidates: tuple[Candidate, ...]
    seed: int = 20260101
    shares: tuple[float, float, float] = (0.70, 0.15, 0.15)
    min_positives: int = 10  # in each part; below, neither fitting nor judging means anything

    def to_dict(self) -> dict[str, Any]:
        """Plain data, to be logged."""
        return {
            "features": self.schema.to_list(),
            "candidates": [{"name": candidate.name, **asdict(candidate)} for candidate in self.candidates],  # type: ignore[call-overload]
            "seed": self.seed,
            "shares": list(self.shares),
            "min_positives": self.min_positives,
        }


@dataclass(frozen=True)
class FittedModel:
    """The chosen candidate, fitted on the train part and calibrated on the validation part."""

    estimator: CalibratedClassifierCV
    candidate: str
    validation_pr_auc: Mapping[str, float]  # by candidate; the choice rests on this and on nothing else


def fit(
    config: TrainingConfig, train: pd.DataFrame, train_outcome: NDArray[np.int_], validation: pd.DataFrame, validation_outcome: NDArray[np.int_]
) -> FittedModel:
    """Fit every candidate on train, choose by PR-AUC on validation, calibrate the chosen one on validation.

    Calibration is Platt's sigmoid: monotone, so it changes no ranking, and it needs few positives (isotonic needs about a thousand).
    Validation is later than train and earlier than test, so the probabilities fit the newest failure rate that training may know.

    Args:
        config: What to try.
        train: Rows of the train part with at least the features.
        train_outcome: 0 or 1, both present.
        validation: Rows of the validation part.
        validation_outcome: 0 or 1, both present.

    Source: Platt (1999), Probabilistic outputs for support vector machines.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from threadpoolctl import threadpool_limits

    inputs, held_out = config.schema.frame(train), config.schema.frame(validation)
    with threadpool_limits(NUMERICAL_THREADS):
        fitted = {candidate.name: candidate.pipeline(config.schema, config.seed).fit(inputs, train_outcome) for candidate in config.candidates}
        scores = {name: pr_auc(validation_outcome, pipeline.predict_proba(held_out)[:, 1]) for name, pipeline in fitted.items()}
        chosen = max(scores, key=lambda name: scores[name])  # a tie goes to the one listed first
        calibrated = CalibratedClassifierCV(FrozenEstimator(fitted[chosen]), method="sigmoid").fit(held_out, validation_outcome)
    return FittedModel(calibrated, chosen, scores)


def probabilities(estimator: CalibratedClassifierCV, schema: FeatureSchema, table: pd.DataFrame) -> NDArray[np.float64]:
    """Probability of the outcome for each row; fits nothing, and the same row gets the same number in any company.

    Raises:
        FeatureSchemaMismatch: If a feature is missing or of another kind.
    """
    if table.empty:
        return np.array([], dtype=np.float64)
    from threadpoolctl import threadpool_limits

    with threadpool_limits(NUMERICAL_THREADS):
        return np.round(estimator.predict_proba(schema.frame(table))[:, 1], PROBABILITY_DECIMALS)


def _by_kind(schema: FeatureSchema, numbers: Pipeline | str) -> ColumnTransformer:
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder

    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer(
        [
            ("numbers", numbers, schema.names_of(FeatureKind.NUMBER, FeatureKind.FLAG)),
            ("categories", encoder, schema.names_of(FeatureKind.CATEGORY)),
        ]
    )
