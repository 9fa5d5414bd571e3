"""Make the raw tables of work_order_feedback, unit_readings, unit_lives.

Written by `python -m include.contracts revision`; history from here on, so never written again.
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
create table raw.work_order_feedback (
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
    work_order_id text not null,
    device_id text not null,
    updated_at timestamptz not null,
    verdict text not null,
    component_code text,
    why text
) partition by hash (event_id);
create table raw.work_order_feedback_h0 partition of raw.work_order_feedback for values with (modulus 8, remainder 0);
create table raw.work_order_feedback_h1 partition of raw.work_order_feedback for values with (modulus 8, remainder 1);
create table raw.work_order_feedback_h2 partition of raw.work_order_feedback for values with (modulus 8, remainder 2);
create table raw.work_order_feedback_h3 partition of raw.work_order_feedback for values with (modulus 8, remainder 3);
create table raw.work_order_feedback_h4 partition of raw.work_order_feedback for values with (modulus 8, remainder 4);
create table raw.work_order_feedback_h5 partition of raw.work_order_feedback for values with (modulus 8, remainder 5);
create table raw.work_order_feedback_h6 partition of raw.work_order_feedback for values with (modulus 8, remainder 6);
create table raw.work_order_feedback_h7 partition of raw.work_order_feedback for values with (modulus 8, remainder 7);
create unique index work_order_feedback_identity on raw.work_order_feedback (event_id);
create index work_order_feedback_batch on raw.work_order_feedback (_batch_id);
create index work_order_feedback_by_device_id on raw.work_order_feedback (tenant_id, device_id, event_at);
comment on table raw.work_order_feedback is 'What the crew found when it followed a proposed work order.';
comment on column raw.work_order_feedback.tenant_id is 'Whose event it is; default where nobody says otherwise.';
comment on column raw.work_order_feedback.event_id is 'Identity: first 16 bytes of SHA-256 over tenant, stream and key fields.';
comment on column raw.work_order_feedback.event_at is 'When the crew was there.';
comment on column raw.work_order_feedback._arrived_at is 'When the file with this row arrived in the landing zone.';
comment on column raw.work_order_feedback._known_at is 'Since when the house could have known it: the arrival; for a replayed row the replay; for imported history event time plus its mapping''s delay.';
comment on column raw.work_order_feedback._landed_at is 'When the row was written here. Never to be used as knowledge time.';
comment on column raw.work_order_feedback._batch_id is 'Batch that wrote the row, ops.batch.';
comment on column raw.work_order_feedback._file_id is 'File the row came in, ops.file.';
comment on column raw.work_order_feedback._row_number is 'Row within the file, from 1.';
comment on column raw.work_order_feedback._content_hash is 'First 16 bytes of SHA-256 over the whole typed row, to tell a duplicate from a correction.';
comment on column raw.work_order_feedback._extra is 'Fields the contract does not know; NULL where there are none.';
comment on column raw.work_order_feedback.work_order_id is 'The proposal, as maintenance.rpt_maintenance_schedule names it; unique within a tenant.';
comment on column raw.work_order_feedback.device_id is 'Device that the work order is about.';
comment on column raw.work_order_feedback.updated_at is 'When the answer was last written; of two copies the later written one counts.';
comment on column raw.work_order_feedback.verdict is 'What the crew found.';
comment on column raw.work_order_feedback.component_code is 'Part that had the fault.';
comment on column raw.work_order_feedback.why is 'How the crew knows, in its own words.';
grant select, insert, update, delete on raw.work_order_feedback to tidemark_loader;
grant select on raw.work_order_feedback to tidemark_transformer;
"""
    )
    op.execute(
        """
create table raw.unit_readings (
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
    unit_id text not null,
    cycle bigint not null,
    runs_to_failure boolean,
    has_failed boolean,
    remaining_cycles double precision
) partition by hash (event_id);
create table raw.unit_readings_h0 partition of raw.unit_readings for values with (modulus 8, remainder 0);
create table raw.unit_readings_h1 partition of raw.unit_readings for values with (modulus 8, remainder 1);
create table raw.unit_readings_h2 partition of raw.unit_readings for values with (modulus 8, remainder 2);
create table raw.unit_readings_h3 partition of raw.unit_readings for values with (modulus 8, remainder 3);
create table raw.unit_readings_h4 partition of raw.unit_readings for values with (modulus 8, remainder 4);
create table raw.unit_readings_h5 partition of raw.unit_readings for values with (modulus 8, remainder 5);
create table raw.unit_readings_h6 partition of raw.unit_readings for values with (modulus 8, remainder 6);
create table raw.unit_readings_h7 partition of raw.unit_readings for values with (modulus 8, remainder 7);
create unique index unit_readings_identity on raw.unit_readings (event_id);
create index unit_readings_batch on raw.unit_readings (_batch_id);
create index unit_readings_by_unit_id on raw.unit_readings (tenant_id, unit_id, event_at);
comment on table raw.unit_readings is 'Rows of any table about units that wear: settings and sensors by unit and cycle, whatever they are called.';
comment on column raw.unit_readings.tenant_id is 'Whose event it is; default where nobody says otherwise.';
comment on column raw.unit_readings.event_id is 'Identity: first 16 bytes of SHA-256 over tenant, stream and key fields.';
comment on column raw.unit_readings.event_at is 'When it was read. Where a table knows cycles only, a mapping counts each as a day: `days_after`.';
comment on column raw.unit_readings._arrived_at is 'When the file with this row arrived in the landing zone.';
comment on column raw.unit_readings._known_at is 'Since when the house could have known it: the arrival; for a replayed row the replay; for imported history event time plus its mapping''s delay.';
comment on column raw.unit_readings._landed_at is 'When the row was written here. Never to be used as knowledge time.';
comment on column raw.unit_readings._batch_id is 'Batch that wrote the row, ops.batch.';
comment on column raw.unit_readings._file_id is 'File the row came in, ops.file.';
comment on column raw.unit_readings._row_number is 'Row within the file, from 1.';
comment on column raw.unit_readings._content_hash is 'First 16 bytes of SHA-256 over the whole typed row, to tell a duplicate from a correction.';
comment on column raw.unit_readings._extra is 'Fields the contract does not know; NULL where there are none.';
comment on column raw.unit_readings.unit_id is 'The unit, unique within a tenant.';
comment on column raw.unit_readings.cycle is 'How many cycles (flights, charges, days) the unit has made; 1 where a table has one row a unit. Unit cycles.';
comment on column raw.unit_readings.runs_to_failure is 'Whether the unit failed right after its last row. Absent where nobody knows, or where its rows break off earlier.';
comment on column raw.unit_readings.has_failed is 'Label of a row, where the table states one.';
comment on column raw.unit_readings.remaining_cycles is 'Cycles that the unit had left at this row, where the table states them. Unit cycles.';
grant select, insert, update, delete on raw.unit_readings to tidemark_loader;
grant select on raw.unit_readings to tidemark_transformer;
"""
    )
    op.execute(
        """
create table raw.unit_lives (
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
    unit_id text not null,
    remaining_cycles double precision not null
) partition by hash (event_id);
create table raw.unit_lives_h0 partition of raw.unit_lives for values with (modulus 8, remainder 0);
create table raw.unit_lives_h1 partition of raw.unit_lives for values with (modulus 8, remainder 1);
create table raw.unit_lives_h2 partition of raw.unit_lives for values with (modulus 8, remainder 2);
create table raw.unit_lives_h3 partition of raw.unit_lives for values with (modulus 8, remainder 3);
create table raw.unit_lives_h4 partition of raw.unit_lives for values with (modulus 8, remainder 4);
create table raw.unit_lives_h5 partition of raw.unit_lives for values with (modulus 8, remainder 5);
create table raw.unit_lives_h6 partition of raw.unit_lives for values with (modulus 8, remainder 6);
create table raw.unit_lives_h7 partition of raw.unit_lives for values with (modulus 8, remainder 7);
create unique index unit_lives_identity on raw.unit_lives (event_id);
create index unit_lives_batch on raw.unit_lives (_batch_id);
create index unit_lives_by_unit_id on raw.unit_lives (tenant_id, unit_id, event_at);
comment on table raw.unit_lives is 'How long units of unit_readings lived on after their last row.';
comment on column raw.unit_lives.tenant_id is 'Whose event it is; default where nobody says otherwise.';
comment on column raw.unit_lives.event_id is 'Identity: first 16 bytes of SHA-256 over tenant, stream and key fields.';
comment on column raw.unit_lives.event_at is 'When it was stated; any moment does where nobody knows.';
comment on column raw.unit_lives._arrived_at is 'When the file with this row arrived in the landing zone.';
comment on column raw.unit_lives._known_at is 'Since when the house could have known it: the arrival; for a replayed row the replay; for imported history event time plus its mapping''s delay.';
comment on column raw.unit_lives._landed_at is 'When the row was written here. Never to be used as knowledge time.';
comment on column raw.unit_lives._batch_id is 'Batch that wrote the row, ops.batch.';
comment on column raw.unit_lives._file_id is 'File the row came in, ops.file.';
comment on column raw.unit_lives._row_number is 'Row within the file, from 1.';
comment on column raw.unit_lives._content_hash is 'First 16 bytes of SHA-256 over the whole typed row, to tell a duplicate from a correction.';
comment on column raw.unit_lives._extra is 'Fields the contract does not know; NULL where there are none.';
comment on column raw.unit_lives.unit_id is 'The unit, as unit_readings names it.';
comment on column raw.unit_lives.remaining_cycles is 'Cycles that the unit lived on after its last row. Unit cycles.';
grant select, insert, update, delete on raw.unit_lives to tidemark_loader;
grant select on raw.unit_lives to tidemark_transformer;
"""
    )
