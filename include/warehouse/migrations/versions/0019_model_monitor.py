"""Keep what monitoring compares with and what it decides, and tell the marts which predictions have changed."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

REFERENCE = """
create table ops.model_reference (
    use_case text not null,
    model_version integer not null,
    reference jsonb not null,
    primary key (use_case, model_version),
    foreign key (use_case, model_version) references ops.model_version
);
comment on table ops.model_reference is
    'What a version was trained on, as far as monitoring must know it: of each feature its distribution, how much its weeks differed, and its share in the '
    'predictions; of the test part how well the version ranked. Lines never change. Versions older than this table have none.';
"""

MONITOR = """
create table ops.model_monitor (
    use_case text not null,
    model_version integer not null,
    as_of_date date not null,
    findings jsonb not null,
    wants_retraining boolean not null,
    is_due boolean not null,
    reason text not null check (btrim(reason) <> ''),
    trained_version integer,
    monitored_at timestamptz not null default clock_timestamp(),
    primary key (use_case, as_of_date),
    foreign key (use_case, model_version) references ops.model_version,
    foreign key (use_case, trained_version) references ops.model_version,
    check (wants_retraining or not is_due),
    check (is_due or trained_version is null)
);
comment on table ops.model_monitor is 'What monitoring found about the champion of a use case, day by day, and whether it asked for a training, with the reason.';
comment on column ops.model_monitor.as_of_date is 'Last day of features that was looked at: time of the data, not of the clock.';
comment on column ops.model_monitor.wants_retraining is 'Whether an effect was large enough, or a loss was measured.';
comment on column ops.model_monitor.is_due is 'Whether a training was asked for: false where the budget of the week was spent.';
comment on column ops.model_monitor.trained_version is 'The version that the training made, or found again where nothing had changed. NULL while none has run.';
"""

# The log that incremental models follow names relations of dbt; predictions enter it under the view that holds all of them. One writer at a time until it
# commits, so that numbers of the log become visible in order.
LOG = """
create function ops.log_predictions(use_case text, tenant_ids text[], feature_dates date[]) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('tidemark.predictions.log', 0));
    insert into ops.bucket_change (relation, bucket, build_id)
    select distinct 'intermediate.int_platform__prediction',
        jsonb_build_object('tenant_id', written.tenant_id, 'use_case', log_predictions.use_case, 'feature_date', written.feature_date), 'predictions'
    from unnest(tenant_ids, feature_dates) as written (tenant_id, feature_date);
end
$$;
comment on function ops.log_predictions is
    'Tells incremental models on which days of which tenants predictions of a use case were written or removed. Called in the transaction that does it.';
revoke execute on function ops.log_predictions(text, text[], date[]) from public;
grant execute on function ops.log_predictions(text, text[], date[]) to tidemark_ml;
"""

GRANTS = """
grant select, insert on ops.model_reference to tidemark_ml;
grant select, insert on ops.model_monitor to tidemark_ml;
grant update (model_version, findings, wants_retraining, is_due, reason, trained_version, monitored_at) on ops.model_monitor to tidemark_ml;
grant select on ops.model_reference, ops.model_monitor to tidemark_loader, tidemark_transformer, tidemark_analyst, tidemark_api;
grant maintain on ops.model_reference, ops.model_monitor to tidemark_loader;
"""


def upgrade() -> None:
    for statements in (REFERENCE, MONITOR, LOG, GRANTS):
        op.execute(statements)
