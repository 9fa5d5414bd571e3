-- Grain: one row per tenant, device, property and run of one reported value within an hour (UTC), by its start. Nothing is additive.
-- What devices say themselves of what they can be told to be: firmware (each reading names it) and set point (each event that sets one).
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'hour_at'],
        event_time='hour_at',
        inputs={'stg_device_telemetry': {'hour_at': hour_of('event_at')}, 'stg_device_events': {'hour_at': hour_of('event_at')}},
        indexes=[
            {'columns': ['tenant_id', 'device_id', 'property_code', 'started_at'], 'unique': true},
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

),

set_points as (

    -- Of two that came into force at the same moment one counts, always the same.
    select distinct on (tenant_id, device_id, event_at)
        tenant_id,
        device_id,
        event_at,
        {{ hour_of('event_at') }} as hour_at,
        setpoint_c,
        _batch_id
    from {{ touched_rows(ref('stg_device_events')) }}
    where event_type = 'setpoint' and setpoint_c is not null
    order by tenant_id asc, device_id asc, event_at asc, event_code desc

),

reported as (

    select
        tenant_id,
        device_id,
        'firmware_version' as property_code,
        hour_at,
        event_at as started_at,
        firmware_version as reported_value,
        _batch_id
    from readings
    where firmware_version is not null
    union all
    select
        tenant_id,
        device_id,
        'setpoint_c' as property_code,
        hour_at,
        event_at as started_at,
        setpoint_c::text as reported_value,
        _batch_id
    from set_points

),

compared as (

    select
        *,
        lag(reported_value) over (partition by tenant_id, device_id, property_code, hour_at order by started_at) as previous_value
    from reported

),

runs as (

    select
        tenant_id,
        device_id,
        property_code,
        hour_at,
        started_at,
        reported_value,
        _batch_id
    from compared
    where reported_value is distinct from previous_value

)

select * from runs
