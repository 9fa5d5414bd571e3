"""Scoring with reasons: the probability of each row and what every feature added to it.

The probability's log-odds are a sum: a base and one contribution a feature. For the linear model the contribution of a feature is its coefficient times its
(standardised) value, so it is exact: what the row would lose if the feature stood at its mean. For trees it is the path attribution of Saabas: walking from the
root to the leaf, each split's feature gets the change of the mean prediction of the training rows. It adds up exactly too, it costs one walk that scoring
makes anyway, and it favours features that are split on late in the tree where SHAP values would share evenly; with trees of a few levels they hardly differ.

Source: Saabas (2014), Interpreting random forests; Lundberg et al. (2020), From local explanations to global understanding with explainable AI for trees,
Nature Machine Intelligence 2, on how the two differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.lifecycle.schema import FeatureKind, FeatureSchema

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import ThreadpoolController

    from ml.lifecycle.quantiles import ConformalQuantiles

Floats = NDArray[np.float64]

# Threads of numerical libraries while fitting and scoring. A few ten thousand rows gain nothing from more, and threads that spin while they wait for a busy
# core make a fit twenty times slower beside a running stack.
NUMERICAL_THREADS = 1
# Probabilities are rounded here: matrix products of one row and of thousands differ in the last bits, and a stored number must not.
PROBABILITY_DECIMALS = 9
CONTRIBUTION_DECIMALS = 6
REASONS = 3
# Rows that are walked through all trees at once: more would leave the processor's cache between trees (2,000 rows of 60 features are 1 MB).
_CHUNK = 2_000
# Above it the contributions of all leaves are kept sparse: a forest has hundreds of thousands of leaves.
_DENSE_CELLS = 4_000_000


class NotExplainable(TypeError):
    """A classifier of a kind that nobody has taught to give reasons."""


@dataclass(frozen=True)
class Scored:
    """Rows with their probability and its parts.

    Attributes:
        probabilities: Shape (rows,), calibrated.
        contributions: Shape (rows, features) in the order of the schema, in log-odds.
        base: Log-odds that every row begins with; base and contributions of a row add up to the log-odds of its probability.
    """

    probabilities: Floats
    contributions: Floats
    base: float

    @property
    def values(self) -> Floats:
        """What is written back, shape (rows, 1)."""
        return self.probabilities[:, np.newaxis]


@dataclass(frozen=True)
class ScoredDays:
    """Rows with the quantiles of the days until the event.

    Attributes:
        values: Shape (rows, levels), ascending.
        contributions: Shape (rows, features) in the order of the schema: what each feature added to the median, in days.
        base: Days that every row begins with. Base and contributions add up to what the trees say of the median, before it is cut at 0 and the horizon.
    """

    values: Floats
    contributions: Floats
    base: float


class _Margins(Protocol):
    """The classifier behind preprocessing and before calibration."""

    base: float

    def __call__(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Raw scores, shape (rows,), and what each feature adds to `base`, shape (rows, features), an array of its own."""
        ...


class Scorer:
    """A fitted, calibrated classifier, prepared once for scoring many times."""

    def __init__(self, estimator: CalibratedClassifierCV, schema: FeatureSchema) -> None:
        """Prepare.

        Args:
            estimator: What `ml.lifecycle.training.fit` made: a Pipeline of preprocessing and classifier, calibrated by a sigmoid.
            schema: Its features.

        Raises:
            NotExplainable: If nobody has taught its kind of classifier to give reasons.
        """
        (calibrated,) = estimator.calibrated_classifiers_
        pipeline = calibrated.estimator.estimator
        self._schema = schema
        self._prepare = pipeline.named_steps["prepare"]
        self._sigmoid = calibrated.calibrators[0]
        sources = _sources(self._prepare, schema)
        self._margins = _margins(pipeline.named_steps["classify"], sources, len(schema.features))

    def score(self, table: pd.DataFrame) -> Scored:
        """Score rows; fits nothing, and the same row gets the same numbers in any company.

        Args:
            table: One row a prediction, at least the features as columns.

        Raises:
            FeatureSchemaMismatch: If a feature is missing or of another kind.
        """
        # Platt: probability = 1 / (1 + exp(slope * score + offset)), so its log-odds are -(slope * score + offset).
        slope, offset = float(self._sigmoid.a_), float(self._sigmoid.b_)
        base = -(slope * self._margins.base + offset)
        if table.empty:
            return Scored(np.empty(0), np.empty((0, len(self._schema.features))), base)
        with _threads().limit(limits=NUMERICAL_THREADS):
            inputs = np.ascontiguousarray(self._prepare.transform(self._schema.frame(table)), dtype=np.float64)
            scores, contributions = np.empty(len(inputs)), np.empty((len(inputs), len(self._schema.features)))
            for first in range(0, len(inputs), _CHUNK):
                rows = slice(first, first + _CHUNK)
                scores[rows], added = self._margins(inputs[rows])
                added *= -slope
                np.round(added, CONTRIBUTION_DECIMALS, out=contributions[rows])
            probabilities = self._sigmoid.predict(scores)
        return Scored(np.round(probabilities, PROBABILITY_DECIMALS), contributions, base)


class QuantileScorer:
    """Fitted quantiles of days, prepared once for scoring many times."""

    def __init__(self, estimator: ConformalQuantiles, schema: FeatureSchema) -> None:
        """Prepare.

        Args:
            estimator: What `ml.lifecycle.quantiles.fit_quantiles` made.
            schema: Its features.
        """
        sources = _sources(estimator.prepare, schema)
        self._schema, self._estimator = schema, estimator
        self._trees = [_Boosting(regressor, sources, len(schema.features)) for regressor in estimator.regressors]

    def score(self, table: pd.DataFrame) -> ScoredDays:
        """Score rows; fits nothing, and the same row gets the same numbers in any company.

        Args:
            table: One row a prediction, at least the features as columns.

        Raises:
            FeatureSchemaMismatch: If a feature is missing or of another kind.
        """
        median = len(self._trees) // 2
        base = self._trees[median].base
        if table.empty:
            return ScoredDays(np.empty((0, len(self._trees))), np.empty((0, len(self._schema.features))), base)
        with _threads().limit(limits=NUMERICAL_THREADS):
            inputs = np.ascontiguousarray(self._estimator.prepare.transform(self._schema.frame(table)), dtype=np.float64)
            raw, contributions = np.empty((len(inputs), len(self._trees))), np.empty((len(inputs), len(self._schema.features)))
            for first in range(0, len(inputs), _CHUNK):
                rows = slice(first, first + _CHUNK)
                for position, trees in enumerate(self._trees):
                    raw[rows, position], added = trees(inputs[rows])
                    if position == median:
                        np.round(added, CONTRIBUTION_DECIMALS, out=contributions[rows])
        return ScoredDays(self._estimator.finish(raw), contributions, base)


def reasons(schema: FeatureSchema, table: pd.DataFrame, contributions: Floats, *, count: int = REASONS) -> list[list[dict[str, Any]]]:
    """The greatest contributions of each row, greatest first, as they are stored.

    Args:
        schema: Features of the contributions.
        table: The rows that were scored.
        contributions: Shape (rows, features).
        count: How many at most; features that added nothing are left out.

    Returns:
        For each row `{"feature", "value", "contribution"}`; the value is None where it is not known.
    """
    names = schema.names
    order = np.argsort(-np.abs(contributions), axis=1, kind="stable")[:, :count]
    values = [column.to_numpy() for _, column in schema.frame(table).items()]
    found = []
    for row, positions in enumerate(order):
        top = ((names[position], values[position][row], float(contributions[row, position])) for position in positions)
        found.append([{"feature": name, "value": _plain(value), "contribution": added} for name, value, added in top if added])
    return found


def _plain(value: str | np.float64) -> str | float | None:
    if isinstance(value, str):
        return value
    return None if math.isnan(value) else float(value)


def _sources(prepare: ColumnTransformer, schema: FeatureSchema) -> NDArray[np.intp]:
    """Position of the feature that each preprocessed column is made of."""
    numbers, categories = schema.names_of(FeatureKind.NUMBER, FeatureKind.FLAG), schema.names_of(FeatureKind.CATEGORY)
    made = list(numbers)
    imputer = getattr(prepare.named_transformers_.get("numbers"), "named_steps", {}).get("impute") if numbers else None
    if imputer is not None and imputer.indicator_ is not None:  # a flag for each feature that was missing somewhere
        made += [numbers[position] for position in imputer.indicator_.features_]
    if categories:
        levels = prepare.named_transformers_["categories"].categories_
        made += [name for name, values in zip(categories, levels, strict=True) for _ in values]
    positions = {name: position for position, name in enumerate(schema.names)}
    return np.array([positions[name] for name in made], dtype=np.intp)


def _margins(classifier: Any, sources: NDArray[np.intp], features: int) -> _Margins:  # noqa: ANN401  classifiers have no common base but object
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    if isinstance(classifier, LogisticRegression):
        return _Linear(classifier, sources, features)
    if isinstance(classifier, HistGradientBoostingClassifier):
        return _Boosting(classifier, sources, features)
    if isinstance(classifier, RandomForestClassifier):
        return _Forest(classifier, sources, features)
    raise NotExplainable(f"{type(classifier).__name__} gives no reasons yet: teach ml/lifecycle/explain.py what its features contribute")


class _Linear:
    def __init__(self, classifier: LogisticRegression, sources: NDArray[np.intp], features: int) -> None:
        self._classifier = classifier
        self._columns = [np.flatnonzero(sources == feature) for feature in range(features)]
        self.base = float(classifier.intercept_[0])

    def __call__(self, inputs: Floats) -> tuple[Floats, Floats]:
        parts = inputs * self._classifier.coef_[0]
        contributions = np.stack([parts[:, columns].sum(axis=1) for columns in self._columns], axis=1)
        return self._classifier.decision_function(inputs), contributions


class _Leaves:
    """What the leaves of all trees say: the value of each, and what the features on the way to it added."""

    def __init__(self, features: int) -> None:
        self._features = features
        self._values: list[float] = []
        self._entries: tuple[list[int], list[int], list[float]] = [], [], []  # leaf, feature, contribution
        self.base = 0.0

    def add(self, left: Any, right: Any, feature: Any, value: Floats, sources: NDArray[np.intp]) -> NDArray[np.intp]:  # noqa: ANN401  arrays of any integers
        """Takes a tree over.

        Args:
            left: Child by node; a leaf has no child greater than 0 (node 0 is the root).
            right: The other child.
            feature: Preprocessed column by node.
            value: Prediction by node, of inner nodes the mean of the training rows there.
            sources: Feature by preprocessed column.

        Returns:
            Number of the leaf by node, 0 for inner nodes.
        """
        numbers = np.zeros(len(value), dtype=np.intp)
        self.base += float(value[0])
        ways: list[tuple[int, dict[int, float]]] = [(0, {})]
        leaves, positions, added = self._entries
        while ways:
            node, way = ways.pop()
            if left[node] <= 0:
                numbers[node] = len(self._values)
                leaves += [len(self._values)] * len(way)
                positions += way.keys()
                added += way.values()
                self._values.append(float(value[node]))
                continue
            source = int(sources[feature[node]])
            for child in (int(left[node]), int(right[node])):
                ways.append((child, {**way, source: way.get(source, 0.0) + float(value[child] - value[node])}))
        return numbers

    @property
    def values(self) -> Floats:
        """Prediction by leaf."""
        return np.array(self._values)

    def table(self) -> csr_matrix | Floats:
        """Contribution by leaf and feature; sparse where there are many leaves."""
        from scipy.sparse import csr_matrix

        leaves, positions, added = self._entries
        table = csr_matrix((added, (leaves, positions)), shape=(len(self._values), self._features))
        return table.toarray() if table.shape[0] * table.shape[1] <= _DENSE_CELLS else table


def _sum_of_leaves(reached: NDArray[np.int32], table: csr_matrix | Floats) -> Floats:
    """Contributions of rows. Sums in the order of the trees, so the same row gives the same bits in any company.

    Args:
        reached: Shape (rows, trees), number of the leaf.
        table: Shape (leaves, features).
    """
    from scipy.sparse import csr_matrix, issparse

    rows, trees = reached.shape
    chosen = csr_matrix((np.ones(reached.size), reached.ravel(), np.arange(0, reached.size + 1, trees)), shape=(rows, table.shape[0]))
    summed = chosen @ table
    return summed.toarray() if issparse(summed) else np.asarray(summed)


class _Boosting:
    """Walks each tree once: to the number of the leaf, from which value and contributions follow.

    scikit-learn has no public way to ask for leaves, so its own walk is given trees whose leaves hold their number instead of their value.
    """

    def __init__(self, classifier: HistGradientBoostingClassifier | HistGradientBoostingRegressor, sources: NDArray[np.intp], features: int) -> None:
        from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

        leaves = _Leaves(features)
        self._trees = []
        for (predictor,) in classifier._predictors:
            nodes = predictor.nodes
            is_leaf = nodes["is_leaf"].astype(bool)
            numbers = leaves.add(np.where(is_leaf, 0, nodes["left"]), nodes["right"], nodes["feature_idx"], _node_means(nodes, is_leaf), sources)
            numbered = nodes.copy()
            numbered["value"] = numbers
            self._trees.append(TreePredictor(numbered, predictor.binned_left_cat_bitsets, predictor.raw_left_cat_bitsets))
        self._values, self._table = leaves.values, leaves.table()
        self._start = float(classifier._baseline_prediction.item())
        self._categories = classifier._bin_mapper.make_known_categories_bitsets()
        self.base = self._start + leaves.base

    def __call__(self, inputs: Floats) -> tuple[Floats, Floats]:
        scores, reached = np.full(len(inputs), self._start), np.empty((len(inputs), len(self._trees)), dtype=np.int32)
        columns = np.asfortranarray(inputs)  # a tree looks at few features of all rows
        for position, tree in enumerate(self._trees):
            reached[:, position] = tree.predict(columns, *self._categories, NUMERICAL_THREADS)
            scores += self._values[reached[:, position]]
        return scores, _sum_of_leaves(reached, self._table)


def _node_means(nodes: NDArray[Any], is_leaf: NDArray[np.bool_]) -> Floats:
    """Mean of the leaves' values below each node, weighted by training rows. Children stand behind their parent, so one walk backwards does."""
    means = np.where(is_leaf, nodes["value"], 0.0)
    left, right, count = nodes["left"].astype(np.intp), nodes["right"].astype(np.intp), nodes["count"].astype(np.float64)
    for node in np.flatnonzero(~is_leaf)[::-1]:
        first, second = left[node], right[node]
        means[node] = (means[first] * count[first] + means[second] * count[second]) / (count[first] + count[second])
    return means


class _Forest:
    """The mean over the trees of the share of failures among the training rows of the leaf."""

    def __init__(self, classifier: RandomForestClassifier, sources: NDArray[np.intp], features: int) -> None:
        leaves = _Leaves(features)
        trees = [estimator.tree_ for estimator in classifier.estimators_]
        numbers = [
            leaves.add(tree.children_left, tree.children_right, tree.feature, tree.value[:, 0, 1] / tree.value[:, 0].sum(axis=1), sources) for tree in trees
        ]
        self._trees, self._numbers, self._values, self._table = trees, numbers, leaves.values, leaves.table()
        self.base = leaves.base / len(trees)

    def __call__(self, inputs: Floats) -> tuple[Floats, Floats]:
        rows = inputs.astype(np.float32)  # as trees were grown
        reached = np.stack([numbers[tree.apply(rows)] for tree, numbers in zip(self._trees, self._numbers, strict=True)], axis=1).astype(np.int32)
        return self._values[reached].mean(axis=1), _sum_of_leaves(reached, self._table) / len(self._numbers)


@cache
def _threads() -> ThreadpoolController:
    """Looks once for the numerical libraries of this process, which takes milliseconds. Called when all of them are loaded."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
