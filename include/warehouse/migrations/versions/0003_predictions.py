"""Make room for predictions of device failures."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
create table predictions.device_failure (
    tenant_id text not null,
    device_id text not null,
    feature_date date not null,
    model_name text not null,
    model_version integer not null,
    feature_snapshot text not null,
    known_at timestamptz not null,
    outcome_from timestamptz not null,
    outcome_to timestamptz not null,
    failure_probability double precision not null check (failure_probability between 0 and 1),
    _scored_at timestamptz not null default clock_timestamp(),
    primary key (tenant_id, device_id, feature_date, model_name, model_version),
    check (known_at <= outcome_from and outcome_from < outcome_to)
);
create index on predictions.device_failure (feature_date);
comment on table predictions.device_failure is
    'Probability that a device fails in (outcome_from, outcome_to], as a model saw it with what was known at known_at. One row a device, day and model version.';
grant select on predictions.device_failure to tidemark_transformer, tidemark_analyst, tidemark_api;
grant select, insert, update, delete on predictions.device_failure to tidemark_ml;
""")
