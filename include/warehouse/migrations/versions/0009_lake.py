"""Enter files of the lake in ops.file beside the arrivals, remember how far each stream was exported, and let months come back from the lake."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

FILES = """
alter table ops.file
    add column kind text not null default 'arrival' constraint file_kind_check check (kind in ('arrival', 'lake')),
    add column event_date date,
    add column first_batch_id bigint,
    add column last_batch_id bigint,
    add column row_count bigint,
    add column content_digest bytea,
    add column replaced_by bigint references ops.file deferrable initially deferred,
    add column replaced_at timestamptz,
    add column expired_at timestamptz,
    alter column tenant_id drop not null,
    drop constraint file_state_check,
    drop constraint file_check1,
    add constraint file_state_check check (
        case kind
            when 'arrival' then state in ('pending', 'landed', 'quarantined', 'failed', 'restored', 'expiring', 'expired')
            else state in ('live', 'replaced', 'expiring', 'expired')
        end
    ),
    add constraint file_batch_check check ((kind = 'arrival' and state in ('landed', 'quarantined', 'expiring', 'expired')) = (batch_id is not null)),
    add constraint file_tenant_check check (kind = 'lake' or tenant_id is not null),
    add constraint file_lake_check check (
        case kind
            when 'lake' then num_nulls(event_date, first_batch_id, last_batch_id, row_count, content_digest, first_event_at, last_event_at) = 0
                and first_batch_id <= last_batch_id and row_count > 0 and landed = 0
            else num_nonnulls(event_date, first_batch_id, last_batch_id, row_count, content_digest, replaced_by, replaced_at) = 0
        end
    ),
    add constraint file_replaced_check check (
        case state when 'live' then num_nonnulls(replaced_by, replaced_at) = 0 when 'replaced' then replaced_at is not null else true end
    ),
    add constraint file_expired_check check ((state = 'expired') = (expired_at is not null));
create unique index file_lake_live on ops.file (stream, event_date, last_batch_id, first_batch_id) where kind = 'lake' and state = 'live';
create index file_lake_day on ops.file (stream, event_date, last_batch_id) where kind = 'lake';
create index file_lake_gone on ops.file (stream, state) where kind = 'lake' and state in ('replaced', 'expiring');
comment on table ops.file is
    'Every file the house has, identified by address and content hash. Arrivals: the ledger of the landing zone. Lake: exported rows of one stream and day.';
comment on column ops.file.kind is 'arrival: a file of the landing zone, with its ledger line; lake: Parquet under the lake, with rows that landed before.';
comment on column ops.file.state is
    'Arrivals: pending, landed, quarantined (could not be read), failed (set aside), restored (known from the lake only; its bytes may land again). '
    'Lake: live, replaced (another file holds its rows now). Both: expiring (bytes are being removed), expired (bytes are gone).';
comment on column ops.file.arrived_at is 'When the file arrived in the zone; of a lake file when it was entered here.';
comment on column ops.file.event_date is 'Lake: UTC day of the event time of its rows.';
comment on column ops.file.first_batch_id is 'Lake: least _batch_id that it covers.';
comment on column ops.file.last_batch_id is 'Lake: greatest _batch_id that it covers, inclusive.';
comment on column ops.file.row_count is 'Lake: number of rows.';
comment on column ops.file.content_digest is 'Lake: digest of its rows as include/lake/digest.py defines it; content_hash is that of its bytes.';
comment on column ops.file.replaced_by is 'Lake: the file that holds its rows now. NULL while it is live, and where the day has no rows any more.';
comment on column ops.file.expired_at is 'When its bytes were gone.';

create table ops.lake_state (
    stream text primary key,
    exported_batch_id bigint not null,
    exported_at timestamptz not null default clock_timestamp()
);
comment on table ops.lake_state is 'Up to which committed batch the rows of a stream are in the lake.';

alter table ops.batch
    drop constraint batch_kind_check, add constraint batch_kind_check check (kind in ('load', 'replay', 'expiry', 'restore'));
comment on table ops.batch is
    'One committed transaction that landed files (load) or rows from the quarantine (replay), dropped rows that the lake holds (expiry) or brought them back '
    '(restore). Ids of one stream become visible in order; ids of different streams do not.';
alter table ops.movement
    drop constraint movement_reason_check,
    add constraint movement_reason_check check (reason in ('load', 'replay', 'correction', 'expiry', 'erasure', 'restore'));

grant select, insert, update on ops.lake_state to tidemark_loader;
grant maintain on ops.lake_state to tidemark_loader;
grant select on ops.lake_state to tidemark_transformer, tidemark_ml, tidemark_analyst, tidemark_api;
"""

# Two calls inside one transaction, with COPY between them: nobody sees the table before it is whole.
FUNCTIONS = """
create function ops.month_partition(stream text, month date) returns text language sql stable as $$
    select format('%s_y%sm%s', stream, to_char(month, 'YYYY'), to_char(month, 'MM'))
$$;
comment on function ops.month_partition is 'Name of the partition that holds a month of event time.';

create function ops.make_month_aside(stream text, month date) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    parent regclass := to_regclass(format('raw.%I', stream));
    partition_name text := ops.month_partition(stream, month);
    aside_name text := partition_name || '_aside';
begin
    if parent is null or not exists (select from pg_partitioned_table p where p.partrelid = parent and p.partstrat = 'r') then
        raise exception 'stream % has no table partitioned by month', stream using errcode = 'invalid_parameter_value';
    end if;
    if to_regclass(format('raw.%I', partition_name)) is not null then
        raise exception 'raw.% is there already', partition_name using errcode = 'duplicate_table';
    end if;
    -- What somebody committed without attaching it is garbage; one at work at the same time is waited for by name.
    execute format('drop table if exists raw.%I', aside_name);
    -- Without indexes: attaching makes them, which is faster than filling them row by row.
    execute format('create table raw.%I (like %s including all excluding indexes)', aside_name, parent);
    execute format('grant select, insert on raw.%I to tidemark_loader', aside_name);
    return aside_name;
end
$$;
comment on function ops.make_month_aside is
    'Makes a table for a month of a stream that is no partition yet, for rows that come back from the lake. To be attached in the same transaction.';

create function ops.attach_month(stream text, month date) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    parent regclass := to_regclass(format('raw.%I', stream));
    partition_name text := ops.month_partition(stream, month);
    aside regclass := to_regclass(format('raw.%I', partition_name || '_aside'));
    first_day timestamptz := date_trunc('month', month::timestamptz);
begin
    if parent is null or aside is null then
        raise exception 'no table was made aside for raw.%', partition_name using errcode = 'invalid_parameter_value';
    end if;
    perform pg_advisory_xact_lock(hashtextextended('tidemark.partition.' || partition_name, 0));
    if to_regclass(format('raw.%I', partition_name)) is not null then
        raise exception 'raw.% is there already', partition_name using errcode = 'duplicate_table';
    end if;
    execute format('revoke select, insert on %s from tidemark_loader', aside);
    execute format('alter table %s rename to %I', aside, partition_name);
    execute format('alter table %s attach partition raw.%I for values from (%L) to (%L)', parent, partition_name, first_day, first_day + interval '1 month');
    insert into ops.ddl_log (statement, asked_by) values (format('partition raw.%I restored', partition_name), session_user);
end
$$;
comment on function ops.attach_month is 'Makes the table of ops.make_month_aside the partition of its month.';

create function ops.number_beyond(file_id bigint, batch_id bigint) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    file_ids regclass := pg_get_serial_sequence('ops.file', 'file_id');
begin
    perform setval(file_ids, greatest(file_id, nextval(file_ids)));
    perform setval('ops.batch_id_seq', greatest(batch_id, nextval('ops.batch_id_seq')));
end
$$;
comment on function ops.number_beyond is 'Makes later files and batches get greater numbers than those given, which came with rows from the lake. Never goes back.';

revoke execute on function ops.month_partition(text, date), ops.make_month_aside(text, date), ops.attach_month(text, date),
    ops.number_beyond(bigint, bigint) from public;
grant execute on function ops.month_partition(text, date), ops.make_month_aside(text, date), ops.attach_month(text, date),
    ops.number_beyond(bigint, bigint) to tidemark_loader;

create or replace function ops.prune_history(keep interval) returns jsonb
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
    for statements in (FILES, FUNCTIONS):
        op.execute(statements)
