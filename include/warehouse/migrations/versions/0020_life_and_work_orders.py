"""Make room for predictions of remaining life, for those of units of any table, and for proposals of work."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

LIFE = """
create table predictions.remaining_life (like predictions.device_failure including all);
alter table predictions.remaining_life
    drop column failure_probability,
    add column remaining_life_p05_d double precision not null,
    add column remaining_life_p50_d double precision not null,
    add column remaining_life_p95_d double precision not null,
    add constraint remaining_life_ascending check (
        0 <= remaining_life_p05_d and remaining_life_p05_d <= remaining_life_p50_d and remaining_life_p50_d <= remaining_life_p95_d
    ),
    add constraint remaining_life_within_horizon check (
        make_interval(secs => remaining_life_p95_d * 86400) <= outcome_to - outcome_from + interval '1 second'
    );
comment on table predictions.remaining_life is
    'Days until a device fails next, as a model saw it with what was known at known_at: the median and an interval of 90 %. The question ends at outcome_to: a value '
    'as long as the window says so long or longer. One row a device, day and model version.';
comment on column predictions.remaining_life.remaining_life_p05_d is 'Lower end of the interval, days from known_at.';
comment on column predictions.remaining_life.remaining_life_p50_d is 'Median, days from known_at.';
comment on column predictions.remaining_life.remaining_life_p95_d is 'Upper end of the interval, days from known_at.';
comment on column predictions.remaining_life.reasons is 'Features that moved the median most, greatest first: [{feature, value, contribution}], in days.';
"""

# Shared by the use cases of data that people bring: model_name tells them apart, the tenant is the data set.
UNITS = """
create table predictions.unit_failure (like predictions.device_failure including all);
alter table predictions.unit_failure rename column device_id to unit_id;
comment on table predictions.unit_failure is
    'Probability that a unit of features.feat_unit_daily fails in (outcome_from, outcome_to], as a model saw it at known_at. One row a unit, day and model version.';

create table predictions.unit_life (like predictions.remaining_life including all);
alter table predictions.unit_life rename column device_id to unit_id;
comment on table predictions.unit_life is
    'Days (cycles) until a unit of features.feat_unit_daily fails, as a model saw it at known_at, as in remaining_life. One row a unit, day and model version.';
"""

DECISIONS = """
create schema decisions;
grant usage on schema decisions to tidemark_transformer, tidemark_ml, tidemark_analyst, tidemark_api;

create table decisions.maintenance_cost (
    device_type text primary key,
    reviewed_on date not null,
    work_usd double precision not null check (work_usd >= 0),
    failure_usd double precision not null check (failure_usd >= 0),
    downtime_usd_per_h double precision not null check (downtime_usd_per_h >= 0),
    prevented_share double precision not null check (prevented_share > 0 and prevented_share <= 1)
);
comment on table decisions.maintenance_cost is 'What work and failures of a device type cost, as reviewed last in ml/decisions/work_order_costs.yaml; written with each proposal.';
comment on column decisions.maintenance_cost.work_usd is 'A planned order: work, parts and the downtime that it takes.';
comment on column decisions.maintenance_cost.failure_usd is 'A failure: repair, parts and the downtime that it takes.';
comment on column decisions.maintenance_cost.prevented_share is 'Share of coming failures that a planned order prevents.';

create table decisions.work_order (
    tenant_id text not null,
    work_order_id text not null,
    device_id text not null,
    device_type text not null,
    facility_id text,
    planned_date date not null,
    state text not null check (state in ('proposed', 'over_capacity', 'not_worth_it', 'quiet', 'done_already')),
    benefit_rank integer check (benefit_rank > 0),
    failure_probability double precision not null check (failure_probability between 0 and 1),
    prediction_date date not null,
    model_name text not null,
    model_version integer not null,
    component_code text,
    remaining_life_p05_d double precision,
    remaining_life_p50_d double precision,
    remaining_life_p95_d double precision,
    waiting_usd double precision not null,
    acting_usd double precision not null,
    benefit_usd double precision not null,
    work_usd double precision not null,
    failure_usd double precision not null,
    prevented_share double precision not null,
    reasons jsonb not null,
    _decided_at timestamptz not null default clock_timestamp(),
    primary key (tenant_id, work_order_id),
    unique (tenant_id, device_id, planned_date),
    check ((benefit_rank is not null) = (state in ('proposed', 'over_capacity')))
);
create index on decisions.work_order (tenant_id, planned_date);
comment on table decisions.work_order is
    'Whether to work on a machine on a day: what waiting and acting cost in expectation, by the champion''s probability. One row a machine with a prediction and day. '
    'Written again while nobody has answered; an answered order stays as it was.';
comment on column decisions.work_order.state is
    'proposed; over_capacity: worth it, but the day is full; not_worth_it; quiet: the crew found nothing a few days ago; done_already: worked on since the prediction.';
comment on column decisions.work_order.benefit_rank is 'Place by benefit within tenant and day, 1 first; NULL where nothing is to be done.';
comment on column decisions.work_order.waiting_usd is 'Expected cost of doing nothing until the prediction''s window is over: probability times the cost of a failure.';
comment on column decisions.work_order.acting_usd is 'Cost of the order, and of the failures that it does not prevent.';
comment on column decisions.work_order.reasons is 'Why, as texts.';
"""

GRANTS = """
grant select on predictions.remaining_life, predictions.unit_failure, predictions.unit_life to tidemark_transformer, tidemark_analyst, tidemark_api;
grant select, insert, update, delete on predictions.remaining_life, predictions.unit_failure, predictions.unit_life to tidemark_ml;
grant select on decisions.work_order, decisions.maintenance_cost to tidemark_transformer, tidemark_analyst, tidemark_api;
grant select, insert, update, delete on decisions.work_order, decisions.maintenance_cost to tidemark_ml;
"""


def upgrade() -> None:
    for statements in (LIFE, UNITS, DECISIONS, GRANTS):
        op.execute(statements)
