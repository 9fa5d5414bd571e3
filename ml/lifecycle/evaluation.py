"""Judging a ranking and its probabilities against the naive ranking a sceptic would use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Riskier(StrEnum):
    """Which end of a column a naive ranking calls risky."""

    HIGH = "high"
    LOW = "low"


@dataclass(frozen=True)
class Baseline:
    """A naive ranking by one column of the data set; a row without a value is ranked as the least risky."""

    name: str
    description: str
    column: str
    riskier: Riskier = Riskier.HIGH

    def scores(self, table: pd.DataFrame) -> Floats:
        """The ranking, greater is riskier; never NaN."""
        values = pd.to_numeric(table[self.column], errors="coerce").to_numpy(dtype=np.float64)
        return np.nan_to_num(values if self.riskier is Riskier.HIGH else -values, nan=-np.inf, neginf=-np.inf)


@dataclass(frozen=True)
class Interval:
    """Bootstrap interval of the difference of two PR-AUCs (first minus second), or of the share of loss that the first saves against the second."""

    difference: float  # on the rows themselves
    low: float
    high: float
    confidence: float
    share_above_zero: float  # of the replicates; how sure the first is the better one
    blocks: int  # entities that were drawn
    replicates: int  # with at least one positive
    margin: float = 0.0  # what counts as better
    share_above_margin: float | None = None  # of the replicates; None in reports older than the margin

    def covers(self, value: float) -> bool:
        """Whether a difference lies inside the interval."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class CalibrationBin:
    """Rows of similar predicted probability: what was promised and what came."""

    rows: int
    mean_probability: float
    observed_share: float


@dataclass(frozen=True)
class SliceResult:
    """PR-AUC of model and baseline on the rows of one value of a column; None without positives or with nothing but positives."""

    dimension: str
    value: str
    rows: int
    positives: int
    pr_auc_model: float | None
    pr_auc_baseline: float | None

    @property
    def is_lost(self) -> bool:
        """Whether the naive ranking is better here."""
        return self.pr_auc_model is not None and self.pr_auc_baseline is not None and self.pr_auc_model < self.pr_auc_baseline


@dataclass(frozen=True)
class QuantileSlice:
    """Pinball losses of model and baseline, in days, and the coverage of the model's interval, on the rows of one value of a column."""

    dimension: str
    value: str
    rows: int
    loss_model: float
    loss_baseline: float
    coverage: float

    @property
    def is_lost(self) -> bool:
        """Whether the naive answer is better here."""
        return self.loss_model > self.loss_baseline


def pr_auc(outcome: ArrayLike, score: ArrayLike) -> float:
    """Area under the precision-recall curve as average precision; rows with equal scores are taken together.

    Returns:
        NaN when there is no positive. A constant score gives the prevalence.
    """
    truth = np.asarray(outcome, dtype=np.float64)
    return float(weighted_pr_auc(truth, np.asarray(score, dtype=np.float64), np.ones((1, len(truth))))[0])


def weighted_pr_auc(outcome: Floats, score: Floats, weights: Floats) -> Floats:
    """Average precision under many weightings of the same rows at once.

    Args:
        outcome: Shape (rows,), 0 or 1.
        score: Shape (rows,), greater is riskier; may hold infinities, not NaN.
        weights: Shape (replicates, rows), not negative.

    Returns:
        Shape (replicates,); NaN where no positive has weight.
    """
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.array([], dtype=int)
    weight = weights[:, order]
    selected = np.cumsum(weight, axis=1)[:, ends]
    hits = np.cumsum(weight * outcome[order], axis=1)[:, ends]
    positives = hits[:, -1:] if len(ends) else np.zeros((len(weights), 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(selected > 0, hits / selected, 0.0)
        recall_steps = np.diff(hits, axis=1, prepend=0.0) / positives
        return np.where(positives[:, 0] > 0, np.sum(precision * recall_steps, axis=1), np.nan)


def bootstrap_difference(
    outcome: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    blocks: Sequence[object],
    *,
    replicates: int = 1000,
    confidence: float = 0.95,
    margin: float = 0.0,
    seed: int = 0,
) -> Interval:
    """Bootstrap the difference of two PR-AUCs by drawing whole blocks.

    Rows of one device are alike and overlap in time, so drawing single rows would make the interval far too narrow.

    Args:
        outcome: Shape (rows,), 0 or 1.
        first: Scores of the model.
        second: Scores it is compared with, on the same rows.
        blocks: The entity of each row.
        replicates: How many resamples.
        confidence: Of the percentile interval.
        margin: Difference from which on the first counts as better.
        seed: Of the resampling.

    Raises:
        ValueError: If there is no positive row.

    Source: Davison and Hinkley (1997), Bootstrap Methods and their Application, 3.8 (resampling of clusters), 5.3 (percentile limits).
    """
    truth = np.asarray(outcome, dtype=np.float64)
    if not truth.sum():
        raise ValueError("a PR-AUC needs at least one positive row")
    scores = [np.asarray(score, dtype=np.float64) for score in (first, second)]
    codes, names = pd.factorize(pd.Series(list(blocks), dtype=object))
    generator = np.random.default_rng(seed)
    differences: list[Floats] = []
    for chunk in _chunks(replicates, size=max(1, 2_000_000 // max(1, len(truth)))):
        counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=chunk).astype(np.float64)
        weights = counts[:, codes]
        differences.append(weighted_pr_auc(truth, scores[0], weights) - weighted_pr_auc(truth, scores[1], weights))
    drawn = np.concatenate(differences)
    drawn = drawn[~np.isnan(drawn)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(
        difference=pr_auc(truth, scores[0]) - pr_auc(truth, scores[1]),
        low=float(low),
        high=float(high),
        confidence=confidence,
        share_above_zero=float(np.mean(drawn > 0)),
        blocks=len(names),
        replicates=len(drawn),
        margin=margin,
        share_above_margin=float(np.mean(drawn > margin)),
    )


def bootstrap_pr_auc(
    outcome: ArrayLike, score: ArrayLike, blocks: Sequence[object], *, replicates: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile limits of a PR-AUC, by drawing whole blocks as `bootstrap_difference` does; NaN without a positive."""
    truth, ranking = np.asarray(outcome, dtype=np.float64), np.asarray(score, dtype=np.float64)
    codes, names = pd.factorize(pd.Series(list(blocks), dtype=object))
    generator = np.random.default_rng(seed)
    drawn: list[Floats] = []
    for chunk in _chunks(replicates, size=max(1, 2_000_000 // max(1, len(truth)))):
        counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=chunk).astype(np.float64)
        drawn.append(weighted_pr_auc(truth, ranking, counts[:, codes]))
    low, high = np.nanquantile(np.concatenate(drawn), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bootstrap_skill(
    first: ArrayLike,
    second: ArrayLike,
    weights: ArrayLike,
    blocks: Sequence[object],
    *,
    replicates: int = 1000,
    confidence: float = 0.95,
    margin: float = 0.0,
    seed: int = 0,
) -> Interval:
    """Bootstrap the share of loss that the first answer saves against the second (1: all of it, 0: none), by drawing whole blocks.

    Args:
        first: Loss of each row, shape (rows,), not negative.
        second: Loss of another answer on the same rows.
        weights: What each row counts.
        blocks: The entity of each row.
        replicates: How many resamples.
        confidence: Of the percentile interval.
        margin: Share from which on the first counts as better.
        seed: Of the resampling.

    Raises:
        ValueError: If the second answer has no loss to save.
    """
    counted, losses = np.asarray(weights, dtype=np.float64), [np.asarray(loss, dtype=np.float64) for loss in (first, second)]
    sums, names = _block_sums(blocks, losses[0] * counted, losses[1] * counted)
    if not sums[1].sum() > 0:
        raise ValueError("the answer that is compared with has no loss: there is nothing to be better at")
    drawn = _drawn_blocks(names, replicates, seed) @ sums.T
    of_first, of_second = drawn[drawn[:, 1] > 0].T
    skills = 1 - of_first / of_second
    low, high = np.quantile(skills, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(
        difference=float(1 - sums[0].sum() / sums[1].sum()),
        low=float(low),
        high=float(high),
        confidence=confidence,
        share_above_zero=float(np.mean(skills > 0)),
        blocks=names,
        replicates=len(skills),
        margin=margin,
        share_above_margin=float(np.mean(skills > margin)),
    )


def bootstrap_mean(
    values: ArrayLike, weights: ArrayLike, blocks: Sequence[object], *, replicates: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile limits of a weighted mean, by drawing whole blocks."""
    counted = np.asarray(weights, dtype=np.float64)
    sums, names = _block_sums(blocks, np.asarray(values, dtype=np.float64) * counted, counted)
    drawn = _drawn_blocks(names, replicates, seed) @ sums.T
    of_values, of_weights = drawn[drawn[:, 1] > 0].T
    low, high = np.quantile(of_values / of_weights, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _block_sums(blocks: Sequence[object], *columns: Floats) -> tuple[Floats, int]:
    """Sum of each column by block, shape (columns, blocks), and how many blocks there are."""
    codes, names = pd.factorize(pd.Series(list(blocks), dtype=object))
    return np.stack([np.bincount(codes, weights=column, minlength=len(names)) for column in columns]), len(names)


def _drawn_blocks(names: int, replicates: int, seed: int) -> Floats:
    """How often each block was drawn in each replicate, shape (replicates, blocks)."""
    return np.random.default_rng(seed).multinomial(names, np.full(names, 1 / names), size=replicates).astype(np.float64)


def brier(outcome: ArrayLike, probability: ArrayLike) -> float:
    """Mean squared distance of probability and outcome; smaller is better."""
    return float(np.mean((np.asarray(outcome, dtype=np.float64) - np.asarray(probability, dtype=np.float64)) ** 2))


def calibration(outcome: ArrayLike, probability: ArrayLike, *, bins: int = 5) -> tuple[CalibrationBin, ...]:
    """Promised against observed share in bins of (nearly) equal size, lowest probability first; equal probabilities share a bin."""
    frame = pd.DataFrame({"outcome": np.asarray(outcome, dtype=np.float64), "probability": np.asarray(probability, dtype=np.float64)})
    frame["bin"] = pd.qcut(frame["probability"], bins, labels=False, duplicates="drop") if frame["probability"].nunique() > 1 else 0
    return tuple(
        CalibrationBin(rows=len(group), mean_probability=float(group["probability"].mean()), observed_share=float(group["outcome"].mean()))
        for _, group in frame.groupby("bin", sort=True)
    )


def slices(table: pd.DataFrame, dimensions: Sequence[str], outcome: ArrayLike, model: ArrayLike, baseline: ArrayLike) -> tuple[SliceResult, ...]:
    """Both PR-AUCs for each value of each dimension, in the order of the dimensions and values."""
    truth, by_model, by_baseline = (np.asarray(values, dtype=np.float64) for values in (outcome, model, baseline))
    results = []
    for dimension in dimensions:
        values = table[dimension].astype(object).where(table[dimension].notna(), "(unknown)").map(str).to_numpy()
        for value in sorted(set(values)):
            rows = values == value
            positives = int(truth[rows].sum())
            is_informative = 0 < positives < rows.sum()
            results.append(
                SliceResult(
                    dimension=dimension,
                    value=value,
                    rows=int(rows.sum()),
                    positives=positives,
                    pr_auc_model=pr_auc(truth[rows], by_model[rows]) if is_informative else None,
                    pr_auc_baseline=pr_auc(truth[rows], by_baseline[rows]) if is_informative else None,
                )
            )
    return tuple(results)


def _chunks(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]
