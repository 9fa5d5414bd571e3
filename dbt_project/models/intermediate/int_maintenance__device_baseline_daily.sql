-- Grain: one row per tenant, device and day (UTC) with readings: what is normal for the device, and in how many hours of the day it was not.
-- Additive: hour_count, anomalous_hour_count.
-- The baseline of a day is the mean of the 28 days that end a week before it, so a changed day touches itself (its own hours) and the days 7 to 34 after it.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'reading_date'],
        event_time='reading_date',
        inputs={
            'fct_device_reading_daily': {
                'select': "
                    select changed.tenant_id, changed.device_id, changed.reading_date
                    from {changes} as changed
                    union
                    select later.tenant_id, later.device_id, later.reading_date
                    from {changes} as changed
                    inner join {input} as later
                        on later.tenant_id = changed.tenant_id
                        and later.device_id = changed.device_id
                        and later.reading_date between changed.reading_date + 7 and changed.reading_date + 34
                ",
            },
            'fct_device_reading_hourly': {'reading_date': date_of('hour_at')},
        },
        indexes=[{'columns': ['tenant_id', 'device_id', 'reading_date'], 'unique': true}],
        tags=['micro_batch', 'maintenance'],
    )
}}

with

days as (

    select daily.*
    from {{ ref('fct_device_reading_daily') }} as daily
    where {{ is_touched({'tenant_id': 'daily.tenant_id', 'device_id': 'daily.device_id', 'reading_date': 'daily.reading_date'}) }}

),

baselines as (

    select
        days.tenant_id,
        days.device_id,
        days.reading_date,
        baseline.baseline_day_count,
        -- Fewer than 7 days say nothing about what is normal.
        case when baseline.baseline_day_count >= 7 then baseline.vibration_rms_mm_s end as baseline_vibration_rms_mm_s,
        case when baseline.baseline_day_count >= 7 then baseline.temperature_c end as baseline_temperature_c
    from days
    cross join lateral (
        select
            count(*) as baseline_day_count,
            sqrt({{ exact_sum('earlier.sum_squared_vibration_mm2_s2') }} / nullif(sum(earlier.vibration_count), 0)::double precision) as vibration_rms_mm_s,
            {{ exact_sum('earlier.sum_temperature_c') }} / nullif(sum(earlier.temperature_count), 0)::double precision as temperature_c
        from {{ ref('fct_device_reading_daily') }} as earlier
        where
            earlier.tenant_id = days.tenant_id
            and earlier.device_id = days.device_id
            and earlier.reading_date between days.reading_date - 34 and days.reading_date - 7
    ) as baseline

),

judged as (

    select
        -- ids
        baselines.tenant_id,
        baselines.device_id,
        baselines.reading_date,

        -- measures
        baselines.baseline_day_count,
        baselines.baseline_vibration_rms_mm_s,
        baselines.baseline_temperature_c,
        hours.hour_count,
        hours.anomalous_hour_count
    from baselines
    cross join lateral (
        select
            count(*) as hour_count,
            count(*) filter (
                where hourly.error_or_fault_count > 0
                or hourly.vibration_rms_mm_s > 1.5 * baselines.baseline_vibration_rms_mm_s
                or hourly.avg_temperature_c > baselines.baseline_temperature_c + 10
            ) as anomalous_hour_count
        from {{ ref('fct_device_reading_hourly') }} as hourly
        where
            hourly.tenant_id = baselines.tenant_id
            and hourly.device_id = baselines.device_id
            and hourly.hour_at >= {{ start_of_date('baselines.reading_date') }}
            and hourly.hour_at < {{ start_of_date('(baselines.reading_date + 1)') }}
    ) as hours

)

select * from judged
