"""How far features have moved from what a model was trained on, as effect sizes that know what is usual.

With thousands of rows every difference is significant, so nothing here tests a hypothesis. A feature has drifted where two effect sizes are large at once: the
population stability index, which sees a change of shape, and the Wasserstein distance in units of the reference's standard deviation, which does not see
how values were put into bins. Large is what convention calls so, or more than weeks of the reference differed from each other, whatever is greater: a feature
that follows the week, the load or a few machines moves by itself, and has done so while the model learned. A window is whole weeks for the same reason.

Source: Siddiqi (2006), Credit Risk Scorecards, ch. 9 (stability index: below 0.1 none, above 0.25 a major shift); Cohen (1988), Statistical Power Analysis, 2.2
(a shift of half a standard deviation is a medium effect; for a mere shift the normalised Wasserstein distance is its size).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.lifecycle.schema import UNKNOWN_CATEGORY, FeatureKind, FeatureSchema

Floats = NDArray[np.float64]

BINS = 10
# Numbers with no more different values have a bin for each: between deciles a rare value, such as a flag that is seldom false, would have none.
VALUES = 20
QUANTILES = 100
# Categories of the reference that have a bin of their own, the most frequent first; all others, and new ones, share one.
CATEGORIES = 30
# Weeks of the reference from which on its own differences say what is usual.
LEAST_WINDOWS = 3
# Where the reference is constant, any other value is infinitely far away in its units; a stored number has an end.
FARTHEST = 99.0


@dataclass(frozen=True)
class Usual:
    """The greatest effect that a window of the reference had against the rest of it."""

    psi: float
    wasserstein: float
    missing: float  # difference of the shares without a value


@dataclass(frozen=True)
class Profile:
    """A feature in the reference.

    Attributes:
        name: Of the feature.
        kind: number, flag or category.
        rows: Rows of the reference.
        missing_share: Of these without a value.
        edges: Of the bins of numbers and flags, ascending: a bin holds what is greater than one edge and at most the next.
        categories: That have a bin.
        counts: Rows by bin; the last bin is for rows without a value, and of categories the one before it for others.
        quantiles: Of known numbers, evenly spaced; empty for categories and where nothing is known.
        spread: Standard deviation of known numbers.
        importance: Share of the feature in what moves the predictions; the shares of all features add up to 1.
        usual: None where the reference is too short to know.
    """

    name: str
    kind: FeatureKind
    rows: int
    missing_share: float
    edges: tuple[float, ...]
    categories: tuple[str, ...]
    counts: tuple[int, ...]
    quantiles: tuple[float, ...]
    spread: float
    importance: float
    usual: Usual | None


@dataclass(frozen=True)
class DriftBounds:
    """From where on an effect is large.

    Attributes:
        psi: Population stability index.
        wasserstein: Wasserstein distance in standard deviations of the reference.
        missing: Change of the share of rows without a value.
        beyond_usual: Factor on what weeks of the reference differed by.
        importance: Share in the predictions from which on a feature counts. A feature that moves nothing cannot spoil a prediction.
        together: Share from which on lighter features count too, where they have moved together: of one sensor there are often a dozen.
    """

    psi: float = 0.25
    wasserstein: float = 0.5
    missing: float = 0.2
    beyond_usual: float = 1.5
    importance: float = 0.05
    together: float = 0.15


@dataclass(frozen=True)
class Drift:
    """A feature in a window against the reference.

    Attributes:
        feature: Its name.
        psi: Population stability index.
        psi_bound: From where on it is large.
        wasserstein: In standard deviations of the reference; None for categories and where nothing is known.
        wasserstein_bound: From where on it is large.
        missing_share: Of the rows of the window.
        missing_share_reference: Of those of the reference.
        importance: Share in the predictions.
        has_drifted: Whether the effect is large.
        counts: Whether it is, the feature matters (by itself, or together with others that have drifted), and the reference is long enough to know what is
            usual.
    """

    feature: str
    psi: float
    psi_bound: float
    wasserstein: float | None
    wasserstein_bound: float
    missing_share: float
    missing_share_reference: float
    importance: float
    has_drifted: bool
    counts: bool

    def __str__(self) -> str:
        distance = "" if self.wasserstein is None else f", moved by {self.wasserstein:.2f} standard deviations (bound {self.wasserstein_bound:.2f})"
        missing = f", {self.missing_share:.0%} without a value instead of {self.missing_share_reference:.0%}"
        return (
            f"{self.feature} has drifted (stability index {self.psi:.2f}, bound {self.psi_bound:.2f}{distance}{missing}; {self.importance:.0%} of predictions)"
        )


def population_stability_index(reference: NDArray[np.int_], current: NDArray[np.int_]) -> float:
    """PSI of two histograms over the same bins.

    Half a row is added to each bin (Jeffreys): an empty bin among a hundred rows is no infinite surprise.

    Args:
        reference: Rows by bin.
        current: Rows by bin.
    """
    before = (reference + 0.5) / (reference.sum() + 0.5 * len(reference))
    after = (current + 0.5) / (current.sum() + 0.5 * len(current))
    return float(np.sum((after - before) * np.log(after / before)))


def profiles(
    schema: FeatureSchema, table: pd.DataFrame, days: Sequence[date] | pd.Series, importance: Mapping[str, float], *, window_days: int
) -> tuple[Profile, ...]:
    """Describe the reference.

    Args:
        schema: Features.
        table: Rows that the model has learned from, at least the features as columns; at least one.
        days: Day of each row.
        importance: Share of each feature in the predictions.
        window_days: Length of the windows that will be compared; whole weeks.
    """
    frame = schema.frame(table)
    windows = _windows(days, window_days)
    return tuple(_profile(feature.name, feature.kind, frame[feature.name], windows, importance.get(feature.name, 0.0)) for feature in schema.features)


def compare(reference: Sequence[Profile], schema: FeatureSchema, table: pd.DataFrame, bounds: DriftBounds) -> tuple[Drift, ...]:
    """Compare the rows of a window with the reference.

    Args:
        reference: Made by `profiles`, of the same schema.
        schema: Features.
        table: Rows of the window; at least one.
        bounds: From where on an effect is large.
    """
    frame = schema.frame(table)
    found = [_compare(profile, frame[profile.name], bounds) for profile in reference]
    light = {
        drift.feature: drift.importance
        for drift, profile in zip(found, reference, strict=True)
        if drift.has_drifted and profile.usual is not None and 0 < drift.importance < bounds.importance
    }
    if sum(light.values()) < bounds.together:
        return tuple(found)
    return tuple(replace(drift, counts=drift.counts or drift.feature in light) for drift in found)


def at_stake(drifts: Sequence[Drift]) -> float:
    """Share of what moves the predictions that rests on features whose drift counts: the most that a training could win back."""
    return sum(drift.importance for drift in drifts if drift.counts)


def _windows(days: Sequence[date] | pd.Series, window_days: int) -> list[NDArray[np.bool_]]:
    """Rows of each whole window, counted back from the last day. One that lacks days the others have, as at the gap of a split, would differ by them alone."""
    ordinals = np.array([day.toordinal() for day in days])
    age = (ordinals.max() - ordinals) // window_days
    held = {int(number): len(np.unique(ordinals[age == number])) for number in np.unique(age)}
    return [age == number for number, count in held.items() if count >= max(held.values()) - 1]


def _profile(name: str, kind: FeatureKind, values: pd.Series, windows: list[NDArray[np.bool_]], importance: float) -> Profile:
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    quantiles: tuple[float, ...] = ()
    spread = 0.0
    if kind is FeatureKind.CATEGORY:
        common = values[values != UNKNOWN_CATEGORY].value_counts()
        # By frequency and name, so that equals do not follow the order of rows.
        names = sorted(common.index, key=lambda value: (-common[value], value))[:CATEGORIES]
        categories = tuple(map(str, names))
    else:
        known = values.to_numpy(dtype=np.float64)
        known = known[~np.isnan(known)]
        inner = np.unique(known)
        if len(inner) > VALUES:
            inner = np.quantile(known, np.arange(1, BINS) / BINS, method="inverted_cdf")
        # One edge below all values: what is less than anything the reference held has a bin of its own.
        lowest = np.nextafter(known.min(), -np.inf) if len(known) else 0.0
        edges = tuple(np.unique(np.append(inner, lowest)).tolist())
        if len(known):
            quantiles = tuple(np.quantile(known, (np.arange(QUANTILES) + 0.5) / QUANTILES).tolist())
            spread = float(known.std())
    bins = _bins(kind, edges, categories, values)
    counts = np.bincount(bins, minlength=len(edges or categories) + 2)
    missing = float(counts[-1] / len(values))
    profile = Profile(name, kind, len(values), missing, edges, categories, tuple(counts.tolist()), quantiles, spread, importance, None)
    if len(windows) < LEAST_WINDOWS:
        return profile
    effects = [_effect_in_reference(profile, counts, bins[rows], values[rows]) for rows in windows]
    usual = Usual(*(max(effect[place] for effect in effects) for place in range(3)))
    return replace(profile, usual=usual)


def _effect_in_reference(profile: Profile, counts: NDArray[np.int_], bins: NDArray[np.intp], values: pd.Series) -> tuple[float, float, float]:
    """Effect sizes of a window of the reference against all the rest of it."""
    own = np.bincount(bins, minlength=len(counts))
    rest = counts - own
    if not rest.sum():
        return 0.0, 0.0, 0.0
    missing = abs(float(own[-1] / own.sum() - rest[-1] / rest.sum()))
    distance = _distance(profile, values)
    # A window is a part of the reference: its distance to the whole is its distance to the rest, times the share of the rest.
    share_of_rest = 1 - (own.sum() - own[-1]) / max(1, counts.sum() - counts[-1])
    return population_stability_index(rest, own), min(FARTHEST, (distance or 0.0) / share_of_rest) if share_of_rest else 0.0, missing


def _bins(kind: FeatureKind, edges: tuple[float, ...], categories: tuple[str, ...], values: pd.Series) -> NDArray[np.intp]:
    """Bin of each value, the last one for no value."""
    if kind is FeatureKind.CATEGORY:
        places = {name: place for place, name in enumerate(categories)} | {UNKNOWN_CATEGORY: len(categories) + 1}
        return np.array([places.get(value, len(categories)) for value in values], dtype=np.intp)
    numbers = values.to_numpy(dtype=np.float64)
    found = np.searchsorted(np.array(edges), numbers, side="left")
    return np.asarray(np.where(np.isnan(numbers), len(edges) + 1, found), dtype=np.intp)


def _distance(profile: Profile, values: pd.Series) -> float | None:
    """Wasserstein distance to the reference in its standard deviations; None where one of them has no number."""
    from scipy.stats import wasserstein_distance

    if not profile.quantiles:
        return None
    known = values.to_numpy(dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return None
    distance = float(wasserstein_distance(profile.quantiles, known))
    # Quantiles of a constant are that constant; what is left of other values' distance is not rounding.
    smallest = 1e-9 * max(1.0, abs(profile.quantiles[0]))
    return min(FARTHEST, distance / max(profile.spread, smallest)) if distance > smallest else 0.0


def _compare(profile: Profile, values: pd.Series, bounds: DriftBounds) -> Drift:
    counts = np.bincount(_bins(profile.kind, profile.edges, profile.categories, values), minlength=len(profile.counts))
    psi = population_stability_index(np.array(profile.counts), counts)
    distance = None if profile.kind is FeatureKind.CATEGORY else _distance(profile, values)
    missing = float(counts[-1] / len(values))
    usual = profile.usual or Usual(0.0, 0.0, 0.0)
    psi_bound = max(bounds.psi, bounds.beyond_usual * usual.psi)
    distance_bound = max(bounds.wasserstein, bounds.beyond_usual * usual.wasserstein)
    missing_bound = max(bounds.missing, bounds.beyond_usual * usual.missing)
    has_moved = psi > psi_bound and (profile.kind is FeatureKind.CATEGORY or (distance is not None and distance > distance_bound))
    has_drifted = has_moved or abs(missing - profile.missing_share) > missing_bound
    return Drift(
        feature=profile.name,
        psi=psi,
        psi_bound=psi_bound,
        wasserstein=distance,
        wasserstein_bound=distance_bound,
        missing_share=missing,
        missing_share_reference=profile.missing_share,
        importance=profile.importance,
        has_drifted=has_drifted,
        counts=has_drifted and profile.importance >= bounds.importance and profile.usual is not None,
    )
