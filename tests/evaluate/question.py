"""One question put to several rankings on the same newest days: what each is worth, how sure that is, and where it loses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from ml.lifecycle import evaluation
from ml.lifecycle.alerts import AlertResult, Entity, Estimate, judge_alerts
from ml.lifecycle.dataset import OUTCOME, Dataset, DatasetSpec, blocks_of
from ml.lifecycle.evaluation import Baseline, Interval, SliceResult
from ml.lifecycle.search import search_folds
from ml.lifecycle.splitting import TimeSplit, split_by_time
from ml.lifecycle.training import FittedModel, TrainingConfig, fit, fitting_frame, probabilities

SEED = 20260101
REPLICATES = 1000
FEATURES = "+feat_component_daily,tag:micro_batch"  # and all that they are made of


@dataclass(frozen=True)
class Ranking:
    """A model or a rule on the test part."""

    name: str
    pr_auc_validation: float
    pr_auc: Estimate
    alerts: AlertResult
    brier: float | None = None  # None: a rule promises no probability


@dataclass(frozen=True)
class Answer:
    """Everything the report says of a question."""

    title: str
    split: TimeSplit
    rows: int
    positives: int
    entities: int
    prevalence: float
    rankings: tuple[Ranking, ...]
    chosen: str
    rule: str
    difference: Interval
    slices: tuple[SliceResult, ...]
    brier_constant: float
    test: pd.DataFrame  # rows of the test part with the column `probability` of the chosen model


def failures_of(connection: psycopg.Connection[Any], spec: DatasetSpec) -> dict[Entity, list[datetime]]:
    """When each entity failed, by the log."""
    outcome, entity = spec.outcome, spec.features.entity
    (column, values), *more = outcome.condition.items()
    assert not more, "the evaluation knows outcomes with one condition"
    query = sql.SQL("select {entity}, {at} from {table} where {column} = any(%s) order by 2").format(
        entity=sql.SQL(", ").join(map(sql.Identifier, entity)),
        at=sql.Identifier(outcome.time_column),
        table=outcome.relation.identifier,
        column=sql.Identifier(column),
    )
    found: dict[Entity, list[datetime]] = {}
    for row in connection.execute(query, [list(values)]):
        found.setdefault(tuple(map(str, row[:-1])), []).append(row[-1])
    return found


def families(config: TrainingConfig) -> dict[str, TrainingConfig]:
    """The configuration once for each kind of candidate, in their order."""
    kinds: dict[type, list[Any]] = {}
    for candidate in config.candidates:
        kinds.setdefault(type(candidate), []).append(candidate)
    return {candidates[0].name.partition(",")[0]: replace(config, candidates=tuple(candidates)) for candidates in kinds.values()}


def answer(
    title: str, dataset: Dataset, config: TrainingConfig, rules: Sequence[Baseline], failures: Mapping[Entity, Sequence[datetime]], slice_by: Sequence[str]
) -> Answer:
    """Fit each kind of model on the oldest days, choose and calibrate on later ones, judge all of them and the rules once on the newest.

    Args:
        title: For the report.
        dataset: Rows with complete outcome windows.
        config: Candidates and shares of the parts; the gap between parts is the horizon.
        rules: Naive rankings.
        failures: As `failures_of` gives them.
        slice_by: Columns by whose values the chosen model and the best rule are compared.
    """
    horizon = dataset.spec.outcome.horizon
    split = split_by_time(dataset.dates, gap=horizon, shares=config.shares)
    train, validation, test = (dataset.frame[part.rows(dataset.dates)] for part in split.parts)
    truths = [part[OUTCOME].to_numpy(dtype=np.int_) for part in (train, validation, test)]
    blocks = blocks_of(dataset.spec.features, test)
    judged: list[tuple[str, NDArray[np.float64], float, bool]] = []
    for name, family in families(config).items():
        model: FittedModel = fit(family, train, truths[0], validation, truths[1], search_folds(dataset.spec, train, config.folds))
        judged.append((name, probabilities(model.estimator, config.schema, test), model.validation_pr_auc[model.candidate], True))
    judged += [(f"rule: {rule.name}", rule.scores(test), evaluation.pr_auc(truths[1], rule.scores(validation)), False) for rule in rules]
    rankings = tuple(
        _judge(name, score, on_validation, is_model, test, truths[2], blocks, dataset, failures) for name, score, on_validation, is_model in judged
    )
    # Both are chosen before the test part is seen; a kind of model offers the candidate that its folds chose.
    chosen = max((entry for entry in judged if entry[3]), key=lambda entry: entry[2])
    rule = max((entry for entry in judged if not entry[3]), key=lambda entry: entry[2])
    before = float(np.concatenate(truths[:2]).mean())
    return Answer(
        title=title,
        split=split,
        rows=len(test),
        positives=int(truths[2].sum()),
        entities=len(set(blocks)),
        prevalence=float(truths[2].mean()),
        rankings=rankings,
        chosen=chosen[0],
        rule=rule[0],
        difference=evaluation.bootstrap_difference(truths[2], chosen[1], rule[1], blocks, replicates=REPLICATES, seed=SEED),
        slices=evaluation.slices(test, slice_by, truths[2], chosen[1], rule[1]),
        brier_constant=evaluation.brier(truths[2], np.full(len(test), before)),
        test=test.assign(probability=chosen[1]),
    )


def _judge(
    name: str,
    score: NDArray[np.float64],
    on_validation: float,
    is_model: bool,
    test: pd.DataFrame,
    truth: NDArray[np.int_],
    blocks: Sequence[Entity],
    dataset: Dataset,
    failures: Mapping[Entity, Sequence[datetime]],
) -> Ranking:
    low, high = evaluation.bootstrap_pr_auc(truth, score, blocks, replicates=REPLICATES, seed=SEED)
    entities = [tuple(map(str, row)) for row in test[list(dataset.spec.features.entity)].itertuples(index=False, name=None)]
    days: list[date] = list(test[dataset.spec.features.date_column])
    # The budget is one alert a machine and month: components of a machine share it.
    machines = len({entity[:2] for entity in entities}) / len(set(entities))
    return Ranking(
        name,
        on_validation,
        Estimate(evaluation.pr_auc(truth, score), low, high),
        judge_alerts(entities, days, score, failures, horizon=dataset.spec.outcome.horizon, a_month=machines, replicates=REPLICATES, seed=SEED),
        evaluation.brier(truth, score) if is_model else None,
    )


def out_of_time(dataset: Dataset, config: TrainingConfig, *, folds: int, first_share: float) -> pd.DataFrame:
    """Predictions of every day after the first ones, each by a model that was fitted on older days only, the horizon left out between.

    Args:
        dataset: Rows with complete outcome windows.
        config: Its first candidate is fitted, without calibration: the folds are too small for one.
        folds: How many times it is fitted anew.
        first_share: Share of the days that only the first fit learns from.

    Returns:
        The predicted rows with the column `probability`.
    """
    dates = dataset.dates
    first, days = min(dates), (max(dates) - min(dates)).days + 1
    starts = [first + timedelta(days=int(days * (first_share + (1 - first_share) * fold / folds))) for fold in range(folds + 1)]
    parts = []
    for begin, end in itertools.pairwise(starts):
        learned = np.array([day < begin - dataset.spec.outcome.horizon for day in dates])
        tested = np.array([begin <= day < end for day in dates])
        outcome = dataset.frame[learned][OUTCOME].to_numpy(dtype=np.int_)
        pipeline = config.candidates[0].pipeline(config.schema, config.seed).fit(fitting_frame(config.schema, dataset.frame[learned]), outcome)
        rows = dataset.frame[tested]
        parts.append(rows.assign(probability=pipeline.predict_proba(config.schema.frame(rows))[:, 1]))
    return pd.concat(parts)


def number(value: float, digits: int = 3) -> str:
    """A figure of a table; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def interval(estimate: Estimate, digits: int = 3) -> str:
    """A figure with its interval."""
    return f"{number(estimate.value, digits)} ({number(estimate.low, digits)} to {number(estimate.high, digits)})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return [lines[0], f"|{'---|' * len(header)}", *lines[1:], ""]


def ranking_rows(rankings: Iterable[Ranking], chosen: str) -> list[list[str]]:
    """Lines of the table that compares rankings."""
    return [
        [
            f"**{ranking.name}**" if ranking.name == chosen else ranking.name,
            number(ranking.pr_auc_validation),
            interval(ranking.pr_auc),
            interval(ranking.alerts.recall, 2),
            interval(ranking.alerts.precision, 2),
            interval(ranking.alerts.lead_h, 0),
            f"{ranking.alerts.caught} of {ranking.alerts.failures}",
            str(ranking.alerts.alerts),
            "–" if ranking.brier is None else number(ranking.brier, 4),
        ]
        for ranking in rankings
    ]


RANKING_HEADER = ("ranking", "PR-AUC validation", "PR-AUC test", "recall", "precision", "lead time, h", "failures caught", "alerts", "Brier")


def section(result: Answer) -> list[str]:
    """The Markdown of a question."""
    split, difference = result.split, result.difference
    lost = [f"{piece.dimension} = {piece.value}" for piece in result.slices if piece.is_lost]
    models = [ranking for ranking in result.rankings if ranking.brier is not None]
    lost += [f"calibration of {model.name}: a constant probability has the smaller Brier score" for model in models if model.brier > result.brier_constant]  # type: ignore[operator]
    chosen, rule = ({ranking.name: ranking for ranking in result.rankings}[name] for name in (result.chosen, result.rule))
    for what in ("recall", "precision", "lead_h"):
        ours, theirs = getattr(chosen.alerts, what).value, getattr(rule.alerts, what).value
        if ours < theirs:
            lost.append(f"{what.replace('lead_h', 'lead time')} at the budget ({number(ours, 2)} against {number(theirs, 2)} of the {rule.name})")
    better = [ranking.name for ranking in result.rankings if ranking.pr_auc.value > chosen.pr_auc.value]
    lost += [f"{name} has the greater PR-AUC on the test part" for name in better]
    budget = f"The budget allows {chosen.alerts.alerts} alerts for {chosen.alerts.failures} failures"
    if chosen.alerts.alerts > chosen.alerts.failures:
        budget += f", so no precision above {chosen.alerts.failures / chosen.alerts.alerts:.2f} is possible"
    return [
        f"### {result.title}",
        "",
        f"Trained on {split.train.first} to {split.train.last}, candidates compared in time-ordered folds of it; "
        f"a kind chosen and calibrated on {split.validation.first} to {split.validation.last}, judged once on "
        f"{split.test.first} to {split.test.last}: {result.rows:,} rows of {result.entities} machines, {result.positives:,} with a failure in the window "
        f"({result.prevalence:.1%}, which is the PR-AUC of chance). Between the parts lie {split.gap // timedelta(hours=1)} h.",
        "",
        *table(RANKING_HEADER, ranking_rows(result.rankings, result.chosen)),
        f"{budget}.",
        "",
        f"**{result.chosen}** (best on validation) minus the best rule there ({result.rule.removeprefix('rule: ')}): {difference.difference:+.3f} PR-AUC, "
        f"95 % interval {difference.low:+.3f} to {difference.high:+.3f}. Brier score of a constant probability: {result.brier_constant:.4f}.",
        "",
        *table(
            ("slice", "rows", "positives", f"PR-AUC {result.chosen}", f"PR-AUC {result.rule}"),
            (
                (
                    f"{piece.dimension} = {piece.value}",
                    f"{piece.rows:,}",
                    f"{piece.positives:,}",
                    number(piece.pr_auc_model if piece.pr_auc_model is not None else math.nan),
                    number(piece.pr_auc_baseline if piece.pr_auc_baseline is not None else math.nan),
                )
                for piece in result.slices
            ),
        ),
        f"Where it loses: {'; '.join(lost) or 'nowhere that these figures show'}.",
        "",
    ]
