"""The way every use case goes: train, judge, register; score, write back."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from include.warehouse import Role, connect
from ml.lifecycle import evaluation
from ml.lifecycle.dataset import OUTCOME, Dataset, DatasetSpec, NotEnoughData, Part, TimeSplit, load_dataset, load_features, offered_columns, split_by_time
from ml.lifecycle.evaluation import Baseline
from ml.lifecycle.gate import ChampionResult, Gate
from ml.lifecycle.provenance import record_dataset, sources_of
from ml.lifecycle.registry import LoadedModel, ModelCard, Registry, library_versions
from ml.lifecycle.report import BaselineResult, PartSummary, TrainingReport
from ml.lifecycle.training import FittedModel, TrainingConfig, fit, probabilities
from ml.lifecycle.writeback import PredictionTarget, write_predictions

# Part of a training run's identity: raise it when fitting or judging changes, so that the same data is trained again.
LIFECYCLE_REVISION = 1
BOOTSTRAP_REPLICATES = 1000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UseCase:
    """A question asked of the warehouse every day, declared; the lifecycle does the rest."""

    name: str
    question: str
    dataset: DatasetSpec
    training: TrainingConfig
    baselines: tuple[Baseline, ...]
    slice_by: tuple[str, ...]
    target: PredictionTarget
    gate: Gate = field(default_factory=Gate)

    def __post_init__(self) -> None:
        if self.training.schema != self.dataset.features.schema:
            raise ValueError(f"use case {self.name}: training and data set must name the same features")
        if not self.baselines:
            raise ValueError(f"use case {self.name}: name the naive ranking that a sceptic would use")


@dataclass
class _Stopwatch:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 2)


def train(use_case: UseCase) -> TrainingReport:
    """Fit, judge on the test part (once), register, and make the model champion if the gate lets it.

    A run over the same data, configuration and libraries finds its version again, registers nothing and returns the stored report.

    Raises:
        FeatureSchemaMismatch: If the warehouse does not offer the features.
        DatasetUntraceable: If nobody can say what the features were made of.
        NotEnoughData: If a part of the split has too few positives.
        WarehouseUnavailable: If the warehouse cannot be reached.
    """
    watch = _Stopwatch()
    with watch.step("open registry"):
        registry = Registry(use_case.name)
        champion = registry.champion()
    with watch.step("read data set"), connect(Role.ML) as connection:
        # One snapshot: the rows, and what the tables they stand in were made of.
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        dataset = load_dataset(connection, _with_columns_of(connection, use_case.dataset, champion))
        sources = sources_of(connection, use_case.dataset)
    split = split_by_time(dataset.dates, gap=use_case.dataset.outcome.horizon, shares=use_case.training.shares)
    outcome = dataset.frame[OUTCOME].to_numpy(dtype=np.int_)
    rows = {part.name: part.rows(dataset.dates) for part in split.parts}
    summaries = tuple(_summarise(dataset, part, rows[part.name]) for part in split.parts)
    _require_positives(use_case, summaries)

    snapshot = _identity(use_case, dataset)
    known = registry.find(snapshot)
    if known is not None:
        report = TrainingReport.from_json(registry.report(known))
        # Completes a run that died between registering and promoting; never takes the place of a newer champion.
        if report.gate.passed and known > (registry.champion_version() or 0):
            registry.promote(known)
        report.write()
        return report

    with watch.step("fit"):
        model = fit(
            use_case.training,
            dataset.frame[rows[split.train.name]],
            outcome[rows[split.train.name]],
            dataset.frame[rows[split.validation.name]],
            outcome[rows[split.validation.name]],
        )
    with watch.step("judge"):
        findings = _judge(use_case, dataset, split, rows, outcome, model, champion)
    with registry.run(f"{use_case.name} until {dataset.known_until:%Y-%m-%d}") as run:
        with watch.step("register"):
            inputs = use_case.training.schema.frame(dataset.frame[rows[split.test.name]].head(5))
            version, model_sha256 = run.log_model(model.estimator, inputs)
            with connect(Role.ML) as connection:
                reference = record_dataset(connection, use_case.name, dataset, sources)
        report = TrainingReport(
            use_case=use_case.name,
            question=use_case.question,
            model_version=version,
            snapshot=snapshot,
            known_until=dataset.known_until,
            gap_days=split.gap.days,
            parts=summaries,
            rows_in_gaps=len(dataset.frame) - sum(summary.rows for summary in summaries),
            rows_without_complete_outcome=dataset.incomplete_rows,
            candidate=model.candidate,
            validation_pr_auc=dict(model.validation_pr_auc),
            libraries=library_versions(),
            seconds=dict(watch.seconds),
            dataset=reference,
            **findings,
        )
        params = {
            "candidate": model.candidate,
            "seed": use_case.training.seed,
            "snapshot": snapshot,
            "features": len(use_case.training.schema.features),
            "dataset_id": reference.dataset_id,
        }
        run.log(params=params, metrics=report.metrics(), config=use_case.training.to_dict())
        schema, learned_until, scores_from = use_case.training.schema, split.validation.last, split.test.first
        run.complete(version, report.to_json(), ModelCard(snapshot, schema, learned_until, scores_from, model_sha256, reference.dataset_id))
    if report.gate.passed:
        registry.promote(version)
    report.write()
    return report


def score(use_case: UseCase, feature_date_from: date | None = None) -> int:
    """Score the population's feature rows with the champion and write the predictions back; fits nothing.

    Days whose outcomes the champion has learned from are never scored: such a prediction would look better than the model is.

    Args:
        use_case: What to score.
        feature_date_from: First day; by default every day that the champion has not learned from.

    Returns:
        Predictions written: 0 when nothing changed since the last run, and when there is no champion yet.

    Raises:
        FeatureSchemaMismatch: If the warehouse does not offer the champion's features.
        ModelUnusable: If the champion's file is not the registered one.
        WarehouseUnavailable: If the warehouse cannot be reached.
    """
    model = Registry(use_case.name).champion()
    if model is None:
        logger.warning("no version of %s has passed the gate yet: nothing is scored; train first (DAG train_%s)", use_case.name, use_case.name)
        return 0
    date_from = max(feature_date_from or model.card.scores_from, model.card.scores_from)
    source = replace(use_case.dataset.features, schema=model.card.schema, context=())
    with connect(Role.ML) as connection:
        rows = load_features(connection, source, date_from=date_from)
        values = probabilities(model.estimator, model.card.schema, rows)
        return write_predictions(connection, use_case.target, source, model, rows, values, horizon=use_case.dataset.outcome.horizon, date_from=date_from)


def _judge(
    use_case: UseCase,
    dataset: Dataset,
    split: TimeSplit,
    rows: dict[str, NDArray[np.bool_]],
    outcome: NDArray[np.int_],
    model: FittedModel,
    champion: LoadedModel | None,
) -> dict[str, Any]:
    """Every figure of the report that rests on the test part."""
    in_validation, in_test = rows[split.validation.name], rows[split.test.name]
    validation, test = dataset.frame[in_validation], dataset.frame[in_test]
    truth = outcome[in_test]
    predicted = probabilities(model.estimator, use_case.training.schema, test)
    baselines = tuple(
        BaselineResult(
            name=baseline.name,
            description=baseline.description,
            pr_auc_validation=evaluation.pr_auc(outcome[in_validation], baseline.scores(validation)),
            pr_auc_test=evaluation.pr_auc(truth, baseline.scores(test)),
        )
        for baseline in use_case.baselines
    )
    # The strongest naive ranking, chosen as a sceptic would have to: before seeing the test part.
    best = max(range(len(baselines)), key=lambda index: baselines[index].pr_auc_validation)
    naive = use_case.baselines[best].scores(test)
    blocks = list(test[list(use_case.dataset.features.entity)].itertuples(index=False, name=None))
    difference = evaluation.bootstrap_difference(truth, predicted, naive, blocks, replicates=BOOTSTRAP_REPLICATES, seed=use_case.training.seed)
    rival, because = _judge_champion(champion, dataset, in_test, outcome, predicted)
    share_before = float(outcome[rows[split.train.name] | in_validation].mean())
    brier_model, brier_prevalence = evaluation.brier(truth, predicted), evaluation.brier(truth, np.full(len(truth), share_before))
    by_slice = evaluation.slices(test, use_case.slice_by, truth, predicted, naive)
    lost = [f"{result.dimension} = {result.value}" for result in by_slice if result.is_lost]
    lost += ["calibration: a constant probability has the smaller Brier score"] if brier_model > brier_prevalence else []
    return {
        "pr_auc_model": evaluation.pr_auc(truth, predicted),
        "baseline_name": baselines[best].name,
        "pr_auc_baseline": baselines[best].pr_auc_test,
        "prevalence": float(truth.mean()),
        "difference": difference,
        "baselines": baselines,
        "brier_model": brier_model,
        "brier_prevalence": brier_prevalence,
        "calibration": evaluation.calibration(truth, predicted),
        "slices": by_slice,
        "loses_on": tuple(lost),
        "champion": rival,
        "gate": use_case.gate.decide(difference, baselines[best].name, rival, because),
    }


def _judge_champion(
    champion: LoadedModel | None, dataset: Dataset, in_test: NDArray[np.bool_], outcome: NDArray[np.int_], predicted: NDArray[np.float64]
) -> tuple[ChampionResult | None, str]:
    if champion is None:
        return None, "there is no champion yet"
    lost = [name for name in champion.card.schema.names if name not in dataset.frame.columns]
    if lost:
        return None, f"the champion (version {champion.version}) can score no more, its features {', '.join(lost)} are gone"
    unseen = in_test & np.array([day >= champion.card.scores_from for day in dataset.dates], dtype=bool)
    truth = outcome[unseen]
    if not truth.any():
        return None, f"the champion (version {champion.version}) has learned from the whole test part"
    by_champion = probabilities(champion.estimator, champion.card.schema, dataset.frame[unseen])
    result = ChampionResult(
        version=champion.version,
        rows=int(unseen.sum()),
        positives=int(truth.sum()),
        pr_auc=evaluation.pr_auc(truth, by_champion),
        challenger_pr_auc=evaluation.pr_auc(truth, predicted[unseen[in_test]]),
    )
    return result, ""


def _with_columns_of(connection: psycopg.Connection[Any], spec: DatasetSpec, champion: LoadedModel | None) -> DatasetSpec:
    """Also read the features that only the champion uses, so that both are judged on the same rows."""
    if champion is None:
        return spec
    offered = offered_columns(connection, spec.features.relation)
    extra = tuple(name for name in champion.card.schema.names if name in offered)
    return replace(spec, features=replace(spec.features, context=tuple(dict.fromkeys((*spec.features.context, *extra)))))


def _summarise(dataset: Dataset, part: Part, rows: NDArray[np.bool_]) -> PartSummary:
    entity = list(dataset.spec.features.entity)
    frame = dataset.frame[rows]
    positive = frame[frame[OUTCOME].astype(int) == 1]
    return PartSummary(
        part.name, part.first, part.last, len(frame), len(positive), len(frame[entity].drop_duplicates()), len(positive[entity].drop_duplicates())
    )


def _require_positives(use_case: UseCase, summaries: tuple[PartSummary, ...]) -> None:
    needed = use_case.training.min_positives
    short = [summary for summary in summaries if summary.positives < needed or summary.positives == summary.rows]
    if short:
        found = ", ".join(f"{summary.name} {summary.first} to {summary.last}: {summary.positives} of {summary.rows} rows" for summary in summaries)
        raise NotEnoughData(
            f"{use_case.name} cannot be trained: each part needs at least {needed} positive rows and some negative ones, found {found}. Land more history."
        )


def _identity(use_case: UseCase, dataset: Dataset) -> str:
    parts = {"revision": LIFECYCLE_REVISION, "data": dataset.content_hash, "use_case": repr(use_case), "libraries": library_versions()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
