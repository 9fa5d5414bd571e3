"""How many days until the machine fails next, or is found failing?

Asked every day of every machine, in quantiles: the median, and an interval that holds the outcome in nine of ten cases. The question ends after two weeks: 14
days are "14 or more", and an upper end of 14 promises nothing beyond. Further away no sensor of these machines knows more, and each day of the horizon costs
two of history between the parts. Machines are serviced meanwhile, so the answer is about their lives under the services that the plant gives them, not about a
machine that nobody touches.

A life ends with an entry of type `failure` in the maintenance log, or of type `prevented_failure`: a fault that the crew found and mended on a work order. The
machine would have run on for a while, so these lives are a little too short, the more the crew acts. To take the visit for a mere end of being seen would be
worse: the crew goes where failures are predicted, so what it mends would vanish from just the rows that look like failing, and the next model would learn that
they live long.
"""

from __future__ import annotations

from datetime import timedelta

from ml.lifecycle import use_case as lifecycle
from ml.lifecycle.dataset import DatasetSpec, Measure, OutcomeSource, Relation
from ml.lifecycle.monitoring import BY_HAND
from ml.lifecycle.quantiles import NaiveQuantiles, QuantileBoostingCandidate, QuantileTraining
from ml.lifecycle.report import QuantileReport, TrainingReport
from ml.lifecycle.use_case import UseCase
from ml.lifecycle.writeback import PredictionTarget
from ml.usecases.device_failure import DEVICE_FAILURE, FAILURE, FEATURES, SETTLING

HORIZON = timedelta(days=14)

REMAINING_LIFE = UseCase(
    name="remaining_life",
    question="How many days until the machine fails next, or is found failing, of at most 14?",
    dataset=DatasetSpec(
        features=DEVICE_FAILURE.dataset.features,
        outcome=OutcomeSource(
            relation=Relation("maintenance", "fct_maintenance_event"),
            time_column="occurred_at",
            condition=FAILURE,
            horizon=HORIZON,
            settling=SETTLING,
            measure=Measure.DAYS_UNTIL,
        ),
    ),
    training=QuantileTraining(
        schema=FEATURES,
        candidates=(QuantileBoostingCandidate(trees=100, depth=3), QuantileBoostingCandidate(trees=200, depth=4)),
    ),
    baselines=(
        NaiveQuantiles("lives by age and model", "What machines of the model and about this age had left.", "age_days", "model_name"),
        NaiveQuantiles("lives since maintenance", "What machines had left so long after their last repair or service.", "days_since_maintenance"),
        NaiveQuantiles("all lives", "What any machine had left on any day."),
    ),
    slice_by=("facility_id", "model_name"),
    target=PredictionTarget(Relation("predictions", "remaining_life"), ("remaining_life_p05_d", "remaining_life_p50_d", "remaining_life_p95_d")),
)


def train(because: str = BY_HAND) -> TrainingReport | QuantileReport:
    """Train on everything the warehouse knows; see `ml.lifecycle.use_case.train`."""
    return lifecycle.train(REMAINING_LIFE, because)


def score_champion() -> int:
    """Score what has changed with the champion and write to `predictions.remaining_life`; see `ml.lifecycle.use_case.score_champion`.

    Returns:
        Predictions written, 0 when nothing changed or no champion exists.
    """
    return lifecycle.score_champion(REMAINING_LIFE)


def score_shadows() -> int:
    """Score what has changed with the versions beside the champion; see `ml.lifecycle.use_case.score_shadows`."""
    return lifecycle.score_shadows(REMAINING_LIFE)
