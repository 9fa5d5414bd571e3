-- Grain: one row per tenant, device and run of readings within a day (UTC), by its start: readings that follow each other within the gap of the device's type.
-- Additive: reading_count. Put together from the runs within hours; sessions are put together from these.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'activity_date'],
        event_time='activity_date',
        inputs={'int_maintenance__device_activity_hourly': {'activity_date': date_of('hour_at')}},
        definition=definition_of(runs_of('hours', ['activity_date'])),
        indexes=[{'columns': ['tenant_id', 'device_id', 'activity_date']}],
        tags=['micro_batch', 'maintenance', 'windows'],
    )
}}

with

hours as (

    select
        tenant_id,
        device_id,
        {{ date_of('hour_at') }} as activity_date,
        device_key,
        device_type,
        started_at,
        ended_at,
        reading_count,
        _batch_id
    from {{ touched_rows(ref('int_maintenance__device_activity_hourly')) }}

),

runs as (

    {{ runs_of('hours', ['activity_date']) }}

)

select * from runs
