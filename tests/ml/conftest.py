"""A small made-up question for the lifecycle: will a pump leak within seven days? Wear rises before a leak, grease says nothing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

from include.warehouse import Role, connect
from ml.lifecycle.dataset import DatasetSpec, FeatureSource, OutcomeSource, Relation
from ml.lifecycle.evaluation import Baseline, Riskier
from ml.lifecycle.schema import Feature, FeatureKind, FeatureSchema
from ml.lifecycle.training import GradientBoostingCandidate, LogisticRegressionCandidate, TrainingConfig
from ml.lifecycle.use_case import UseCase
from ml.lifecycle.writeback import PredictionTarget

FIRST_DAY = date(2026, 1, 1)
FEATURES = "features.feat_pump_daily"
SCHEMA = FeatureSchema((Feature("wear"), Feature("grease"), Feature("is_outdoors", FeatureKind.FLAG), Feature("maker", FeatureKind.CATEGORY)))
SPEC = DatasetSpec(
    features=FeatureSource(
        relation=Relation("features", "feat_pump_daily"),
        entity=("tenant_id", "device_id"),
        date_column="feature_date",
        schema=SCHEMA,
        population={"device_type": ("pump",)},
        context=("age_days", "site"),
    ),
    outcome=OutcomeSource(
        relation=Relation("maintenance", "fct_leak"),
        time_column="occurred_at",
        condition={"kind": ("leak",)},
        horizon=timedelta(days=7),
        settling=timedelta(days=2),
    ),
)


def pump_leak(name: str) -> UseCase:
    """The use case under a name of a test's own, so tests share no registered model."""
    return UseCase(
        name=name,
        question="Does a pump leak in the next 7 days?",
        dataset=SPEC,
        training=TrainingConfig(schema=SCHEMA, candidates=(LogisticRegressionCandidate(), GradientBoostingCandidate(trees=40))),
        baselines=(
            Baseline("age", "The older, the riskier.", "age_days"),
            Baseline("grease", "The less grease, the riskier.", "grease", Riskier.LOW),
        ),
        slice_by=("site",),
        target=PredictionTarget(Relation("predictions", "device_failure"), ("failure_probability",)),
    )


@dataclass(frozen=True)
class Pumps:
    """The made-up plant in the warehouse, and a use case that asks about it."""

    connection: psycopg.Connection
    use_case: UseCase = field(default_factory=lambda: pump_leak(f"pump_leak_{uuid.uuid4().hex[:8]}"))

    def execute(self, statement: str) -> None:
        """Run a statement as owner."""
        self.connection.execute(statement)  # type: ignore[call-overload]

    def follow(self) -> None:
        """From now on the features are a table whose changes are logged, as dbt's incremental models are, and which has just been built."""
        self.execute(f"insert into ops.model_state (model, input, position, checksum, build_id) values ('{FEATURES}', 'touch', 0, 'made up', 'made up')")
        self.log(None)

    def log(self, *buckets: Mapping[str, object] | None) -> None:
        """Say that buckets of the features have changed; None: all of them."""
        for bucket in buckets:
            self.connection.execute(
                "insert into ops.bucket_change (relation, bucket, build_id) values (%s, %s, 'made up')",
                (FEATURES, None if bucket is None else Jsonb({name: str(value) for name, value in bucket.items()})),
            )

    def fill(self, *, days: int = 120, pumps: int = 24, leak_every_days: float = 20.0, seed: int = 7) -> None:
        """Replace the plant by a newly made one.

        Wear of a pump climbs over the ten days before each of its leaks; without leaks (`leak_every_days=inf`) it only wanders.
        """
        random = np.random.default_rng(seed)
        self.execute("truncate features.feat_pump_daily, maintenance.fct_leak")
        features, leaks = [], []
        for pump in range(pumps):
            at = np.cumsum(random.exponential(leak_every_days, size=200)) if np.isfinite(leak_every_days) else np.array([])
            at = at[at < days]
            leaks += [("default", f"pump_{pump:02d}", "leak", FIRST_DAY, float(moment)) for moment in at]
            for day in range(days):
                ahead = at[at > day + 1]
                remaining = ahead[0] - (day + 1) if len(ahead) else np.inf
                wear = max(0.0, 1 - remaining / 10) + 0.3 * random.normal()
                row = (wear, random.normal(), bool(pump % 2), f"maker_{pump % 3}", float(day + 30 * pump), f"site_{pump % 2}")
                features.append(("default", f"pump_{pump:02d}", FIRST_DAY + timedelta(days=day), "pump", *row))
        with self.connection.cursor() as cursor:
            with cursor.copy(
                "copy features.feat_pump_daily (tenant_id, device_id, feature_date, device_type, wear, grease, is_outdoors, maker, age_days, site) from stdin"
            ) as copy:
                for row in features:
                    copy.write_row(row)
            cursor.executemany("insert into maintenance.fct_leak values (%s, %s, %s, %s::timestamp at time zone 'UTC' + %s * interval '1 day')", leaks)


def make_freshness(owner: psycopg.Connection, streams: Mapping[str, Sequence[str]]) -> None:
    """A `platform.rpt_freshness` by which nothing of the streams has reached the tables that are made of them."""
    owner.execute("create table platform.rpt_freshness (mart_name text, stream text, consumed_batch_id bigint)")
    owner.execute("grant select on platform.rpt_freshness to tidemark_ml")
    with owner.cursor() as cursor:
        cursor.executemany("insert into platform.rpt_freshness values (%s, %s, 0)", [(table, stream) for table, names in streams.items() for stream in names])


@pytest.fixture
def pumps(owner: psycopg.Connection) -> Pumps:
    """Empty tables of the made-up plant, readable by the role that trains and scores, and made of nothing that landed as far as the warehouse knows."""
    owner.execute(
        "create table features.feat_pump_daily (tenant_id text, device_id text, feature_date date, device_type text, wear float8, grease float8,"
        " is_outdoors boolean, maker text, age_days float8, site text, primary key (tenant_id, device_id, feature_date))"
    )
    owner.execute("create table maintenance.fct_leak (tenant_id text, device_id text, kind text, occurred_at timestamptz)")
    owner.execute("grant select on features.feat_pump_daily, maintenance.fct_leak to tidemark_ml")
    make_freshness(owner, {"features.feat_pump_daily": ("device_telemetry", "device_registry"), "maintenance.fct_leak": ("maintenance_log",)})
    return Pumps(owner)


@pytest.fixture
def ml(pumps: Pumps) -> Iterator[psycopg.Connection]:
    """A connection as the role that trains and scores."""
    with connect(Role.ML) as connection:
        yield connection
