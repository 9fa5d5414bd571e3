"""The use case as declared: its features are those of the feature model, and it goes the whole way on a made-up plant."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import psycopg
import pytest
import yaml

from include.settings import REPOSITORY, get_settings
from ml.lifecycle.schema import Feature, FeatureKind, FeatureSchema, FeatureSchemaMismatch
from ml.lifecycle.training import Candidate, TrainingConfig, fit, probabilities
from ml.lifecycle.use_case import UseCase
from ml.usecases import component_failure, device_failure, device_failure_24h
from ml.usecases.component_failure import COMPONENT_FAILURE
from ml.usecases.device_failure import DEVICE_FAILURE
from ml.usecases.device_failure_24h import DEVICE_FAILURE_24H
from tests.ml.conftest import make_freshness

FIRST_DAY = date(2026, 1, 1)
MACHINES, DAYS = 30, 110


@pytest.fixture
def plant(owner: psycopg.Connection) -> psycopg.Connection:
    """Feature rows of machines whose vibration rises in the week before a failure, and turns spiky on its eve; every other feature is noise."""
    random = np.random.default_rng(11)
    types = {FeatureKind.NUMBER: "float8", FeatureKind.FLAG: "boolean", FeatureKind.CATEGORY: "text"}
    columns = ", ".join(f"{feature.name} {types[feature.kind]}" for feature in device_failure.FEATURES.features)
    owner.execute(f"create table features.feat_device_daily (tenant_id text, device_id text, feature_date date, facility_id text, {columns})")
    owner.execute("create table maintenance.fct_maintenance_event (tenant_id text, device_id text, maintenance_type text, occurred_at timestamptz)")
    owner.execute("grant select on features.feat_device_daily, maintenance.fct_maintenance_event to tidemark_ml")
    make_freshness(owner, {"features.feat_device_daily": ("device_telemetry",), "maintenance.fct_maintenance_event": ("maintenance_log",)})
    signal, eve = (device_failure.FEATURES.names.index(name) for name in ("vibration_rms_1d_mm_s", "vibration_kurtosis_1d"))
    categories = [position for position, feature in enumerate(device_failure.FEATURES.features) if feature.kind is FeatureKind.CATEGORY]
    rows, failures = [], []
    for machine in range(MACHINES):
        name, failing = f"machine_{machine:02d}", set(random.choice(DAYS, size=DAYS // 20, replace=False).tolist())
        failures += [(name, "failure", FIRST_DAY + timedelta(days=day)) for day in failing]
        failures += [(name, "service", FIRST_DAY + timedelta(days=day)) for day in range(machine % 9, DAYS, 9)]
        for day in range(DAYS):
            values: list[object] = list(random.normal(size=len(device_failure.FEATURES.features)))
            values[signal] = 2.0 * any(day < failure <= day + 7 for failure in failing) + 0.7 * random.normal()
            values[eve] = 3.0 * (day + 1 in failing) + random.normal()
            for position in categories:
                values[position] = f"M{machine % 2}"
            rows.append(("default", name, FIRST_DAY + timedelta(days=day), f"plant_{machine % 3}", *values))
    with owner.cursor() as cursor:
        with cursor.copy("copy features.feat_device_daily from stdin") as copy:
            for row in rows:
                copy.write_row(row)
        cursor.executemany(
            "insert into maintenance.fct_maintenance_event values ('default', %s, %s, %s::timestamp at time zone 'UTC' + interval '9 hours')", failures
        )
    return owner


def offered_by(name: str) -> dict[str, str]:
    """Columns of a feature model with their types. Its dbt contract is enforced, so its YAML says what the table offers."""
    document = yaml.safe_load((REPOSITORY / "dbt_project" / "models" / "features" / "_features__models.yml").read_text(encoding="utf-8"))
    (model,) = [model for model in document["models"] if model["name"] == name]
    names = {"double precision": "float8", "bigint": "int8", "integer": "int4", "boolean": "bool"}
    return {column["name"]: names.get(column["data_type"], column["data_type"]) for column in model["columns"]}


@pytest.mark.parametrize("use_case", [DEVICE_FAILURE, DEVICE_FAILURE_24H, COMPONENT_FAILURE], ids=lambda use_case: use_case.name)
def test_every_feature_is_a_column_of_the_feature_model_with_a_fitting_type(use_case: UseCase) -> None:
    source = use_case.dataset.features
    offered = offered_by(source.relation.name)
    source.schema.check(source.relation.name, offered)
    assert {*source.entity, source.date_column, *source.context, *use_case.slice_by} <= set(offered)
    assert {baseline.column for baseline in use_case.baselines} <= set(source.schema.names)


def test_a_feature_that_is_gone_is_named() -> None:
    offered = offered_by("feat_device_daily")
    with pytest.raises(FeatureSchemaMismatch, match="missing: rated_power_kw"):
        device_failure.FEATURES.check("feat_device_daily", {name: kind for name, kind in offered.items() if name != "rated_power_kw"})


def test_the_whole_way_from_features_to_predictions(plant: psycopg.Connection) -> None:
    report = device_failure.train()
    assert report.gate.passed
    assert report.baseline_name in {"recent error count", "recent error events", "time since maintenance", "vibration against own norm"}
    assert {name.partition(",")[0] for name in report.validation_pr_auc} == {"logistic regression", "gradient boosting", "random forest"}
    assert report.difference.low > 0
    assert [part.name for part in report.parts] == ["train", "validation", "test"]
    assert (get_settings().home / "reports" / "device_failure" / f"v{report.model_version}.json").exists()

    written = device_failure.score_champion()
    newest = FIRST_DAY + timedelta(days=DAYS - 1)
    assert written == MACHINES * ((newest - report.parts[2].first).days + 1)
    assert device_failure.score_champion() == 0

    # High probabilities are followed by failures; also on the newest days, whose outcomes no one has seen.
    sharp = plant.execute(
        "select avg(failed::int) filter (where failure_probability >= 0.5), avg(failed::int) filter (where failure_probability < 0.2) from ("
        " select p.failure_probability, exists (select from maintenance.fct_maintenance_event e where e.device_id = p.device_id"
        " and e.maintenance_type = 'failure' and e.occurred_at > p.outcome_from and e.occurred_at <= p.outcome_to) as failed"
        " from predictions.device_failure p where p.model_name = 'device_failure' and p.feature_date <= %s) as joined",
        [newest - timedelta(days=7)],
    ).fetchone()
    assert sharp is not None
    assert sharp[0] > 0.6
    assert sharp[1] < 0.25


def test_the_next_day_has_a_model_and_a_table_of_its_own(plant: psycopg.Connection) -> None:
    report = device_failure_24h.train()
    assert report.gap_days == 1
    assert report.gate.passed
    written = device_failure_24h.score_champion()
    assert written > 0
    rows = plant.execute("select count(*), min(outcome_to - outcome_from), max(outcome_to - outcome_from) from predictions.device_failure_24h").fetchone()
    assert rows == (written, timedelta(days=1), timedelta(days=1))
    assert plant.execute("select count(*) from predictions.device_failure").fetchone() == (0,)


def test_a_component_is_scored_by_its_own_key(owner: psycopg.Connection) -> None:
    """Bearings fail within a week of an error E1 and motors after E2; the model finds out which."""
    random = np.random.default_rng(5)
    types = {FeatureKind.NUMBER: "float8", FeatureKind.FLAG: "boolean", FeatureKind.CATEGORY: "text"}
    columns = ", ".join(f"{feature.name} {types[feature.kind]}" for feature in component_failure.FEATURES.features)
    owner.execute(f"create table features.feat_component_daily (tenant_id text, device_id text, feature_date date, facility_id text, {columns})")
    owner.execute(
        "create table maintenance.fct_maintenance_event (tenant_id text, device_id text, component_code text, maintenance_type text, occurred_at timestamptz)"
    )
    owner.execute("grant select on features.feat_component_daily, maintenance.fct_maintenance_event to tidemark_ml")
    make_freshness(owner, {"features.feat_component_daily": ("device_telemetry",), "maintenance.fct_maintenance_event": ("maintenance_log",)})
    codes = {"bearing": "E1", "motor": "E2"}
    rows, failures = [], []
    for machine in range(MACHINES):
        name, error, since = f"machine_{machine:02d}", "none", 0
        for day in range(DAYS):
            error, since = (str(random.choice(["E1", "E2"])), 0) if random.random() < 0.1 else (error if since < 6 else "none", since + 1)
            for component, announcing in codes.items():
                values = {feature.name: None if feature.kind is FeatureKind.CATEGORY else random.normal() for feature in component_failure.FEATURES.features}
                values |= {"is_oldest_component": bool(random.integers(2)), "component_code": component, "last_error_code": error, "model_name": "M"}
                values["component_error_codes_1d"] = f"{component}:{error if since == 0 else 'none'}"
                rows.append(("default", name, FIRST_DAY + timedelta(days=day), "plant", *values.values()))
                if error == announcing and since == 0 and random.random() < 0.8:
                    failures.append((name, component, FIRST_DAY + timedelta(days=day + 7)))
    with owner.cursor() as cursor:
        with cursor.copy("copy features.feat_component_daily from stdin") as copy:
            for row in rows:
                copy.write_row(row)
        cursor.executemany(
            "insert into maintenance.fct_maintenance_event values ('default', %s, %s, 'failure', %s::timestamp at time zone 'UTC' + interval '9 hours')",
            failures,
        )
    report = component_failure.train()
    assert report.gate.passed
    assert {part.entities for part in report.parts} == {report.difference.blocks} == {MACHINES}, "machines are counted and drawn, not their components"
    assert component_failure.score_champion() > 0
    sharper = owner.execute(
        "select avg(failure_probability) filter (where f.component_error_codes_1d = 'bearing:E1') >"
        " avg(failure_probability) filter (where f.component_error_codes_1d = 'motor:E1') from predictions.component_failure as p"
        " join features.feat_component_daily as f using (tenant_id, device_id, component_code, feature_date)"
    ).fetchone()
    assert sharper == (True,)
    assert component_failure.score_champion() == 0


@pytest.mark.parametrize("candidate", device_failure.CANDIDATES, ids=lambda candidate: candidate.name)
def test_a_sensor_that_the_plant_does_not_have_stops_no_candidate(candidate: Candidate) -> None:
    schema = FeatureSchema((Feature("wear"), Feature("pressure"), Feature("is_new", FeatureKind.FLAG), Feature("maker", FeatureKind.CATEGORY)))
    random = np.random.default_rng(2)
    outcome = random.integers(0, 2, size=400)
    table = pd.DataFrame({"wear": outcome + 0.3 * random.normal(size=400), "pressure": None, "is_new": None, "maker": None}, dtype=object)
    config = TrainingConfig(schema=schema, candidates=(candidate,))
    model = fit(config, table[:300], outcome[:300], table[300:], outcome[300:])
    assert model.validation_pr_auc[candidate.name] > 0.9
    assert table["pressure"].isna().all(), "the caller's rows stay as they are"
    assert len(set(probabilities(model.estimator, schema, table.assign(wear=0.5)))) == 1
