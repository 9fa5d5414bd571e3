-- Grain: one row per tenant, device and version (type 2). A version holds from valid_from_at (inclusive) to valid_to_at (exclusive).
-- Touched-bucket incremental: a device is recomputed whole, because a version inserted between two old ones also ends the one before it.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id'],
        event_time='valid_from_at',
        inputs={'stg_device_registry': {}},
        indexes=[{'columns': ['tenant_id', 'device_id', 'valid_from_at'], 'unique': true}, {'columns': ['device_key'], 'unique': true}],
        tags=['micro_batch'],
    )
}}

with

versions as (

    select * from {{ touched_rows(ref('stg_device_registry')) }}

),

dated as (

    select
        -- ids
        {{ stable_key(['tenant_id', 'device_id', 'extract(epoch from event_at)::text']) }} as device_key,
        tenant_id,
        device_id,
        facility_id,
        line_id,
        station_id,

        -- attributes
        device_type,
        model_name,
        manufacturer_name,
        registry_status,
        firmware_version,
        time_zone_name,
        lead(event_at) over device_versions is null as is_current,

        -- measures
        reporting_interval_s,
        maintenance_interval_days,
        rated_power_kw,
        latitude_deg,
        longitude_deg,

        -- timestamps
        event_at as valid_from_at,
        lead(event_at) over device_versions as valid_to_at,
        installed_at,
        _known_at as known_at,

        -- metadata
        _batch_id
    from versions
    window device_versions as (partition by tenant_id, device_id order by event_at)

)

select * from dated
