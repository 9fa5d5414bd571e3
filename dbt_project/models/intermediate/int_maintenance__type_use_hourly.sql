-- Grain: one row per tenant, type of device and hour of a local day in which a device of the type was used or drew energy.
-- Additive: used_hour_count (device-hours), use_count, energy_kwh. Half way to the usage profile: a local day of a tenant is what a changed device-day touches.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'local_date'],
        event_time='local_date',
        inputs={'int_maintenance__device_use_hourly': {}},
        indexes=[{'columns': ['tenant_id', 'local_date']}],
        tags=['micro_batch', 'maintenance'],
    )
}}

with

hours as (

    select
        -- ids
        tenant_id,
        device_type,
        local_date,
        local_hour_number,

        -- measures
        count(distinct device_id) filter (where use_count > 0) as used_hour_count,
        sum(use_count)::bigint as use_count,
        {{ exact_sum('energy_kwh') }} as energy_kwh,

        -- metadata
        max(_batch_id) as _batch_id
    from {{ touched_rows(ref('int_maintenance__device_use_hourly')) }}
    group by tenant_id, device_type, local_date, local_hour_number

)

select * from hours
