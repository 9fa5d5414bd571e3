"""Which component of a machine is at risk: does it fail within the next seven days?

Asked every day of every component that the maintenance log of a machine has named. The component with the greatest probability is the one to look at first.
"""

from __future__ import annotations

from datetime import timedelta

from ml.lifecycle import use_case as lifecycle
from ml.lifecycle.dataset import DatasetSpec, FeatureSource, OutcomeSource, Relation
from ml.lifecycle.evaluation import Baseline
from ml.lifecycle.monitoring import BY_HAND
from ml.lifecycle.report import QuantileReport, TrainingReport
from ml.lifecycle.schema import Feature, FeatureKind, FeatureSchema
from ml.lifecycle.training import TrainingConfig
from ml.lifecycle.use_case import UseCase
from ml.lifecycle.writeback import PredictionTarget
from ml.usecases.device_failure import CANDIDATES, FAILURE, SETTLING

NUMBERS = (
    "days_since_replacement",
    "days_since_component_failure",
    "replacement_count",
    "component_failure_count",
    "avg_replacement_interval_days",
    "age_days",
    "vibration_rms_1d_mm_s",
    "vibration_ratio_1d_to_28d",
    "vibration_ratio_7d_to_28d",
    "vibration_kurtosis_1d",
    "vibration_crest_factor_1d",
    "vibration_rms_trend_7d_mm_s_per_d",
    "vibration_ratio_to_siblings_7d",
    "temperature_excess_1d_to_28d_c",
    "temperature_trend_7d_c_per_d",
    "temperature_excess_to_siblings_7d_c",
    "pressure_ratio_1d_to_28d",
    "pressure_trend_7d_hpa_per_d",
    "avg_load_7d_pct",
    "runtime_7d_h",
    "error_count_1d",
    "error_count_7d",
    "fault_count_7d",
    "error_event_count_1d",
    "error_event_count_3d",
    "error_event_count_7d",
    "days_since_error_event",
    "days_since_maintenance",
)
FEATURES = FeatureSchema(
    (
        *(Feature(name) for name in NUMBERS),
        Feature("is_oldest_component", FeatureKind.FLAG),
        Feature("component_code", FeatureKind.CATEGORY),
        # Which errors announce which component: a linear model cannot find that out from the two apart.
        Feature("component_error_codes_1d", FeatureKind.CATEGORY),
        Feature("last_error_code", FeatureKind.CATEGORY),
        Feature("model_name", FeatureKind.CATEGORY),
    )
)

COMPONENT_FAILURE = UseCase(
    name="component_failure",
    question="Does the component fail within the next 7 days?",
    dataset=DatasetSpec(
        features=FeatureSource(
            relation=Relation("features", "feat_component_daily"),
            entity=("tenant_id", "device_id", "component_code"),
            date_column="feature_date",
            schema=FEATURES,
            context=("facility_id",),
            block=("tenant_id", "device_id"),  # vibration, errors and age are the machine's
        ),
        outcome=OutcomeSource(
            relation=Relation("maintenance", "fct_maintenance_event"),
            time_column="occurred_at",
            condition=FAILURE,
            horizon=timedelta(days=7),
            settling=SETTLING,
        ),
    ),
    training=TrainingConfig(schema=FEATURES, candidates=CANDIDATES),
    baselines=(
        Baseline("age of the component", "The longer since its replacement, the riskier.", "days_since_replacement"),
        Baseline("recent error count", "The more error codes of the machine in the last 7 days, the riskier.", "error_count_7d"),
        Baseline("recent error events", "The more error events of the machine in the last 7 days, the riskier.", "error_event_count_7d"),
    ),
    slice_by=("component_code", "model_name"),
    target=PredictionTarget(Relation("predictions", "component_failure"), ("failure_probability",)),
)


def train(because: str = BY_HAND) -> TrainingReport | QuantileReport:
    """Train on everything the warehouse knows; see `ml.lifecycle.use_case.train`."""
    return lifecycle.train(COMPONENT_FAILURE, because)


def score_champion() -> int:
    """Score what has changed with the champion and write to `predictions.component_failure`; see `ml.lifecycle.use_case.score_champion`.

    Returns:
        Predictions written, 0 when nothing changed or no champion exists.
    """
    return lifecycle.score_champion(COMPONENT_FAILURE)


def score_shadows() -> int:
    """Score what has changed with the versions beside the champion; see `ml.lifecycle.use_case.score_shadows`."""
    return lifecycle.score_shadows(COMPONENT_FAILURE)
