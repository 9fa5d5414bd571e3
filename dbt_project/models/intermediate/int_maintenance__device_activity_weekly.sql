-- Grain: one row per tenant, device and run of readings within a week (7 days, UTC), by its start: readings that follow each other within the gap of the
-- device's type. Additive: reading_count. Put together from the runs within days; sessions are put together from these.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'week_at'],
        event_time='week_at',
        inputs={'int_maintenance__device_activity_daily': {'week_at': window_of('day_at', '7 days')}},
        definition=definition_of(runs_of('days', ['week_at'])),
        indexes=[{'columns': ['tenant_id', 'device_id', 'week_at']}],
        tags=['micro_batch', 'maintenance', 'windows'],
    )
}}

with

days as (

    select
        tenant_id,
        device_id,
        {{ window_of('day_at', '7 days') }} as week_at,
        device_key,
        device_type,
        started_at,
        ended_at,
        reading_count,
        _batch_id
    from {{ touched_rows(ref('int_maintenance__device_activity_daily')) }}

),

runs as (

    {{ runs_of('days', ['week_at']) }}

)

select * from runs
