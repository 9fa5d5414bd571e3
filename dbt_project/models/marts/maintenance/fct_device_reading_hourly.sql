-- Grain: one row per tenant, device and hour (UTC) with at least one reading. Additive: every _count, sum_ and energy_kwh.
-- Not additive: avg_, min_, max_, vibration_rms_mm_s. Average over hours with sum_temperature_c / temperature_count, likewise load and accuracy.
-- Touched-bucket incremental: an hour is recomputed whole when a new, changed or removed reading touched it; an hour that became empty goes.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'hour_at'],
        event_time='hour_at',
        inputs={'stg_device_telemetry': {'hour_at': hour_of('event_at')}},
        indexes=[{'columns': ['tenant_id', 'device_id', 'hour_at'], 'unique': true}, {'columns': ['hour_at']}],
        tags=['micro_batch'],
    )
}}

with

readings as (

    select
        *,
        {{ hour_of('event_at') }} as hour_at,
        case
            when num_nonnulls(vibration_x_mm_s, vibration_y_mm_s, vibration_z_mm_s) > 0
                then
                    coalesce(vibration_x_mm_s, 0) * coalesce(vibration_x_mm_s, 0)
                    + coalesce(vibration_y_mm_s, 0) * coalesce(vibration_y_mm_s, 0)
                    + coalesce(vibration_z_mm_s, 0) * coalesce(vibration_z_mm_s, 0)
        end as squared_vibration_mm2_s2
    from {{ touched_rows(ref('stg_device_telemetry')) }}

),

hourly as (

    select
        -- ids
        tenant_id,
        device_id,
        hour_at,
        {{ last_of('facility_id', 'event_at', 'event_id') }} as facility_id,

        -- attributes
        {{ last_of('device_type', 'event_at', 'event_id') }} as device_type,

        -- measures
        count(*) as reading_count,
        count(temperature_c) as temperature_count,
        {{ exact_sum('temperature_c') }} as sum_temperature_c,
        {{ exact_avg('temperature_c') }} as avg_temperature_c,
        min(temperature_c) as min_temperature_c,
        max(temperature_c) as max_temperature_c,
        {{ exact_avg('humidity_pct') }} as avg_humidity_pct,
        {{ exact_avg('pressure_hpa') }} as avg_pressure_hpa,
        count(squared_vibration_mm2_s2) as vibration_count,
        {{ exact_sum('squared_vibration_mm2_s2') }} as sum_squared_vibration_mm2_s2,
        sqrt({{ exact_avg('squared_vibration_mm2_s2') }}) as vibration_rms_mm_s,
        sqrt(max(squared_vibration_mm2_s2)) as max_vibration_mm_s,
        {{ exact_sum('energy_kwh') }} as energy_kwh,
        count(load_pct) as load_count,
        {{ exact_sum('load_pct') }} as sum_load_pct,
        {{ exact_avg('load_pct') }} as avg_load_pct,
        max(load_pct) as max_load_pct,
        max(runtime_h) as max_runtime_h,
        count(error_code) as error_count,
        count(*) filter (where machine_status = 'fault') as fault_count,
        count(*) filter (where error_code is not null or machine_status = 'fault') as error_or_fault_count,
        count(*) filter (where machine_status = 'warning') as warning_count,
        count(*) filter (where machine_status = 'running') as running_count,
        count(*) filter (where quality_status = 'degraded') as degraded_count,
        count(*) filter (where quality_status = 'faulty') as faulty_count,
        min(battery_pct) as min_battery_pct,
        min(signal_strength_dbm) as min_signal_strength_dbm,
        count(accuracy_pct) as accuracy_count,
        {{ exact_sum('accuracy_pct') }} as sum_accuracy_pct,
        {{ exact_avg('accuracy_pct') }} as avg_accuracy_pct,

        -- timestamps
        min(event_at) as first_reading_at,
        max(event_at) as last_reading_at,

        -- metadata
        max(_batch_id) as _batch_id
    from readings
    group by tenant_id, device_id, hour_at

)

select * from hourly
