-- Grain: one row per tenant, device and day (UTC) with at least one reading. Additive: every _count, sum_ and energy_kwh.
-- Not additive: avg_, min_, max_, vibration_rms_mm_s, completeness_pct. Average over days with sum_temperature_c / temperature_count.
-- Touched-bucket incremental: a changed hour touches its day; a changed registry touches every day of the device, because it says how many readings to expect.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'reading_date'],
        event_time='reading_date',
        inputs={
            'fct_device_reading_hourly': {'reading_date': date_of('hour_at')},
            'dim_device': {
                'select': "
                    select stored.tenant_id, stored.device_id, stored.reading_date
                    from {changes} as changed
                    inner join {this} as stored on stored.tenant_id = changed.tenant_id and stored.device_id = changed.device_id
                ",
            },
        },
        indexes=[{'columns': ['tenant_id', 'device_id', 'reading_date'], 'unique': true}, {'columns': ['reading_date']}],
        pre_hook="{{ analyze_if_new(ref('fct_device_reading_hourly')) }}",
        tags=['micro_batch'],
    )
}}

with

hours as (

    select
        *,
        {{ date_of('hour_at') }} as reading_date
    from {{ touched_rows(ref('fct_device_reading_hourly')) }}

),

daily as (

    select
        tenant_id,
        device_id,
        reading_date,
        {{ last_of('facility_id', 'hour_at') }} as facility_id,
        {{ last_of('device_type', 'hour_at') }} as device_type,
        count(*) as hour_count,
        sum(reading_count)::bigint as reading_count,
        sum(temperature_count)::bigint as temperature_count,
        {{ exact_sum('sum_temperature_c') }} as sum_temperature_c,
        min(min_temperature_c) as min_temperature_c,
        max(max_temperature_c) as max_temperature_c,
        sum(vibration_count)::bigint as vibration_count,
        {{ exact_sum('sum_squared_vibration_mm2_s2') }} as sum_squared_vibration_mm2_s2,
        max(max_vibration_mm_s) as max_vibration_mm_s,
        {{ exact_sum('energy_kwh') }} as energy_kwh,
        sum(load_count)::bigint as load_count,
        {{ exact_sum('sum_load_pct') }} as sum_load_pct,
        max(max_load_pct) as max_load_pct,
        max(max_runtime_h) as max_runtime_h,
        sum(error_count)::bigint as error_count,
        sum(fault_count)::bigint as fault_count,
        sum(error_or_fault_count)::bigint as error_or_fault_count,
        sum(warning_count)::bigint as warning_count,
        sum(running_count)::bigint as running_count,
        sum(degraded_count)::bigint as degraded_count,
        sum(faulty_count)::bigint as faulty_count,
        min(min_battery_pct) as min_battery_pct,
        sum(accuracy_count)::bigint as accuracy_count,
        {{ exact_sum('sum_accuracy_pct') }} as sum_accuracy_pct,
        min(first_reading_at) as first_reading_at,
        max(last_reading_at) as last_reading_at,
        max(_batch_id) as _batch_id
    from hours
    group by tenant_id, device_id, reading_date

),

completed as (

    select
        -- ids
        daily.tenant_id,
        daily.device_id,
        daily.reading_date,
        expected.device_key,
        daily.facility_id,

        -- attributes
        daily.device_type,

        -- measures
        daily.hour_count,
        daily.reading_count,
        expected.expected_reading_count,
        case
            when expected.expected_reading_count > 0
                then least(100, 100.0 * daily.reading_count / expected.expected_reading_count)::double precision
        end as completeness_pct,
        daily.temperature_count,
        daily.sum_temperature_c,
        daily.sum_temperature_c / nullif(daily.temperature_count, 0) as avg_temperature_c,
        daily.min_temperature_c,
        daily.max_temperature_c,
        daily.vibration_count,
        daily.sum_squared_vibration_mm2_s2,
        sqrt(daily.sum_squared_vibration_mm2_s2 / nullif(daily.vibration_count, 0)) as vibration_rms_mm_s,
        daily.max_vibration_mm_s,
        daily.energy_kwh,
        daily.load_count,
        daily.sum_load_pct,
        daily.sum_load_pct / nullif(daily.load_count, 0) as avg_load_pct,
        daily.max_load_pct,
        daily.max_runtime_h,
        daily.error_count,
        daily.fault_count,
        daily.error_or_fault_count,
        daily.warning_count,
        daily.running_count,
        daily.degraded_count,
        daily.faulty_count,
        daily.min_battery_pct,
        daily.accuracy_count,
        daily.sum_accuracy_pct,
        daily.sum_accuracy_pct / nullif(daily.accuracy_count, 0) as avg_accuracy_pct,

        -- timestamps
        daily.first_reading_at,
        daily.last_reading_at,

        -- metadata
        daily._batch_id
    from daily
    -- Seconds of the day in which a version was valid, over its interval; a day with two versions expects a share of each. Looked up row by row: a join of two
    -- aggregates, of whose size the planner knows nothing, compared every device with every other.
    cross join lateral (
        select
            round(sum(
                extract(
                    epoch from
                    least(version.valid_to_at, {{ start_of_date('(daily.reading_date + 1)') }})
                    - greatest(version.valid_from_at, {{ start_of_date('daily.reading_date') }})
                )
                / version.reporting_interval_s
            ) filter (where version.registry_status = 'active'))::bigint as expected_reading_count,
            {{ last_of('version.device_key', 'version.valid_from_at') }} as device_key
        from {{ ref('dim_device') }} as version
        where
            version.tenant_id = daily.tenant_id
            and version.device_id = daily.device_id
            and version.valid_from_at < {{ start_of_date('(daily.reading_date + 1)') }}
            and (version.valid_to_at is null or version.valid_to_at > {{ start_of_date('daily.reading_date') }})
    ) as expected

)

select * from completed
