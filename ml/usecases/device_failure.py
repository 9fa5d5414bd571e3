"""Will a machine fail within the next seven days?

Asked every day of every machine, with what was known by the end of the day (UTC). A failure is an entry of type `failure` in the maintenance log, or of type
`prevented_failure`: a fault that the crew found when it followed a work order. A repair or service that came before one is none. The probability feeds
`maintenance.rpt_maintenance_priority`.
"""

from __future__ import annotations

from datetime import timedelta

from ml.lifecycle import use_case as lifecycle
from ml.lifecycle.dataset import DatasetSpec, FeatureSource, OutcomeSource, Relation
from ml.lifecycle.evaluation import Baseline
from ml.lifecycle.monitoring import BY_HAND
from ml.lifecycle.report import QuantileReport, TrainingReport
from ml.lifecycle.schema import Feature, FeatureKind, FeatureSchema
from ml.lifecycle.training import GradientBoostingCandidate, LogisticRegressionCandidate, RandomForestCandidate, TrainingConfig
from ml.lifecycle.use_case import UseCase
from ml.lifecycle.writeback import PredictionTarget

HORIZON = timedelta(days=7)
# Log entries are up to three days late (the documented lateness of the sources): a window counts as complete only after them.
SETTLING = timedelta(days=3)

WINDOWED = (
    "vibration_rms_{days}d_mm_s",
    "max_vibration_{days}d_mm_s",
    "avg_temperature_{days}d_c",
    "max_temperature_{days}d_c",
    "avg_pressure_{days}d_hpa",
    "avg_load_{days}d_pct",
    "energy_{days}d_kwh",
    "runtime_{days}d_h",
    "error_count_{days}d",
    "fault_count_{days}d",
    "warning_count_{days}d",
    "running_share_{days}d",
    "error_event_count_{days}d",
)
LONG_TERM = (
    "vibration_rms_28d_mm_s",
    "avg_temperature_28d_c",
    "vibration_ratio_1d_to_28d",
    "vibration_ratio_7d_to_28d",
    "temperature_excess_1d_to_28d_c",
    "pressure_ratio_1d_to_28d",
    "vibration_kurtosis_1d",
    "vibration_kurtosis_7d",
    "vibration_crest_factor_1d",
    "vibration_crest_factor_7d",
    "vibration_rms_trend_7d_mm_s_per_d",
    "vibration_kurtosis_trend_7d_per_d",
    "vibration_crest_factor_trend_7d_per_d",
    "temperature_trend_7d_c_per_d",
    "pressure_trend_7d_hpa_per_d",
    "vibration_ratio_to_siblings_7d",
    "temperature_excess_to_siblings_7d_c",
    "load_excess_to_siblings_7d_pct",
    "error_event_excess_to_siblings_7d",
    "error_code_count_7d",
    "days_since_error_event",
    "days_since_reading",
    "days_since_failure",
    "days_since_maintenance",
    "runtime_since_maintenance_h",
    "component_count",
    "days_since_oldest_replacement",
    "days_since_newest_replacement",
    "failure_count_30d",
    "maintenance_count_30d",
    "overdue_maintenance_ratio",
    "maintenance_interval_days",
    "rated_power_kw",
    "age_days",
)
FEATURES = FeatureSchema(
    (
        *(Feature(name.format(days=days)) for days in (1, 3, 7) for name in WINDOWED),
        *(Feature(name) for name in LONG_TERM),
        Feature("error_codes_1d", FeatureKind.CATEGORY),
        Feature("last_error_code", FeatureKind.CATEGORY),
        Feature("oldest_component_code", FeatureKind.CATEGORY),
        Feature("model_name", FeatureKind.CATEGORY),  # model of the machine, not of the prediction
    )
)
CANDIDATES = (
    LogisticRegressionCandidate(inverse_regularisation=0.01),
    LogisticRegressionCandidate(inverse_regularisation=0.1),
    GradientBoostingCandidate(trees=150, depth=2),
    GradientBoostingCandidate(trees=150, depth=4),
    RandomForestCandidate(),
)
# A fault that the crew found and mended on a work order would have become a failure. Without it a model would learn that those it saved were never at risk.
FAILURE = {"maintenance_type": ("failure", "prevented_failure")}

DEVICE_FAILURE = UseCase(
    name="device_failure",
    question="Does the machine fail within the next 7 days?",
    dataset=DatasetSpec(
        features=FeatureSource(
            relation=Relation("features", "feat_device_daily"),  # holds machines only, see its header
            entity=("tenant_id", "device_id"),
            date_column="feature_date",
            schema=FEATURES,
            context=("facility_id",),
        ),
        outcome=OutcomeSource(
            relation=Relation("maintenance", "fct_maintenance_event"),
            time_column="occurred_at",
            condition=FAILURE,
            horizon=HORIZON,
            settling=SETTLING,
        ),
    ),
    training=TrainingConfig(
        schema=FEATURES,
        candidates=CANDIDATES,
    ),
    baselines=(
        Baseline("recent error count", "The more error codes in the last 7 days, the riskier.", "error_count_7d"),
        Baseline("recent error events", "The more error events in the last 7 days, the riskier.", "error_event_count_7d"),
        Baseline("time since maintenance", "The longer since the last repair or service, the riskier.", "days_since_maintenance"),
        Baseline("vibration against own norm", "The more the last 7 days shake against the last 28, the riskier.", "vibration_ratio_7d_to_28d"),
    ),
    slice_by=("facility_id", "model_name"),
    target=PredictionTarget(Relation("predictions", "device_failure"), ("failure_probability",)),
)


def train(because: str = BY_HAND) -> TrainingReport | QuantileReport:
    """Train on everything the warehouse knows, judge, register and promote if the gate allows it; see `ml.lifecycle.use_case.train`."""
    return lifecycle.train(DEVICE_FAILURE, because)


def score_champion() -> int:
    """Score what has changed with the champion and write to `predictions.device_failure`; see `ml.lifecycle.use_case.score_champion`.

    Returns:
        Predictions written, 0 when nothing changed or no champion exists.
    """
    return lifecycle.score_champion(DEVICE_FAILURE)


def score_shadows() -> int:
    """Score what has changed with the versions beside the champion; see `ml.lifecycle.use_case.score_shadows`."""
    return lifecycle.score_shadows(DEVICE_FAILURE)
