"""Let months leave the raw table: which have, the function that drops their partitions, and how far a rebuild over them has come."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

STATE = """
create table ops.partition_state (
    stream text not null,
    month date not null check (month = date_trunc('month', month::timestamp)::date),
    state text not null check (state in ('expired', 'restored', 'deleted')),
    row_count bigint not null check (row_count >= 0),
    content_digest bytea not null,
    batch_id bigint references ops.batch deferrable initially deferred,
    changed_at timestamptz not null default clock_timestamp(),
    keep_until timestamptz,
    primary key (stream, month),
    check ((state = 'restored') = (keep_until is not null))
);
comment on table ops.partition_state is
    'Months of event time that have left the raw table. A month without a line never did: its rows, if there are any, are in raw.';
comment on column ops.partition_state.state is
    'expired: dropped from raw, in the lake; restored: attached again for some days; deleted: gone from the lake too, as the contract says.';
comment on column ops.partition_state.row_count is 'Rows of the month when it last left raw.';
comment on column ops.partition_state.content_digest is 'SHA-256 over day, row count and digest of each of its days when it last left raw, in order.';
comment on column ops.partition_state.batch_id is 'Batch of kind expiry that dropped it last; NULL where this warehouse knows the month from a lake only.';
comment on column ops.partition_state.keep_until is 'Until when a restored month stays in raw; the next retention run after that drops it again.';

create table ops.rebuild (
    rebuild_id bigint generated always as identity primary key,
    selector text not null,
    project text not null,
    is_from_lake boolean not null,
    started_at timestamptz not null default clock_timestamp(),
    whole_done_at timestamptz,
    finished_at timestamptz
);
create unique index on ops.rebuild ((true)) where finished_at is null;
comment on table ops.rebuild is 'Rebuilds of models over months that have left raw, a line each; at most one is unfinished.';
comment on column ops.rebuild.project is 'Fingerprint of the dbt project that it builds with.';
comment on column ops.rebuild.whole_done_at is 'When everything that raw held was rebuilt; the months in the lake follow one by one.';

create table ops.rebuild_month (
    rebuild_id bigint not null references ops.rebuild,
    month date not null,
    done_at timestamptz not null default clock_timestamp(),
    primary key (rebuild_id, month)
);
comment on table ops.rebuild_month is 'Months that a rebuild is through with; it goes on behind them after a crash.';
"""

FUNCTIONS = """
create or replace function ops.ensure_partitions(stream text, from_at timestamptz, to_at timestamptz) returns integer
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    month timestamptz := date_trunc('month', from_at);
    parent regclass := to_regclass(format('raw.%I', stream));
    first_day date;
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
        first_day := month::date;
        partition_name := ops.month_partition(stream, first_day);
        if to_regclass(format('raw.%I', partition_name)) is null then
            -- An empty partition in the place of a month that is in the lake would look like a month without events.
            if exists (
                select from ops.partition_state s
                where s.stream = ensure_partitions.stream and s.month = first_day and s.state in ('expired', 'deleted')
            ) then
                raise exception 'month % of stream % has left the raw table', to_char(month, 'YYYY-MM'), stream
                    using errcode = 'invalid_parameter_value', hint = format('tidemark lake restore %s %s-01', stream, to_char(month, 'YYYY-MM'));
            end if;
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

create function ops.drop_expired_partition(stream text, month date) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC' as $$
declare
    partition_name text := ops.month_partition(stream, month);
    parent regclass := to_regclass(format('raw.%I', stream));
    child regclass := to_regclass(format('raw.%I', partition_name));
    there bigint; in_lake bigint; booked bigint; said bigint;
begin
    if parent is null or not exists (select from pg_partitioned_table p where p.partrelid = parent and p.partstrat = 'r') then
        raise exception 'stream % has no table partitioned by month', stream using errcode = 'invalid_parameter_value';
    end if;
    if child is null or not exists (select from pg_inherits i where i.inhrelid = child and i.inhparent = parent) then
        raise exception '% is no partition of stream %', partition_name, stream using errcode = 'invalid_parameter_value';
    end if;
    select s.row_count into said from ops.partition_state s
    where s.stream = drop_expired_partition.stream and s.month = drop_expired_partition.month and s.state = 'expired';
    select coalesce(sum(f.row_count), 0) into in_lake from ops.file f
    where f.kind = 'lake' and f.state = 'live' and f.stream = drop_expired_partition.stream
        and f.event_date >= drop_expired_partition.month and f.event_date < drop_expired_partition.month + interval '1 month';
    select coalesce(sum(m.row_count), 0) into booked from ops.movement m
    where m.stream = drop_expired_partition.stream and m.partition = partition_name;
    execute format('select count(*) from %s', child) into there;
    -- Whoever calls has compared every row. This is the last fence before rows are gone: a mistake up there must not get past it.
    if said is distinct from there or in_lake <> there or booked <> 0 then
        raise exception '% holds % rows; its state says %, the lake %, and its movements leave %', partition_name, there, coalesce(said::text, 'nothing'),
            in_lake, booked using errcode = 'object_not_in_prerequisite_state';
    end if;
    execute format('drop table %s', child);
    insert into ops.ddl_log (statement, asked_by) values (format('drop partition raw.%I, %s rows', partition_name, there), session_user);
    return there;
end
$$;
comment on function ops.drop_expired_partition is
    'Drops the partition of a month whose rows the lake holds. In the same transaction its state became expired and its rows were taken out of the book.';
revoke execute on function ops.drop_expired_partition(text, date) from public;
grant execute on function ops.drop_expired_partition(text, date) to tidemark_loader;
"""

GRANTS = """
grant select, insert, update on ops.partition_state, ops.rebuild to tidemark_loader;
grant select, insert on ops.rebuild_month to tidemark_loader;
grant maintain on ops.partition_state, ops.rebuild, ops.rebuild_month to tidemark_loader;
grant select on ops.partition_state, ops.rebuild, ops.rebuild_month to tidemark_transformer, tidemark_ml, tidemark_analyst, tidemark_api;
"""


def upgrade() -> None:
    op.execute(STATE)
    op.execute(FUNCTIONS)
    op.execute(GRANTS)
