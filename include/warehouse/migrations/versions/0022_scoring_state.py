"""Keep how far each model version has scored its feature table, so that scoring reads what has changed since."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

STATE = """
create table ops.scoring_state (
    use_case text not null,
    model_version integer not null,
    relation text not null,
    position bigint not null check (position >= 0),
    asked text not null,
    scored_at timestamptz not null default clock_timestamp(),
    primary key (use_case, model_version),
    foreign key (use_case, model_version) references ops.model_version
);
create index on ops.scoring_state (relation, position);
comment on table ops.scoring_state is
    'How far a model version has scored its feature table. Moved in the transaction that writes the last of its predictions; without a line a version reads the whole table.';
comment on column ops.scoring_state.relation is 'The feature table, as ops.bucket_change names it.';
comment on column ops.scoring_state.position is 'Line of ops.bucket_change up to which the predictions stand.';
comment on column ops.scoring_state.asked is 'Fingerprint of which rows are scored and where predictions go: with another one the position says nothing.';
comment on column ops.scoring_state.scored_at is 'When it was moved, or confirmed, last.';
grant select, insert on ops.scoring_state to tidemark_ml;
grant update (relation, position, asked, scored_at) on ops.scoring_state to tidemark_ml;
grant select on ops.bucket_change to tidemark_ml;
grant select on ops.scoring_state to tidemark_loader, tidemark_transformer, tidemark_analyst, tidemark_api;
grant maintain on ops.scoring_state to tidemark_loader;
"""

# As before, and: a version that scores holds lines of the log back like a model does. One that has not scored for as long as history is kept holds nothing back
# any more; its line goes, so it reads everything when somebody takes it up again.
PRUNE = """
create or replace function ops.prune_history(keep interval) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    results bigint; builds bigint; buckets bigint; changes bigint;
begin
    delete from ops.dbt_run_result where completed_at < clock_timestamp() - keep;
    get diagnostics results = row_count;
    delete from ops.scoring_state p where p.scored_at < clock_timestamp() - keep;
    delete from ops.bucket_change c
    where c.changed_at < clock_timestamp() - interval '1 day'
        -- state names inputs by model, the log by schema and model
        and c.change_id <= (select coalesce(min(s.position), 9223372036854775807) from ops.model_state s where s.input = split_part(c.relation, '.', 2))
        and c.change_id <= (select coalesce(min(p.position), 9223372036854775807) from ops.scoring_state p where p.relation = c.relation);
    get diagnostics buckets = row_count;
    delete from ops.row_change c
    where exists (select from ops.model_state s where s.input = 'stg_' || c.stream)
        and c.batch_id <= (select min(s.position) from ops.model_state s where s.input = 'stg_' || c.stream)
        -- the lake rewrites days by it; a stream that was never exported has none
        and c.batch_id <= coalesce((select l.exported_batch_id from ops.lake_state l where l.stream = c.stream), c.batch_id);
    get diagnostics changes = row_count;
    delete from ops.build b where b.created_at < clock_timestamp() - keep and not exists (select from ops.model_state s where s.build_id = b.build_id);
    get diagnostics builds = row_count;
    return jsonb_build_object('dbt_run_result', results, 'bucket_change', buckets, 'row_change', changes, 'build', builds);
end
$$;
"""


def upgrade() -> None:
    for statements in (STATE, PRUNE):
        op.execute(statements)
