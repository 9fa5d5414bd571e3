"""The use case as declared: its features are those of the feature model, and it goes the whole way on a made-up plant."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import psycopg
import pytest
import yaml

from include.settings import REPOSITORY, get_settings
from ml.lifecycle.schema import FeatureKind, FeatureSchemaMismatch
from ml.usecases import device_failure
from tests.ml.conftest import make_freshness

FIRST_DAY = date(2026, 1, 1)
MACHINES, DAYS = 30, 110


@pytest.fixture
def plant(owner: psycopg.Connection) -> psycopg.Connection:
    """Feature rows of machines whose vibration rises in the week before a failure; every other feature is noise."""
    random = np.random.default_rng(11)
    types = {FeatureKind.NUMBER: "float8", FeatureKind.FLAG: "boolean", FeatureKind.CATEGORY: "text"}
    columns = ", ".join(f"{feature.name} {types[feature.kind]}" for feature in device_failure.FEATURES.features)
    owner.execute(f"create table features.feat_device_daily (tenant_id text, device_id text, feature_date date, facility_id text, {columns})")
    owner.execute("create table maintenance.fct_maintenance_event (tenant_id text, device_id text, maintenance_type text, occurred_at timestamptz)")
    owner.execute("grant select on features.feat_device_daily, maintenance.fct_maintenance_event to tidemark_ml")
    make_freshness(owner, {"features.feat_device_daily": ("device_telemetry",), "maintenance.fct_maintenance_event": ("maintenance_log",)})
    signal = device_failure.FEATURES.names.index("vibration_rms_1d_mm_s")
    rows, failures = [], []
    for machine in range(MACHINES):
        name, failing = f"machine_{machine:02d}", set(random.choice(DAYS, size=DAYS // 20, replace=False).tolist())
        failures += [(name, "failure", FIRST_DAY + timedelta(days=day)) for day in failing]
        failures += [(name, "service", FIRST_DAY + timedelta(days=day)) for day in range(machine % 9, DAYS, 9)]
        for day in range(DAYS):
            values: list[object] = list(random.normal(size=len(device_failure.FEATURES.features)))
            values[signal] = 2.0 * any(day < failure <= day + 7 for failure in failing) + 0.7 * random.normal()
            values[-1] = f"M{machine % 2}"
            rows.append(("default", name, FIRST_DAY + timedelta(days=day), f"plant_{machine % 3}", *values))
    with owner.cursor() as cursor:
        with cursor.copy("copy features.feat_device_daily from stdin") as copy:
            for row in rows:
                copy.write_row(row)
        cursor.executemany(
            "insert into maintenance.fct_maintenance_event values ('default', %s, %s, %s::timestamp at time zone 'UTC' + interval '9 hours')", failures
        )
    return owner


def test_every_feature_is_a_column_of_the_feature_model_with_a_fitting_type() -> None:
    """The dbt contract of the feature model is enforced, so its YAML says what the table offers."""
    document = yaml.safe_load((REPOSITORY / "dbt_project" / "models" / "features" / "_features__models.yml").read_text(encoding="utf-8"))
    (model,) = [model for model in document["models"] if model["name"] == "feat_device_daily"]
    names = {"double precision": "float8", "bigint": "int8", "integer": "int4", "boolean": "bool"}
    offered = {column["name"]: names.get(column["data_type"], column["data_type"]) for column in model["columns"]}
    device_failure.FEATURES.check("feat_device_daily", offered)
    source = device_failure.DEVICE_FAILURE.dataset.features
    assert {*source.entity, source.date_column, *source.context} <= set(offered)
    with pytest.raises(FeatureSchemaMismatch, match="missing: rated_power_kw"):
        device_failure.FEATURES.check("feat_device_daily", {name: kind for name, kind in offered.items() if name != "rated_power_kw"})


def test_the_whole_way_from_features_to_predictions(plant: psycopg.Connection) -> None:
    report = device_failure.train()
    assert report.gate.passed
    assert report.baseline_name in {"recent error count", "time since maintenance", "vibration against own norm"}
    assert report.difference.low > 0
    assert [part.name for part in report.parts] == ["train", "validation", "test"]
    assert (get_settings().home / "reports" / "device_failure" / f"v{report.model_version}.json").exists()

    written = device_failure.score()
    newest = FIRST_DAY + timedelta(days=DAYS - 1)
    assert written == MACHINES * ((newest - report.parts[2].first).days + 1)
    assert device_failure.score() == 0

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
