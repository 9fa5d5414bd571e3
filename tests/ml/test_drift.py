"""Drift by effect size: what it must find, and that it does not cry wolf where plants only live by days, weeks and years."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from ml.lifecycle.drift import Drift, DriftBounds, Profile, at_stake, compare, population_stability_index, profiles
from ml.lifecycle.schema import Feature, FeatureKind, FeatureSchema

FIRST = date(2026, 1, 5)
BOUNDS = DriftBounds()
SCHEMA = FeatureSchema(
    (
        Feature("avg_temperature_c"),
        Feature("max_temperature_c"),
        Feature("vibration_mm_s"),
        Feature("load_pct"),
        Feature("error_count"),
        Feature("days_since_service"),
        Feature("is_running", FeatureKind.FLAG),
        Feature("last_error_code", FeatureKind.CATEGORY),
    )
)
EVEN = {name: 1 / len(SCHEMA.names) for name in SCHEMA.names}
MACHINES = 12


def plant(seed: int, days: int, *, yearly: float = 0.0) -> pd.DataFrame:
    """Machine days of a plant that is seasonal and stable: hours of the day, working weeks, each machine's level and its wandering, rare errors, services.

    Daily rows are made of 24 hours, some of which are lost. `yearly` is half the difference of summer and winter, in °C.
    """
    random = np.random.default_rng(seed)
    rows = []
    hours = np.arange(24)
    for _machine in range(MACHINES):
        level, wander, service = random.normal(0, 3), 0.0, int(random.integers(20, 40))
        since = int(random.integers(0, service))
        for day in range(days):
            weekday = (FIRST + timedelta(days=day)).weekday()
            working = 1.0 if weekday < 5 else 0.35
            wander = 0.8 * wander + random.normal(0, 1)
            kept = random.random(24) > 0.1
            load = np.clip(working * (60 + 30 * np.sin((hours - 8) / 24 * 2 * np.pi)) + random.normal(0, 5, 24), 0, 100)[kept]
            season = yearly * np.sin(day / 365 * 2 * np.pi)
            temperature = 40 + level + wander + season + 0.2 * load + random.normal(0, 1, len(load))
            since = 0 if since >= service else since + 1
            errors = int(random.poisson(0.3 * working))
            rows.append(
                {
                    "day": FIRST + timedelta(days=day),
                    "avg_temperature_c": float(temperature.mean()),
                    "max_temperature_c": float(temperature.max()),
                    "vibration_mm_s": float(np.exp(0.2 * random.normal() + 0.01 * load.mean())) if random.random() > 0.05 else None,
                    "load_pct": float(load.mean()),
                    "error_count": errors,
                    "days_since_service": since,
                    "is_running": bool(load.mean() > 20),
                    "last_error_code": f"E{random.integers(1, 4)}" if errors else None,
                }
            )
    return pd.DataFrame(rows).sort_values("day", kind="stable", ignore_index=True)


def days_of(table: pd.DataFrame, first: int, last: int) -> pd.DataFrame:
    """Rows of days in [first, last)."""
    return table[(table["day"] >= FIRST + timedelta(days=first)) & (table["day"] < FIRST + timedelta(days=last))]


def reference_of(table: pd.DataFrame, importance: dict[str, float] | None = None) -> tuple[Profile, ...]:
    return profiles(SCHEMA, table, table["day"], importance or EVEN, window_days=7)


def alarms(found: tuple[Drift, ...]) -> set[str]:
    return {drift.feature for drift in found if drift.counts}


def test_the_index_is_what_the_textbook_says() -> None:
    """Large counts, so the half row that is added to each bin is not seen."""
    before, after = np.array([100_000] * 5), np.array([60_000, 80_000, 100_000, 120_000, 140_000])
    share = np.array([0.12, 0.16, 0.2, 0.24, 0.28])
    assert population_stability_index(before, after) == pytest.approx(float(np.sum((share - 0.2) * np.log(share / 0.2))), abs=1e-5)
    assert population_stability_index(before, before) == 0
    assert population_stability_index(np.array([50, 50, 0]), np.array([50, 50, 0])) == pytest.approx(0)


def test_a_mere_shift_is_as_far_as_its_standard_deviations() -> None:
    random = np.random.default_rng(3)
    schema = FeatureSchema((Feature("x"),))
    days = [FIRST + timedelta(days=number // 100) for number in range(7_000)]
    before = pd.DataFrame({"x": 10 + 2 * random.normal(size=7_000)})
    reference = profiles(schema, before, days, {"x": 1.0}, window_days=7)
    (found,) = compare(reference, schema, pd.DataFrame({"x": 12 + 2 * random.normal(size=2_000)}), BOUNDS)
    assert found.wasserstein == pytest.approx(1.0, abs=0.05)
    assert found.counts
    (same,) = compare(reference, schema, pd.DataFrame({"x": 10 + 2 * random.normal(size=2_000)}), BOUNDS)
    assert same.psi < 0.02
    assert same.wasserstein is not None
    assert same.wasserstein < 0.1
    assert not same.has_drifted


def test_seasonal_but_stable_plants_raise_no_alarm() -> None:
    """Looks over four weeks at forty plants: docs/monitoring.md says how many of thousands were wrong, and what the index alone would have said."""
    looks = wrong = by_convention = 0
    for seed in range(40):
        table = plant(seed, 84 + 28)
        reference = reference_of(days_of(table, 0, 84))
        for last in range(84 + 7, 84 + 29, 3):
            found = compare(reference, SCHEMA, days_of(table, last - 7, last), BOUNDS)
            looks += 1
            wrong += bool(alarms(found))
            by_convention += any(drift.psi > 0.25 for drift in found)
    assert looks == 320
    assert wrong <= 3, f"{wrong} of {looks} looks"
    assert by_convention > 3 * (wrong + 1), "the index alone would have cried wolf: the simulation is able to show it"


def test_half_a_week_looks_like_drift_where_a_whole_one_does_not() -> None:
    """Why windows are whole weeks: five working days against weeks that have weekends too."""
    table = plant(1, 84 + 7)
    reference = [replace(profile, usual=replace(profile.usual, psi=0.0, wasserstein=0.0)) for profile in reference_of(days_of(table, 0, 84)) if profile.usual]
    weekend = days_of(table, 84 + 5, 84 + 7)
    assert "load_pct" in alarms(compare(reference, SCHEMA, weekend, BOUNDS))
    assert "load_pct" not in alarms(compare(reference, SCHEMA, days_of(table, 84, 91), BOUNDS))


def test_a_year_of_history_knows_the_seasons() -> None:
    table = plant(5, 364 + 84, yearly=8.0)
    reference = reference_of(days_of(table, 0, 364))
    for last in range(364 + 7, 364 + 85, 14):
        assert alarms(compare(reference, SCHEMA, days_of(table, last - 7, last), BOUNDS)) == set(), last


@pytest.mark.parametrize(
    ("name", "change", "changed"),
    [
        ("a sensor that reads too high", lambda rows: rows.assign(avg_temperature_c=rows["avg_temperature_c"] + 10), "avg_temperature_c"),
        ("another unit", lambda rows: rows.assign(vibration_mm_s=rows["vibration_mm_s"] * 25.4), "vibration_mm_s"),
        ("more errors", lambda rows: rows.assign(error_count=rows["error_count"] + 2), "error_count"),
        ("a sensor that is silent", lambda rows: rows.assign(vibration_mm_s=None), "vibration_mm_s"),
        ("new error codes", lambda rows: rows.assign(last_error_code="E9"), "last_error_code"),
        ("machines that stand still", lambda rows: rows.assign(is_running=False), "is_running"),
    ],
)
def test_a_real_change_is_found(name: str, change, changed: str) -> None:
    for seed in range(10):
        table = plant(seed, 84 + 7)
        found = compare(reference_of(days_of(table, 0, 84)), SCHEMA, change(days_of(table, 84, 91)), BOUNDS)
        assert alarms(found) == {changed}, f"{name}, plant {seed}"


def test_a_feature_that_moves_nothing_asks_for_nothing() -> None:
    table = plant(2, 84 + 7)
    idle = {name: 0.0 if name == "avg_temperature_c" else 1 / 7 for name in SCHEMA.names}
    warm = days_of(table, 84, 91).assign(avg_temperature_c=90.0)
    (found,) = (drift for drift in compare(reference_of(days_of(table, 0, 84), idle), SCHEMA, warm, BOUNDS) if drift.feature == "avg_temperature_c")
    assert found.has_drifted
    assert not found.counts


def test_light_features_count_where_they_move_together() -> None:
    """A sensor that stands behind a dozen features, none of which weighs enough by itself."""
    light = ("avg_temperature_c", "max_temperature_c", "vibration_mm_s", "error_count")
    weights = {name: 0.04 if name in light else 0.21 for name in SCHEMA.names}
    table = plant(2, 84 + 7)
    reference, week = reference_of(days_of(table, 0, 84), weights), days_of(table, 84, 91)
    three = week.assign(avg_temperature_c=90.0, max_temperature_c=95.0, error_count=9)
    found = compare(reference, SCHEMA, three, BOUNDS)
    assert {drift.feature for drift in found if drift.has_drifted} == {"avg_temperature_c", "max_temperature_c", "error_count"}
    assert alarms(found) == set(), "12 % of the predictions"
    assert at_stake(found) == 0
    four = compare(reference, SCHEMA, three.assign(vibration_mm_s=100.0), BOUNDS)
    assert alarms(four) == set(light)
    assert at_stake(four) == pytest.approx(0.16)


def test_two_weeks_do_not_know_what_is_usual() -> None:
    table = plant(2, 14 + 7)
    found = compare(reference_of(days_of(table, 0, 14)), SCHEMA, days_of(table, 14, 21).assign(avg_temperature_c=90.0), BOUNDS)
    assert any(drift.has_drifted for drift in found)
    assert alarms(found) == set()


def test_what_was_constant_or_unknown_has_a_distance_too() -> None:
    days = [FIRST + timedelta(days=number) for number in range(28)]
    schema = FeatureSchema((Feature("x"), Feature("y")))
    reference = profiles(schema, pd.DataFrame({"x": [4.0] * 28, "y": [None] * 28}), days, {"x": 0.5, "y": 0.5}, window_days=7)
    same = compare(reference, schema, pd.DataFrame({"x": [4.0] * 50, "y": [None] * 50}), BOUNDS)
    assert [drift.has_drifted for drift in same] == [False, False]
    below = compare(reference, schema, pd.DataFrame({"x": [3.0] * 50, "y": [1.0] * 50}), BOUNDS)
    assert [drift.counts for drift in below] == [True, True]
