-- Grain: one row per tenant, device, hour (UTC) and run of readings that name the same firmware, by its start. Nothing is additive.
-- A reading that names none changes nothing.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'hour_at'],
        event_time='hour_at',
        inputs={'stg_device_telemetry': {'hour_at': hour_of('event_at')}},
        indexes=[
            {'columns': ['tenant_id', 'device_id', 'started_at'], 'unique': true},
            {'columns': ['tenant_id', 'device_id', 'hour_at']},
            {'columns': ['hour_at']},
        ],
        tags=['micro_batch', 'maintenance'],
    )
}}

with

readings as (

    select
        tenant_id,
        device_id,
        event_at,
        {{ hour_of('event_at') }} as hour_at,
        firmware_version,
        _batch_id
    from {{ touched_rows(ref('stg_device_telemetry')) }}
    where firmware_version is not null

),

compared as (

    select
        *,
        lag(firmware_version) over (partition by tenant_id, device_id, hour_at order by event_at) as previous_version
    from readings

),

runs as (

    select
        tenant_id,
        device_id,
        hour_at,
        event_at as started_at,
        firmware_version,
        _batch_id
    from compared
    where previous_version is null or firmware_version <> previous_version

)

select * from runs
