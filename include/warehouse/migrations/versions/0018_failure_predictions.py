"""Make room for predictions of failures within a day, and of components."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
create table predictions.device_failure_24h (like predictions.device_failure including all);
comment on table predictions.device_failure_24h is
    'Probability that a device fails in (outcome_from, outcome_to], a day, as a model saw it with what was known at known_at. One row a device, day and model version.';

create table predictions.component_failure (
    component_code text not null,
    like predictions.device_failure including all excluding indexes,
    primary key (tenant_id, device_id, component_code, feature_date, model_name, model_version)
);
create index on predictions.component_failure (feature_date);
comment on table predictions.component_failure is
    'Probability that a component of a device fails in (outcome_from, outcome_to], as a model saw it with what was known at known_at. '
    'One row a device, component, day and model version.';

grant select on predictions.device_failure_24h, predictions.component_failure to tidemark_transformer, tidemark_analyst, tidemark_api;
grant select, insert, update, delete on predictions.device_failure_24h, predictions.component_failure to tidemark_ml;
""")
