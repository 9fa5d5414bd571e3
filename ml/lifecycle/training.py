"""Fitting: typed configuration in, one calibrated Pipeline with its preprocessing inside out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.lifecycle.evaluation import pr_auc
from ml.lifecycle.explain import NUMERICAL_THREADS, Scorer
from ml.lifecycle.schema import FeatureKind, FeatureSchema
from ml.lifecycle.search import Fold, Search, mean_over_folds

if TYPE_CHECKING:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline


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
                ("prepare", by_kind(schema, numbers)),
                ("classify", LogisticRegression(C=self.inverse_regularisation, max_iter=2000, random_state=seed)),
            ]
        )


@dataclass(frozen=True)
class BoostedTrees:
    """Shallow boosted trees; a missing value is a branch of its own."""

    trees: int = 150
    depth: int = 3
    learning_rate: float = 0.05
    min_rows_in_leaf: int = 40
    l2: float = 1.0

    @property
    def shape(self) -> str:
        """What tells one candidate from another, for its name."""
        return f"{self.trees} trees of depth {self.depth}, learning rate {self.learning_rate:g}"

    def settings(self, seed: int) -> dict[str, Any]:
        """Arguments of scikit-learn's histogram boosting. No early stopping: it would split at random."""
        return {
            "max_iter": self.trees,
            "max_depth": self.depth,
            "learning_rate": self.learning_rate,
            "min_samples_leaf": self.min_rows_in_leaf,
            "l2_regularization": self.l2,
            "early_stopping": False,
            "random_state": seed,
        }


@dataclass(frozen=True)
class GradientBoostingCandidate(BoostedTrees):
    """Boosted trees that give a probability."""

    @property
    def name(self) -> str:
        """Name in the report."""
        return f"gradient boosting, {self.shape}"

    def pipeline(self, schema: FeatureSchema, seed: int) -> Pipeline:
        """Encode, then fit."""
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.pipeline import Pipeline

        return Pipeline([("prepare", by_kind(schema, "passthrough")), ("classify", HistGradientBoostingClassifier(**self.settings(seed)))])


@dataclass(frozen=True)
class RandomForestCandidate:
    """Averaged trees; a missing value goes the way that separates better.

    Leaves are bounded, so that scoring costs the same however long the history is: docs/benchmarks.md, `make bench-scoring`.
    """

    trees: int = 100
    max_leaves: int = 128
    min_rows_in_leaf: int = 10

    @property
    def name(self) -> str:
        """Name in the report."""
        return f"random forest, {self.trees} trees of at most {self.max_leaves} leaves, at least {self.min_rows_in_leaf} rows in one"

    def pipeline(self, schema: FeatureSchema, seed: int) -> Pipeline:
        """Encode, then fit."""
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.pipeline import Pipeline

        forest = RandomForestClassifier(
            n_estimators=self.trees,
            max_leaf_nodes=self.max_leaves,
            min_samples_leaf=self.min_rows_in_leaf,
            max_features="sqrt",
            n_jobs=NUMERICAL_THREADS,
            random_state=seed,
        )
        return Pipeline([("prepare", by_kind(schema, "passthrough")), ("classify", forest)])


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what is fitted, besides the data."""

    schema: FeatureSchema
    candidates: tuple[Candidate, ...]
    seed: int = 20260101
    shares: tuple[float, float, float] = (0.70, 0.15, 0.15)
    min_positives: int = 10  # in each part; below, neither fitting nor judging means anything
    min_days: int = 5  # of each part that is cut by time: one day is one state of the plant, however many machines it has
    min_positive_entities: int = 5  # that had them, in each part and in every comparison: days of one failure are alike
    folds: int = 3  # in which candidates are compared inside the train part; the validation part is one more

    def to_dict(self) -> dict[str, Any]:
        """Plain data, to be logged."""
        return {
            "features": self.schema.to_list(),
            "candidates": [{"name": candidate.name, **asdict(candidate)} for candidate in self.candidates],  # type: ignore[call-overload]
            "seed": self.seed,
            "shares": list(self.shares),
            "min_positives": self.min_positives,
            "min_positive_entities": self.min_positive_entities,
            "min_days": self.min_days,
            "folds": self.folds,
        }


@dataclass(frozen=True)
class FittedModel:
    """The chosen candidate, fitted on the train part and calibrated on the validation part."""

    estimator: CalibratedClassifierCV
    candidate: str
    validation_pr_auc: Mapping[str, float]  # by candidate
    search: Search  # the choice rests on this and on nothing else


def fit(
    config: TrainingConfig,
    train: pd.DataFrame,
    train_outcome: NDArray[np.int_],
    validation: pd.DataFrame,
    validation_outcome: NDArray[np.int_],
    folds: Sequence[Fold] = (),
) -> FittedModel:
    """Choose a candidate by its mean PR-AUC over the folds, fit it on train, calibrate it on validation.

    Calibration is Platt's sigmoid: monotone, so it changes no ranking, and it needs few positives (isotonic needs about a thousand).
    Validation is later than train and earlier than test, so the probabilities fit the newest failure rate that training may know.

    Args:
        config: What to try.
        train: Rows of the train part with at least the features.
        train_outcome: 0 or 1, both present.
        validation: Rows of the validation part.
        validation_outcome: 0 or 1, both present.
        folds: Inside train. Those without both outcomes on either side are left out; the step from train to validation is always one more.

    Source: Platt (1999), Probabilistic outputs for support vector machines.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from threadpoolctl import threadpool_limits

    held_out = config.schema.frame(validation)
    found: list[tuple[dict[str, float], float]] = []
    with threadpool_limits(NUMERICAL_THREADS):
        for fold in folds:
            taught, truth = train_outcome[fold.learned], train_outcome[fold.judged]
            if len(np.unique(taught)) == len(np.unique(truth)) == 2:
                pipelines = _fitted(config, train.iloc[fold.learned], taught)
                found.append((_pr_aucs(pipelines, config.schema.frame(train.iloc[fold.judged]), truth), float(truth.sum())))
        pipelines = _fitted(config, train, train_outcome)
        on_validation = _pr_aucs(pipelines, held_out, validation_outcome)
        search = mean_over_folds([*found, (on_validation, float(validation_outcome.sum()))])
        chosen = max(search.scores, key=lambda name: search.scores[name])  # a tie goes to the one listed first
        calibrated = CalibratedClassifierCV(FrozenEstimator(pipelines[chosen]), method="sigmoid").fit(held_out, validation_outcome)
    return FittedModel(calibrated, chosen, on_validation, search)


def _fitted(config: TrainingConfig, rows: pd.DataFrame, outcome: NDArray[np.int_]) -> dict[str, Pipeline]:
    inputs = fitting_frame(config.schema, rows)
    return {candidate.name: candidate.pipeline(config.schema, config.seed).fit(inputs, outcome) for candidate in config.candidates}


def _pr_aucs(pipelines: Mapping[str, Pipeline], inputs: pd.DataFrame, outcome: NDArray[np.int_]) -> dict[str, float]:
    return {name: pr_auc(outcome, pipeline.predict_proba(inputs)[:, 1]) for name, pipeline in pipelines.items()}


def fitting_frame(schema: FeatureSchema, table: pd.DataFrame) -> pd.DataFrame:
    """The input to fit on. A number that no row knows (a sensor that the plant does not have) is made 0 in the first row.

    scikit-learn 1.9 cannot bin a column without any value. One row of a value splits nothing, and where all rows of scoring lack it too it says nothing.
    """
    inputs = schema.frame(table)
    empty = [name for name in schema.names_of(FeatureKind.NUMBER, FeatureKind.FLAG) if len(inputs) and inputs[name].isna().all()]
    inputs.loc[inputs.index[:1], empty] = 0.0
    return inputs


def probabilities(estimator: CalibratedClassifierCV, schema: FeatureSchema, table: pd.DataFrame) -> NDArray[np.float64]:
    """Probability of the outcome for each row; fits nothing, and the same row gets the same number in any company.

    Raises:
        FeatureSchemaMismatch: If a feature is missing or of another kind.
        NotExplainable: If nobody has taught its kind of classifier to give reasons.
    """
    return Scorer(estimator, schema).score(table).probabilities


def by_kind(schema: FeatureSchema, numbers: Pipeline | str) -> ColumnTransformer:
    """Preprocessing: numbers and flags as given, a column for each value of a category."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder

    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer(
        [
            ("numbers", numbers, schema.names_of(FeatureKind.NUMBER, FeatureKind.FLAG)),
            ("categories", encoder, schema.names_of(FeatureKind.CATEGORY)),
        ]
    )
