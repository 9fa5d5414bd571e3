"""How much space everything takes: measured once a day, because nobody can measure yesterday."""

from __future__ import annotations

import shutil
from datetime import date

from include.contracts import streams
from include.settings import get_settings
from include.warehouse import Role, connect, server

# Of an address that was written anew only the newest bytes are still there. What is being deleted counts until it is surely gone.
_SNAPSHOT = """
with stream as (
    select unnest(%(streams)s::text[]) as name
), kept as (
    select distinct on (f.address) f.stream, f.state, f.size_bytes, f.landed from ops.file as f where f.kind = 'arrival' order by f.address, f.file_id desc
), zone as (
    select stream, sum(size_bytes) as bytes, sum(landed) as rows, count(*) as files from kept where state not in ('restored', 'expired') group by stream
), lake as (
    select stream, sum(size_bytes) as bytes, sum(row_count) filter (where state = 'live') as rows, count(*) as files
    from ops.file where kind = 'lake' and state <> 'expired' group by stream
), raw as (
    select s.name as stream, (select sum(pg_total_relation_size(t.relid)) from pg_partition_tree(to_regclass(format('raw.%%I', s.name))) as t) as bytes,
        (select sum(m.row_count) from ops.movement as m where m.stream = s.name) as rows
    from stream as s
), model as (
    select n.nspname || '.' || c.relname as name, coalesce(pg_total_relation_size(c.oid), 0) as bytes, nullif(c.reltuples, -1)::bigint as rows
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where c.relkind = 'r' and pg_get_userbyid(c.relowner) = 'tidemark_transformer' and n.nspname !~ '^pg_'
), measured as (
    select 'zone' as store, s.name, coalesce(z.bytes, 0) as bytes, coalesce(z.rows, 0) as rows, coalesce(z.files, 0) as files, null::bigint as free
    from stream as s left join zone as z on z.stream = s.name
    union all
    select 'lake', s.name, coalesce(l.bytes, 0), coalesce(l.rows, 0), coalesce(l.files, 0), null from stream as s left join lake as l on l.stream = s.name
    union all
    select 'raw', stream, coalesce(bytes, 0), coalesce(rows, 0), null, null from raw
    union all
    select 'model', name, bytes, rows, null, null from model
    union all
    select 'database', 'main', pg_database_size(current_database()), null, null, null
    union all
    select 'disk', 'main', %(disk)s::bigint, null, null, %(free)s::bigint where %(disk)s::bigint is not null
)
insert into ops.storage_snapshot (snapshot_date, store, name, size_bytes, row_count, file_count, free_bytes)
select %(day)s, store, name, bytes, rows, files, free from measured
"""


def take_snapshot(day: date) -> int:
    """Measures zone, raw, lake, models, database and disk, and keeps the figures as those of a day; what was measured for that day before is replaced.

    The disk is the one under the embedded server's data. Another server's cannot be seen from here and is left out.

    Returns:
        Number of figures.
    """
    total, free = _disk() or (None, None)
    values = {"streams": list(streams()), "day": day, "disk": total, "free": free}
    with connect(Role.LOADER) as connection:
        connection.execute("delete from ops.storage_snapshot where snapshot_date = %s", (day,))
        return connection.execute(_SNAPSHOT, values).rowcount


def _disk() -> tuple[int, int] | None:
    """Size and free bytes of the disk under the warehouse; None where it is not on this machine."""
    if not get_settings().is_embedded:
        return None
    usage = shutil.disk_usage(server.data_directory())
    return usage.total, usage.free
