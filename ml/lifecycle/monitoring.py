"""Watching the champions: has what they see moved, and how good were they really? Trains anew only where an effect is large or a loss was measured.

Every day of data the champion's features are compared with what it was trained on (`ml.lifecycle.drift`), and its predictions with what happened
(`platform.fct_prediction_outcome`). What was found, whether a training was asked for, and why, is a line of `ops.model_monitor`. Two figures say what a
training may gain: the share of the predictions that rests on features that moved, which is the most that there is to win back, and by how much a newer version
in the champion's shadow was better on the same outcomes, which is measured.

A budget of trainings a week of data bounds whatever makes a training due, also where there is no champion; only a person trains beyond it. Why a version was
trained stands in its line of `ops.model_version`.

Data sets whose units know no common calendar (`SplitBy.ENTITY`) have no newest week: they are not monitored, and trained by hand only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from psycopg.types.json import Jsonb
from pydantic import TypeAdapter

from include.warehouse import Role, connect
from ml.lifecycle.champions import champion_version
from ml.lifecycle.dataset import DAY, Dataset, NotEnoughData, SplitBy, blocks_of, knowledge_time, load_features, offered_columns
from ml.lifecycle.drift import Drift, DriftBounds, Profile, at_stake, compare, profiles
from ml.lifecycle.explain import NotExplainable
from ml.lifecycle.live import Lead, LivePerformance, PerformanceBounds, RankingQuality, live_performance, losses, measure_lead, ranking_quality
from ml.lifecycle.quantiles import QuantileTraining
from ml.lifecycle.schema import FeatureSchema, FeatureSchemaMismatch
from ml.lifecycle.versions import ModelUnreadable, ModelUnusable, find_version, versions

if TYPE_CHECKING:
    from ml.lifecycle.report import QuantileReport, TrainingReport
    from ml.lifecycle.use_case import UseCase

# More rows tell nothing more about which features move the predictions.
ROWS_FOR_IMPORTANCE = 5_000
# Why a version was trained that somebody asked for; such trainings are outside of the budget.
BY_HAND = "asked for by hand"
WEEK = 7 * DAY
NO_CALENDAR = "its units know no common calendar, so there is no newest week to look at: train by hand (`tidemark model train`)"


class MonitoringFailed(RuntimeError):
    """Champions that could not be looked at; the message names each, and why."""


@dataclass(frozen=True)
class Monitoring:
    """How a use case is watched.

    Attributes:
        window_days: Newest days whose features are compared with the reference; whole weeks, or the days of the week themselves would look like drift.
        outcome_days: Newest days with known outcomes that performance is measured on.
        drift: From where on features have drifted.
        performance: From where on a loss counts.
        trainings_a_week: Budget: how many trainings there may be in seven days of data, besides those by hand.
    """

    window_days: int = 7
    outcome_days: int = 28
    drift: DriftBounds = field(default_factory=DriftBounds)
    performance: PerformanceBounds = field(default_factory=PerformanceBounds)
    trainings_a_week: int = 2

    def __post_init__(self) -> None:
        if self.window_days < 7 or self.window_days % 7 or self.outcome_days < 1 or self.trainings_a_week < 1:
            raise ValueError(f"a window is whole weeks, outcomes at least a day, and the budget at least one training a week, got {self}")


@dataclass(frozen=True)
class Reference:
    """What a version was trained on, as far as monitoring must know it.

    Attributes:
        first: First day that it has learned from.
        last: Last one.
        window_days: Length of the windows by which `profiles` know what is usual.
        profiles: Of the features.
        test: How well it ranked on the test part, which it has not learned from; None where a question is not about a probability.
    """

    first: date
    last: date
    window_days: int
    profiles: tuple[Profile, ...]
    test: RankingQuality | None


@dataclass(frozen=True)
class Findings:
    """What was found about a champion on a day.

    Attributes:
        drift: Of every feature, the largest effect first; empty where the version has no reference, or no new row was there.
        performance: None before any outcome is known.
        rows: Rows of features that were compared.
        at_stake: Share of what moves the predictions that rests on features whose drift counts: a training may win back that much, and no more.
        lead: Of the version in the shadow that is furthest ahead of the champion on the same outcomes; None where there is none, or too little happened.
    """

    drift: tuple[Drift, ...]
    performance: LivePerformance | None
    rows: int
    at_stake: float = 0.0
    lead: Lead | None = None


@dataclass(frozen=True)
class MonitorLine:
    """A line of `ops.model_monitor`."""

    use_case: str
    model_version: int
    as_of_date: date
    findings: Findings
    wants_retraining: bool
    is_due: bool
    reason: str
    trained_version: int | None
    monitored_at: datetime | None = None


_REFERENCES: TypeAdapter[Reference] = TypeAdapter(Reference)
_FINDINGS: TypeAdapter[Findings] = TypeAdapter(Findings)


def make_reference(use_case: UseCase, dataset: Dataset, learned: NDArray[np.bool_], contributions: Callable[[pd.DataFrame], NDArray[np.float64]]) -> Reference:
    """Describe what a version has learned from; how well it ranks is added by `with_test`.

    Args:
        use_case: Which one.
        dataset: What it was trained on.
        learned: Rows that it has learned from.
        contributions: What each feature adds to the prediction of each row, shape (rows, features).
    """
    schema, rows = use_case.training.schema, dataset.frame[learned]
    days = rows[use_case.dataset.features.date_column]
    sample = rows.iloc[:: max(1, len(rows) // ROWS_FOR_IMPORTANCE)]  # evenly over the days
    moved = np.abs(contributions(sample)).mean(axis=0)
    shares = dict(zip(schema.names, (moved / moved.sum() if moved.sum() else moved).tolist(), strict=True))
    window_days = use_case.monitoring.window_days
    return Reference(min(days), max(days), window_days, profiles(schema, rows, days, shares, window_days=window_days), None)


def with_test(use_case: UseCase, reference: Reference, test: pd.DataFrame, outcome: NDArray[np.int_], probability: NDArray[np.float64]) -> Reference:
    """The reference with how well the version ranks the test part."""
    blocks = blocks_of(use_case.dataset.features, test)  # machines, as live performance draws them
    return replace(reference, test=ranking_quality(outcome, probability, blocks, use_case.monitoring.performance))


def enter_reference(connection: psycopg.Connection[Any], use_case: str, version: int, reference: Reference) -> None:
    """Stores the reference of a version, in the transaction that stores the version."""
    connection.execute(
        "insert into ops.model_reference (use_case, model_version, reference) values (%s, %s, %s)",
        (use_case, version, Jsonb(_REFERENCES.dump_python(reference, mode="json"))),
    )


def find_reference(connection: psycopg.Connection[Any], use_case: str, version: int) -> Reference | None:
    """The reference of a version; None for versions that are older than monitoring."""
    row = connection.execute("select reference from ops.model_reference where use_case = %s and model_version = %s", (use_case, version)).fetchone()
    return None if row is None else _REFERENCES.validate_python(row[0], strict=False)


def has_calendar(use_case: UseCase) -> bool:
    """Whether there is a newest week to look at."""
    return use_case.dataset.split_by is SplitBy.TIME


def monitor(use_case: UseCase) -> MonitorLine | None:
    """Look at the champion as of the newest whole day of features, and store what was found. Again on the same data it finds and decides the same.

    Returns:
        The line; None without a champion, which is no matter of monitoring but of training, and where units know no calendar (`has_calendar`).

    Raises:
        FeatureSchemaMismatch: If the warehouse does not offer the features any more.
        WarehouseUnavailable: If the warehouse cannot be reached.
    """
    if not has_calendar(use_case):
        return None
    with connect(Role.ML) as connection:
        version = champion_version(connection, use_case.name)
        if version is None:
            return None
        card = find_version(connection, use_case.name, version).card
        reference = find_reference(connection, use_case.name, version)
        newest = _newest_whole_days(connection, use_case)
        as_of = max(newest.values())
        rows = _window(connection, use_case, card.schema, newest)
        drifts = compare(reference.profiles, card.schema, rows, use_case.monitoring.drift) if reference is not None and len(rows) else ()
        performance = _performance(connection, use_case, version)
        lead = _lead(connection, use_case, version)
        findings = Findings(tuple(sorted(drifts, key=_effect, reverse=True)), performance, len(rows), at_stake(drifts), lead)
        reasons = reasons_to_retrain(findings, reference, use_case.monitoring)
        with connection.transaction():
            connection.execute("select pg_advisory_xact_lock(hashtextextended('tidemark.monitor.' || %s, 0))", (use_case.name,))
            is_due, reason = _within_budget(connection, use_case, as_of, reasons, _calm(findings, reference))
            row = connection.execute(
                "insert into ops.model_monitor as stored (use_case, model_version, as_of_date, findings, wants_retraining, is_due, reason) "
                "values (%s, %s, %s, %s, %s, %s, %s) on conflict (use_case, as_of_date) do update "
                "set model_version = excluded.model_version, findings = excluded.findings, wants_retraining = excluded.wants_retraining, "
                "is_due = excluded.is_due, reason = excluded.reason, monitored_at = clock_timestamp() "
                # What a training has answered stays as it was asked.
                "where stored.trained_version is null returning use_case",
                (use_case.name, version, as_of, Jsonb(_FINDINGS.dump_python(findings, mode="json")), bool(reasons), is_due, reason),
            ).fetchone()
        stored = lines(connection, use_case.name, newest=as_of)[0]
    assert row is not None or stored.trained_version is not None
    return stored


def reasons_to_retrain(findings: Findings, reference: Reference | None, monitoring: Monitoring) -> tuple[str, ...]:
    """Why a training is wanted: each drift that counts, with what there is to win back, each loss, and a gain that was measured. Empty where nothing is."""
    found = [str(drift) for drift in findings.drift if drift.counts and drift.importance >= monitoring.drift.importance]
    light = [drift for drift in findings.drift if drift.counts and drift.importance < monitoring.drift.importance]
    if light:
        share = sum(drift.importance for drift in light)
        found.append(f"{', '.join(drift.feature for drift in light)} have drifted, each of little weight ({share:.0%} of predictions together)")
    if findings.at_stake:
        found.append(f"{findings.at_stake:.0%} of what moves the predictions rests on what has drifted: the most that a training may win back")
    if findings.performance is not None:
        found += losses(findings.performance, None if reference is None else reference.test, monitoring.performance)
    if findings.lead is not None and findings.lead.counts(monitoring.performance):
        found.append(f"version {findings.lead.version}, in the shadow, is ahead of the champion by {findings.lead}: a training may gain as much")
    return tuple(found)


def lines(connection: psycopg.Connection[Any], use_case: str, *, newest: date | None = None, limit: int = 30) -> list[MonitorLine]:
    """What monitoring found about a use case, newest first.

    Args:
        connection: Of a role that may read.
        use_case: Which one.
        newest: Last day; the newest of all if None.
        limit: How many at most.
    """
    rows = connection.execute(
        "select use_case, model_version, as_of_date, findings, wants_retraining, is_due, reason, trained_version, monitored_at from ops.model_monitor "
        "where use_case = %s and as_of_date <= %s order by as_of_date desc limit %s",
        (use_case, newest or date.max, limit),
    )
    return [
        MonitorLine(name, version, as_of, _FINDINGS.validate_python(findings, strict=False), wanted, due, reason, trained, monitored_at)
        for name, version, as_of, findings, wanted, due, reason, trained, monitored_at in rows
    ]


def monitor_all(use_cases: Iterable[UseCase]) -> int:
    """Looks at every champion. One that cannot be looked at keeps nobody from the others.

    Returns:
        How many champions there are.

    Raises:
        MonitoringFailed: If one could not be looked at; after all others were.
    """
    champions = 0
    failures: list[str] = []
    for use_case in use_cases:
        try:
            champions += monitor(use_case) is not None
        except (FeatureSchemaMismatch, NotEnoughData) as error:
            failures.append(f"{use_case.name}: {error}")
    if failures:
        raise MonitoringFailed("\n".join(failures))
    return champions


def training_due(connection: psycopg.Connection[Any], use_case: UseCase) -> tuple[bool, str]:
    """Whether a training should run that nobody has asked for by hand, and why or why not.

    Besides what monitoring asks for: there is no champion, or it can score no more, or the use case asks for other features than any version has. All of them
    within the budget. What a training cannot mend, such as too little history, it finds again each night, and registers nothing.
    """
    if not has_calendar(use_case):
        return False, f"{use_case.name} is not trained by itself: {NO_CALENDAR}"
    try:
        reason = _why_due(connection, use_case)
    except ModelUnreadable as error:
        return False, f"nobody can tell whether a training of {use_case.name} is due: {error}"
    if reason is None:
        newest = lines(connection, use_case.name, limit=1)
        why = f"of {newest[0].as_of_date}: {newest[0].reason}" if newest else "none: nobody has monitored the champion yet"
        return False, f"no training of {use_case.name} is due; newest line of monitoring {why}"
    try:
        as_of = max(_newest_whole_days(connection, use_case).values())
    except (FeatureSchemaMismatch, NotEnoughData):
        return True, reason  # the training says what is missing
    budget = use_case.monitoring.trainings_a_week
    if _trained_lately(connection, use_case, as_of) >= budget:
        return False, f"{reason}. Not trained: the budget of {budget} trainings a week is spent; `tidemark model train {use_case.name}` trains beyond it"
    return True, reason


def _why_due(connection: psycopg.Connection[Any], use_case: UseCase) -> str | None:
    """Why a training is due, whatever the budget says; None where it is not.

    Raises:
        ModelUnreadable: If the champion's file cannot be read at the moment.
    """
    name = use_case.name
    champion = champion_version(connection, name)
    if champion is None:
        return "there is no champion yet"
    known = versions(connection, name)
    try:
        version = next(version for version in known if version.version == champion)
        version.load().scorer  # noqa: B018  prepared as scoring does it: the right bytes may be of another release of the libraries
        relation = use_case.dataset.features.relation
        version.card.schema.check(str(relation), offered_columns(connection, relation))
    except ModelUnreadable:
        raise
    except (ModelUnusable, NotExplainable, FeatureSchemaMismatch) as error:
        return f"the champion can score no more: {error}"
    if known[0].card.schema != use_case.training.schema:
        return f"the use case asks for other features than version {known[0].version}, the newest, has learned from"
    open_line = _open_line(connection, name)
    return None if open_line is None else f"asked for on {open_line[0]}: {open_line[1]}"


def train_if_due(
    use_case: UseCase, train: Callable[[str], TrainingReport | QuantileReport], *, by_hand: bool
) -> tuple[TrainingReport | QuantileReport | None, str]:
    """Trains where a training is due or somebody asked for it.

    Args:
        use_case: Which one.
        train: Trains it, given the reason; it answers what monitoring has asked for.
        by_hand: Whether somebody asked for it; then it needs no other reason, and no budget.

    Returns:
        The report, None where no training was due; and why.

    Raises:
        NotEnoughData: If there is too little to train on; what was asked for stays asked for.
    """
    if by_hand:
        return train(BY_HAND), BY_HAND
    with connect(Role.ML) as connection:
        is_due, reason = training_due(connection, use_case)
    return (train(reason) if is_due else None), reason


def answer_requests(connection: psycopg.Connection[Any], use_case: str, version: int) -> None:
    """Enters the version that a training made, or found again, with what monitoring has asked for; in the transaction that stores the version."""
    connection.execute(
        "update ops.model_monitor set trained_version = %s where use_case = %s and is_due and trained_version is null",
        (version, use_case),
    )


def _newest_whole_days(connection: psycopg.Connection[Any], use_case: UseCase) -> dict[str, date]:
    """Of each tenant the day before its newest one, which may still be filling.

    A tenant that fell silent keeps its last days for a while: its absence is no drift. One that has been silent for as long as outcomes are looked back is left
    out: the days on which a plant was switched off would look like drift for ever, and no training could cure it.
    """
    source = use_case.dataset.features
    offered_columns(connection, source.relation)  # that there is such a table
    query = sql.SQL("select {tenant}, max({day}) from {relation} group by 1").format(
        tenant=sql.Identifier(source.entity[0]), day=sql.Identifier(source.date_column), relation=source.relation.identifier
    )
    newest = {tenant: day - DAY for tenant, day in connection.execute(query)}
    if not newest:
        raise NotEnoughData(f"{source.relation} is empty: nothing can be monitored; land data and build the marts first (DAGs land_*, build_marts)")
    kept_from = max(newest.values()) - timedelta(days=use_case.monitoring.outcome_days)
    return {tenant: day for tenant, day in newest.items() if day > kept_from}


def _window(connection: psycopg.Connection[Any], use_case: UseCase, schema: FeatureSchema, newest: Mapping[str, date]) -> pd.DataFrame:
    """Rows of the newest whole days of each tenant."""
    source = replace(use_case.dataset.features, schema=schema, context=())
    found = []
    for tenant, last in sorted(newest.items()):
        of_tenant = replace(source, population={**source.population, source.entity[0]: (tenant,)})
        rows = load_features(connection, of_tenant, date_from=last - timedelta(days=use_case.monitoring.window_days - 1))
        found.append(rows[[day <= last for day in rows[source.date_column]]])
    return pd.concat([rows for rows in found if len(rows)] or found[:1], ignore_index=True)


def _performance(connection: psycopg.Connection[Any], use_case: UseCase, version: int) -> LivePerformance | None:
    """Of the newest days with outcomes. None before the first, and where the mart has not been built."""
    try:
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute(
                "select tenant_id, device_id, predicted_probability, has_occurred, is_within_interval "
                "from platform.fct_prediction_outcome where use_case = %(use_case)s and model_version = %(version)s and feature_date > ("
                "select max(feature_date) from platform.fct_prediction_outcome where use_case = %(use_case)s and model_version = %(version)s"
                ") - %(days)s::integer "
                "order by feature_date, tenant_id, device_id, component_code",
                {"use_case": use_case.name, "version": version, "days": use_case.monitoring.outcome_days},
            )
            names = [column.name for column in cursor.description or ()]
            rows = cursor.fetchall()
    except psycopg.errors.UndefinedTable:
        return None
    if not rows:
        return None
    return live_performance(pd.DataFrame(rows, columns=pd.Index(names)), use_case.monitoring.performance)


def _lead(connection: psycopg.Connection[Any], use_case: UseCase, champion: int) -> Lead | None:
    """Of the newer version in the shadow that is furthest ahead, on the newest days with outcomes of both. None as for `_performance`."""
    levels = use_case.training.levels if isinstance(use_case.training, QuantileTraining) else None
    said = ("predicted_probability", "predicted_low_days", "predicted_median_days", "predicted_high_days")
    query = sql.SQL(
        "with own as (select * from platform.fct_prediction_outcome where use_case = %(use_case)s and model_version = %(champion)s), "
        "other as (select * from platform.fct_prediction_outcome where use_case = %(use_case)s and model_version = %(version)s) "
        "select own.tenant_id, own.device_id, own.has_occurred, own.outcome_days, {own}, {other} from own join other "
        "on other.tenant_id = own.tenant_id and other.device_id = own.device_id and other.feature_date = own.feature_date "
        "and other.component_code is not distinct from own.component_code "
        "where own.feature_date > (select max(feature_date) from other) - %(days)s::integer "
        "order by own.feature_date, own.tenant_id, own.device_id, own.component_code"
    ).format(
        own=sql.SQL(", ").join(sql.Identifier("own", name) for name in said),
        other=sql.SQL(", ").join(sql.SQL("{} as {}").format(sql.Identifier("other", name), sql.Identifier(f"other_{name}")) for name in said),
    )
    # An older version that is ahead says that the change of champion was wrong, which a training does not mend: `tidemark model compare`, `rollback`.
    leads = []
    for version in [version.version for version in versions(connection, use_case.name) if version.version > champion][: use_case.shadows]:
        values = {"use_case": use_case.name, "champion": champion, "version": version, "days": use_case.monitoring.outcome_days}
        try:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.execute(query, values)
                names = [column.name for column in cursor.description or ()]
                pairs = pd.DataFrame(cursor.fetchall(), columns=pd.Index(names))
        except psycopg.errors.UndefinedTable:
            return None
        found = measure_lead(pairs, version, use_case.monitoring.performance, levels) if len(pairs) else None
        leads += [found] if found is not None else []
    return max(leads, key=lambda lead: lead.value, default=None)


def _trained_lately(connection: psycopg.Connection[Any], use_case: UseCase, as_of: date) -> int:
    """Versions that were trained, but not by hand, in the seven days of data until `as_of`. A training that found its version again has cost nothing."""
    row = connection.execute(
        "select count(*) from ops.model_version where use_case = %s and trained_because <> %s and (report ->> 'known_until')::timestamptz > %s",
        (use_case.name, BY_HAND, knowledge_time(as_of - WEEK)),
    ).fetchone()
    return row[0] if row is not None else 0


def _within_budget(connection: psycopg.Connection[Any], use_case: UseCase, as_of: date, reasons: tuple[str, ...], calm: str) -> tuple[bool, str]:
    """Whether a wanted training may be asked for, and the reason as it is stored."""
    if not reasons:
        return False, calm
    why = "; ".join(reasons)
    waiting = connection.execute(
        "select max(as_of_date) from ops.model_monitor where use_case = %s and is_due and trained_version is null and as_of_date < %s", (use_case.name, as_of)
    ).fetchone()
    if waiting is not None and waiting[0] is not None:
        return False, f"{why}. The training that was asked for on {waiting[0]} has not run yet"
    budget = use_case.monitoring.trainings_a_week
    if _trained_lately(connection, use_case, as_of) >= budget:
        return False, f"{why}. Not asked for: the budget of {budget} trainings a week is spent"
    return True, why


def _open_line(connection: psycopg.Connection[Any], use_case: str) -> tuple[date, str] | None:
    """The newest request that no training has answered."""
    return connection.execute(
        "select as_of_date, reason from ops.model_monitor where use_case = %s and is_due and trained_version is null order by as_of_date desc limit 1",
        (use_case,),
    ).fetchone()


def _calm(findings: Findings, reference: Reference | None) -> str:
    """What is said where nothing asks for a training: what was looked at, and what could not be."""
    if reference is None:
        drift = "the version is older than monitoring and has no reference: its features cannot be compared"
    elif not findings.rows:
        drift = "no row of features to compare"
    elif all(profile.usual is None for profile in reference.profiles):
        drift = f"the reference ({reference.first} to {reference.last}) is too short to know what is usual: no drift counts"
    else:
        small = [drift.feature for drift in findings.drift if drift.has_drifted]
        drift = f"no drift that counts in {len(findings.drift)} features" + (f" (of no weight: {', '.join(small)})" if small else "")
    performance = "no outcome is known yet" if findings.performance is None else findings.performance.summary()
    shadow = "" if findings.lead is None else f"; version {findings.lead.version} in the shadow: {findings.lead}"
    return f"{drift}; {performance}{shadow}"


def _effect(drift: Drift) -> tuple[bool, bool, float]:
    return drift.counts, drift.has_drifted, drift.psi / drift.psi_bound
