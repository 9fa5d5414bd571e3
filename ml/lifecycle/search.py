"""Folds in which hyper-parameters are chosen: each learns from the past of what it judges, with the question's horizon left out between.

They lie inside the train part, and the step from train to validation is the last of them, so the newest hold-out never has a say.

Source: Bergmeir and Benítez (2012), On the use of cross-validation for time series predictor evaluation, Information Sciences 191.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.lifecycle.dataset import DatasetSpec, SplitBy, blocks_of
from ml.lifecycle.splitting import whole_days


@dataclass(frozen=True)
class Fold:
    """Positions of rows of the train part."""

    learned: NDArray[np.intp]
    judged: NDArray[np.intp]


@dataclass(frozen=True)
class Search:
    """How a candidate was chosen.

    Attributes:
        scores: By candidate, the mean over the folds, each weighing by what it had to judge.
        folds: How many had something to learn from and to judge, the validation part among them.
    """

    scores: Mapping[str, float]
    folds: int


def search_folds(spec: DatasetSpec, train: pd.DataFrame, count: int) -> tuple[Fold, ...]:
    """The folds of a data set's train part: in time with the horizon between, or of whole entities.

    Args:
        spec: Says what keeps parts apart.
        train: Rows of the train part.
        count: How many at most.
    """
    if spec.split_by is SplitBy.ENTITY:
        return folds_of_entities(blocks_of(spec.features, train), count=count)
    return folds_in_time(list(train[spec.features.date_column]), gap=whole_days(spec.outcome.horizon), count=count)


def folds_in_time(dates: Sequence[date], *, gap: timedelta, count: int) -> tuple[Fold, ...]:
    """Expanding windows over days: fold after fold learns from more of the past and judges the days that follow the gap.

    Args:
        dates: Day of each row of the train part, in any order.
        gap: In whole days, at least the horizon.
        count: How many at most; a train part that is too short for them has fewer, or none.
    """
    from sklearn.model_selection import TimeSeriesSplit

    if not len(dates):
        return ()
    day = np.array([(one - min(dates)).days for one in dates])
    for splits in range(count, 1, -1):
        splitter = TimeSeriesSplit(splits, gap=gap.days)
        try:
            cuts = list(splitter.split(np.arange(day.max() + 1)))  # of calendar days, so that a day without rows counts in the gap
        except ValueError:
            continue  # too short for so many
        return tuple(Fold(np.flatnonzero(np.isin(day, before)), np.flatnonzero(np.isin(day, after))) for before, after in cuts)
    return ()


def folds_of_entities(entities: Sequence[object], *, count: int) -> tuple[Fold, ...]:
    """Whole entities judged by what the others taught, for data that knows no common calendar; none where there are fewer entities than folds."""
    from sklearn.model_selection import GroupKFold

    known = {entity: number for number, entity in enumerate(dict.fromkeys(entities))}
    if count < 2 or len(known) < count:
        return ()
    groups = np.array([known[entity] for entity in entities])
    return tuple(Fold(learned, judged) for learned, judged in GroupKFold(count).split(groups, groups=groups))


def mean_over_folds(found: Iterable[tuple[Mapping[str, float], float]]) -> Search:
    """The mean of each candidate's figures.

    Args:
        found: For each fold, the figures by candidate and the weight of the fold.
    """
    figures, weights = zip(*found, strict=True)
    return Search({name: float(np.average([figure[name] for figure in figures], weights=weights)) for name in figures[0]}, len(figures))
