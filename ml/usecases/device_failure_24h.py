"""Will a machine fail within the next 24 hours?

The question of `device_failure` with a horizon of one day: for the crew of tomorrow morning, where seven days are for the week's plan. Predictions stand in a
table of their own, because what acts on a week's probability must not take a day's for it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from ml.lifecycle import use_case as lifecycle
from ml.lifecycle.dataset import Relation
from ml.lifecycle.evaluation import Baseline
from ml.lifecycle.monitoring import BY_HAND
from ml.lifecycle.report import QuantileReport, TrainingReport
from ml.lifecycle.writeback import PredictionTarget
from ml.usecases.device_failure import DEVICE_FAILURE

_WEEK = DEVICE_FAILURE.dataset

DEVICE_FAILURE_24H = replace(
    DEVICE_FAILURE,
    name="device_failure_24h",
    question="Does the machine fail within the next 24 hours?",
    dataset=replace(_WEEK, outcome=replace(_WEEK.outcome, horizon=timedelta(days=1))),
    baselines=(
        Baseline("recent error count", "The more error codes on the day, the riskier.", "error_count_1d"),
        Baseline("recent error events", "The more error events on the day, the riskier.", "error_event_count_1d"),
        Baseline("time since maintenance", "The longer since the last repair or service, the riskier.", "days_since_maintenance"),
    ),
    target=PredictionTarget(Relation("predictions", "device_failure_24h"), ("failure_probability",)),
)


def train(because: str = BY_HAND) -> TrainingReport | QuantileReport:
    """Train on everything the warehouse knows; see `ml.lifecycle.use_case.train`."""
    return lifecycle.train(DEVICE_FAILURE_24H, because)


def score_champion() -> int:
    """Score what has changed with the champion and write to `predictions.device_failure_24h`; see `ml.lifecycle.use_case.score_champion`.

    Returns:
        Predictions written, 0 when nothing changed or no champion exists.
    """
    return lifecycle.score_champion(DEVICE_FAILURE_24H)


def score_shadows() -> int:
    """Score what has changed with the versions beside the champion; see `ml.lifecycle.use_case.score_shadows`."""
    return lifecycle.score_shadows(DEVICE_FAILURE_24H)
