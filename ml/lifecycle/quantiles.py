"""How long until it happens: quantiles of the days to an event, with an interval that covers.

Gradient boosting fits each quantile by its pinball loss. Fitted quantiles are too narrow on rows they have not seen, so the interval is conformalised on the
validation part, which is later than the train part: it is widened by what the rows of that fold show to be missing (conformalised quantile regression). Rows
of one entity are alike, so the correction for a finite sample counts entities, not rows: a promise for the next entity, and wider than counting rows would
make it.

Where failures are rare, most lives are the horizon, and an interval that never holds a failure holds nearly all outcomes. So rows are conformalised in two
groups, by what the model says of them before any outcome is known: the median is the horizon, or it lies below (Mondrian conformal prediction). A row that
is called at risk keeps the promise among its like, instead of living on the coverage of the healthy. No group can promise to cover a failure that nothing
announced: `coverage_of_events` of the report says how many were covered.

Lives end at the horizon, where the question ends ("14 days or more"), so the end of the data cuts none short (`ml.lifecycle.dataset`). Entities that leave
without having failed are censored: they count while they were seen, and the rows that were seen in full are weighted by the inverse of the chance of being
seen that long (Kaplan-Meier of leaving), in fitting, in the correction and in every figure. This is right as far as leaving says nothing about the life to
come; machines that are scrapped because they are about to fail would make lives look longer than they are, and no data of this kind can show it.

Sources: Koenker and Bassett (1978), Regression quantiles, Econometrica 46. Romano, Patterson and Candès (2019), Conformalized quantile regression, NeurIPS
32. Dunn, Wasserman and Ramdas (2023), Distribution-free prediction sets for two-layer hierarchical models, JASA 118 (the sample that counts is that of
entities). Vovk, Lindsay, Nouretdinov and Gammerman (2003), Mondrian confidence machine; Vovk (2012), Conditional validity of inductive conformal predictors,
ACML (groups that the inputs decide about). Candès, Lei and Ren (2023), Conformalized survival analysis, JRSS B 85 (the restricted life). Robins and
Rotnitzky (1992), Recovery of information and adjustment for dependent censoring; Graf et al. (1999), Statistics in Medicine 18 (weights). Chernozhukov,
Fernández-Val and Galichon (2010), Econometrica 78 (sorted quantiles).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.lifecycle.explain import NUMERICAL_THREADS
from ml.lifecycle.schema import FeatureSchema
from ml.lifecycle.search import Fold, Search, mean_over_folds
from ml.lifecycle.training import BoostedTrees, by_kind, fitting_frame

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingRegressor

Floats = NDArray[np.float64]

# Days are rounded here, a tenth of a second: predictions that differ by less are the same.
DAYS_DECIMALS = 6
# The chance of being seen, below which a row would stand for more than twenty others.
LEAST_CHANCE = 0.05
# Fewer rows in a cell say nothing about a quantile of it.
LEAST_ROWS_OF_CELL = 20


@dataclass(frozen=True)
class QuantileBoostingCandidate(BoostedTrees):
    """Boosted trees, a set for each quantile."""

    @property
    def name(self) -> str:
        """Name in the report."""
        return f"quantile boosting, {self.shape}"

    def regressor(self, level: float, seed: int) -> HistGradientBoostingRegressor:
        """Fresh trees for one quantile."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        return HistGradientBoostingRegressor(loss="quantile", quantile=level, **self.settings(seed))


@dataclass(frozen=True)
class QuantileTraining:
    """Everything that decides what is fitted, besides the data.

    Attributes:
        schema: Features.
        candidates: What may be chosen.
        levels: Quantiles, ascending: the ends of the interval, and the median between them.
        seed: Of fitting and of the bootstrap.
        shares: Of the days, for train, validation and test.
        min_positives: Rows of each part in which the event came within the horizon; below, there is nothing to learn from.
        min_positive_entities: Entities that they are of.
        min_days: Days of each part that is cut by time: one day is one state of the plant, however many machines it has.
        min_entities: Entities of each part, and of each group that is conformalised by itself; with fewer, an interval of 90 % can promise nothing.
        folds: In which candidates are compared inside the train part; the validation part is one more.
    """

    schema: FeatureSchema
    candidates: tuple[QuantileBoostingCandidate, ...]
    levels: tuple[float, float, float] = (0.05, 0.5, 0.95)
    seed: int = 20260101
    shares: tuple[float, float, float] = (0.70, 0.15, 0.15)
    min_positives: int = 30
    min_positive_entities: int = 5
    min_days: int = 5
    min_entities: int = 10
    folds: int = 3

    def __post_init__(self) -> None:
        low, middle, high = self.levels
        if not 0 < low < middle < high < 1 or middle != 0.5:
            raise ValueError(f"levels are a lower end, 0.5 and an upper end, got {self.levels}")

    @property
    def nominal(self) -> float:
        """Share of outcomes that the interval promises to hold."""
        return round(self.levels[-1] - self.levels[0], 9)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, to be logged."""
        return {
            "features": self.schema.to_list(),
            "candidates": [{"name": candidate.name, **asdict(candidate)} for candidate in self.candidates],
            "levels": list(self.levels),
            "seed": self.seed,
            "shares": list(self.shares),
            "min_positives": self.min_positives,
            "min_positive_entities": self.min_positive_entities,
            "min_days": self.min_days,
            "min_entities": self.min_entities,
            "folds": self.folds,
        }


@dataclass(frozen=True)
class Lives:
    """Outcomes of rows.

    Attributes:
        days: Days to the event, the horizon where it did not come; where they are not known, how long the entity was seen. Shape (rows,).
        is_known: Whether they are.
        entities: Whose row it is.
    """

    days: Floats
    is_known: NDArray[np.bool_]
    entities: Sequence[object]

    def at(self, rows: NDArray[np.intp]) -> Lives:
        """Those of some rows, by position."""
        return Lives(self.days[rows], self.is_known[rows], [self.entities[row] for row in rows])

    def came_before(self, horizon_days: float) -> NDArray[np.bool_]:
        """Rows whose event came within the horizon. Shape (rows,)."""
        return np.asarray(self.is_known & (self.days < horizon_days))

    @property
    def weights(self) -> Floats:
        """What each row counts: 0 where the outcome is not known."""
        return censoring_weights(self.days, self.is_known)

    @property
    def entity_count(self) -> int:
        """How many entities there are."""
        return len(set(self.entities))


def censoring_weights(days: Floats, is_known: NDArray[np.bool_]) -> Floats:
    """Inverse of the chance that an entity is still there when the outcome shows, by Kaplan-Meier of those that left; all 1 where none left.

    Args:
        days: Days to the event or the horizon, or until the entity was last seen. Shape (rows,).
        is_known: False for those that left. Shape (rows,).
    """
    left, counts = np.unique(days[~is_known], return_counts=True)
    if not len(left):
        return np.ones(len(days))
    # An event on the very moment of leaving was seen, so it is no longer at risk of leaving.
    at_risk = len(days) - np.searchsorted(np.sort(days), left, side="left") - np.array([(is_known & (days == moment)).sum() for moment in left])
    chance = np.cumprod(1 - counts / np.maximum(at_risk, counts))
    before = np.searchsorted(left, days, side="left")  # leavings before the row's moment
    seen = np.where(before > 0, chance[np.maximum(before, 1) - 1], 1.0)
    return np.where(is_known, 1 / np.maximum(seen, LEAST_CHANCE), 0.0)


def weighted_quantiles(values: Floats, weights: Floats, levels: Sequence[float]) -> Floats:
    """Smallest values below which at least each share of the weight lies; a level above 1 gives infinity.

    Raises:
        ValueError: If nothing has weight.
    """
    if not weights.sum() > 0:
        raise ValueError("quantiles need at least one row that counts")
    order = np.argsort(values, kind="stable")
    ranked, reached = values[order], np.cumsum(weights[order])
    # Sums of weights are not exact: a share that is reached but for rounding is reached.
    positions = np.searchsorted(reached, np.asarray(levels) * reached[-1] * (1 - 1e-12), side="left")
    return np.append(ranked, np.inf)[np.where(np.asarray(levels) > 1, len(ranked), np.minimum(positions, len(ranked) - 1))]


class ConformalQuantiles:
    """Fitted quantiles of days, sorted, widened and cut to what is possible. Plain attributes, so that it is stored as skops.

    Attributes:
        prepare: Fitted preprocessing.
        regressors: Fitted trees, one for each level.
        levels: Ascending, the median in the middle.
        widening: Days that the interval is widened by on either side where the median lies below the ceiling; negative where the quantiles were too wide.
        widening_at_ceiling: The same where the median is the ceiling.
        ceiling: The horizon in days: no answer is greater.
    """

    def __init__(
        self,
        prepare: ColumnTransformer,
        regressors: list[HistGradientBoostingRegressor],
        levels: list[float],
        ceiling: float,
        widening: float = 0.0,
        widening_at_ceiling: float = 0.0,
    ) -> None:
        self.prepare = prepare
        self.regressors = regressors
        self.levels = levels
        self.ceiling = ceiling
        self.widening = widening
        self.widening_at_ceiling = widening_at_ceiling

    def predict(self, inputs: pd.DataFrame) -> Floats:
        """Days at each level, ascending, shape (rows, levels); the last is the ceiling where the event may well come after it.

        Args:
            inputs: `FeatureSchema.frame` of the rows.
        """
        if not len(inputs):
            return np.empty((0, len(self.levels)))
        prepared = np.ascontiguousarray(self.prepare.transform(inputs), dtype=np.float64)
        return self.finish(np.stack([regressor.predict(prepared) for regressor in self.regressors], axis=1))

    def finish(self, raw: Floats) -> Floats:
        """Days at each level from what the trees say of it, both of shape (rows, levels)."""
        # Cut first: trees leave what is possible a little, and the widening was found on what is possible.
        low, middle, high = np.round(np.clip(np.sort(raw, axis=1), 0.0, self.ceiling), DAYS_DECIMALS).T
        widening = np.where(middle < self.ceiling, self.widening, self.widening_at_ceiling)
        low, high = low - widening, high + widening
        ends = np.minimum(low, middle), middle, np.maximum(high, middle)  # a negative widening leaves the median inside
        return np.round(np.clip(np.stack(ends, axis=1), 0.0, self.ceiling), DAYS_DECIMALS)


@dataclass(frozen=True)
class FittedQuantiles:
    """The chosen candidate, fitted on the train part and conformalised on the validation part."""

    estimator: ConformalQuantiles
    candidate: str
    validation_loss: Mapping[str, float]  # by candidate, before conformalising
    search: Search  # the choice rests on this and on nothing else


def fit_quantiles(
    config: QuantileTraining,
    train: pd.DataFrame,
    train_lives: Lives,
    validation: pd.DataFrame,
    validation_lives: Lives,
    *,
    ceiling: float,
    folds: Sequence[Fold] = (),
) -> FittedQuantiles:
    """Choose a candidate by its mean pinball loss over the folds, fit it on train, conformalise it on validation.

    Args:
        config: What to try.
        train: Rows of the train part with at least the features.
        train_lives: Their outcomes.
        validation: Rows of the validation part, later than train.
        validation_lives: Their outcomes.
        ceiling: The horizon in days.
        folds: Inside train. Those without a row that counts on either side are left out; the step from train to validation is always one more.
    """
    from threadpoolctl import threadpool_limits

    counted, held_out = validation_lives.weights, config.schema.frame(validation)
    found: list[tuple[dict[str, float], float]] = []
    with threadpool_limits(NUMERICAL_THREADS):
        for fold in folds:
            taught, truth = train_lives.at(fold.learned), train_lives.at(fold.judged)
            if taught.weights.any() and truth.weights.any():
                estimators = _fitted(config, train.iloc[fold.learned], taught, ceiling)
                said = _said(estimators, config.schema.frame(train.iloc[fold.judged]))
                found.append((_losses(said, truth, config), float(truth.weights.sum())))
        estimators = _fitted(config, train, train_lives, ceiling)
        said = _said(estimators, held_out)
    losses = _losses(said, validation_lives, config)
    search = mean_over_folds([*found, (losses, float(counted.sum()))])
    chosen = min(search.scores, key=lambda name: search.scores[name])  # a tie goes to the one listed first
    estimator, quantiles = estimators[chosen], said[chosen]
    missing = np.maximum(quantiles[:, 0] - validation_lives.days, validation_lives.days - quantiles[:, -1])
    estimator.widening, estimator.widening_at_ceiling = _widenings(missing, quantiles[:, 1] < ceiling, validation_lives, config, ceiling)
    return FittedQuantiles(estimator, chosen, losses, search)


def _widenings(missing: Floats, is_below: NDArray[np.bool_], lives: Lives, config: QuantileTraining, ceiling: float) -> tuple[float, float]:
    """What the interval lacks, in days, where the median lies below the ceiling, and elsewhere; the same for both where a group has too few entities."""
    weights = lives.weights

    def lacks(rows: NDArray[np.bool_]) -> float:
        share = config.nominal * (1 + 1 / entities_that_count(rows))
        (widening,) = weighted_quantiles(missing[rows], weights[rows], [share])
        return float(min(widening, ceiling))

    def entities_that_count(rows: NDArray[np.bool_]) -> int:
        return len({lives.entities[int(row)] for row in np.flatnonzero(rows & (weights > 0))})

    if min(entities_that_count(is_below), entities_that_count(~is_below)) < config.min_entities:
        everywhere = lacks(np.ones(len(missing), dtype=np.bool_))
        return everywhere, everywhere
    return lacks(is_below), lacks(~is_below)


def _fitted(config: QuantileTraining, rows: pd.DataFrame, outcomes: Lives, ceiling: float) -> dict[str, ConformalQuantiles]:
    """Every candidate, not yet conformalised."""
    weights = outcomes.weights
    kept = weights > 0
    inputs = fitting_frame(config.schema, rows[kept])
    prepare = by_kind(config.schema, "passthrough").fit(inputs)
    prepared = np.ascontiguousarray(prepare.transform(inputs), dtype=np.float64)
    estimators = {}
    for candidate in config.candidates:
        regressors = [candidate.regressor(level, config.seed).fit(prepared, outcomes.days[kept], sample_weight=weights[kept]) for level in config.levels]
        estimators[candidate.name] = ConformalQuantiles(prepare, regressors, list(config.levels), ceiling)
    return estimators


def _said(estimators: Mapping[str, ConformalQuantiles], inputs: pd.DataFrame) -> dict[str, Floats]:
    return {name: estimator.predict(inputs) for name, estimator in estimators.items()}


def _losses(said: Mapping[str, Floats], outcomes: Lives, config: QuantileTraining) -> dict[str, float]:
    weights = outcomes.weights
    return {name: mean_loss(outcomes.days, quantiles, config.levels, weights) for name, quantiles in said.items()}


def pinball_losses(days: Floats, quantiles: Floats, levels: Sequence[float]) -> Floats:
    """Pinball loss of each row, in days, averaged over the levels: what being above and below costs; smaller is better. Shape (rows,).

    Args:
        days: Shape (rows,).
        quantiles: Shape (rows, levels).
        levels: Of the quantiles.
    """
    above = days[:, np.newaxis] - quantiles
    of_level = np.asarray(levels)
    return np.asarray(np.where(above >= 0, of_level * above, (of_level - 1) * above).mean(axis=1))


def interval_scores(days: Floats, quantiles: Floats, nominal: float) -> Floats:
    """Width of each interval, plus what it misses by, times 2 / (1 - nominal), in days; smaller is better. Shape (rows,).

    Source: Gneiting and Raftery (2007), Strictly proper scoring rules, JASA 102, 6.2.
    """
    low, high = quantiles[:, 0], quantiles[:, -1]
    missed = np.maximum(low - days, 0) + np.maximum(days - high, 0)
    return np.asarray(high - low + 2 / (1 - nominal) * missed)


def mean_loss(days: Floats, quantiles: Floats, levels: Sequence[float], weights: Floats) -> float:
    """Weighted mean of the pinball losses, in days."""
    return float(np.average(pinball_losses(days, quantiles, levels), weights=weights))


@dataclass(frozen=True)
class NaiveQuantiles:
    """What a sceptic would say without a model: the lives of the past, by the tenth of a column that a row lies in, and by group.

    Attributes:
        name: In the report.
        description: What it does, in words.
        column: Such as the age; None takes all lives together.
        group: Such as the model of a machine; None for one group.
    """

    name: str
    description: str
    column: str | None = None
    group: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it reads."""
        return tuple(name for name in (self.column, self.group) if name is not None)

    def fit(self, table: pd.DataFrame, lives: Lives, levels: Sequence[float]) -> FittedNaive:
        """Take the quantiles of the lives in each cell; a cell with few rows takes those of its group, or of all."""
        weights = lives.weights
        edges = np.array([])
        if self.column is not None:
            values = _numbers(table, self.column)
            known = values[~np.isnan(values)]
            edges = np.unique(np.quantile(known, np.arange(1, 10) / 10)) if len(known) else edges
        cells: dict[tuple[str, int], Floats] = {}
        of_group, of_bin = _cells(self, table, edges)
        keys = pd.DataFrame({"group": of_group, "bin": of_bin})
        keys = pd.concat([keys, keys.assign(bin=ANY)])
        for (group, number), members in keys.groupby(["group", "bin"]):
            rows = members.index.to_numpy()
            if (weights[rows] > 0).sum() >= LEAST_ROWS_OF_CELL:
                cells[str(group), int(str(number))] = weighted_quantiles(lives.days[rows], weights[rows], levels)
        return FittedNaive(self, edges, cells, weighted_quantiles(lives.days, weights, levels))


@dataclass(frozen=True)
class FittedNaive:
    """Quantiles by cell."""

    of: NaiveQuantiles
    edges: Floats
    cells: Mapping[tuple[str, int], Floats]
    overall: Floats

    def quantiles(self, table: pd.DataFrame) -> Floats:
        """Shape (rows, levels)."""
        of_group, of_bin = _cells(self.of, table, self.edges)
        found = [self.cells.get((group, number), self.cells.get((group, ANY), self.overall)) for group, number in zip(of_group, of_bin, strict=True)]
        return np.array(found).reshape(len(table), len(self.overall))


ANY = -1  # all tenths of a group
_UNKNOWN = -2


def _cells(naive: NaiveQuantiles, table: pd.DataFrame, edges: Floats) -> tuple[list[str], list[int]]:
    groups = [""] * len(table) if naive.group is None else [str(value) for value in table[naive.group]]
    if naive.column is None:
        return groups, [0] * len(table)
    values = _numbers(table, naive.column)
    return groups, [_UNKNOWN if math.isnan(value) else int(np.searchsorted(edges, value, side="right")) for value in values]


def _numbers(table: pd.DataFrame, column: str) -> Floats:
    return np.asarray(pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64))
