"""Make the raw tables of device_telemetry, device_registry, maintenance_log, orders, customers.

Written by `python -m include.contracts revision`; history from here on, so never written again.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
create table raw.device_telemetry (
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
    device_type text not null,
    facility_id text,
    line_id text,
    station_id text,
    latitude_deg double precision,
    longitude_deg double precision,
    temperature_c double precision,
    humidity_pct double precision,
    pressure_hpa double precision,
    dew_point_c double precision,
    vibration_x_mm_s double precision,
    vibration_y_mm_s double precision,
    vibration_z_mm_s double precision,
    energy_kwh double precision,
    load_pct double precision,
    runtime_h double precision,
    error_code text,
    machine_status text,
    firmware_version text,
    battery_pct double precision,
    signal_strength_dbm double precision,
    last_maintenance_at timestamptz,
    accuracy_pct double precision,
    calibrated_at timestamptz,
    quality_status text
) partition by range (event_at);
create unique index device_telemetry_identity on raw.device_telemetry (event_id, event_at);
create index device_telemetry_batch on raw.device_telemetry (_batch_id);
create index device_telemetry_by_device_id on raw.device_telemetry (tenant_id, device_id, event_at);
comment on table raw.device_telemetry is 'Readings of devices in plants and homes - what each device measured, and how it was when it measured.';
comment on column raw.device_telemetry.tenant_id is 'Whose event it is; default where nobody says otherwise.';
comment on column raw.device_telemetry.event_id is 'Identity: first 16 bytes of SHA-256 over tenant, stream and key fields.';
comment on column raw.device_telemetry.event_at is 'When the reading was taken, by the device''s clock, with Z or an offset; a time without one is refused.';
comment on column raw.device_telemetry._arrived_at is 'When the file with this row arrived in the landing zone.';
comment on column raw.device_telemetry._known_at is 'Since when the house could have known it: the arrival; for imported history event time plus its mapping''s delay.';
comment on column raw.device_telemetry._landed_at is 'When the row was written here. Never to be used as knowledge time.';
comment on column raw.device_telemetry._batch_id is 'Batch that wrote the row, ops.batch.';
comment on column raw.device_telemetry._file_id is 'File the row came in, ops.file.';
comment on column raw.device_telemetry._row_number is 'Row within the file, from 1.';
comment on column raw.device_telemetry._content_hash is 'First 16 bytes of SHA-256 over the whole typed row, to tell a duplicate from a correction.';
comment on column raw.device_telemetry._extra is 'Fields the contract does not know; NULL where there are none.';
comment on column raw.device_telemetry.device_id is 'Identifier of the device, unique within a tenant.';
comment on column raw.device_telemetry.device_type is 'What kind of device it is.';
comment on column raw.device_telemetry.facility_id is 'Plant or home.';
comment on column raw.device_telemetry.line_id is 'Production line within the facility.';
comment on column raw.device_telemetry.station_id is 'Station on the line.';
comment on column raw.device_telemetry.latitude_deg is 'Latitude, WGS 84; north is positive. Unit degree.';
comment on column raw.device_telemetry.longitude_deg is 'Longitude, WGS 84; east is positive. Unit degree.';
comment on column raw.device_telemetry.temperature_c is 'Temperature at the sensor. Unit °C.';
comment on column raw.device_telemetry.humidity_pct is 'Relative humidity of the air. Unit %.';
comment on column raw.device_telemetry.pressure_hpa is 'Pressure, absolute - of the air (about 1,013) or of a process (compressed air at 5 bar is 5,000). Unit hPa.';
comment on column raw.device_telemetry.dew_point_c is 'Temperature at which the air''s water would condense. Unit °C.';
comment on column raw.device_telemetry.vibration_x_mm_s is 'Vibration velocity along the x axis of the device. Unit mm/s.';
comment on column raw.device_telemetry.vibration_y_mm_s is 'Vibration velocity along the y axis of the device. Unit mm/s.';
comment on column raw.device_telemetry.vibration_z_mm_s is 'Vibration velocity along the z axis of the device. Unit mm/s.';
comment on column raw.device_telemetry.energy_kwh is 'Energy used since the reading before. Unit kWh.';
comment on column raw.device_telemetry.load_pct is 'Load as a share of the rated power; short overload goes above 100. Unit %.';
comment on column raw.device_telemetry.runtime_h is 'Hours the machine has run since it was installed. Unit h.';
comment on column raw.device_telemetry.error_code is 'Code of the error the machine shows; absent without an error.';
comment on column raw.device_telemetry.machine_status is 'What the machine does.';
comment on column raw.device_telemetry.firmware_version is 'Version of the firmware.';
comment on column raw.device_telemetry.battery_pct is 'Charge of the battery. Unit %.';
comment on column raw.device_telemetry.signal_strength_dbm is 'Received radio power; nearer to zero is stronger. Unit dBm.';
comment on column raw.device_telemetry.last_maintenance_at is 'When the device was last maintained, as it knows.';
comment on column raw.device_telemetry.accuracy_pct is 'Accuracy as the device states it. Unit %.';
comment on column raw.device_telemetry.calibrated_at is 'When the sensor was last calibrated.';
comment on column raw.device_telemetry.quality_status is 'What the device thinks of its own measurement.';
grant select, insert, update, delete on raw.device_telemetry to tidemark_loader;
grant select on raw.device_telemetry to tidemark_transformer;
"""
    )
    op.execute(
        """
create table raw.device_registry (
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
    device_type text not null,
    facility_id text not null,
    line_id text,
    station_id text,
    model_name text,
    manufacturer_name text,
    installed_at timestamptz,
    reporting_interval_s bigint not null,
    maintenance_interval_days bigint,
    rated_power_kw double precision,
    latitude_deg double precision,
    longitude_deg double precision,
    registry_status text not null
) partition by hash (event_id);
create table raw.device_registry_h0 partition of raw.device_registry for values with (modulus 8, remainder 0);
create table raw.device_registry_h1 partition of raw.device_registry for values with (modulus 8, remainder 1);
create table raw.device_registry_h2 partition of raw.device_registry for values with (modulus 8, remainder 2);
create table raw.device_registry_h3 partition of raw.device_registry for values with (modulus 8, remainder 3);
create table raw.device_registry_h4 partition of raw.device_registry for values with (modulus 8, remainder 4);
create table raw.device_registry_h5 partition of raw.device_registry for values with (modulus 8, remainder 5);
create table raw.device_registry_h6 partition of raw.device_registry for values with (modulus 8, remainder 6);
create table raw.device_registry_h7 partition of raw.device_registry for values with (modulus 8, remainder 7);
create unique index device_registry_identity on raw.device_registry (event_id);
create index device_registry_batch on raw.device_registry (_batch_id);
create index device_registry_by_device_id on raw.device_registry (tenant_id, device_id, event_at);
comment on table raw.device_registry is 'Versions of what is known about each device - where it stands, what it is, how often it reports.';
comment on column raw.device_registry.tenant_id is 'Whose event it is; default where nobody says otherwise.';
comment on column raw.device_registry.event_id is 'Identity: first 16 bytes of SHA-256 over tenant, stream and key fields.';
comment on column raw.device_registry.event_at is 'Since when this version holds.';
comment on column raw.device_registry._arrived_at is 'When the file with this row arrived in the landing zone.';
comment on column raw.device_registry._known_at is 'Since when the house could have known it: the arrival; for imported history event time plus its mapping''s delay.';
comment on column raw.device_registry._landed_at is 'When the row was written here. Never to be used as knowledge time.';
comment on column raw.device_registry._batch_id is 'Batch that wrote the row, ops.batch.';
comment on column raw.device_registry._file_id is 'File the row came in, ops.file.';
comment on column raw.device_registry._row_number is 'Row within the file, from 1.';
comment on column raw.device_registry._content_hash is 'First 16 bytes of SHA-256 over the whole typed row, to tell a duplicate from a correction.';
comment on column raw.device_registry._extra is 'Fields the contract does not know; NULL where there are none.';
comment on column raw.device_registry.device_id is 'Identifier of the device, unique within a tenant.';
comment on column raw.device_registry.updated_at is 'When this version was written; of two copies the later written one counts.';
comment on column raw.device_registry.device_type is 'What kind of device it is.';
comment on column raw.device_registry.facility_id is 'Plant or home.';
comment on column raw.device_registry.line_id is 'Production line within the facility.';
comment on column raw.device_registry.station_id is 'Station on the line.';
comment on column raw.device_registry.model_name is 'Model, as the manufacturer calls it.';
comment on column raw.device_registry.manufacturer_name is 'Who made the device.';
comment on column raw.device_registry.installed_at is 'When the device was put in its place.';
comment on column raw.device_registry.reporting_interval_s is 'How often the device reports in this period. Unit s.';
comment on column raw.device_registry.maintenance_interval_days is 'How often the device should be maintained. Unit d.';
comment on column raw.device_registry.rated_power_kw is 'Electrical power at full load; absent for devices that only sense. Unit kW.';
comment on column raw.device_registry.latitude_deg is 'Latitude, WGS 84; north is positive. Unit degree.';
comment on column raw.device_registry.longitude_deg is 'Longitude, WGS 84; east is positive. Unit degree.';
comment on column raw.device_registry.registry_status is 'Whether the device is in use.';
grant select, insert, update, delete on raw.device_registry to tidemark_loader;
grant select on raw.device_registry to tidemark_transformer;
"""
    )
    op.execute(
        """
create table raw.maintenance_log (
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
    log_id text not null,
    device_id text not null,
    updated_at timestamptz not null,
    maintenance_type text not null,
    component_code text,
    error_code text,
    downtime_min double precision,
    cost_usd double precision,
    notes text
) partition by hash (event_id);
create table raw.maintenance_log_h0 partition of raw.maintenance_log for values with (modulus 8, remainder 0);
create table raw.maintenance_log_h1 partition of raw.maintenance_log for values with (modulus 8, remainder 1);
create table raw.maintenance_log_h2 partition of raw.maintenance_log for values with (modulus 8, remainder 2);
create table raw.maintenance_log_h3 partition of raw.maintenance_log for values with (modulus 8, remainder 3);
create table raw.maintenance_log_h4 partition of raw.maintenance_log for values with (modulus 8, remainder 4);
create table raw.maintenance_log_h5 partition of raw.maintenance_log for values with (modulus 8, remainder 5);
create table raw.maintenance_log_h6 partition of raw.maintenance_log for values with (modulus 8, remainder 6);
create table raw.maintenance_log_h7 partition of raw.maintenance_log for values with (modulus 8, remainder 7);
create unique index maintenance_log_identity on raw.maintenance_log (event_id);
create index maintenance_log_batch on raw.maintenance_log (_batch_id);
create index maintenance_log_by_device_id on raw.maintenance_log (tenant_id, device_id, event_at);
comment on table raw.maintenance_log is 'Failures, repairs, services and inspections of devices, as the crew logs them.';
comment on column raw.maintenance_log.tenant_id is 'Whose event it is; default where nobody says otherwise.';
comment on column raw.maintenance_log.event_id is 'Identity: first 16 bytes of SHA-256 over tenant, stream and key fields.';
comment on column raw.maintenance_log.event_at is 'When it happened, or began.';
comment on column raw.maintenance_log._arrived_at is 'When the file with this row arrived in the landing zone.';
comment on column raw.maintenance_log._known_at is 'Since when the house could have known it: the arrival; for imported history event time plus its mapping''s delay.';
comment on column raw.maintenance_log._landed_at is 'When the row was written here. Never to be used as knowledge time.';
comment on column raw.maintenance_log._batch_id is 'Batch that wrote the row, ops.batch.';
comment on column raw.maintenance_log._file_id is 'File the row came in, ops.file.';
comment on column raw.maintenance_log._row_number is 'Row within the file, from 1.';
comment on column raw.maintenance_log._content_hash is 'First 16 bytes of SHA-256 over the whole typed row, to tell a duplicate from a correction.';
comment on column raw.maintenance_log._extra is 'Fields the contract does not know; NULL where there are none.';
comment on column raw.maintenance_log.log_id is 'Identifier of the log entry, unique within a tenant.';
comment on column raw.maintenance_log.device_id is 'Device that the entry is about.';
comment on column raw.maintenance_log.updated_at is 'When the entry was last written; of two copies the later written one counts.';
comment on column raw.maintenance_log.maintenance_type is 'What kind of entry it is.';
comment on column raw.maintenance_log.component_code is 'Part that failed or was worked on.';
comment on column raw.maintenance_log.error_code is 'Error the device showed.';
comment on column raw.maintenance_log.downtime_min is 'How long the device stood still. Unit min.';
comment on column raw.maintenance_log.cost_usd is 'Cost of parts and work. Unit USD.';
comment on column raw.maintenance_log.notes is 'Free text of the crew.';
grant select, insert, update, delete on raw.maintenance_log to tidemark_loader;
grant select on raw.maintenance_log to tidemark_transformer;
"""
    )
    op.execute(
        """
create table raw.orders (
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
    order_id text not null,
    customer_id text not null,
    updated_at timestamptz not null,
    order_status text not null,
    currency_code text not null,
    channel_code text,
    category_name text,
    product_id text,
    item_count bigint,
    gross_usd double precision not null,
    discount_usd double precision,
    tax_usd double precision,
    net_usd double precision not null,
    payment_method text
) partition by hash (event_id);
create table raw.orders_h0 partition of raw.orders for values with (modulus 8, remainder 0);
create table raw.orders_h1 partition of raw.orders for values with (modulus 8, remainder 1);
create table raw.orders_h2 partition of raw.orders for values with (modulus 8, remainder 2);
create table raw.orders_h3 partition of raw.orders for values with (modulus 8, remainder 3);
create table raw.orders_h4 partition of raw.orders for values with (modulus 8, remainder 4);
create table raw.orders_h5 partition of raw.orders for values with (modulus 8, remainder 5);
create table raw.orders_h6 partition of raw.orders for values with (modulus 8, remainder 6);
create table raw.orders_h7 partition of raw.orders for values with (modulus 8, remainder 7);
create unique index orders_identity on raw.orders (event_id);
create index orders_batch on raw.orders (_batch_id);
create index orders_by_order_id on raw.orders (tenant_id, order_id, event_at);
create index orders_by_customer_id on raw.orders (tenant_id, customer_id, event_at);
comment on table raw.orders is 'Orders of the shop, each in its latest state.';
comment on column raw.orders.tenant_id is 'Whose event it is; default where nobody says otherwise.';
comment on column raw.orders.event_id is 'Identity: first 16 bytes of SHA-256 over tenant, stream and key fields.';
comment on column raw.orders.event_at is 'When the order was placed.';
comment on column raw.orders._arrived_at is 'When the file with this row arrived in the landing zone.';
comment on column raw.orders._known_at is 'Since when the house could have known it: the arrival; for imported history event time plus its mapping''s delay.';
comment on column raw.orders._landed_at is 'When the row was written here. Never to be used as knowledge time.';
comment on column raw.orders._batch_id is 'Batch that wrote the row, ops.batch.';
comment on column raw.orders._file_id is 'File the row came in, ops.file.';
comment on column raw.orders._row_number is 'Row within the file, from 1.';
comment on column raw.orders._content_hash is 'First 16 bytes of SHA-256 over the whole typed row, to tell a duplicate from a correction.';
comment on column raw.orders._extra is 'Fields the contract does not know; NULL where there are none.';
comment on column raw.orders.order_id is 'Identifier of the order, unique within a tenant.';
comment on column raw.orders.customer_id is 'Who ordered; an identifier of the shop, meaningless outside it.';
comment on column raw.orders.updated_at is 'When the order last changed; of two copies the later changed one counts.';
comment on column raw.orders.order_status is 'How far the order is.';
comment on column raw.orders.currency_code is 'Currency the customer paid in, ISO 4217.';
comment on column raw.orders.channel_code is 'Where it was ordered.';
comment on column raw.orders.category_name is 'Category of the product.';
comment on column raw.orders.product_id is 'Product that was ordered.';
comment on column raw.orders.item_count is 'Pieces ordered. Unit pieces.';
comment on column raw.orders.gross_usd is 'Price of all pieces before discount and tax. Unit USD.';
comment on column raw.orders.discount_usd is 'Discount taken off; absent means none. Unit USD.';
comment on column raw.orders.tax_usd is 'Tax added; absent means none. Unit USD.';
comment on column raw.orders.net_usd is 'What the customer pays - gross minus discount plus tax. Unit USD.';
comment on column raw.orders.payment_method is 'How it was paid.';
grant select, insert, update, delete on raw.orders to tidemark_loader;
grant select on raw.orders to tidemark_transformer;
"""
    )
    op.execute(
        """
create table raw.customers (
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
    customer_id text not null,
    registered_at timestamptz,
    full_name text,
    full_name_pseudonym text,
    email text,
    email_pseudonym text,
    phone text,
    phone_pseudonym text,
    birth_year bigint,
    birth_year_pseudonym text,
    country_code text,
    city_name text,
    gender_code text,
    gender_code_pseudonym text,
    income_level text,
    is_loyalty_member boolean,
    has_marketing_consent boolean
) partition by hash (event_id);
create table raw.customers_h0 partition of raw.customers for values with (modulus 8, remainder 0);
create table raw.customers_h1 partition of raw.customers for values with (modulus 8, remainder 1);
create table raw.customers_h2 partition of raw.customers for values with (modulus 8, remainder 2);
create table raw.customers_h3 partition of raw.customers for values with (modulus 8, remainder 3);
create table raw.customers_h4 partition of raw.customers for values with (modulus 8, remainder 4);
create table raw.customers_h5 partition of raw.customers for values with (modulus 8, remainder 5);
create table raw.customers_h6 partition of raw.customers for values with (modulus 8, remainder 6);
create table raw.customers_h7 partition of raw.customers for values with (modulus 8, remainder 7);
create unique index customers_identity on raw.customers (event_id);
create index customers_batch on raw.customers (_batch_id);
create index customers_by_customer_id on raw.customers (tenant_id, customer_id, event_at);
comment on table raw.customers is 'Versions of what customers told the shop about themselves.';
comment on column raw.customers.tenant_id is 'Whose event it is; default where nobody says otherwise.';
comment on column raw.customers.event_id is 'Identity: first 16 bytes of SHA-256 over tenant, stream and key fields.';
comment on column raw.customers.event_at is 'Since when this version holds.';
comment on column raw.customers._arrived_at is 'When the file with this row arrived in the landing zone.';
comment on column raw.customers._known_at is 'Since when the house could have known it: the arrival; for imported history event time plus its mapping''s delay.';
comment on column raw.customers._landed_at is 'When the row was written here. Never to be used as knowledge time.';
comment on column raw.customers._batch_id is 'Batch that wrote the row, ops.batch.';
comment on column raw.customers._file_id is 'File the row came in, ops.file.';
comment on column raw.customers._row_number is 'Row within the file, from 1.';
comment on column raw.customers._content_hash is 'First 16 bytes of SHA-256 over the whole typed row, to tell a duplicate from a correction.';
comment on column raw.customers._extra is 'Fields the contract does not know; NULL where there are none.';
comment on column raw.customers.customer_id is 'Identifier of the customer in the shop, meaningless outside it.';
comment on column raw.customers.registered_at is 'When the customer registered.';
comment on column raw.customers.full_name is 'Name of the customer. Personal data.';
comment on column raw.customers.full_name_pseudonym is 'Keyed pseudonym of full_name: equal where clear values are, not to be turned back without the key.';
comment on column raw.customers.email is 'E-mail address. Personal data.';
comment on column raw.customers.email_pseudonym is 'Keyed pseudonym of email: equal where clear values are, not to be turned back without the key.';
comment on column raw.customers.phone is 'Telephone number. Personal data.';
comment on column raw.customers.phone_pseudonym is 'Keyed pseudonym of phone: equal where clear values are, not to be turned back without the key.';
comment on column raw.customers.birth_year is 'Year of birth. Unit year. Personal data.';
comment on column raw.customers.birth_year_pseudonym is 'Keyed pseudonym of birth_year: equal where clear values are, not to be turned back without the key.';
comment on column raw.customers.country_code is 'Country of residence, ISO 3166 alpha-2.';
comment on column raw.customers.city_name is 'City of residence.';
comment on column raw.customers.gender_code is 'Gender as the customer states it. Personal data.';
comment on column raw.customers.gender_code_pseudonym is 'Keyed pseudonym of gender_code: equal where clear values are, not to be turned back without the key.';
comment on column raw.customers.income_level is 'Band of income as the customer states it.';
comment on column raw.customers.is_loyalty_member is 'Whether the customer is in the loyalty programme.';
comment on column raw.customers.has_marketing_consent is 'Whether the customer allowed marketing; absent means not asked.';
grant select, insert, update, delete on raw.customers to tidemark_loader;
grant select on raw.customers to tidemark_transformer;
"""
    )
