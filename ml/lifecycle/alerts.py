"""What a ranking is worth to a crew that can look at so many machines a month: recall, precision and lead time at an alert budget.

An alert is raised for an entity on a day and silences the entity for the length of the horizon: nobody is told the same thing twice. The threshold is the
highest that spends the budget over the days that are judged, the same rule for a model and for a naive ranking. Rows with equal scores are put in a drawn
order, so that a rule with few values is judged on all of its budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml.lifecycle.dataset import DAY, knowledge_time

Entity = tuple[str, ...]
DAYS_A_MONTH = 30


@dataclass(frozen=True)
class Estimate:
    """A figure with its bootstrap interval; NaN where there is nothing to count."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AlertResult:
    """A ranking at an alert budget.

    Attributes:
        alerts: Alerts raised.
        failures: Failures that an alert could have announced.
        caught: Failures that one did.
        recall: Share of failures caught.
        precision: Share of alerts that a failure of the entity followed within the horizon.
        lead_h: Median hours between the first alert in time and the failure, of those caught.
    """

    alerts: int
    failures: int
    caught: int
    recall: Estimate
    precision: Estimate
    lead_h: Estimate


@dataclass(frozen=True)
class _Count:
    """What happened to one entity."""

    alerts: int
    right: int
    failures: int
    leads_h: tuple[float, ...]


def judge_alerts(
    entities: Sequence[Entity],
    days: Sequence[date],
    score: ArrayLike,
    failures: Mapping[Entity, Sequence[datetime]],
    *,
    horizon: timedelta,
    a_month: float = 1.0,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> AlertResult:
    """Spend an alert budget by a ranking and count what it found; intervals by drawing whole entities.

    Args:
        entities: Entity of each row; no two rows of one entity and day.
        days: Feature day of each row.
        score: Shape (rows,), greater is riskier; may hold infinities, not NaN.
        failures: When each entity failed, with a time zone. Several at one moment count once; those that no row could announce do not count.
        horizon: An alert of a day counts for failures in (end of the day, end of the day + horizon].
        a_month: Alerts an entity and 30 days.
        replicates: Bootstrap resamples.
        confidence: Of the percentile interval.
        seed: Of the resampling, and of the order of rows with equal scores.
    """
    random = np.random.default_rng(seed)
    ranks = np.empty(len(days), dtype=np.intp)
    ranks[np.lexsort((random.random(len(days)), -np.asarray(score, dtype=np.float64)))] = np.arange(len(days))
    rows: dict[Entity, list[tuple[date, int]]] = {}
    for entity, day, rank in zip(entities, days, ranks.tolist(), strict=True):
        rows.setdefault(entity, []).append((day, rank))
    for own in rows.values():
        own.sort()
    span_days = (max(days) - min(days)).days + 1
    budget = int(len(rows) * span_days / DAYS_A_MONTH * a_month)
    within = _within_budget(rows, budget, len(days), horizon)
    counts = [_count(own, _raised(own, within, horizon), sorted(set(failures.get(entity, ()))), horizon) for entity, own in sorted(rows.items())]
    drawn = random.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=replicates)
    alerts, right, failed, caught = (np.array(values) for values in zip(*((c.alerts, c.right, c.failures, len(c.leads_h)) for c in counts), strict=True))
    tail = (1 - confidence) / 2

    def estimate(value: float, resampled: NDArray[np.float64]) -> Estimate:
        known = resampled[~np.isnan(resampled)]
        low, high = np.quantile(known, [tail, 1 - tail]) if len(known) else (np.nan, np.nan)
        return Estimate(value, float(low), float(high))

    with np.errstate(invalid="ignore", divide="ignore"):
        recall = estimate(float(np.divide(caught.sum(), failed.sum())), (drawn @ caught) / (drawn @ failed))
        precision = estimate(float(np.divide(right.sum(), alerts.sum())), (drawn @ right) / (drawn @ alerts))
    leads = np.array([lead for count in counts for lead in count.leads_h])
    owner = np.repeat(np.arange(len(counts)), caught)
    medians = np.array([np.median(np.repeat(leads, times[owner])) if times[owner].sum() else np.nan for times in drawn])
    lead_h = estimate(float(np.median(leads)) if len(leads) else np.nan, medians)
    return AlertResult(int(alerts.sum()), int(failed.sum()), int(caught.sum()), recall, precision, lead_h)


def _raised(rows: Sequence[tuple[date, int]], within: int, horizon: timedelta) -> list[date]:
    """Days on which an entity is alerted when the first `within` ranks may alert."""
    raised: list[date] = []
    quiet = timedelta(days=-(-horizon // DAY))
    for day, rank in rows:
        if rank < within and (not raised or day >= raised[-1] + quiet):
            raised.append(day)
    return raised


def _within_budget(rows: Mapping[Entity, Sequence[tuple[date, int]]], budget: int, most: int, horizon: timedelta) -> int:
    """How many ranks may alert: the fewest that spend the budget, or all that can be spent of it.

    One more rank never raises fewer alerts, and at most one more: the first that may is always taken, which packs the most into the days.
    """

    def raised(within: int) -> int:
        return sum(len(_raised(own, within, horizon)) for own in rows.values())

    spent = min(budget, raised(most))
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if raised(middle) >= spent:
            high = middle
        else:
            low = middle + 1
    return low


def _count(rows: Sequence[tuple[date, int]], raised: Sequence[date], failures: Sequence[datetime], horizon: timedelta) -> _Count:
    windows = [(knowledge_time(day), knowledge_time(day) + horizon) for day in raised]
    possible = [(knowledge_time(day), knowledge_time(day) + horizon) for day, _ in rows]
    announced = [failure for failure in failures if any(begin < failure <= end for begin, end in possible)]
    leads = []
    for failure in announced:
        earlier = [begin for begin, end in windows if begin < failure <= end]
        if earlier:
            leads.append((failure - min(earlier)) / timedelta(hours=1))
    right = sum(any(begin < failure <= end for failure in failures) for begin, end in windows)
    return _Count(len(raised), right, len(announced), tuple(leads))
