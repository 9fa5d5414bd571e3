-- Grain: one row per tenant, machine, day of reading and day on which the reading was known (both UTC). Machines only (device type machine_controller): the
-- other kinds of device have no maintenance, so nobody predicts their failures. Additive: every _count, sum_ and energy_kwh.
-- Lets a feature of day D be added up from exactly what was known by the end of D. A changed reading touches all rows of its device and day, because where it
-- stood is logged by event time and not by when it was known.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'reading_date'],
        event_time='reading_date',
        inputs={'stg_device_telemetry': {'reading_date': date_of('event_at')}},
        indexes=[
            {'columns': ['tenant_id', 'device_id', 'reading_date', 'known_date'], 'unique': true},
            {'columns': ['tenant_id', 'device_id', 'usable_date']},
            {'columns': ['tenant_id', 'reading_date']},
        ],
        tags=['micro_batch', 'features'],
    )
}}

with

readings as (

    select
        *,
        {{ date_of('event_at') }} as reading_date,
        {{ date_of('_known_at') }} as known_date,
        case
            when num_nonnulls(vibration_x_mm_s, vibration_y_mm_s, vibration_z_mm_s) > 0
                then
                    coalesce(vibration_x_mm_s, 0) * coalesce(vibration_x_mm_s, 0)
                    + coalesce(vibration_y_mm_s, 0) * coalesce(vibration_y_mm_s, 0)
                    + coalesce(vibration_z_mm_s, 0) * coalesce(vibration_z_mm_s, 0)
        end as squared_vibration_mm2_s2
    from {{ touched_rows(ref('stg_device_telemetry')) }}
    where device_type = 'machine_controller'

),

partial_sums as (

    select
        -- ids
        tenant_id,
        device_id,
        reading_date,
        known_date,
        greatest(reading_date, known_date) as usable_date,

        -- measures
        count(*) as reading_count,
        count(temperature_c) as temperature_count,
        {{ exact_sum('temperature_c') }} as sum_temperature_c,
        max(temperature_c) as max_temperature_c,
        count(squared_vibration_mm2_s2) as vibration_count,
        {{ exact_sum('squared_vibration_mm2_s2') }} as sum_squared_vibration_mm2_s2,
        {{ exact_sum('sqrt(squared_vibration_mm2_s2)') }} as sum_vibration_mm_s,
        {{ exact_sum('squared_vibration_mm2_s2 * sqrt(squared_vibration_mm2_s2)') }} as sum_cubed_vibration_mm3_s3,
        {{ exact_sum('squared_vibration_mm2_s2 * squared_vibration_mm2_s2') }} as sum_fourth_vibration_mm4_s4,
        sqrt(max(squared_vibration_mm2_s2)) as max_vibration_mm_s,
        count(pressure_hpa) as pressure_count,
        {{ exact_sum('pressure_hpa') }} as sum_pressure_hpa,
        count(load_pct) as load_count,
        {{ exact_sum('load_pct') }} as sum_load_pct,
        {{ exact_sum('energy_kwh') }} as energy_kwh,
        count(error_code) as error_count,
        count(*) filter (where machine_status = 'fault') as fault_count,
        count(*) filter (where machine_status = 'warning') as warning_count,
        count(*) filter (where machine_status = 'running') as running_count,
        min(runtime_h) as min_runtime_h,
        max(runtime_h) as max_runtime_h,
        max(event_at) as last_reading_at,

        -- metadata
        max(_batch_id) as _batch_id
    from readings
    group by tenant_id, device_id, reading_date, known_date

)

select * from partial_sums
