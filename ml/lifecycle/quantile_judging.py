"""Judging quantiles on the newest days: against what a sceptic would say without a model, and against the champion as far as it has not learned from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.lifecycle import evaluation
from ml.lifecycle.dataset import IS_KNOWN, OUTCOME, Dataset, DatasetSpec
from ml.lifecycle.evaluation import Interval, QuantileSlice
from ml.lifecycle.gate import GateDecision, QuantileChampion
from ml.lifecycle.judging import BOOTSTRAP_REPLICATES, Rival, blocks, too_few_events, unseen_by
from ml.lifecycle.quantiles import (
    ConformalQuantiles,
    FittedQuantiles,
    Floats,
    Lives,
    NaiveQuantiles,
    QuantileTraining,
    interval_scores,
    mean_loss,
    pinball_losses,
)
from ml.lifecycle.report import NaiveResult
from ml.lifecycle.splitting import TimeSplit
from ml.lifecycle.versions import LoadedModel

if TYPE_CHECKING:
    from ml.lifecycle.use_case import UseCase


@dataclass(frozen=True)
class QuantileFigures:
    """Quantiles on rows whose outcomes are known; all but the share in days.

    Attributes:
        loss: Mean pinball loss.
        coverage: Share of outcomes in the interval.
        coverage_of_events: The same of those whose event came within the horizon; None where none came.
        interval_score: Width and what was missed.
        width: Mean width of the interval.
        median_error: Mean distance of median and outcome.
    """

    loss: float
    coverage: float
    coverage_of_events: float | None
    interval_score: float
    width: float
    median_error: float


def lives(spec: DatasetSpec, rows: pd.DataFrame) -> Lives:
    """Outcomes of rows of a data set."""
    return Lives(rows[OUTCOME].to_numpy(dtype=np.float64), rows[IS_KNOWN].to_numpy(dtype=np.bool_), blocks(spec, rows))


def covered(days: Floats, quantiles: Floats) -> NDArray[np.bool_]:
    """Which outcomes lie in their interval, ends included. Shape (rows,)."""
    return np.asarray((quantiles[:, 0] <= days) & (days <= quantiles[:, -1]))


def figures(of: Lives, quantiles: Floats, config: QuantileTraining, horizon_days: float) -> QuantileFigures:
    """Judge quantiles of shape (rows, levels) on the rows whose outcomes are known."""
    weights, inside, came = of.weights, covered(of.days, quantiles), of.came_before(horizon_days)

    def mean(values: NDArray[Any]) -> float:
        return float(np.average(values, weights=weights))

    return QuantileFigures(
        loss=mean_loss(of.days, quantiles, config.levels, weights),
        coverage=mean(inside),
        coverage_of_events=float(np.average(inside[came], weights=weights[came])) if came.any() else None,
        interval_score=mean(interval_scores(of.days, quantiles, config.nominal)),
        width=mean(quantiles[:, -1] - quantiles[:, 0]),
        median_error=mean(np.abs(of.days - quantiles[:, 1])),
    )


def judge_quantiles(
    use_case: UseCase,
    dataset: Dataset,
    split: TimeSplit,
    rows: dict[str, NDArray[np.bool_]],
    model: FittedQuantiles,
    rival: Rival,
) -> dict[str, Any]:
    """Every figure of the report that rests on the test part."""
    config, spec = use_case.training, use_case.dataset
    assert isinstance(config, QuantileTraining)
    train, validation, test = (dataset.frame[rows[part.name]] for part in split.parts)
    seen, held_out, truth = (lives(spec, part) for part in (train, validation, test))
    before = dataset.frame[rows[split.train.name] | rows[split.validation.name]]
    quantiles = model.estimator.predict(config.schema.frame(test))
    horizon_days = spec.outcome.horizon_days
    found = figures(truth, quantiles, config, horizon_days)
    baselines, answers = [], []
    for naive in use_case.baselines:
        assert isinstance(naive, NaiveQuantiles)
        first = naive.fit(train, seen, config.levels).quantiles(validation)
        # It needs no rows to choose or to conformalise, so in the end it may learn from both parts.
        answers.append(naive.fit(before, lives(spec, before), config.levels).quantiles(test))
        on_test = figures(truth, answers[-1], config, horizon_days)
        loss = mean_loss(held_out.days, first, config.levels, held_out.weights)
        baselines.append(NaiveResult(naive.name, naive.description, loss, on_test.loss, on_test.coverage, on_test.interval_score))
    # The strongest naive answer, chosen as a sceptic would have to: before seeing the test part.
    best = min(range(len(baselines)), key=lambda index: baselines[index].loss_validation)
    naive_found = figures(truth, answers[best], config, horizon_days)
    difference = saved_loss(use_case, truth, quantiles, answers[best])
    champion, no_champion, undecided = _judge_champion(use_case, rival, dataset, rows[split.test.name], quantiles)
    gate = use_case.gate.decide(difference, baselines[best].name, champion, no_champion=no_champion, undecided=undecided)
    promise = use_case.gate.decide_coverage(found.coverage, config.nominal)
    if not promise.passed:
        gate = GateDecision(False, f"{promise.reason}; {gate.reason}")
    pieces = _slices(test, use_case.slice_by, truth, quantiles, answers[best], config)
    inside, came = covered(truth.days, quantiles), truth.came_before(horizon_days)
    low, high = evaluation.bootstrap_mean(inside, truth.weights, truth.entities, replicates=BOOTSTRAP_REPLICATES, seed=config.seed)
    of_events: tuple[float | None, float | None] = (None, None)
    if found.coverage_of_events is not None:
        of_events = evaluation.bootstrap_mean(inside, truth.weights * came, truth.entities, replicates=BOOTSTRAP_REPLICATES, seed=config.seed)
    lost = [f"{piece.dimension} = {piece.value}" for piece in pieces if piece.is_lost]
    lost += [f"coverage of {piece.dimension} = {piece.value}: {piece.coverage:.0%}" for piece in pieces if piece.coverage < config.nominal]
    if found.coverage_of_events is not None and found.coverage_of_events < config.nominal:
        lost.append(f"coverage of events within {horizon_days:g} days: {found.coverage_of_events:.0%}")
    return {
        "levels": config.levels,
        "horizon_days": horizon_days,
        "validation_loss": dict(model.validation_loss),
        "loss_model": found.loss,
        "baseline_name": baselines[best].name,
        "loss_baseline": baselines[best].loss_test,
        "difference": difference,
        "baselines": tuple(baselines),
        "coverage": found.coverage,
        "coverage_low": low,
        "coverage_high": high,
        "coverage_of_events": found.coverage_of_events,
        "coverage_of_events_low": of_events[0],
        "coverage_of_events_high": of_events[1],
        "nominal": config.nominal,
        "width_days": found.width,
        "widening_days": model.estimator.widening,
        "widening_at_ceiling_days": model.estimator.widening_at_ceiling,
        "interval_score_model": found.interval_score,
        "interval_score_baseline": naive_found.interval_score,
        "median_error_model": found.median_error,
        "median_error_baseline": naive_found.median_error,
        "censored_rows": int((~dataset.frame[IS_KNOWN].to_numpy(dtype=np.bool_)).sum()),
        "slices": pieces,
        "loses_on": tuple(lost),
        "champion": champion,
        "gate": gate,
    }


def saved_loss(use_case: UseCase, truth: Lives, first: Floats, second: Floats) -> Interval:
    """Share of the second answer's loss that the first saves, with its bootstrap interval."""
    config = use_case.training
    assert isinstance(config, QuantileTraining)
    return evaluation.bootstrap_skill(
        pinball_losses(truth.days, first, config.levels),
        pinball_losses(truth.days, second, config.levels),
        truth.weights,
        truth.entities,
        replicates=BOOTSTRAP_REPLICATES,
        margin=use_case.gate.margin,
        seed=config.seed,
    )


def predicted_quantiles(model: LoadedModel, rows: pd.DataFrame) -> Floats:
    """What a stored version says of rows, shape (rows, levels)."""
    assert isinstance(model.estimator, ConformalQuantiles)
    return model.estimator.predict(model.card.schema.frame(rows))


def _judge_champion(
    use_case: UseCase, rival: Rival, dataset: Dataset, in_test: NDArray[np.bool_], quantiles: Floats
) -> tuple[QuantileChampion | None, str, str]:
    """The comparison, or why no champion has to be beaten, or why a champion that goes on scoring cannot be compared."""
    champion, config = rival.model, use_case.training
    assert isinstance(config, QuantileTraining)
    if champion is None:
        return None, rival.absent_because, ""
    if not isinstance(champion.estimator, ConformalQuantiles) or champion.estimator.levels != list(config.levels):
        return None, f"the champion (version {champion.version}) answers another question: its values are not the quantiles {config.levels}", ""
    lost = [name for name in champion.card.schema.names if name not in dataset.frame.columns]
    if lost:
        return None, f"the champion (version {champion.version}) can score no more, its features {', '.join(lost)} are gone", ""
    unseen = in_test & unseen_by(champion, dataset)
    rows = dataset.frame[unseen]
    truth = lives(use_case.dataset, rows)
    horizon_days = use_case.dataset.outcome.horizon_days
    if (undecided := too_few_events(use_case, champion, rows, truth.came_before(horizon_days))) is not None:
        return None, "", undecided
    by_challenger, by_champion = quantiles[unseen[in_test]], predicted_quantiles(champion, rows)
    own = figures(truth, by_champion, config, horizon_days)
    loss = mean_loss(truth.days, by_challenger, config.levels, truth.weights)
    difference = saved_loss(use_case, truth, by_challenger, by_champion)
    return QuantileChampion(champion.version, int(unseen.sum()), own.loss, own.coverage, loss, difference), "", ""


def _slices(test: pd.DataFrame, dimensions: Sequence[str], truth: Lives, model: Floats, naive: Floats, config: QuantileTraining) -> tuple[QuantileSlice, ...]:
    weights, found = truth.weights, []
    losses = pinball_losses(truth.days, model, config.levels), pinball_losses(truth.days, naive, config.levels)
    inside = covered(truth.days, model)
    for dimension in dimensions:
        values = test[dimension].astype(object).where(test[dimension].notna(), "(unknown)").map(str).to_numpy()
        for value in sorted(set(values)):
            rows = values == value
            if not weights[rows].sum() > 0:
                continue  # every entity of it left before its outcome showed
            by_model, by_naive, share = (float(np.average(column[rows], weights=weights[rows])) for column in (*losses, inside))
            found.append(QuantileSlice(dimension, value, int(rows.sum()), by_model, by_naive, share))
    return tuple(found)
