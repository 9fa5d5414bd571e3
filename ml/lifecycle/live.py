"""How good predictions were, by what happened: ranking, calibration and interval coverage, each with a bootstrap interval by drawing whole machines.

A loss counts where it is large *and* sure. Ranking is measured as ROC-AUC, because it does not follow the share of positives as PR-AUC does: a season with
fewer failures is no loss. Calibration is the number of events over the number that was promised, which a season may move; half as many again for sure is a
loss. What another version would have brought on the same outcomes, which it predicted in the champion's shadow, is a gain that was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.lifecycle import evaluation

Floats = NDArray[np.float64]

# Weights held at once: 16 MB.
CELLS = 2_000_000


@dataclass(frozen=True)
class PerformanceBounds:
    """From where on a loss counts.

    Attributes:
        auc_loss: ROC-AUC less than on the test part; the two intervals must not overlap either.
        calibration_ratio: Events over promised events, or the other way round; the whole interval must lie beyond.
        coverage: Share of outcomes that intervals promise to hold: what the quantiles of the use case say.
        coverage_loss: Coverage less than promised; the whole interval must lie below.
        lead: By how much another version must be ahead of the champion on the same outcomes: of ROC-AUC, or as a share of the pinball loss; the whole
            interval must lie above 0 too.
        min_positives: Predictions with the event below which nothing is said about probabilities.
        min_entities: Different machines with the event, or with an interval, below which nothing is said.
        confidence: Of the bootstrap intervals.
        replicates: Bootstrap resamples.
        seed: Of the resampling.
    """

    auc_loss: float = 0.05
    calibration_ratio: float = 1.5
    coverage: float = 0.9
    coverage_loss: float = 0.05
    lead: float = 0.05
    min_positives: int = 10
    min_entities: int = 5
    confidence: float = 0.95
    replicates: int = 300
    seed: int = 0


@dataclass(frozen=True)
class RankingQuality:
    """ROC-AUC with its interval: the chance that a row with the event has the greater probability than one without."""

    rows: int
    positives: int
    auc: float
    low: float
    high: float


@dataclass(frozen=True)
class Ratio:
    """A ratio with its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LivePerformance:
    """Predictions whose outcome is known.

    Attributes:
        rows: Predictions.
        positives: Of these with the event.
        entities: Different machines.
        ranking: None where the question is about days, or too little happened.
        events_to_promised: Events over the sum of probabilities; None as for ranking.
        calibration_error: Mean distance of promised and observed share over bins of equal size, weighted by rows; None as for ranking.
        brier: Mean squared error of the probabilities; None where the question is about days.
        coverage: Share of outcomes within their interval; None where the question is about a probability, or there are too few entities.
    """

    rows: int
    positives: int
    entities: int
    ranking: RankingQuality | None
    events_to_promised: Ratio | None
    calibration_error: float | None
    brier: float | None
    coverage: Ratio | None

    def summary(self) -> str:
        """In a line."""
        said = f"{self.rows:,} predictions with an outcome, {self.positives:,} with the event"
        if self.ranking is None and self.coverage is None:
            return f"{said}: too few to say how good they were"
        if self.ranking is not None and self.events_to_promised is not None:
            said += f", ROC-AUC {self.ranking.auc:.3f}, {self.events_to_promised.value:.2f} events for each promised one"
        if self.coverage is not None:
            said += f", {self.coverage.value:.0%} within their interval"
        return said


@dataclass(frozen=True)
class Lead:
    """By how much another version was better than the champion, or worse (below 0), on the same outcomes.

    Attributes:
        version: The other version.
        rows: Predictions that both made.
        positives: Of these with the event.
        measure: Of what: ROC-AUC, or share of the pinball loss.
        value: The difference, with its interval from `low` to `high`.
    """

    version: int
    rows: int
    positives: int
    measure: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} of the {self.measure} ({self.low:+.3f} to {self.high:+.3f}) on the same {self.rows:,} outcomes"

    def counts(self, bounds: PerformanceBounds) -> bool:
        """Whether it is large and sure."""
        return self.value >= bounds.lead and self.low > 0


def measure_lead(pairs: pd.DataFrame, version: int, bounds: PerformanceBounds, levels: Sequence[float] | None) -> Lead | None:
    """Compare another version with the champion on outcomes that both predicted.

    Args:
        pairs: A row an outcome: tenant_id, device_id, has_occurred, outcome_days, and of the champion (and, with `other_` before the name, of the other
            version) predicted_probability or predicted_low_days, predicted_median_days, predicted_high_days.
        version: The other version.
        bounds: How to measure.
        levels: Of the quantiles; None where the question is about a probability.

    Returns:
        None where too little happened.
    """
    if levels is not None:
        pairs = pairs[pairs["outcome_days"].notna()]
    happened = pairs["has_occurred"].to_numpy(dtype=np.int_)
    machines = list(zip(pairs["tenant_id"], pairs["device_id"], strict=True))
    failed = {machine for machine, event in zip(machines, happened, strict=True) if event}
    if happened.sum() < bounds.min_positives or len(failed) < bounds.min_entities or (levels is None and happened.all()):
        return None
    if levels is None:
        own, other = (pairs[f"{whose}predicted_probability"].to_numpy(dtype=np.float64) for whose in ("", "other_"))
        measure = "ROC-AUC"

        def difference(weights: Floats) -> Floats:
            return weighted_roc_auc(happened, other, weights) - weighted_roc_auc(happened, own, weights)
    else:
        from ml.lifecycle.quantiles import pinball_losses

        days = pairs["outcome_days"].to_numpy(dtype=np.float64)
        columns = [f"predicted_{which}_days" for which in ("low", "median", "high")]
        said = (pairs[[f"{whose}{column}" for column in columns]].to_numpy(dtype=np.float64) for whose in ("", "other_"))
        own, other = (pinball_losses(days, quantiles, levels) for quantiles in said)
        measure = "pinball loss"

        def difference(weights: Floats) -> Floats:
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.asarray(1 - weights @ other / (weights @ own))

    drawn = np.concatenate([difference(weights) for weights in _weights(machines, bounds)])
    low, high = _limits(drawn[np.isfinite(drawn)], bounds)
    return Lead(version, len(pairs), int(happened.sum()), measure, float(difference(np.ones((1, len(pairs))))[0]), low, high)


def live_performance(outcomes: pd.DataFrame, bounds: PerformanceBounds) -> LivePerformance:
    """Measure predictions by what happened.

    Args:
        outcomes: Rows of `platform.fct_prediction_outcome` of one use case and version, at least one: tenant_id, device_id, predicted_probability,
            has_occurred, is_within_interval.
        bounds: How to measure.
    """
    entities = list(zip(outcomes["tenant_id"], outcomes["device_id"], strict=True))  # machines: components of one share their fate
    happened = outcomes["has_occurred"].to_numpy(dtype=np.int_)
    ranking: RankingQuality | None = None
    ratio: Ratio | None = None
    coverage: Ratio | None = None
    error: float | None = None
    score: float | None = None
    if outcomes["predicted_probability"].notna().all():
        probability = outcomes["predicted_probability"].to_numpy(dtype=np.float64)
        score = evaluation.brier(happened, probability)
        failed = {entity for entity, event in zip(entities, happened, strict=True) if event}
        if happened.sum() >= bounds.min_positives and len(failed) >= bounds.min_entities and not happened.all():
            ranking = ranking_quality(happened, probability, entities, bounds)
            ratio = _ratio(happened, probability, entities, bounds)
            bins = evaluation.calibration(happened, probability, bins=10)
            error = sum(one.rows * abs(one.mean_probability - one.observed_share) for one in bins) / len(happened)
    within = outcomes["is_within_interval"]
    if within.notna().all() and len(set(entities)) >= bounds.min_entities:
        coverage = _ratio(within.to_numpy(dtype=np.int_), np.ones(len(within)), entities, bounds)
    return LivePerformance(len(outcomes), int(happened.sum()), len(set(entities)), ranking, ratio, error, score, coverage)


def losses(live: LivePerformance, test: RankingQuality | None, bounds: PerformanceBounds) -> list[str]:
    """Losses that count, in words.

    Args:
        live: What was measured.
        test: How well the version ranked its test part; None where that is not known.
        bounds: From where on a loss counts.
    """
    found = []
    ranking, ratio, coverage = live.ranking, live.events_to_promised, live.coverage
    if ranking is not None and test is not None and test.auc - ranking.auc >= bounds.auc_loss and ranking.high < test.low:
        found.append(
            f"ranking has been lost (ROC-AUC {ranking.auc:.3f}, at most {ranking.high:.3f}, on {ranking.rows:,} outcomes; "
            f"{test.auc:.3f}, at least {test.low:.3f}, on the test part)"
        )
    if ratio is not None and (ratio.low > bounds.calibration_ratio or ratio.high < 1 / bounds.calibration_ratio):
        found.append(f"probabilities are wrong ({ratio.value:.2f} events for each promised one, {ratio.low:.2f} to {ratio.high:.2f})")
    if coverage is not None and coverage.high < bounds.coverage - bounds.coverage_loss:
        found.append(f"intervals hold too little ({coverage.value:.0%} of outcomes, at most {coverage.high:.0%}; {bounds.coverage:.0%} promised)")
    return found


def ranking_quality(outcome: NDArray[np.int_], probability: Floats, entities: Sequence[object], bounds: PerformanceBounds) -> RankingQuality:
    """ROC-AUC with its interval.

    Args:
        outcome: Shape (rows,), 0 or 1, both present.
        probability: Shape (rows,).
        entities: Of each row.
        bounds: How to draw.
    """
    drawn = np.concatenate([weighted_roc_auc(outcome, probability, weights) for weights in _weights(entities, bounds)])
    low, high = _limits(drawn[~np.isnan(drawn)], bounds)
    return RankingQuality(len(outcome), int(outcome.sum()), float(weighted_roc_auc(outcome, probability, np.ones((1, len(outcome))))[0]), low, high)


def weighted_roc_auc(outcome: NDArray[np.int_], score: Floats, weights: Floats) -> Floats:
    """ROC-AUC under many weightings of the same rows at once, which are sorted once only; rows with equal scores count half.

    Args:
        outcome: Shape (rows,), 0 or 1.
        score: Shape (rows,), greater is riskier.
        weights: Shape (replicates, rows), not negative.

    Returns:
        Shape (replicates,); NaN where one of the outcomes has no weight.
    """
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    weight, happened = weights[:, order], outcome[order]
    positive, negative = (np.cumsum(weight * side, axis=1)[:, ends] for side in (happened, 1 - happened))
    below = negative - np.diff(negative, axis=1, prepend=0.0) / 2
    pairs = positive[:, -1] * negative[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, (np.diff(positive, axis=1, prepend=0.0) * below).sum(axis=1) / pairs, np.nan)


def _ratio(counted: NDArray[np.int_], promised: Floats, entities: Sequence[object], bounds: PerformanceBounds) -> Ratio:
    """Sum of what happened over sum of what was promised. A promise of nothing at all is taken for one of a row in a thousand million."""
    smallest = 1e-9 * len(promised)
    drawn = np.concatenate([weights @ counted / np.maximum(weights @ promised, smallest) for weights in _weights(entities, bounds)])
    low, high = _limits(drawn, bounds)
    return Ratio(float(counted.sum() / max(promised.sum(), smallest)), low, high)


def _weights(entities: Sequence[object], bounds: PerformanceBounds) -> Iterator[Floats]:
    """How often each row counts in each resample of whole entities, some resamples at a time. Shape (resamples, rows)."""
    codes, names = pd.factorize(pd.Series(list(entities), dtype=object))
    generator = np.random.default_rng(bounds.seed)
    size = max(1, CELLS // max(1, len(codes)))
    for first in range(0, bounds.replicates, size):
        drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=min(size, bounds.replicates - first))
        yield drawn[:, codes].astype(np.float64)


def _limits(drawn: Floats, bounds: PerformanceBounds) -> tuple[float, float]:
    tail = (1 - bounds.confidence) / 2
    if not len(drawn):  # one entity, or all events at one: no resample can rank
        return 0.0, 1.0
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
