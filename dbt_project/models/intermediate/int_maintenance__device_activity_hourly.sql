-- Grain: one row per tenant, device and run of readings within an hour (UTC), by its start: readings within the gap of the device's type.
-- Additive: reading_count. Half way to sessions (macros/windows/sessions.sql): the hour is what a changed minute touches.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'hour_at'],
        event_time='hour_at',
        inputs={'fct_device_window_1min': {'hour_at': window_of('window_at', '1 hour')}},
        definition=definition_of(runs_of('minutes', ['hour_at'])),
        indexes=[{'columns': ['tenant_id', 'device_id', 'hour_at']}],
        tags=['micro_batch', 'maintenance', 'windows'],
    )
}}

with

minutes as (

    select
        tenant_id,
        device_id,
        {{ window_of('window_at', '1 hour') }} as hour_at,
        device_key,
        device_type,
        first_at as started_at,
        last_at as ended_at,
        reading_count,
        _batch_id
    from {{ touched_rows(ref('fct_device_window_1min')) }}
    where metric_code = 'all_readings'

),

runs as (

    {{ runs_of('minutes', ['hour_at']) }}

)

select * from runs
