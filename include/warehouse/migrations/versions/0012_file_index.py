"""Make every file easy to find, let data sets name the files they were made of, and keep how much space each stream takes day by day."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# btree_gist is not among the extensions of the embedded server, so the index on spans stands alone and PostgreSQL combines it with the others.
FIND = """
alter table ops.file add column event_span tstzrange
    generated always as (case when first_event_at is not null then tstzrange(first_event_at, last_event_at, '[]') end) stored;
comment on column ops.file.event_span is 'Event time of its rows, from the oldest to the newest. NULL where no row could be used.';
create index on ops.file using gist (event_span);
create index on ops.file (arrived_at, file_id);
create index on ops.file (state, arrived_at);
create index on ops.file (tenant_id, arrived_at);
create index on ops.file (replaced_by) where replaced_by is not null;
"""

DATASET = """
create table ops.dataset (
    dataset_id bigint generated always as identity primary key,
    name text not null,
    content_hash text not null,
    feature_relation text not null,
    outcome_relation text not null,
    first_date date not null,
    last_date date not null,
    row_count bigint not null check (row_count > 0),
    event_until timestamptz not null,
    shown jsonb not null,
    horizon jsonb not null,
    created_at timestamptz not null default clock_timestamp(),
    unique (name, content_hash),
    check (first_date <= last_date)
);
comment on table ops.dataset is 'What models were trained on: one row a question and content. The same data again is the same data set.';
comment on column ops.dataset.content_hash is 'Hash of every key, feature and outcome; a data set that was rebuilt is the same if it has the same hash.';
comment on column ops.dataset.event_until is 'End of the last outcome window, inclusive: nothing that happened later can be in it.';
comment on column ops.dataset.shown is 'Up to which batch of each stream each of the two relations certainly showed everything, as platform.rpt_freshness said: {relation: {stream: batch}}.';
comment on column ops.dataset.horizon is 'The greater of these by stream, {stream: batch}: no row of a later batch can be in it.';

create table ops.dataset_file (
    dataset_id bigint not null references ops.dataset,
    file_id bigint not null references ops.file,
    primary key (dataset_id, file_id)
);
create index on ops.dataset_file (file_id);
comment on table ops.dataset_file is
    'Files that hold the rows a data set was made of, as they lay when it was read: lake files, and arrivals that the lake had not exported. '
    'A lake file that was replaced since leads to the one that holds its rows by ops.file.replaced_by.';

grant select, insert on ops.dataset, ops.dataset_file to tidemark_ml;
grant select on ops.dataset, ops.dataset_file to tidemark_loader, tidemark_transformer, tidemark_analyst, tidemark_api;
grant maintain on ops.dataset, ops.dataset_file to tidemark_loader;
"""

STORAGE = """
create table ops.storage_snapshot (
    snapshot_date date not null,
    store text not null check (store in ('zone', 'raw', 'lake', 'model', 'database', 'disk')),
    name text not null,
    size_bytes bigint not null check (size_bytes >= 0),
    row_count bigint check (row_count >= 0),
    file_count bigint check (file_count >= 0),
    free_bytes bigint check (free_bytes >= 0),
    taken_at timestamptz not null default clock_timestamp(),
    primary key (snapshot_date, store, name),
    check ((store = 'disk') = (free_bytes is not null)),
    check ((store in ('zone', 'lake')) = (file_count is not null))
);
comment on table ops.storage_snapshot is 'How much space was taken, day by day: a report cannot look back otherwise. Taking it again on a day replaces that day.';
comment on column ops.storage_snapshot.name is 'Stream in zone, raw and lake; schema.name of a model; main where there is one of its kind.';
comment on column ops.storage_snapshot.row_count is
    'Rows read from files of the zone, rows in raw by the book of movements, rows in lake files; of a model what PostgreSQL last counted or estimated, NULL before that.';
comment on column ops.storage_snapshot.free_bytes is 'Of the disk that the warehouse lies on, as far as this machine can see it.';

grant select, insert, delete, maintain on ops.storage_snapshot to tidemark_loader;
grant select on ops.storage_snapshot to tidemark_transformer, tidemark_ml, tidemark_analyst, tidemark_api;
"""


def upgrade() -> None:
    for statements in (FIND, DATASET, STORAGE):
        op.execute(statements)
