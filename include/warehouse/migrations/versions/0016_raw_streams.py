"""Make the raw tables of device_desired_state, device_events, gps_positions.

Written by `python -m include.contracts revision`; history from here on, so never written again.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
create table raw.device_desired_state (
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
    device_id text not null,
    updated_at timestamptz not null,
    target_firmware_version text,
    target_reporting_interval_s bigint,
    target_setpoint_c double precision
) partition by hash (event_id);
create table raw.device_desired_state_h0 partition of raw.device_desired_state for values with (modulus 8, remainder 0);
create table raw.device_desired_state_h1 partition of raw.device_desired_state for values with (modulus 8, remainder 1);
create table raw.device_desired_state_h2 partition of raw.device_desired_state for values with (modulus 8, remainder 2);
create table raw.device_desired_state_h3 partition of raw.device_desired_state for values with (modulus 8, remainder 3);
create table raw.device_desired_state_h4 partition of raw.device_desired_state for values with (modulus 8, remainder 4);
create table raw.device_desired_state_h5 partition of raw.device_desired_state for values with (modulus 8, remainder 5);
create table raw.device_desired_state_h6 partition of raw.device_desired_state for values with (modulus 8, remainder 6);
create table raw.device_desired_state_h7 partition of raw.device_desired_state for values with (modulus 8, remainder 7);
create unique index device_desired_state_identity on raw.device_desired_state (event_id);
create index device_desired_state_batch on raw.device_desired_state (_batch_id);
create index device_desired_state_by_device_id on raw.device_desired_state (tenant_id, device_id, event_at);
comment on table raw.device_desired_state is 'Versions of how each device is meant to be - firmware, reporting interval and set point.';
comment on column raw.device_desired_state.tenant_id is 'Whose event it is; default where nobody says otherwise.';
comment on column raw.device_desired_state.event_id is 'Identity: first 16 bytes of SHA-256 over tenant, stream and key fields.';
comment on column raw.device_desired_state.event_at is 'Since when this version holds.';
comment on column raw.device_desired_state._arrived_at is 'When the file with this row arrived in the landing zone.';
comment on column raw.device_desired_state._known_at is 'Since when the house could have known it: the arrival; for a replayed row the replay; for imported history event time plus its mapping''s delay.';
comment on column raw.device_desired_state._landed_at is 'When the row was written here. Never to be used as knowledge time.';
comment on column raw.device_desired_state._batch_id is 'Batch that wrote the row, ops.batch.';
comment on column raw.device_desired_state._file_id is 'File the row came in, ops.file.';
comment on column raw.device_desired_state._row_number is 'Row within the file, from 1.';
comment on column raw.device_desired_state._content_hash is 'First 16 bytes of SHA-256 over the whole typed row, to tell a duplicate from a correction.';
comment on column raw.device_desired_state._extra is 'Fields the contract does not know; NULL where there are none.';
comment on column raw.device_desired_state.device_id is 'Identifier of the device, unique within a tenant.';
comment on column raw.device_desired_state.updated_at is 'When this version was written; of two copies the later written one counts.';
comment on column raw.device_desired_state.target_firmware_version is 'Firmware that the device is meant to run; absent where none is asked for.';
comment on column raw.device_desired_state.target_reporting_interval_s is 'How often the device is meant to report; absent where none is asked for. Unit s.';
comment on column raw.device_desired_state.target_setpoint_c is 'Temperature that the device is meant to hold; absent for devices without a set point. Unit °C.';
grant select, insert, update, delete on raw.device_desired_state to tidemark_loader;
grant select on raw.device_desired_state to tidemark_transformer;
"""
    )
    op.execute(
        """
create table raw.device_events (
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
    device_id text not null,
    event_type text not null,
    event_code text not null,
    device_type text not null,
    previous_state text,
    severity_code text,
    temperature_c double precision,
    load_pct double precision,
    setpoint_c double precision,
    actor_id text,
    actor_id_pseudonym text
) partition by range (event_at);
create unique index device_events_identity on raw.device_events (event_at, event_id);
create index device_events_batch on raw.device_events (_batch_id);
create index device_events_by_device_id on raw.device_events (tenant_id, device_id, event_at);
comment on table raw.device_events is 'What happened to devices - changes of state, events of controllers, errors, restarts, locks, set points and attempts at access.';
comment on column raw.device_events.tenant_id is 'Whose event it is; default where nobody says otherwise.';
comment on column raw.device_events.event_id is 'Identity: first 16 bytes of SHA-256 over tenant, stream and key fields.';
comment on column raw.device_events.event_at is 'When it happened, by the device''s clock, with Z or an offset; a time without one is refused.';
comment on column raw.device_events._arrived_at is 'When the file with this row arrived in the landing zone.';
comment on column raw.device_events._known_at is 'Since when the house could have known it: the arrival; for a replayed row the replay; for imported history event time plus its mapping''s delay.';
comment on column raw.device_events._landed_at is 'When the row was written here. Never to be used as knowledge time.';
comment on column raw.device_events._batch_id is 'Batch that wrote the row, ops.batch.';
comment on column raw.device_events._file_id is 'File the row came in, ops.file.';
comment on column raw.device_events._row_number is 'Row within the file, from 1.';
comment on column raw.device_events._content_hash is 'First 16 bytes of SHA-256 over the whole typed row, to tell a duplicate from a correction.';
comment on column raw.device_events._extra is 'Fields the contract does not know; NULL where there are none.';
comment on column raw.device_events.device_id is 'Identifier of the device, unique within a tenant.';
comment on column raw.device_events.event_type is 'What kind of event it is.';
comment on column raw.device_events.event_code is 'What exactly, by the type: the new state, the error code, the reason of a restart, the means of a lock, granted or denied.';
comment on column raw.device_events.device_type is 'What kind of device it is.';
comment on column raw.device_events.previous_state is 'State before a change of state.';
comment on column raw.device_events.severity_code is 'How bad the device thinks it is.';
comment on column raw.device_events.temperature_c is 'Temperature at the sensor. Unit °C.';
comment on column raw.device_events.load_pct is 'Load as a share of the rated power; short overload goes above 100. Unit %.';
comment on column raw.device_events.setpoint_c is 'Temperature that the device holds from here on. Unit °C.';
comment on column raw.device_events.actor_id is 'Person who did it, as the device knows people: owner of a code, a key or an account. Absent where nobody did, or the device does not know who. Personal data.';
comment on column raw.device_events.actor_id_pseudonym is 'Keyed pseudonym of actor_id: equal where clear values are, not to be turned back without the key.';
grant select, insert, update, delete on raw.device_events to tidemark_loader;
grant select on raw.device_events to tidemark_transformer;
"""
    )
    op.execute(
        """
create table raw.gps_positions (
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
    device_id text not null,
    latitude_deg double precision not null,
    longitude_deg double precision not null,
    speed_km_h double precision,
    heading_deg double precision,
    accuracy_m double precision,
    satellite_count bigint
) partition by range (event_at);
create unique index gps_positions_identity on raw.gps_positions (event_at, event_id);
create index gps_positions_batch on raw.gps_positions (_batch_id);
create index gps_positions_by_device_id on raw.gps_positions (tenant_id, device_id, event_at);
comment on table raw.gps_positions is 'Where the trucks are, how fast they drive and where to.';
comment on column raw.gps_positions.tenant_id is 'Whose event it is; default where nobody says otherwise.';
comment on column raw.gps_positions.event_id is 'Identity: first 16 bytes of SHA-256 over tenant, stream and key fields.';
comment on column raw.gps_positions.event_at is 'When the position was fixed, with Z or an offset; a time without one is refused.';
comment on column raw.gps_positions._arrived_at is 'When the file with this row arrived in the landing zone.';
comment on column raw.gps_positions._known_at is 'Since when the house could have known it: the arrival; for a replayed row the replay; for imported history event time plus its mapping''s delay.';
comment on column raw.gps_positions._landed_at is 'When the row was written here. Never to be used as knowledge time.';
comment on column raw.gps_positions._batch_id is 'Batch that wrote the row, ops.batch.';
comment on column raw.gps_positions._file_id is 'File the row came in, ops.file.';
comment on column raw.gps_positions._row_number is 'Row within the file, from 1.';
comment on column raw.gps_positions._content_hash is 'First 16 bytes of SHA-256 over the whole typed row, to tell a duplicate from a correction.';
comment on column raw.gps_positions._extra is 'Fields the contract does not know; NULL where there are none.';
comment on column raw.gps_positions.device_id is 'Identifier of the tracker, unique within a tenant.';
comment on column raw.gps_positions.latitude_deg is 'Latitude, WGS 84; north is positive. Unit degree.';
comment on column raw.gps_positions.longitude_deg is 'Longitude, WGS 84; east is positive. Unit degree.';
comment on column raw.gps_positions.speed_km_h is 'Speed over ground. Unit km/h.';
comment on column raw.gps_positions.heading_deg is 'Direction of travel, clockwise from north; absent while the truck stands. Unit degree.';
comment on column raw.gps_positions.accuracy_m is 'Radius within which the tracker believes to be. Unit m.';
comment on column raw.gps_positions.satellite_count is 'Satellites that the fix is made of. Unit satellites.';
grant select, insert, update, delete on raw.gps_positions to tidemark_loader;
grant select on raw.gps_positions to tidemark_transformer;
"""
    )
