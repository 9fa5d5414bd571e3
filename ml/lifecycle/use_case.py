"""The way every use case goes: train, judge, register; score, write back."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray

from include.landing.crash import crash_point
from include.settings import get_settings
from include.warehouse import Role, connect
from ml.lifecycle.champions import GATE, champion_version, lock_champion, make_champion
from ml.lifecycle.dataset import (
    IS_KNOWN,
    OUTCOME,
    Dataset,
    DatasetSpec,
    Measure,
    NotEnoughData,
    SplitBy,
    count_features,
    entities_of,
    load_dataset,
    load_features,
    offered_names,
)
from ml.lifecycle.evaluation import Baseline
from ml.lifecycle.explain import QuantileScorer, Scorer
from ml.lifecycle.following import move_position, read_news, spans
from ml.lifecycle.gate import Gate, GateDecision
from ml.lifecycle.judging import Rival, judge
from ml.lifecycle.monitoring import BY_HAND, Monitoring, Reference, answer_requests, enter_reference, make_reference, with_test
from ml.lifecycle.provenance import record_dataset, sources_of
from ml.lifecycle.quantile_judging import judge_quantiles, lives
from ml.lifecycle.quantiles import FittedQuantiles, NaiveQuantiles, QuantileTraining, fit_quantiles
from ml.lifecycle.registry import Registry, code_version, library_versions
from ml.lifecycle.report import PartSummary, QuantileReport, TrainingReport, read_report
from ml.lifecycle.schema import FeatureSchemaMismatch
from ml.lifecycle.search import search_folds
from ml.lifecycle.splitting import Part, TimeSplit, split_by_entity, split_by_time
from ml.lifecycle.steps import LifecycleStep
from ml.lifecycle.training import FittedModel, TrainingConfig, fit
from ml.lifecycle.versions import (
    MODEL_FILE,
    LoadedModel,
    ModelCard,
    ModelUnreadable,
    ModelUnusable,
    StoredVersion,
    enter_version,
    find_snapshot,
    find_version,
    versions,
)
from ml.lifecycle.writeback import Predictions, PredictionTarget, lock_predictions, write_predictions

# Part of a training run's identity: raise it when fitting or judging changes, so that the same data is trained again.
LIFECYCLE_REVISION = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UseCase:
    """A question asked of the warehouse every day, declared; the lifecycle does the rest.

    What the outcome measures decides the kind of model: a calibrated probability (`TrainingConfig`, `Baseline`) of an event that happened, or quantiles
    (`QuantileTraining`, `NaiveQuantiles`) of the days until it does.
    """

    name: str
    question: str
    dataset: DatasetSpec
    training: TrainingConfig | QuantileTraining
    baselines: tuple[Baseline, ...] | tuple[NaiveQuantiles, ...]
    slice_by: tuple[str, ...]
    target: PredictionTarget
    gate: Gate = field(default_factory=Gate)
    scores: Mapping[str, tuple[str, ...]] | None = None  # population that is scored: column → values; None: the one that is learned from
    shadows: int = field(default=1, repr=False)  # newest versions that score beside the champion; decides nothing about a training run
    monitoring: Monitoring = field(default_factory=Monitoring, repr=False)  # nor does how the champion is watched

    def __post_init__(self) -> None:
        if self.training.schema != self.dataset.features.schema:
            raise ValueError(f"use case {self.name}: training and data set must name the same features")
        if not self.baselines:
            raise ValueError(f"use case {self.name}: name the naive ranking that a sceptic would use")
        if self.dataset.outcome.measure is Measure.DAYS_UNTIL:
            fitting, naive, values = QuantileTraining, NaiveQuantiles, 3
        else:
            fitting, naive, values = TrainingConfig, Baseline, 1  # type: ignore[assignment]
        if not isinstance(self.training, fitting) or not all(isinstance(baseline, naive) for baseline in self.baselines):
            needed = f"{fitting.__name__} and {naive.__name__}"
            raise ValueError(f"use case {self.name}: an outcome of kind {self.dataset.outcome.measure} is trained by {needed}")
        if isinstance(self.training, QuantileTraining) and self.monitoring.performance.coverage != self.training.nominal:
            watched = self.monitoring.performance.coverage
            raise ValueError(f"use case {self.name}: its intervals promise {self.training.nominal:g}, but monitoring is told that they promise {watched:g}")
        if len(self.target.value_columns) != values:
            raise ValueError(f"use case {self.name}: {self.target.relation} needs {values} columns of values, got {self.target.value_columns}")


@dataclass
class _Stopwatch:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 2)


def train(use_case: UseCase, because: str = BY_HAND) -> TrainingReport | QuantileReport:
    """Fit, judge on the test part (once), register, and make the model champion if the gate lets it.

    A run over the same data, configuration and libraries finds its version again, registers nothing and returns the stored report. The version and its reign
    are one transaction, so a run that dies leaves both or neither; what is left over in MLflow then is a version that nobody reads. What monitoring has asked
    for until now is answered by it.

    Args:
        use_case: What to train.
        because: Why, for the version's line.

    Raises:
        FeatureSchemaMismatch: If the warehouse does not offer the features.
        DatasetUntraceable: If nobody can say what the features were made of.
        NotEnoughData: If a part of the split has too few positives.
        ModelUnreadable: If the champion's file cannot be read at the moment.
        WarehouseUnavailable: If the warehouse cannot be reached.
    """
    watch = _Stopwatch()
    with watch.step("open registry"):
        registry = Registry(use_case.name)
        with connect(Role.ML) as connection:
            _adopt_old_versions(connection, registry)
            rival = _rival(connection, use_case)
        registry.follow()
    with watch.step("read data set"), connect(Role.ML) as connection:
        # One snapshot: the rows, and what the tables they stand in were made of.
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        dataset = load_dataset(connection, with_columns_of(connection, use_case.dataset, rival.model))
        sources = sources_of(connection, use_case.dataset)
    split, rows = _split(use_case, dataset)
    summaries = tuple(_summarise(dataset, part, rows[part.name]) for part in split.parts)
    _require_positives(use_case, summaries)

    snapshot = _identity(use_case, dataset)
    with connect(Role.ML) as connection:
        known = find_snapshot(connection, use_case.name, snapshot)
        taken = max((version.version for version in versions(connection, use_case.name)), default=0)
        if known is not None and known.report is not None:
            answer_requests(connection, use_case.name, known.version)
    if known is not None and known.report is not None:
        report = read_report(known.report)
        report.write()
        return report

    with watch.step("fit"):
        model = _fit(use_case, dataset, split, rows)
    with watch.step("judge"):
        findings = _judge(use_case, dataset, split, rows, model, rival)
    with watch.step("describe for monitoring"):
        watched = _reference(use_case, dataset, rows[split.train.name] | rows[split.validation.name], rows[split.test.name], model)
    with registry.run(f"{use_case.name} until {dataset.known_until:%Y-%m-%d}") as run:
        with watch.step("register"):
            inputs = use_case.training.schema.frame(dataset.frame[rows[split.test.name]].head(5))
            version, file, model_sha256 = run.log_model(model.estimator, inputs, snapshot, taken=taken)
            crash_point(LifecycleStep.TRAIN_AFTER_FILE)
            with connect(Role.ML) as connection:
                reference = record_dataset(connection, use_case.name, dataset, sources)
        kind: type[TrainingReport | QuantileReport] = QuantileReport if isinstance(model, FittedQuantiles) else TrainingReport
        report = kind(
            use_case=use_case.name,
            question=use_case.question,
            model_version=version,
            snapshot=snapshot,
            known_until=dataset.known_until,
            gap_days=split.gap.days,
            parts=summaries,
            rows_in_gaps=len(dataset.frame) - sum(summary.rows for summary in summaries),
            rows_without_complete_outcome=dataset.incomplete_rows,
            rows_of_departed=dataset.departed_rows,
            candidate=model.candidate,
            search=model.search,
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
            "data_window": f"{summaries[0].first} to {summaries[-1].last}",
            "known_until": dataset.known_until.isoformat(),
            "code_version": code_version(),
            "libraries": json.dumps(library_versions()),
        }
        run.log(params=params, metrics=report.metrics(), config=use_case.training.to_dict())
        learned, scores_from = None, split.test.first
        if use_case.dataset.split_by is SplitBy.ENTITY:
            seen = dataset.frame[rows[split.train.name] | rows[split.validation.name]]
            # Nothing earlier has been learned from: other entities, of whatever day, are news.
            learned, scores_from = frozenset(entities_of(use_case.dataset.features, seen)), date.min
        card = ModelCard(snapshot, use_case.training.schema, split.validation.last, scores_from, model_sha256, reference.dataset_id, learned)
        with connect(Role.ML) as connection:
            trained = StoredVersion(use_case.name, version, card, file, None, report.gate, trained_because=because)
            report = _register(connection, trained, report, rival, watched)
        run.log_report(report.to_json())
    registry.follow()
    report.write()
    return report


def score(use_case: UseCase, feature_date_from: date | None = None) -> int:
    """Score the champion and the versions in its shadow; see `score_champion` and `score_shadows`.

    Returns:
        Predictions of the champion that were written.

    Raises:
        FeatureSchemaMismatch: If the warehouse does not offer the champion's features.
        ModelUnusable: If the champion's file is not the registered one, or cannot be loaded.
        WarehouseUnavailable: If the warehouse cannot be reached.
    """
    written = score_champion(use_case, feature_date_from)
    score_shadows(use_case, feature_date_from)
    return written


def score_champion(use_case: UseCase, feature_date_from: date | None = None) -> int:
    """Score the population's feature rows with the champion and write the predictions back; fits nothing.

    Days, or entities, whose outcomes a version has learned from are never scored by it: such a prediction would look better than the model is.

    Args:
        use_case: What to score.
        feature_date_from: Read every day from this one on, whatever has changed; by default what has changed since the version last scored.

    Returns:
        Predictions that were written: 0 when nothing changed since the last run, and when there is no champion yet.

    Raises:
        FeatureSchemaMismatch: If the warehouse does not offer the champion's features.
        ModelUnusable: If the champion's file is not the registered one, or cannot be loaded.
        WarehouseUnavailable: If the warehouse cannot be reached.
    """
    with connect(Role.ML) as connection:
        # The first scoring after an upgrade.
        if not versions(connection, use_case.name) and any((get_settings().home / "mlflow" / use_case.name).rglob(MODEL_FILE)):
            _adopt_old_versions(connection, Registry(use_case.name))
        champion = champion_version(connection, use_case.name)
        if champion is None:
            logger.warning("no version of %s has passed the gate yet: it is not scored; train first (DAG train_%s)", use_case.name, use_case.name)
            return 0
        return score_version(connection, use_case, find_version(connection, use_case.name, champion).load(), feature_date_from)


def score_shadows(use_case: UseCase, feature_date_from: date | None = None) -> int:
    """Score with the newest versions beside the champion, in its shadow: their rows are marked by their version and nobody acts on them.

    A shadow that cannot score, for whatever reason, is said in the log and keeps nobody else from scoring.

    Args:
        use_case: What to score.
        feature_date_from: As of `score_champion`.

    Returns:
        Predictions that were written.

    Raises:
        WarehouseUnavailable: If the warehouse cannot be reached.
    """
    written = 0
    with connect(Role.ML) as connection:
        champion = champion_version(connection, use_case.name)
        shadows = [version for version in versions(connection, use_case.name) if version.version != champion][: use_case.shadows]
        for shadow in shadows:
            crash_point(LifecycleStep.SCORE_BEFORE_SHADOW)
            try:
                count = score_version(connection, use_case, shadow.load(), feature_date_from)
            except Exception as error:
                connection.rollback()
                is_expected = isinstance(error, (ModelUnusable, FeatureSchemaMismatch))
                message = "version %s of %s does not score in the shadow of the champion: %s"
                logger.warning(message, shadow.version, use_case.name, error, exc_info=None if is_expected else error)
            else:
                logger.info("version %s of %s scored in the shadow of the champion: %s rows", shadow.version, use_case.name, count)
                written += count
    return written


def score_version(connection: psycopg.Connection[Any], use_case: UseCase, model: LoadedModel, feature_date_from: date | None = None) -> int:
    """Score with one version, whoever is champion, and write its predictions; see `score_champion`.

    It reads what has changed since it last scored, a span of days at a time, each a transaction; the last one moves its position. A run that dies
    leaves the position where it was, so the next one reads the same again and writes what is missing.

    Args:
        connection: Of the role that scores; committed here.
        use_case: What to score.
        model: A version of it.
        feature_date_from: Read every day from this one on, and leave the position where it is.

    Returns:
        Predictions written.

    Raises:
        FeatureSchemaMismatch: If the warehouse does not offer the features.
    """
    date_from = max(feature_date_from or model.card.scores_from, model.card.scores_from)
    source = replace(use_case.dataset.features, schema=model.card.schema, context=())
    if use_case.scores is not None:
        source = replace(source, population=use_case.scores)
    horizon = use_case.dataset.outcome.horizon
    news = None
    if feature_date_from is None:
        news = read_news(connection, source, model.name, model.version, (date_from, horizon, use_case.target))
    touched = news.touched if news is not None else None
    days = spans(count_features(connection, source, date_from=date_from, touched=touched), date_from)
    connection.commit()

    def predict(some: pd.DataFrame) -> Predictions:
        scored = model.scorer.score(some)
        return Predictions(scored.values, scored.contributions)

    written = 0
    for first, last in days:
        with connection.transaction():
            lock_predictions(connection, use_case.target)
            rows = load_features(connection, source, date_from=first, date_to=last, touched=touched)
            if (learned := model.card.learned_entities) is not None:
                rows = rows[np.array([key not in learned for key in entities_of(source, rows)], dtype=bool)].reset_index(drop=True)
            written += write_predictions(
                connection, use_case.target, source, model, rows, predict, horizon=horizon, date_from=first, date_to=last, touched=touched
            )
            if news is not None and (first, last) == days[-1]:
                crash_point(LifecycleStep.SCORE_BEFORE_POSITION)
                move_position(connection, source, model.name, model.version, news)
            crash_point(LifecycleStep.SCORE_BEFORE_COMMIT)
        crash_point(LifecycleStep.SCORE_AFTER_COMMIT)
    return written


def with_columns_of(connection: psycopg.Connection[Any], spec: DatasetSpec, *models: LoadedModel | None) -> DatasetSpec:
    """Also read the features that only other versions use, so that all are judged on the same rows."""
    offered = offered_names(connection, spec.features)
    extra = [name for model in models if model is not None for name in model.card.schema.names if name in offered]
    return replace(spec, features=replace(spec.features, context=tuple(dict.fromkeys((*spec.features.context, *extra)))))


def _rival(connection: psycopg.Connection[Any], use_case: UseCase) -> Rival:
    """The champion to be beaten. One that can score no more defends nothing, and the report says why.

    Raises:
        ModelUnreadable: If its file cannot be read at the moment: it may be there again tomorrow.
    """
    version = champion_version(connection, use_case.name)
    if version is None:
        return Rival(None, None, "there is no champion yet")
    try:
        return Rival(version, find_version(connection, use_case.name, version).load(), "")
    except ModelUnreadable:
        raise
    except ModelUnusable as error:
        return Rival(version, None, f"the champion can score no more: {error}")


def _split(use_case: UseCase, dataset: Dataset) -> tuple[TimeSplit, dict[str, NDArray[np.bool_]]]:
    spec, shares = use_case.dataset, use_case.training.shares
    if spec.split_by is SplitBy.ENTITY:
        return split_by_entity(spec, dataset.frame, shares=shares)
    split = split_by_time(dataset.dates, gap=spec.outcome.horizon, shares=shares)
    return split, {part.name: part.rows(dataset.dates) for part in split.parts}


def _fit(use_case: UseCase, dataset: Dataset, split: TimeSplit, rows: dict[str, NDArray[np.bool_]]) -> FittedModel | FittedQuantiles:
    config, spec = use_case.training, use_case.dataset
    train, validation = (dataset.frame[rows[part.name]] for part in (split.train, split.validation))
    folds = search_folds(spec, train, config.folds)
    if isinstance(config, QuantileTraining):
        return fit_quantiles(config, train, lives(spec, train), validation, lives(spec, validation), ceiling=spec.outcome.horizon_days, folds=folds)
    return fit(config, train, train[OUTCOME].to_numpy(dtype=np.int_), validation, validation[OUTCOME].to_numpy(dtype=np.int_), folds)


def _judge(
    use_case: UseCase, dataset: Dataset, split: TimeSplit, rows: dict[str, NDArray[np.bool_]], model: FittedModel | FittedQuantiles, rival: Rival
) -> dict[str, Any]:
    if isinstance(model, FittedQuantiles):
        return judge_quantiles(use_case, dataset, split, rows, model, rival)
    return judge(use_case, dataset, split, rows, dataset.frame[OUTCOME].to_numpy(dtype=np.int_), model, rival)


def _reference(use_case: UseCase, dataset: Dataset, learned: NDArray[np.bool_], tested: NDArray[np.bool_], model: FittedModel | FittedQuantiles) -> Reference:
    """What monitoring will compare with."""
    schema = use_case.training.schema
    if isinstance(model, FittedQuantiles):
        days = QuantileScorer(model.estimator, schema)
        return make_reference(use_case, dataset, learned, lambda rows: days.score(rows).contributions)
    scorer, test = Scorer(model.estimator, schema), dataset.frame[tested]
    reference = make_reference(use_case, dataset, learned, lambda rows: scorer.score(rows).contributions)
    return with_test(use_case, reference, test, test[OUTCOME].to_numpy(dtype=np.int_), scorer.score(test).probabilities)


def _register(
    connection: psycopg.Connection[Any],
    version: StoredVersion,
    report: TrainingReport | QuantileReport,
    rival: Rival,
    reference: Reference,
) -> TrainingReport | QuantileReport:
    """Stores version and, where the gate lets it, reign, in one transaction. Returns the report as stored.

    A champion that somebody changed while this one was judged was not what it was judged against: then it stays challenger.
    """
    name = version.use_case
    with connection.transaction():
        lock_champion(connection, name)
        known = find_snapshot(connection, name, version.card.snapshot)
        if known is not None and known.report is not None:  # another run over the same data was first
            return read_report(known.report)
        current = champion_version(connection, name)
        if report.gate.passed and current != rival.version:
            because = f"the champion has changed meanwhile, to version {current}: compare them (`tidemark model compare`), or wait for the next training"
            report = replace(report, gate=GateDecision(False, f"{report.gate.reason}, but {because}"))
        enter_version(connection, replace(version, report=report.to_json(), gate=report.gate))
        enter_reference(connection, name, version.version, reference)
        answer_requests(connection, name, version.version)
        crash_point(LifecycleStep.TRAIN_BEFORE_COMMIT)
        if report.gate.passed:
            make_champion(connection, name, version.version, instead_of=rival.version, by=GATE, reason=report.gate.reason)
    return report


def _adopt_old_versions(connection: psycopg.Connection[Any], registry: Registry) -> None:
    """Takes over what an older release kept in MLflow alone: its versions, and the one that was champion."""
    with connection.transaction():
        lock_champion(connection, registry.name)
        if versions(connection, registry.name):
            return
        old, champion = registry.old_versions()
        for version in old:
            enter_version(connection, version)
        if champion in {version.version for version in old}:
            assert champion is not None
            make_champion(connection, registry.name, champion, instead_of=None, by=GATE, reason="was champion before this history began")


def _summarise(dataset: Dataset, part: Part, rows: NDArray[np.bool_]) -> PartSummary:
    block, outcome = list(dataset.spec.features.block_columns), dataset.spec.outcome
    frame = dataset.frame[rows]
    if outcome.measure is Measure.DAYS_UNTIL:
        positive = frame[frame[IS_KNOWN].astype(bool) & (frame[OUTCOME].astype(float) < outcome.horizon_days)]
    else:
        positive = frame[frame[OUTCOME].astype(int) == 1]
    return PartSummary(part.name, part.first, part.last, len(frame), len(positive), len(frame[block].drop_duplicates()), len(positive[block].drop_duplicates()))


def _require_positives(use_case: UseCase, summaries: tuple[PartSummary, ...]) -> None:
    config = use_case.training
    of = f"of {config.min_positive_entities} entities"
    needed_days = config.min_days if use_case.dataset.split_by is SplitBy.TIME else 1
    if isinstance(config, QuantileTraining):
        needed = f"at least {config.min_positives} rows {of} whose event came within the horizon, and {config.min_entities} entities in all"
        short = [part for part in summaries if part.entities < config.min_entities]
    else:
        needed = f"at least {config.min_positives} positive rows {of} and some negative ones"
        short = [part for part in summaries if part.positives == part.rows]
    short += [part for part in summaries if (part.last - part.first).days + 1 < needed_days]
    if short or any(part.positives < config.min_positives or part.entities_with_positives < config.min_positive_entities for part in summaries):
        found = ", ".join(
            f"{part.name} {part.first} to {part.last}: {part.positives} of {part.rows} rows, {part.entities_with_positives} of {part.entities} entities"
            for part in summaries
        )
        raise NotEnoughData(f"{use_case.name} cannot be trained: each part needs {needed} on {needed_days} days, found {found}. Land more history.")


def _identity(use_case: UseCase, dataset: Dataset) -> str:
    parts = {"revision": LIFECYCLE_REVISION, "data": dataset.content_hash, "use_case": repr(use_case), "libraries": library_versions()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
