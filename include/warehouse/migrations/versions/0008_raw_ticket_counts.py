"""Make the raw tables of ticket_counts.

Written by `python -m include.contracts revision`; history from here on, so never written again.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
create table raw.ticket_counts (
    tenant_id text not null,
    event_id bytea not null,
    event_at timestamptz not null,
    _arrived_at timestamptz not null,
    _known_at timestamptz not null,
    _landed_at timestamptz not null,
    _batch_id bigint not null,
    _file_id bigint not null,
    _row_number integer not null,
    _content_hash bytea not null,
    _extra jsonb,
    location_id text not null,
    sold_count bigint not null,
    redeemed_count bigint not null
) partition by hash (event_id);
create table raw.ticket_counts_h0 partition of raw.ticket_counts for values with (modulus 8, remainder 0);
create table raw.ticket_counts_h1 partition of raw.ticket_counts for values with (modulus 8, remainder 1);
create table raw.ticket_counts_h2 partition of raw.ticket_counts for values with (modulus 8, remainder 2);
create table raw.ticket_counts_h3 partition of raw.ticket_counts for values with (modulus 8, remainder 3);
create table raw.ticket_counts_h4 partition of raw.ticket_counts for values with (modulus 8, remainder 4);
create table raw.ticket_counts_h5 partition of raw.ticket_counts for values with (modulus 8, remainder 5);
create table raw.ticket_counts_h6 partition of raw.ticket_counts for values with (modulus 8, remainder 6);
create table raw.ticket_counts_h7 partition of raw.ticket_counts for values with (modulus 8, remainder 7);
create unique index ticket_counts_identity on raw.ticket_counts (event_id);
create index ticket_counts_batch on raw.ticket_counts (_batch_id);
create index ticket_counts_by_location_id on raw.ticket_counts (tenant_id, location_id, event_at);
comment on table raw.ticket_counts is 'Tickets sold and redeemed at a point of sale, counted by slots of time.';
comment on column raw.ticket_counts.tenant_id is 'Whose event it is; default where nobody says otherwise.';
comment on column raw.ticket_counts.event_id is 'Identity: first 16 bytes of SHA-256 over tenant, stream and key fields.';
comment on column raw.ticket_counts.event_at is 'The instant by which the source names the slot, with Z or an offset; with the point of sale it is the identity of a count.';
comment on column raw.ticket_counts._arrived_at is 'When the file with this row arrived in the landing zone.';
comment on column raw.ticket_counts._known_at is 'Since when the house could have known it: the arrival; for imported history event time plus its mapping''s delay.';
comment on column raw.ticket_counts._landed_at is 'When the row was written here. Never to be used as knowledge time.';
comment on column raw.ticket_counts._batch_id is 'Batch that wrote the row, ops.batch.';
comment on column raw.ticket_counts._file_id is 'File the row came in, ops.file.';
comment on column raw.ticket_counts._row_number is 'Row within the file, from 1.';
comment on column raw.ticket_counts._content_hash is 'First 16 bytes of SHA-256 over the whole typed row, to tell a duplicate from a correction.';
comment on column raw.ticket_counts._extra is 'Fields the contract does not know; NULL where there are none.';
comment on column raw.ticket_counts.location_id is 'Point of sale, unique within a tenant.';
comment on column raw.ticket_counts.sold_count is 'Tickets sold in the slot. Unit tickets.';
comment on column raw.ticket_counts.redeemed_count is 'Tickets redeemed in the slot; they may have been sold days before. Unit tickets.';
grant select, insert, update, delete on raw.ticket_counts to tidemark_loader;
grant select on raw.ticket_counts to tidemark_transformer;
"""
    )
