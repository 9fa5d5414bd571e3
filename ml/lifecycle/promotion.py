"""What people decide about versions: look at them, compare two, make one champion, take the last champion back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import psycopg

from include.warehouse import Role, connect
from ml.lifecycle import evaluation
from ml.lifecycle.champions import ChampionError, Reign, champion_version, history, make_champion, predecessors
from ml.lifecycle.dataset import OUTCOME, NotEnoughData, load_dataset
from ml.lifecycle.evaluation import Interval
from ml.lifecycle.judging import BOOTSTRAP_REPLICATES, blocks, blocks_with, unseen_by
from ml.lifecycle.quantile_judging import figures, lives, predicted_quantiles, saved_loss
from ml.lifecycle.quantiles import ConformalQuantiles, QuantileTraining
from ml.lifecycle.report import TrainingReport, read_report
from ml.lifecycle.training import probabilities
from ml.lifecycle.use_case import UseCase, score_version, with_columns_of
from ml.lifecycle.versions import LoadedModel, ModelUnusable, StoredVersion, find_version, versions

PR_AUC = "PR-AUC"
LOSS = "pinball loss (d)"


@dataclass(frozen=True)
class VersionLine:
    """A version as a list shows it.

    Attributes:
        version: Its number.
        state: champion; former champion; challenger, which never was one.
        is_usable: Whether its file is the one that was registered.
        file: Where it lies.
        learned_until: Last day whose outcomes it has learned from.
        candidate: What was fitted.
        measure: What the figures that follow are: PR-AUC (more is better), or pinball loss in days (less is better). None where the report is gone.
        figure: On its test part.
        figure_of_baseline: Of the naive answer, on the same rows.
        dataset_id: What it was trained on: `tidemark files dataset`.
        gate_reason: What the gate said.
        trained_because: Why it was trained; None for versions of an older release.
    """

    use_case: str
    version: int
    state: str
    is_usable: bool
    file: str
    learned_until: date
    candidate: str | None
    measure: str | None
    figure: float | None
    figure_of_baseline: float | None
    dataset_id: int | None
    gate_reason: str
    trained_because: str | None = None


@dataclass(frozen=True)
class Judged:
    """One of two versions on the rows that neither has learned from."""

    version: int
    pr_auc: float
    brier: float


@dataclass(frozen=True)
class Comparison:
    """Two versions on the newest days whose outcomes neither has learned from."""

    use_case: str
    first_date: date
    last_date: date
    rows: int
    positives: int
    entities: int
    prevalence: float  # PR-AUC of a ranking by chance
    first: Judged
    second: Judged
    difference: Interval  # PR-AUC of the first minus that of the second


@dataclass(frozen=True)
class JudgedQuantiles:
    """One of two versions that answer in quantiles on the rows that neither has learned from; losses and widths in days."""

    version: int
    loss: float
    coverage: float
    width: float
    median_error: float


@dataclass(frozen=True)
class QuantileComparison:
    """Two versions that answer in quantiles on the newest days whose outcomes neither has learned from."""

    use_case: str
    first_date: date
    last_date: date
    rows: int
    positives: int  # events that came within the horizon
    entities: int
    nominal: float  # coverage that both promise
    first: JudgedQuantiles
    second: JudgedQuantiles
    difference: Interval  # share of the second's loss that the first saves


def list_versions(use_case: str) -> list[VersionLine]:
    """Every version of a use case that counts, newest first."""
    with connect(Role.ML) as connection:
        reigns, known = history(connection, use_case), versions(connection, use_case)
    return [_line(version, reigns) for version in known]


def list_reigns(use_case: str) -> list[Reign]:
    """Who was champion from when to when, decided by whom and why, newest first."""
    with connect(Role.ML) as connection:
        return history(connection, use_case)[::-1]


def promote(use_case: UseCase, version: int, *, by: str, reason: str) -> int | None:
    """Makes a version champion, whatever the gate said of it.

    It scores first, so that its predictions are there when it begins to count; a version that cannot score does not become champion.

    Args:
        use_case: Whose champion.
        version: A stored version.
        by: Who decides.
        reason: Why.

    Returns:
        The champion before.

    Raises:
        ChampionError: If it is champion already, or the champion was changed meanwhile.
        ModelUnusable: If there is no such version, or its file is not the registered one.
        FeatureSchemaMismatch: If the warehouse does not offer its features any more.
    """
    with connect(Role.ML) as connection:
        champion = champion_version(connection, use_case.name)
        _take_over(connection, use_case, version, champion, by=by, reason=reason)
    return champion


def rollback(use_case: UseCase, *, by: str, reason: str, to: int | None = None) -> tuple[int, int]:
    """Takes a former champion back, the last one if none is named.

    What a rollback puts aside is not a predecessor any more: a second rollback goes one further back.

    Args:
        use_case: Whose champion.
        by: Who decides.
        reason: Why.
        to: A former champion.

    Returns:
        The champion now, and the one before.

    Raises:
        ChampionError: If there is no such predecessor, or the champion was changed meanwhile.
        ModelUnusable: If its file is not the registered one; the champion stays.
        FeatureSchemaMismatch: If the warehouse does not offer its features any more; the champion stays.
    """
    with connect(Role.ML) as connection:
        champion = champion_version(connection, use_case.name)
        former = predecessors(history(connection, use_case.name))
        if champion is None or not former:
            raise ChampionError(f"{use_case.name} has no former champion to go back to; `tidemark model promote` makes any version champion")
        if to is not None and to not in former:
            known = ", ".join(map(str, former))
            raise ChampionError(f"version {to} is no former champion of {use_case.name} that can be taken back ({known} can); use `tidemark model promote`")
        version = to if to is not None else former[0]
        try:
            _take_over(connection, use_case, version, champion, by=by, reason=reason, is_rollback=True)
        except ModelUnusable as error:
            others = [other for other in former if other != version]
            where = f"or name another: `--to {others[0]}`" if others else "there is no other former champion"
            raise ModelUnusable(f"{error}. Version {champion} stays champion; {where}") from error
    return version, champion


def compare(use_case: UseCase, first: int, second: int | None = None) -> Comparison | QuantileComparison:
    """Judges two versions on the newest days whose outcomes neither has learned from.

    Args:
        use_case: Whose versions.
        first: A version.
        second: Another; the champion if None.

    Raises:
        ChampionError: If no second is named and there is no champion, or both are the same.
        ModelUnusable: If there is no such version, or its file is not the registered one.
        FeatureSchemaMismatch: If the warehouse does not offer the features of one of them.
        NotEnoughData: If too little happened yet, or at too few entities, on days that both have not learned from.
    """
    with connect(Role.ML) as connection:
        second = second if second is not None else champion_version(connection, use_case.name)
        if second is None:
            raise ChampionError(f"{use_case.name} has no champion to compare with: name two versions")
        if first == second:
            raise ChampionError(f"version {first} is compared with itself: name two versions")
        models = [find_version(connection, use_case.name, version).load() for version in (first, second)]
        dataset = load_dataset(connection, with_columns_of(connection, use_case.dataset, *models))
    unseen = unseen_by(models[0], dataset) & unseen_by(models[1], dataset)
    rows = dataset.frame[unseen]
    if isinstance(use_case.training, QuantileTraining):
        return _compare_quantiles(use_case, use_case.training, models, rows)
    truth = rows[OUTCOME].to_numpy(dtype=np.int_)
    failed = blocks_with(use_case.dataset, rows, truth)
    if failed < use_case.training.min_positive_entities or truth.all():
        since = max(model.card.scores_from for model in models)
        raise NotEnoughData(
            f"versions {first} and {second} of {use_case.name} cannot be compared: of {len(rows)} rows since {since}, which neither has learned from, "
            f"{int(truth.sum())} are positive, those of {failed} entities; at least {use_case.training.min_positive_entities} are needed. Wait for outcomes"
        )
    by_first, by_second = (probabilities(model.estimator, model.card.schema, rows) for model in models)
    entities = blocks(use_case.dataset, rows)
    difference = evaluation.bootstrap_difference(
        truth, by_first, by_second, entities, replicates=BOOTSTRAP_REPLICATES, margin=use_case.gate.margin, seed=use_case.training.seed
    )
    days = rows[use_case.dataset.features.date_column]
    return Comparison(
        use_case=use_case.name,
        first_date=min(days),
        last_date=max(days),
        rows=len(rows),
        positives=int(truth.sum()),
        entities=len(set(entities)),
        prevalence=float(truth.mean()),
        first=_judged(models[0], truth, by_first),
        second=_judged(models[1], truth, by_second),
        difference=difference,
    )


def _compare_quantiles(use_case: UseCase, config: QuantileTraining, models: list[LoadedModel], rows: pd.DataFrame) -> QuantileComparison:
    truth = lives(use_case.dataset, rows)
    came = truth.came_before(use_case.dataset.outcome.horizon_days)
    failed = blocks_with(use_case.dataset, rows, came)
    if failed < config.min_positive_entities:
        since = max(model.card.scores_from for model in models)
        raise NotEnoughData(
            f"versions {models[0].version} and {models[1].version} of {use_case.name} cannot be compared: in the {len(rows)} rows since {since}, which neither "
            f"has learned from, events came at {failed} entities; at least {config.min_positive_entities} are needed. Wait for outcomes"
        )
    for model in models:
        if not isinstance(model.estimator, ConformalQuantiles) or model.estimator.levels != list(config.levels):
            raise ModelUnusable(f"version {model.version} of {use_case.name} answers another question: its values are not the quantiles {config.levels}")
    said = [predicted_quantiles(model, rows) for model in models]
    judged = []
    for model, quantiles in zip(models, said, strict=True):
        found = figures(truth, quantiles, config, use_case.dataset.outcome.horizon_days)
        judged.append(JudgedQuantiles(model.version, found.loss, found.coverage, found.width, found.median_error))
    days = rows[use_case.dataset.features.date_column]
    return QuantileComparison(
        use_case=use_case.name,
        first_date=min(days),
        last_date=max(days),
        rows=len(rows),
        positives=int(came.sum()),
        entities=truth.entity_count,
        nominal=config.nominal,
        first=judged[0],
        second=judged[1],
        difference=saved_loss(use_case, truth, said[0], said[1]),
    )


def _judged(model: LoadedModel, truth: Any, scores: Any) -> Judged:  # noqa: ANN401  arrays
    return Judged(model.version, evaluation.pr_auc(truth, scores), evaluation.brier(truth, scores))


def _take_over(
    connection: psycopg.Connection[Any], use_case: UseCase, version: int, champion: int | None, *, by: str, reason: str, is_rollback: bool = False
) -> None:
    if version == champion:
        raise ChampionError(f"version {version} is the champion of {use_case.name} already")
    model = find_version(connection, use_case.name, version).load()
    score_version(connection, use_case, model)
    with connection.transaction():
        make_champion(connection, use_case.name, version, instead_of=champion, by=by, reason=reason, is_rollback=is_rollback)


def _line(version: StoredVersion, reigns: list[Reign]) -> VersionLine:
    own = [reign for reign in reigns if reign.model_version == version.version]
    report = read_report(version.report) if version.report else None
    found: tuple[str | None, float | None, float | None] = (None, None, None)
    if isinstance(report, TrainingReport):
        found = (PR_AUC, report.pr_auc_model, report.pr_auc_baseline)
    elif report is not None:
        found = (LOSS, report.loss_model, report.loss_baseline)
    try:
        version.read()
        is_usable = True
    except ModelUnusable:
        is_usable = False
    return VersionLine(
        use_case=version.use_case,
        version=version.version,
        state="champion" if own and own[-1].champion_until is None else "former champion" if own else "challenger",
        is_usable=is_usable,
        file=str(version.file),
        learned_until=version.card.learned_until,
        candidate=report.candidate if report else None,
        measure=found[0],
        figure=found[1],
        figure_of_baseline=found[2],
        dataset_id=version.card.dataset_id,
        gate_reason=version.gate.reason,
        trained_because=version.trained_because,
    )
