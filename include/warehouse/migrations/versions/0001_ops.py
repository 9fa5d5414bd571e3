"""Make the rooms of the warehouse: schemas, ledger, quarantine, state of incremental models, run-time functions."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MART_SCHEMAS = [
    "staging",
    "intermediate",
    "features",
    "core",
    "maintenance",
    "energy",
    "quality",
    "pricing",
    "audience",
    "transit",
    "customers",
    "executive",
    "platform",
]

SCHEMAS = """
create schema raw;
create schema predictions;
grant usage on schema raw to tidemark_loader, tidemark_transformer;
alter default privileges in schema raw grant maintain on tables to tidemark_loader;
grant usage on schema ops to tidemark_loader, tidemark_transformer, tidemark_ml, tidemark_analyst, tidemark_api;
grant usage on schema predictions to tidemark_transformer, tidemark_ml, tidemark_analyst, tidemark_api;
"""

LEDGER = """
create sequence ops.batch_id_seq;

create table ops.batch (
    batch_id bigint primary key,
    stream text not null,
    started_at timestamptz not null,
    committed_at timestamptz not null default clock_timestamp(),
    files integer not null,
    landed bigint not null,
    accepted bigint not null,
    quarantined bigint not null,
    duplicate bigint not null,
    corrected bigint not null,
    check (landed = accepted + quarantined + duplicate + corrected)
);
create index on ops.batch (stream, batch_id);
comment on table ops.batch is 'One committed landing transaction. Ids of one stream become visible in order; ids of different streams do not.';

create table ops.stream_state (
    stream text primary key,
    last_batch_id bigint not null default 0,
    last_event_at timestamptz,
    last_arrived_at timestamptz,
    last_landed_at timestamptz,
    is_held boolean not null default false,
    held_reason text
);
comment on table ops.stream_state is 'The watermark of each stream, moved in the transaction that lands a batch.';

create table ops.file (
    file_id bigint generated always as identity primary key,
    stream text not null,
    tenant_id text not null,
    address text not null,
    content_hash bytea not null,
    version_tag text not null,
    size_bytes bigint not null,
    file_format text not null,
    mapping text,
    contract_version text,
    arrived_at timestamptz not null,
    state text not null check (state in ('pending', 'landed', 'quarantined', 'failed')),
    attempts integer not null default 0,
    batch_id bigint references ops.batch deferrable initially deferred,
    landed bigint not null default 0,
    accepted bigint not null default 0,
    quarantined bigint not null default 0,
    duplicate bigint not null default 0,
    corrected bigint not null default 0,
    error text,
    first_event_at timestamptz,
    last_event_at timestamptz,
    landed_at timestamptz,
    unique (address, content_hash),
    check (landed = accepted + quarantined + duplicate + corrected),
    check ((state in ('landed', 'quarantined')) = (batch_id is not null))
);
create index on ops.file (stream, arrived_at);
create index on ops.file (batch_id);
create index on ops.file (stream, state) where state in ('pending', 'failed');
comment on table ops.file is 'The ledger: one line a file of the landing zone, identified by address and content hash.';

create table ops.quarantine (
    quarantine_id bigint generated always as identity primary key,
    stream text not null,
    tenant_id text not null,
    file_id bigint not null references ops.file,
    row_number integer,
    batch_id bigint not null,
    codes text[] not null check (cardinality(codes) > 0),
    errors jsonb not null,
    original bytea,
    arrived_at timestamptz not null,
    quarantined_at timestamptz not null default clock_timestamp(),
    state text not null default 'open' check (state in ('open', 'replayed', 'discarded')),
    unique (file_id, row_number)
);
create index on ops.quarantine (stream, quarantined_at);
create index on ops.quarantine (batch_id);
comment on table ops.quarantine is 'Rows that no table could take, with their original bytes and every reason. row_number is NULL where a whole file was unreadable.';

create table ops.row_change (
    change_id bigint generated always as identity primary key,
    stream text not null,
    batch_id bigint not null,
    tenant_id text not null,
    position jsonb not null
);
create index on ops.row_change (stream, batch_id);
comment on table ops.row_change is 'Where a raw row stood before a batch changed or removed it: tenant, event time and bucket columns.';
"""

TRANSFORM = """
create table ops.build (
    build_id text primary key,
    horizon jsonb not null,
    created_at timestamptz not null default clock_timestamp()
);
create index on ops.build (created_at);
comment on table ops.build is 'The horizon that all models of one build read up to: last committed batch a stream, and last touch request.';

create table ops.model_state (
    model text not null,
    input text not null,
    position bigint not null,
    checksum text not null,
    build_id text not null,
    built_at timestamptz not null default clock_timestamp(),
    primary key (model, input)
);
comment on table ops.model_state is 'How far an incremental model has consumed each of its inputs.';

create table ops.bucket_change (
    change_id bigint generated always as identity primary key,
    relation text not null,
    bucket jsonb,
    build_id text not null,
    changed_at timestamptz not null default clock_timestamp()
);
create index on ops.bucket_change (relation, change_id);
create index on ops.bucket_change (build_id, relation);
comment on table ops.bucket_change is 'Buckets that a model recomputed or emptied; NULL means all of them. Pruned when every consumer has passed.';

create table ops.touch_request (
    request_id bigint generated always as identity primary key,
    event_from timestamptz not null,
    event_to timestamptz not null,
    reason text not null,
    requested_at timestamptz not null default clock_timestamp(),
    check (event_from < event_to)
);
comment on table ops.touch_request is 'Spans of event time that every model must recompute, asked for by a backfill.';

create table ops.dbt_run_result (
    result_id bigint generated always as identity primary key,
    build_id text,
    unique_id text not null,
    resource_type text not null,
    status text not null,
    execution_s double precision not null,
    rows_affected bigint,
    failures bigint,
    message text,
    completed_at timestamptz not null default clock_timestamp()
);
create index on ops.dbt_run_result (completed_at);
create index on ops.dbt_run_result (build_id);
comment on table ops.dbt_run_result is 'Timing and outcome of every dbt node of every run.';

create table ops.ddl_log (
    log_id bigint generated always as identity primary key,
    statement text not null,
    asked_by text not null,
    executed_at timestamptz not null default clock_timestamp()
);
comment on table ops.ddl_log is 'Run-time DDL done by ops functions, and who asked for it.';
"""

FUNCTIONS = """
create function ops.lock_stream(stream text) returns void language sql as $$
    select pg_advisory_xact_lock(hashtextextended('tidemark.stream.' || stream, 0))
$$;
comment on function ops.lock_stream is 'Serialises loads of one stream. Take the batch id after it.';

create function ops.raw_changes_key() returns bigint language sql immutable parallel safe as $$ select hashtextextended('tidemark.raw_changes', 0) $$;

create function ops.lock_raw_changes() returns void language sql as $$ select pg_advisory_xact_lock(ops.raw_changes_key()) $$;
comment on function ops.lock_raw_changes is 'Taken by a load that must change or remove stored rows; waits for running builds, which hold it shared.';

create function ops.lock_model(model text) returns void language sql as $$
    select pg_advisory_xact_lock(hashtextextended('tidemark.model.' || model, 0))
$$;

create function ops.ensure_partitions(stream text, from_at timestamptz, to_at timestamptz) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    month timestamptz := date_trunc('month', from_at);
    parent regclass := to_regclass(format('raw.%I', stream));
    partition_name text;
    made integer := 0;
begin
    if parent is null or not exists (select from pg_partitioned_table p where p.partrelid = parent and p.partstrat = 'r') then
        raise exception 'stream % has no table partitioned by month', stream using errcode = 'invalid_parameter_value';
    end if;
    if to_at < from_at or (extract(year from age(to_at, from_at)) * 12 + extract(month from age(to_at, from_at))) > 400 then
        raise exception 'span % to % of stream % is not 0 to 400 months', from_at, to_at, stream using errcode = 'invalid_parameter_value';
    end if;
    while month <= to_at loop
        partition_name := format('%s_y%sm%s', stream, to_char(month, 'YYYY'), to_char(month, 'MM'));
        if to_regclass(format('raw.%I', partition_name)) is null then
            perform pg_advisory_xact_lock(hashtextextended('tidemark.partition.' || partition_name, 0));
            if to_regclass(format('raw.%I', partition_name)) is null then
                -- Made aside and attached, because ATTACH lets readers of the parent go on and CREATE … PARTITION OF does not.
                execute format('create table raw.%I (like %s including all)', partition_name, parent);
                execute format('alter table %s attach partition raw.%I for values from (%L) to (%L)', parent, partition_name, month, month + interval '1 month');
                insert into ops.ddl_log (statement, asked_by) values (format('partition raw.%I', partition_name), session_user);
                made := made + 1;
            end if;
        end if;
        month := month + interval '1 month';
    end loop;
    return made;
end
$$;
comment on function ops.ensure_partitions is 'Makes the month partitions of a stream that a span of event time needs.';

create function ops.prune_history(keep interval) returns jsonb
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    results bigint; builds bigint; buckets bigint; changes bigint;
begin
    delete from ops.dbt_run_result where completed_at < clock_timestamp() - keep;
    get diagnostics results = row_count;
    delete from ops.bucket_change c
    where c.changed_at < clock_timestamp() - interval '1 day'
        -- state names inputs by model, the log by schema and model
        and c.change_id <= (select coalesce(min(s.position), 9223372036854775807) from ops.model_state s where s.input = split_part(c.relation, '.', 2));
    get diagnostics buckets = row_count;
    delete from ops.row_change c
    where exists (select from ops.model_state s where s.input = 'stg_' || c.stream)
        and c.batch_id <= (select min(s.position) from ops.model_state s where s.input = 'stg_' || c.stream);
    get diagnostics changes = row_count;
    delete from ops.build b where b.created_at < clock_timestamp() - keep and not exists (select from ops.model_state s where s.build_id = b.build_id);
    get diagnostics builds = row_count;
    return jsonb_build_object('dbt_run_result', results, 'bucket_change', buckets, 'row_change', changes, 'build', builds);
end
$$;
comment on function ops.prune_history is 'Drops run history older than the given age and log rows that every consumer has passed. Ledger, quarantine and raw are never pruned.';
"""

GRANTS = """
revoke create on schema public from public;
revoke execute on all functions in schema ops from public;
grant execute on function ops.lock_stream(text), ops.lock_raw_changes(), ops.raw_changes_key(), ops.ensure_partitions(text, timestamptz, timestamptz),
    ops.prune_history(interval) to tidemark_loader;
grant execute on function ops.lock_model(text), ops.raw_changes_key() to tidemark_transformer;
grant usage on sequence ops.batch_id_seq to tidemark_loader;
grant select on all tables in schema ops to tidemark_loader, tidemark_transformer;
grant insert, update on ops.batch, ops.stream_state, ops.file, ops.quarantine, ops.row_change to tidemark_loader;
grant maintain on all tables in schema ops to tidemark_loader;
grant insert on ops.touch_request to tidemark_loader, tidemark_transformer;
grant insert, update, delete on ops.model_state to tidemark_transformer;
grant insert on ops.build, ops.bucket_change, ops.dbt_run_result to tidemark_transformer;
grant select on ops.batch, ops.stream_state, ops.file, ops.build, ops.model_state, ops.dbt_run_result, ops.touch_request to tidemark_ml, tidemark_analyst, tidemark_api;
"""


def upgrade() -> None:
    op.execute(SCHEMAS)
    for schema in MART_SCHEMAS:
        op.execute(f"create schema {schema}")
        op.execute(f"grant usage, create on schema {schema} to tidemark_transformer")
        op.execute(f"grant usage on schema {schema} to tidemark_ml")
        if schema not in {"staging", "intermediate"}:
            op.execute(f"grant usage on schema {schema} to tidemark_analyst, tidemark_api")
    for statements in (LEDGER, TRANSFORM, FUNCTIONS, GRANTS):
        op.execute(statements)
