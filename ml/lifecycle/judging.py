"""Judging a fitted model on the newest days: against the naive baseline, and against the champion as far as it has not learned from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml.lifecycle import evaluation
from ml.lifecycle.dataset import Dataset, DatasetSpec, blocks_of, entities_of
from ml.lifecycle.evaluation import Interval
from ml.lifecycle.gate import ChampionResult
from ml.lifecycle.report import BaselineResult
from ml.lifecycle.splitting import TimeSplit
from ml.lifecycle.training import FittedModel, TrainingConfig, probabilities
from ml.lifecycle.versions import LoadedModel

if TYPE_CHECKING:
    from ml.lifecycle.use_case import UseCase

BOOTSTRAP_REPLICATES = 1000


@dataclass(frozen=True)
class Rival:
    """The champion that a challenger meets.

    Attributes:
        version: The champion; None where there is none.
        model: None where there is none, or where it cannot be loaded.
        absent_because: Why there is no model, for the report.
    """

    version: int | None
    model: LoadedModel | None
    absent_because: str


def blocks(spec: DatasetSpec, rows: pd.DataFrame) -> list[tuple[str, ...]]:
    """What a bootstrap draws: whole entities, because rows of one entity are alike and overlap in time; whole machines where components share their fate."""
    return blocks_of(spec.features, rows)


def blocks_with(spec: DatasetSpec, rows: pd.DataFrame, happened: NDArray[Any]) -> int:
    """How many blocks had the event: what a comparison really rests on. A single one says whether a ranking fits that one, however many days it has."""
    return len({block for block, is_event in zip(blocks(spec, rows), happened, strict=True) if is_event})


def unseen_by(model: LoadedModel, dataset: Dataset) -> NDArray[np.bool_]:
    """Rows whose outcomes a version has not learned from."""
    learned = model.card.learned_entities
    if learned is not None:
        return np.array([key not in learned for key in entities_of(dataset.spec.features, dataset.frame)], dtype=bool)
    return np.array([day >= model.card.scores_from for day in dataset.dates], dtype=bool)


def judge(
    use_case: UseCase,
    dataset: Dataset,
    split: TimeSplit,
    rows: dict[str, NDArray[np.bool_]],
    outcome: NDArray[np.int_],
    model: FittedModel,
    rival: Rival,
) -> dict[str, Any]:
    """Every figure of the report that rests on the test part."""
    assert isinstance(use_case.training, TrainingConfig)
    baselines_of = [baseline for baseline in use_case.baselines if isinstance(baseline, evaluation.Baseline)]
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
        for baseline in baselines_of
    )
    # The strongest naive ranking, chosen as a sceptic would have to: before seeing the test part.
    best = max(range(len(baselines)), key=lambda index: baselines[index].pr_auc_validation)
    naive = baselines_of[best].scores(test)
    difference = _difference(use_case, truth, predicted, naive, test)
    champion, no_champion, undecided = _judge_champion(use_case, rival, dataset, in_test, outcome, predicted)
    share_before = float(outcome[rows[split.train.name] | in_validation].mean())
    brier_model, brier_prevalence = evaluation.brier(truth, predicted), evaluation.brier(truth, np.full(len(truth), share_before))
    by_slice = evaluation.slices(test, use_case.slice_by, truth, predicted, naive)
    lost = [f"{result.dimension} = {result.value}" for result in by_slice if result.is_lost]
    lost += ["calibration: a constant probability has the smaller Brier score"] if brier_model > brier_prevalence else []
    return {
        "validation_pr_auc": dict(model.validation_pr_auc),
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
        "champion": champion,
        "gate": use_case.gate.decide(difference, baselines[best].name, champion, no_champion=no_champion, undecided=undecided),
    }


def _judge_champion(
    use_case: UseCase, rival: Rival, dataset: Dataset, in_test: NDArray[np.bool_], outcome: NDArray[np.int_], predicted: NDArray[np.float64]
) -> tuple[ChampionResult | None, str, str]:
    """The comparison, or why no champion has to be beaten, or why a champion that goes on scoring cannot be compared."""
    champion = rival.model
    if champion is None:
        return None, rival.absent_because, ""
    lost = [name for name in champion.card.schema.names if name not in dataset.frame.columns]
    if lost:
        return None, f"the champion (version {champion.version}) can score no more, its features {', '.join(lost)} are gone", ""
    unseen = in_test & unseen_by(champion, dataset)
    truth, rows = outcome[unseen], dataset.frame[unseen]
    if (undecided := too_few_events(use_case, champion, rows, truth)) is not None:
        return None, "", undecided
    by_challenger = predicted[unseen[in_test]]
    by_champion = probabilities(champion.estimator, champion.card.schema, rows)
    result = ChampionResult(
        version=champion.version,
        rows=int(unseen.sum()),
        positives=int(truth.sum()),
        pr_auc=evaluation.pr_auc(truth, by_champion),
        challenger_pr_auc=evaluation.pr_auc(truth, by_challenger),
        difference=_difference(use_case, truth, by_challenger, by_champion, rows),
    )
    return result, "", ""


def too_few_events(use_case: UseCase, champion: LoadedModel, rows: pd.DataFrame, happened: NDArray[Any]) -> str | None:
    """Why nobody can say on rows that a champion has not learned from whether it is the better one; None where they suffice."""
    found, needed = blocks_with(use_case.dataset, rows, happened), use_case.training.min_positive_entities
    if found >= needed:
        return None
    return (
        f"of the events of the test part those of {found} entities are new to the champion (version {champion.version}), "
        f"at least {needed} are needed to say which is better"
    )


def _difference(use_case: UseCase, truth: NDArray[np.int_], first: NDArray[np.float64], second: NDArray[np.float64], rows: pd.DataFrame) -> Interval:
    return evaluation.bootstrap_difference(
        truth,
        first,
        second,
        blocks(use_case.dataset, rows),
        replicates=BOOTSTRAP_REPLICATES,
        margin=use_case.gate.margin,
        seed=use_case.training.seed,
    )
