"""Keep what became of the rows of each post, and let receipts be read without the right to read anything else."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

RESULTS = """
create table ops.post_result (
    file_id bigint primary key references ops.file,
    first_rows integer[] not null,
    accepted integer[] not null,
    quarantined integer[] not null,
    duplicate integer[] not null,
    corrected integer[] not null,
    check (cardinality(first_rows) = all (array[cardinality(accepted), cardinality(quarantined), cardinality(duplicate), cardinality(corrected)]))
);
comment on table ops.post_result is
    'What became of the rows of each post of a file of the gateway when all of its rows were read: when it landed, or when a replay could read it at last. '
    'Arrays by number of the post, from 1; together a post''s four counts are its rows, and all posts of a file are its ledger line.';
comment on column ops.post_result.first_rows is 'Row number, in the file, of the first row of each post; the next post''s number ends it.';

grant select, insert, update, maintain on ops.post_result to tidemark_loader;
grant select on ops.post_result to tidemark_analyst;
"""

# Security definer, because the gateway's role may read neither quarantine nor originals; what the rows said is not in the answer.
RECEIPT = """
create function ops.post_receipt(tenant text, address text, post integer, error_limit integer) returns table (
    state text, attempts integer, posts integer, landed_at timestamptz, accepted integer, quarantined integer, duplicate integer, corrected integer,
    refused_rows bigint, open_rows bigint, errors jsonb
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    with found as (
        select f.file_id, f.state, f.attempts, cardinality(p.first_rows) as posts, p.first_rows[post] as first_row,
            coalesce(p.first_rows[post + 1] - 1, 2147483647) as last_row,
            coalesce(
                (select b.committed_at from ops.file_replay as r join ops.batch as b using (batch_id) where r.file_id = f.file_id and r.is_whole), f.landed_at
            ) as landed_at,
            p.accepted[post] as accepted, p.quarantined[post] as quarantined, p.duplicate[post] as duplicate, p.corrected[post] as corrected
        from ops.file as f left join ops.post_result as p using (file_id)
        where f.kind = 'arrival' and f.address = post_receipt.address and f.tenant_id = post_receipt.tenant
        order by p.file_id is null, f.file_id
        limit 1
    ),
    refused as (
        select q.quarantine_id, q.row_number, q.state, q.outcome, q.errors
        from found as f join ops.quarantine as q on q.file_id = f.file_id and q.row_number between f.first_row and f.last_row
    ),
    shown as (
        select r.row_number, r.state, r.outcome, coalesce(latest.errors, r.errors) as errors
        from (select * from refused order by row_number limit least(greatest(error_limit, 0), 1000)) as r
        left join lateral (
            select e.errors from ops.quarantine_event as e
            where e.quarantine_id = r.quarantine_id and e.outcome = 'failed' order by e.event_id desc limit 1
        ) as latest on true
    )
    select f.state, f.attempts, f.posts, f.landed_at, f.accepted, f.quarantined, f.duplicate, f.corrected,
        (select count(*) from refused), (select count(*) from refused as r where r.state = 'open'),
        (
            select jsonb_agg(
                jsonb_build_object(
                    'row', s.row_number - f.first_row + 1, 'state', s.state, 'outcome', s.outcome,
                    'errors', (
                        select jsonb_agg(
                            jsonb_build_object(
                                'code', e ->> 'code', 'field', e ->> 'field',
                                -- The server's own words about a row may repeat its values.
                                'message', case when e ->> 'code' = 'copy_refused' then 'the store could not take the row' else e ->> 'message' end
                            ) order by place
                        ) from jsonb_array_elements(s.errors) with ordinality as each (e, place)
                    )
                ) order by s.row_number
            ) from shown as s
        )
    from found as f
$$;
comment on function ops.post_receipt is
    'What became of a post of a file of the gateway, for its tenant only: no row where the ledger does not know the file. Rows are numbered from 1 within the '
    'post; errors come without the values that they are about.';
revoke execute on function ops.post_receipt(text, text, integer, integer) from public;
grant execute on function ops.post_receipt(text, text, integer, integer) to tidemark_api;
"""


def upgrade() -> None:
    op.execute(RESULTS)
    op.execute(RECEIPT)
