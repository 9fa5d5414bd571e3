"""Make the book of row movements, by which the rows of every raw partition can be added up."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
create table ops.movement (
    movement_id bigint generated always as identity primary key,
    stream text not null,
    partition text not null,
    batch_id bigint not null,
    rows_of_batch bigint not null,
    reason text not null check (reason in ('load', 'replay', 'correction', 'expiry', 'erasure')),
    row_count bigint not null check (row_count <> 0),
    moved_at timestamptz not null default clock_timestamp()
);
create index on ops.movement (stream, partition, movement_id);
create index on ops.movement (batch_id);
comment on table ops.movement is 'Rows that came into a raw partition (plus) or left it (minus), by the batch that moved them. The rows of a partition are the sum of its movements.';
comment on column ops.movement.rows_of_batch is 'Batch whose rows came or left: of a row that a correction removes, the batch that had written it.';

create table ops.partition_check (
    stream text not null,
    partition text not null,
    checked_movement_id bigint not null,
    row_count bigint not null,
    checked_at timestamptz not null default clock_timestamp(),
    primary key (stream, partition)
);
comment on table ops.partition_check is 'The last comparison of each raw partition with its movements, and up to which movement it holds.';

create function ops.partition_rows(stream text, partition_name text, by_batch boolean) returns table (batch_id bigint, row_count bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    child regclass := to_regclass(format('raw.%I', partition_name));
begin
    if to_regclass(format('raw.%I', stream)) is null then
        raise exception 'stream % has no table', stream using errcode = 'invalid_parameter_value';
    end if;
    if child is null then
        return;
    end if;
    if not exists (select from pg_inherits i where i.inhrelid = child and i.inhparent = to_regclass(format('raw.%I', stream))) then
        raise exception '% is no partition of stream %', partition_name, stream using errcode = 'invalid_parameter_value';
    end if;
    return query execute format(case when by_batch then 'select _batch_id, count(*) from %s group by 1' else 'select null::bigint, count(*) from %s' end, child);
end
$$;
comment on function ops.partition_rows is 'How many rows a raw partition holds, in all or by the batch that wrote them; none if there is no such partition.';
revoke execute on function ops.partition_rows(text, text, boolean) from public;
grant execute on function ops.partition_rows(text, text, boolean) to tidemark_loader;

grant select, insert on ops.movement to tidemark_loader;
grant select, insert, update on ops.partition_check to tidemark_loader;
grant maintain on ops.movement, ops.partition_check to tidemark_loader;
grant select on ops.movement, ops.partition_check to tidemark_transformer, tidemark_ml, tidemark_analyst, tidemark_api;
""")
    # Rows that were landed before there was a book are its opening balance, under the batch that wrote them.
    op.execute("""
do $$
declare
    stream record;
begin
    for stream in
        select c.oid::regclass as relation, c.relname from pg_partitioned_table as p join pg_class as c on c.oid = p.partrelid
        where c.relnamespace = 'raw'::regnamespace
    loop
        execute format(
            'insert into ops.movement (stream, partition, batch_id, rows_of_batch, reason, row_count) '
            'select %L, p.relname, r._batch_id, r._batch_id, ''load'', count(*) from %s as r join pg_class as p on p.oid = r.tableoid group by p.relname, r._batch_id',
            stream.relname, stream.relation
        );
    end loop;
end
$$;
""")
