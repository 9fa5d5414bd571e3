"""Count what sources send beyond their contract and what they send no longer, and add columns to raw tables while they are in use."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

DRIFT = """
create table ops.schema_drift (
    stream text not null,
    kind text not null check (kind in ('unknown', 'vanished')),
    mapping text not null,
    tenant_id text not null,
    field text not null,
    first_seen_at timestamptz not null,
    last_seen_at timestamptz not null,
    row_count bigint not null,
    inferred_type text,
    sample text,
    contract_version text not null,
    batch_id bigint not null,
    ended_at timestamptz,
    primary key (stream, kind, mapping, tenant_id, field),
    check ((kind = 'unknown') = (inferred_type is not null))
);
comment on table ops.schema_drift is 'Fields that sources send and no contract knows (unknown), and columns that had values and have none any more (vanished). Written in the transaction of the load.';
comment on column ops.schema_drift.mapping is 'Mapping of the files; empty for rows of the stream''s own shape.';
comment on column ops.schema_drift.tenant_id is 'Whose rows; empty for vanished columns, which are told from all rows.';
comment on column ops.schema_drift.field is 'Dotted path in _extra; of a vanished one the column of the contract, or of the file where its mapping misses it.';
comment on column ops.schema_drift.first_seen_at is 'First batch with the unknown field; of a vanished column the last batch with a value.';
comment on column ops.schema_drift.row_count is 'Rows with the unknown field, copies and refused rows included; of a vanished column the rows since its last value.';
comment on column ops.schema_drift.sample is 'The first value, shortened; letters and digits masked where the stream holds personal data.';
comment on column ops.schema_drift.ended_at is 'When a vanished column had values again.';

create table ops.field_seen (
    stream text not null,
    mapping text not null,
    field text not null,
    row_count bigint not null,
    value_count bigint not null,
    silent_rows bigint not null,
    last_value_at timestamptz not null,
    primary key (stream, mapping, field)
);
comment on table ops.field_seen is 'Of each optional column that ever had a value: accepted rows since then, how many had one, and how many came since the last. Moved once a batch.';

grant select, insert, update, maintain on ops.schema_drift, ops.field_seen to tidemark_loader;
grant select on ops.schema_drift, ops.field_seen to tidemark_transformer, tidemark_ml, tidemark_analyst, tidemark_api;
"""

COLUMNS = """
create table ops.added_column (
    stream text not null,
    column_name text not null,
    data_type text not null,
    added_at timestamptz not null default clock_timestamp(),
    last_event_at timestamptz,
    last_event_id bytea,
    moved_rows bigint not null default 0,
    kept_rows bigint not null default 0,
    backfilled_at timestamptz,
    primary key (stream, column_name)
);
comment on table ops.added_column is 'Columns added to raw tables in use, and how far their values have been moved out of _extra.';
comment on column ops.added_column.last_event_id is 'Identity of the last row that was looked at, with last_event_at; NULL before the first.';
comment on column ops.added_column.moved_rows is 'Rows out of whose _extra values were moved.';
comment on column ops.added_column.kept_rows is 'Rows that keep a value in _extra because the contract does not allow it.';
grant select, update, maintain on ops.added_column to tidemark_loader;
grant select on ops.added_column to tidemark_transformer, tidemark_ml, tidemark_analyst, tidemark_api;

alter table ops.batch drop constraint if exists batch_kind_check;
alter table ops.batch add constraint batch_kind_check check (kind in ('load', 'replay', 'expiry', 'restore', 'backfill'));
comment on table ops.batch is 'One committed transaction that landed files (load) or rows from the quarantine (replay), that let rows expire or restored them, or that moved values out of _extra into columns (backfill). Ids of one stream become visible in order; ids of different streams do not.';
"""

# A change of a raw table needs it alone for an instant. Whoever waits for that makes all who come later wait behind it, so it waits a second at a time.
FUNCTIONS = """
create function ops.alter_raw(stream text, change text) returns void
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
begin
    for attempt in 1..30 loop
        begin
            execute format('alter table raw.%I %s', stream, change);
            insert into ops.ddl_log (statement, asked_by) values (format('raw.%I %s', stream, change), session_user);
            return;
        exception when lock_not_available then
            perform pg_sleep(0.2);
        end;
    end loop;
    raise exception 'raw.% is in use without a pause of a second; nothing was changed', stream
        using errcode = 'lock_not_available', hint = 'end long queries on it, or try again later';
end
$$;
comment on function ops.alter_raw is 'Changes a raw table in a pause between its users, and logs it. Callable by the owner only.';
revoke execute on function ops.alter_raw(text, text) from public;

create function ops.add_column(stream text, column_name text, data_type text, description text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    parent regclass := to_regclass(format('raw.%I', stream));
    present text;
begin
    if parent is null or not exists (select from pg_partitioned_table p where p.partrelid = parent) then
        raise exception 'stream % has no table', stream using errcode = 'invalid_parameter_value';
    end if;
    if column_name !~ '^[a-z][a-z0-9_]{0,62}$' then
        raise exception '% is no column of a contract', column_name using errcode = 'invalid_parameter_value';
    end if;
    if data_type not in ('text', 'bigint', 'double precision', 'boolean', 'timestamp with time zone', 'date') then
        raise exception '% is no type of a contract', data_type using errcode = 'invalid_parameter_value';
    end if;
    select format_type(a.atttypid, a.atttypmod) into present from pg_attribute a
    where a.attrelid = parent and a.attname = column_name and a.attnum > 0 and not a.attisdropped;
    if present = data_type then
        return false;
    elsif present is not null then
        raise exception 'raw.%.% is there and is %, not %', stream, column_name, present, data_type using errcode = 'duplicate_column';
    end if;
    if (select count(*) from pg_attribute a where a.attrelid = parent and a.attnum > 0) >= 1000 then
        raise exception 'raw.% has 1000 columns', stream using errcode = 'program_limit_exceeded';
    end if;
    perform ops.alter_raw(stream, format('add column %I %s', column_name, data_type));
    execute format('comment on column %s.%I is %L', parent, column_name, description);
    insert into ops.added_column (stream, column_name, data_type) values (stream, column_name, data_type);
    return true;
end
$$;
comment on function ops.add_column is 'Adds an optional column to a raw table in use; false where it is there already.';

create function ops.loosen_column(stream text, column_name text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    parent regclass := to_regclass(format('raw.%I', stream));
begin
    if parent is null or column_name ~ '^_' or column_name in ('tenant_id', 'event_id', 'event_at') then
        raise exception 'raw.%.% is no column of a contract', stream, column_name using errcode = 'invalid_parameter_value';
    end if;
    if not exists (
        select from pg_attribute a where a.attrelid = parent and a.attname = column_name and a.attnotnull and a.attnum > 0 and not a.attisdropped
    ) then
        return false;
    end if;
    perform ops.alter_raw(stream, format('alter column %I drop not null', column_name));
    return true;
end
$$;
comment on function ops.loosen_column is 'Lets a column of a raw table in use be empty; false where it may be already, or is not there.';

revoke execute on function ops.add_column(text, text, text, text), ops.loosen_column(text, text) from public;
grant execute on function ops.add_column(text, text, text, text), ops.loosen_column(text, text) to tidemark_loader;
"""


def upgrade() -> None:
    for statements in (DRIFT, COLUMNS, FUNCTIONS):
        op.execute(statements)
