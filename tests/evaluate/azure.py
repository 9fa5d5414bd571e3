"""The Azure sample of predictive maintenance: real-looking machines, errors, replacements and failures of a year, through the normal landing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from include.landing import Zone, land_pending
from include.settings import get_settings
from include.transform import build, deploy, fix_horizon
from include.warehouse import Role, connect
from ml.lifecycle import evaluation
from ml.lifecycle.alerts import Entity, judge_alerts
from ml.lifecycle.dataset import OUTCOME, Dataset, load_dataset
from ml.lifecycle.evaluation import Baseline
from ml.lifecycle.schema import FeatureSchema
from ml.lifecycle.training import RandomForestCandidate
from ml.lifecycle.use_case import UseCase
from ml.usecases.component_failure import COMPONENT_FAILURE
from ml.usecases.device_failure import DEVICE_FAILURE
from ml.usecases.device_failure_24h import DEVICE_FAILURE_24H
from ml.usecases.remaining_life import REMAINING_LIFE
from tests.evaluate.life import life_section
from tests.evaluate.question import FEATURES, REPLICATES, SEED, Answer, answer, failures_of, interval, number, out_of_time, section, table

ARRIVED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
FILES = {
    "azure_pdm_machines": ("device_registry", "PdM_machines.csv"),
    "azure_pdm_telemetry": ("device_telemetry", "PdM_telemetry_machines1-20_90days.csv.gz"),
    "azure_pdm_errors": ("device_events", "PdM_errors.csv"),
    "azure_pdm_failures": ("maintenance_log", "PdM_failures.csv"),
    "azure_pdm_maintenance": ("maintenance_log", "PdM_maint.csv"),
}
TELEMETRY_UNTIL = date(2015, 3, 31)  # the last whole day of telemetry
MADE_OF_READINGS = ("vibration", "temperature", "pressure", "load", "energy", "runtime", "running_share", "error_count", "fault", "warning", "reading")
RULES = {
    DEVICE_FAILURE.name: (
        Baseline("recent error count", "", "error_event_count_7d"),
        Baseline("age since service", "", "days_since_maintenance"),
    ),
    DEVICE_FAILURE_24H.name: (
        Baseline("recent error count", "", "error_event_count_1d"),
        Baseline("age since service", "", "days_since_maintenance"),
    ),
    COMPONENT_FAILURE.name: (
        Baseline("recent error count", "", "error_event_count_7d"),
        Baseline("age of the component", "", "days_since_replacement"),
    ),
}


def land(folder: Path) -> dict[str, tuple[int, int]]:
    """Puts the files into the zone, lands them and builds the features.

    Returns:
        By mapping: rows accepted, and rows quarantined.
    """
    zone, counts = Zone(get_settings().zone_url), {}
    for mapping, (stream, name) in FILES.items():
        ext = "csv.gz" if name.endswith(".gz") else "csv"
        zone.put(stream, folder / "maintenance" / name, arrived_at=ARRIVED_AT, source="import", ext=ext, mapping=mapping)
        result = land_pending(stream, arrived_from=ARRIVED_AT - timedelta(hours=1), arrived_before=ARRIVED_AT + timedelta(hours=1))
        counts[mapping] = (result.accepted, result.quarantined)
    deploy()
    build(FEATURES, fix_horizon(), run_tests=False)
    return counts


def evaluate(folder: Path, step: Callable[[str], None]) -> list[str]:
    """Lands the sample into the empty warehouse that the settings point to, and judges the use cases on it.

    Args:
        folder: Folder of public data sets.
        step: Called with the title of each step before it begins.

    Returns:
        Lines of Markdown.
    """
    step("Azure sample: landing and features")
    counts = land(folder)
    lines = _introduction(counts)
    with connect(Role.ML) as connection:
        answers, failures = {}, {}
        for use_case, title in (
            (DEVICE_FAILURE_24H, "Failure of a machine within 24 hours"),
            (DEVICE_FAILURE, "Failure of a machine within 7 days"),
            (COMPONENT_FAILURE, "Component that fails within 7 days"),
        ):
            step(f"Azure sample: {title}")
            dataset = load_dataset(connection, use_case.dataset)
            failures[use_case.name] = failures_of(connection, use_case.dataset)
            slice_by = tuple(name for name in use_case.slice_by if name != "facility_id")
            answers[use_case.name] = answer(title, dataset, use_case.training, RULES[use_case.name], failures[use_case.name], slice_by)
            lines += section(answers[use_case.name])
            if use_case is COMPONENT_FAILURE:
                lines += _component_at_risk(answers[use_case.name])
        step("Azure sample: days until the next failure")
        lines += life_section("Days until a machine fails", REMAINING_LIFE, load_dataset(connection, REMAINING_LIFE.dataset))
        step("Azure sample: what telemetry adds")
        lines += _telemetry(
            [(use_case, load_dataset(connection, use_case.dataset), failures[use_case.name]) for use_case in (DEVICE_FAILURE_24H, DEVICE_FAILURE)]
        )
    return lines


def _introduction(counts: Mapping[str, tuple[int, int]]) -> list[str]:
    return [
        "## Azure sample of predictive maintenance",
        "",
        "100 machines over the year 2015: hourly errors, failures of four components, replacements from June 2014 on, model and age. Telemetry is cut"
        " to 20 machines and 90 days, so the three questions below are answered for all machines from errors, replacements and age, and from "
        "telemetry where there is some; what telemetry adds is measured apart. The sample is a simulation by its publisher: errors announce failures "
        "more plainly than in a plant.",
        "",
        "The files go through the mappings `azure_pdm_*` and the normal landing. A row is known when it happened plus the delay of its mapping: an "
        "hour for readings and errors, twelve hours for what people write down. A feature holds what was known by the end of its day (UTC).",
        "",
        *table(
            ("mapping", "rows accepted", "rows quarantined"), ([f"`{name}`", f"{accepted:,}", f"{refused:,}"] for name, (accepted, refused) in counts.items())
        ),
    ]


def _component_at_risk(result: Answer) -> list[str]:
    """Of machine-days before a failure: how often the component that is named first is one that fails."""
    rows = result.test.assign(machine=list(zip(result.test["tenant_id"], result.test["device_id"], result.test["feature_date"], strict=True)))
    before = rows[rows.groupby("machine")[OUTCOME].transform("max").astype(int) == 1]
    age = pd.to_numeric(before["days_since_replacement"]).fillna(-1)
    named = {
        result.chosen: before.loc[before.groupby("machine")["probability"].idxmax()],
        "rule: the component that was replaced the longest ago": before.loc[age.groupby(before["machine"]).idxmax()],
    }
    random = np.random.default_rng(SEED)
    lines = []
    for name, first in named.items():
        hits = first[OUTCOME].astype(int).to_numpy()
        codes, machines = pd.factorize(first["device_id"])
        drawn = random.multinomial(len(machines), np.full(len(machines), 1 / len(machines)), size=REPLICATES)[:, codes]
        low, high = np.quantile((drawn @ hits) / drawn.sum(axis=1), [0.025, 0.975])
        lines.append([name, f"{hits.mean():.2f} ({low:.2f} to {high:.2f})"])
    share = before.groupby("machine")[OUTCOME].apply(lambda values: values.astype(int).mean()).mean()
    lines.append(["by chance", f"{share:.2f}"])
    days = before["machine"].nunique()
    return [
        f"On {days:,} machine-days that a failure followed, the component named first was one that failed:",
        "",
        *table(("named by", "share (95 %)"), lines),
    ]


def without_readings(schema: FeatureSchema) -> FeatureSchema:
    """The features that need no telemetry."""
    return FeatureSchema(tuple(feature for feature in schema.features if not any(word in feature.name for word in MADE_OF_READINGS)))


def _telemetry(questions: Sequence[tuple[UseCase, Dataset, Mapping[Entity, Sequence[datetime]]]]) -> list[str]:
    lines = [
        "### What telemetry adds",
        "",
        "Only the 20 machines and the 90 days with telemetry. A random forest is fitted anew four times on all older days (the horizon left out "
        "between) and asked about the next ones; the answers are judged together. There are few failures: the intervals say how little this part can "
        "decide.",
        "",
    ]
    rows, verdicts = [], []
    for use_case, whole, failures in questions:
        kept = np.array([day <= TELEMETRY_UNTIL for day in whole.dates]) & (pd.to_numeric(whole.frame["days_since_reading"]).notna()).to_numpy()
        dataset = replace(whole, frame=whole.frame[kept])
        horizon_h = use_case.dataset.outcome.horizon / timedelta(hours=1)
        scores: dict[str, tuple[pd.DataFrame, np.ndarray]] = {}
        for name, schema in (("with telemetry", use_case.training.schema), ("without telemetry", without_readings(use_case.training.schema))):
            config = replace(use_case.training, schema=schema, candidates=(RandomForestCandidate(min_rows_in_leaf=5),))
            predicted = out_of_time(dataset, config, folds=4, first_share=0.3)
            scores[name] = predicted, predicted["probability"].to_numpy(dtype=np.float64)
        for rule in RULES[use_case.name]:
            scores[f"rule: {rule.name}"] = predicted, rule.scores(predicted)
        (first, informed), (_, uninformed) = scores["with telemetry"], scores["without telemetry"]
        machines = list(first["device_id"])
        added = evaluation.bootstrap_difference(first[OUTCOME].astype(float), informed, uninformed, machines, replicates=REPLICATES, seed=SEED)
        verdict = "which is no evidence that it helps" if added.low <= 0 else "so it helps"
        verdicts.append(
            f"Within {horizon_h:.0f} h telemetry adds {added.difference:+.3f} PR-AUC, 95 % interval {added.low:+.3f} to {added.high:+.3f}, {verdict}."
        )
        for name, (test, score) in scores.items():
            truth = test[OUTCOME].to_numpy(dtype=np.int_)
            entities = [tuple(map(str, row)) for row in test[["tenant_id", "device_id"]].itertuples(index=False, name=None)]
            low, high = evaluation.bootstrap_pr_auc(truth, score, entities, replicates=REPLICATES, seed=SEED)
            alerts = judge_alerts(entities, list(test["feature_date"]), score, failures, horizon=use_case.dataset.outcome.horizon, seed=SEED)
            figures = (
                f"{number(evaluation.pr_auc(truth, score))} ({number(low)} to {number(high)})",
                interval(alerts.recall, 2),
                interval(alerts.precision, 2),
            )
            rows.append([f"{horizon_h:.0f} h", name, *figures, f"{alerts.caught} of {alerts.failures}", number(float(truth.mean()))])
    return [*lines, *table(("horizon", "ranking", "PR-AUC", "recall", "precision", "failures caught", "by chance (PR-AUC)"), rows), *verdicts, ""]
