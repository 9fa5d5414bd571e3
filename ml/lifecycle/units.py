"""Use cases of tables that people bring (streams unit_readings and unit_lives): a data set, the columns to learn from, and what a sceptic would say.

A data set is a tenant. Features are names of the table's own columns, or one of those with what the unit's own past makes of it: `_mean_5`, `_mean_20`,
`_trend_20`, `_change` (doc block unit_values); and `cycle`. A cycle counts as a day. Units know no common calendar, so whole units are dealt out to train,
validation and test.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from ml.lifecycle.dataset import DatasetSpec, FeatureSource, Measure, OutcomeSource, Relation, SplitBy
from ml.lifecycle.evaluation import Baseline
from ml.lifecycle.quantiles import NaiveQuantiles, QuantileBoostingCandidate, QuantileTraining
from ml.lifecycle.schema import Feature, FeatureKind, FeatureSchema
from ml.lifecycle.training import GradientBoostingCandidate, LogisticRegressionCandidate, RandomForestCandidate, TrainingConfig
from ml.lifecycle.use_case import UseCase
from ml.lifecycle.writeback import PredictionTarget

SHARES = (0.6, 0.2, 0.2)  # of the units
LIFE_COLUMNS = ("remaining_life_p05_d", "remaining_life_p50_d", "remaining_life_p95_d")


def unit_life(
    name: str, *, data_set: str, numbers: Sequence[str], categories: Sequence[str] = (), horizon_cycles: int, scores: Sequence[str] = (), slice_by: str = ""
) -> UseCase:
    """How many cycles does a unit have left, of at most so many?

    Args:
        name: Of the use case; its predictions carry it as model_name in `predictions.unit_life`.
        data_set: The tenant to learn from. Units whose rows break off without a failure count as long as they were seen.
        numbers: Features that are numbers.
        categories: Features that are texts.
        horizon_cycles: Where the question ends: a longer life is "so many or more". Far from failure no sensor knows more.
        scores: Tenants that are scored, such as a table of units to test on; the data set itself if empty.
        slice_by: A category by which the report is sliced; none if empty.
    """
    schema = _schema(numbers, categories)
    by_cycle = NaiveQuantiles("lives by cycle", "What units that had made about so many cycles had left.", "cycle")
    return UseCase(
        name=name,
        question=f"How many cycles does the unit have left, of at most {horizon_cycles}?",
        dataset=_dataset(schema, data_set, horizon_cycles, Measure.DAYS_UNTIL, ("cycle",)),
        training=QuantileTraining(schema, (QuantileBoostingCandidate(trees=200, depth=4), QuantileBoostingCandidate(trees=200, depth=6)), shares=SHARES),
        baselines=(by_cycle, NaiveQuantiles("all lives", "What any unit had left in any cycle.")),
        slice_by=(slice_by,) if slice_by else (),
        target=PredictionTarget(Relation("predictions", "unit_life"), LIFE_COLUMNS),
        scores={"tenant_id": tuple(scores)} if scores else None,
    )


def unit_failure(
    name: str,
    *,
    data_set: str,
    numbers: Sequence[str],
    categories: Sequence[str] = (),
    baselines: Sequence[Baseline],
    horizon_cycles: int = 1,
    scores: Sequence[str] = (),
    slice_by: str = "",
) -> UseCase:
    """Does a unit fail within so many cycles? Of a labelled table with one row a unit: does its label say so?

    Args:
        name: Of the use case; its predictions carry it as model_name in `predictions.unit_failure`.
        data_set: The tenant to learn from.
        numbers: Features that are numbers.
        categories: Features that are texts.
        baselines: What a sceptic would rank by, such as the tool's wear.
        horizon_cycles: 1 for a label of the row itself.
        scores: Tenants that are scored; the data set itself if empty.
        slice_by: A category by which the report is sliced; none if empty.
    """
    schema = _schema(numbers, categories)
    candidates = (LogisticRegressionCandidate(), GradientBoostingCandidate(trees=200, depth=4), RandomForestCandidate())
    return UseCase(
        name=name,
        question="Does the unit fail?" if horizon_cycles == 1 else f"Does the unit fail within {horizon_cycles} cycles?",
        dataset=_dataset(schema, data_set, horizon_cycles, Measure.HAPPENED, tuple(baseline.column for baseline in baselines)),
        training=TrainingConfig(schema, candidates, shares=SHARES),
        baselines=tuple(baselines),
        slice_by=(slice_by,) if slice_by else (),
        target=PredictionTarget(Relation("predictions", "unit_failure"), ("failure_probability",)),
        scores={"tenant_id": tuple(scores)} if scores else None,
    )


def _schema(numbers: Sequence[str], categories: Sequence[str]) -> FeatureSchema:
    return FeatureSchema((*(Feature(name) for name in numbers), *(Feature(name, FeatureKind.CATEGORY) for name in categories)))


def _dataset(schema: FeatureSchema, data_set: str, horizon_cycles: int, measure: Measure, context: tuple[str, ...]) -> DatasetSpec:
    return DatasetSpec(
        features=FeatureSource(
            relation=Relation("features", "feat_unit_daily"),
            entity=("tenant_id", "unit_id"),
            date_column="feature_date",
            schema=schema,
            population={"tenant_id": (data_set,)},
            context=context,
            values="unit_values",
        ),
        outcome=OutcomeSource(
            relation=Relation("maintenance", "fct_unit_failure"),
            time_column="occurred_at",
            condition={},
            horizon=timedelta(days=horizon_cycles),
            measure=measure,
            is_closed=True,
        ),
        split_by=SplitBy.ENTITY,
    )
