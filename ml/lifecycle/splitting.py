"""How a data set is cut into the part a model learns from, the part it is chosen on, and the part it is judged on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.lifecycle.dataset import DAY, DatasetSpec, NotEnoughData, blocks_of


@dataclass(frozen=True)
class Part:
    """Days from `first` to `last`, both included."""

    name: str
    first: date
    last: date

    def rows(self, dates: Sequence[date] | pd.Series) -> NDArray[np.bool_]:
        """Which rows belong to the part."""
        return np.array([self.first <= day <= self.last for day in dates], dtype=bool)


@dataclass(frozen=True)
class TimeSplit:
    """Three parts in time order; no outcome window that opens in one part reaches into the next."""

    train: Part
    validation: Part
    test: Part
    gap: timedelta

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """The parts, oldest first."""
        return self.train, self.validation, self.test


def whole_days(duration: timedelta) -> timedelta:
    """At least as long, in whole days."""
    return -(-duration // DAY) * DAY


def split_by_time(dates: Sequence[date] | pd.Series, *, gap: timedelta, shares: tuple[float, float, float] = (0.70, 0.15, 0.15)) -> TimeSplit:
    """Cut a span of days into train, validation and test with a gap between them.

    Args:
        dates: Day of each row; need not be unique or sorted.
        gap: At least the label's horizon, in whole days (rounded up): rows of a gap belong to no part.
        shares: Share of the days (without the gaps) a part gets, summing to 1.

    Raises:
        NotEnoughData: If the days do not suffice for one day a part besides the gaps.
    """
    if abs(sum(shares) - 1) > 1e-9 or min(shares) <= 0:
        raise ValueError(f"shares must be positive and sum to 1, got {shares}")
    gap_days = whole_days(gap).days
    if len(dates) == 0:
        raise NotEnoughData("no row has a complete outcome window yet: let the sources run on, or land older history")
    first, last = min(dates), max(dates)
    usable = (last - first).days + 1 - 2 * gap_days
    if usable < 3:
        raise NotEnoughData(f"{first} to {last} is too short for three parts with {gap_days} days between them: at least {2 * gap_days + 3} days are needed")
    validation_days = max(1, int(usable * shares[1]))
    train_days = max(1, min(int(usable * shares[0]), usable - validation_days - 1))
    validation_first = first + timedelta(days=train_days + gap_days)
    test_first = validation_first + timedelta(days=validation_days + gap_days)
    return TimeSplit(
        train=Part("train", first, first + timedelta(days=train_days - 1)),
        validation=Part("validation", validation_first, validation_first + timedelta(days=validation_days - 1)),
        test=Part("test", test_first, last),
        gap=timedelta(days=gap_days),
    )


def split_by_entity(
    spec: DatasetSpec, frame: pd.DataFrame, *, shares: tuple[float, float, float] = (0.70, 0.15, 0.15)
) -> tuple[TimeSplit, dict[str, NDArray[np.bool_]]]:
    """Deal whole entities, and whole blocks of them, out to train, validation and test, in an order that depends on nothing but their names.

    Args:
        spec: Names the entity and date columns.
        frame: Rows of a data set.
        shares: Share of the entities that a part gets, summing to 1.

    Returns:
        The parts with their first and last days, which overlap, and the rows of each.

    Raises:
        NotEnoughData: If there are fewer than three entities.
    """
    keys = blocks_of(spec.features, frame)
    ordered = sorted(set(keys), key=lambda key: hashlib.sha256(repr(key).encode()).digest())
    if len(ordered) < 3:
        raise NotEnoughData(f"{len(ordered)} entities cannot be dealt out to three parts: bring more units")
    in_validation, in_test = (max(1, int(len(ordered) * share)) for share in shares[1:])
    cuts = (0, len(ordered) - in_validation - in_test, len(ordered) - in_test, len(ordered))
    part_of = {key: number for number in range(3) for key in ordered[cuts[number] : cuts[number + 1]]}
    dealt = np.array([part_of[key] for key in keys])
    parts, rows = [], {}
    for number, name in enumerate(("train", "validation", "test")):
        rows[name] = dealt == number
        days = frame.loc[rows[name], spec.features.date_column]
        parts.append(Part(name, min(days), max(days)))
    train, validation, test = parts
    return TimeSplit(train, validation, test, gap=timedelta(0)), rows
