-- Grain: one row per tenant, device and run of readings within a day (UTC), by its start: readings that follow each other within the gap of the device's type.
-- Additive: reading_count. Put together from the runs within hours; runs within weeks are put together from these.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'day_at'],
        event_time='day_at',
        inputs={'int_maintenance__device_activity_hourly': {'day_at': window_of('hour_at', '1 day')}},
        definition=definition_of(runs_of('hours', ['day_at'])),
        indexes=[{'columns': ['tenant_id', 'device_id', 'day_at']}],
        tags=['micro_batch', 'maintenance', 'windows'],
    )
}}

with

hours as (

    select
        tenant_id,
        device_id,
        {{ window_of('hour_at', '1 day') }} as day_at,
        device_key,
        device_type,
        started_at,
        ended_at,
        reading_count,
        _batch_id
    from {{ touched_rows(ref('int_maintenance__device_activity_hourly')) }}

),

runs as (

    {{ runs_of('hours', ['day_at']) }}

)

select * from runs
