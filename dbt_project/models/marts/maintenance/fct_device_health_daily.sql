-- Grain: one row per tenant, device and day (UTC) with readings. Nothing here is additive; average health_score over devices or days.
-- Formula of health_score: doc block health_score. The score of a day uses what is known now; for what was known then see features.feat_device_daily.
-- Touched-bucket incremental: a changed day of readings touches itself; its anomalies also count in the 6 days after it; a maintenance event touches the days
-- from its own to the one before the device's next maintenance; a changed registry touches every day of the device.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'health_date'],
        event_time='health_date',
        inputs={
            'fct_device_reading_daily': {'health_date': 'reading_date'},
            'int_maintenance__device_baseline_daily': {
                'select': "
                    select changed.tenant_id, changed.device_id, changed.reading_date as health_date
                    from {changes} as changed
                    union
                    select later.tenant_id, later.device_id, later.reading_date as health_date
                    from {changes} as changed
                    inner join {input} as later
                        on later.tenant_id = changed.tenant_id
                        and later.device_id = changed.device_id
                        and later.reading_date between changed.reading_date + 1 and changed.reading_date + 6
                ",
            },
            'fct_maintenance_event': {
                'select': "
                    select stored.tenant_id, stored.device_id, stored.health_date
                    from {changes} as changed
                    cross join lateral (
                        select coalesce(min(later.occurred_date), date 'infinity') as until_date
                        from {input} as later
                        where
                            later.tenant_id = changed.tenant_id
                            and later.device_id = changed.device_id
                            and later.occurred_date > changed.occurred_date
                            and later.is_maintenance
                    ) as following
                    inner join {this} as stored
                        on stored.tenant_id = changed.tenant_id
                        and stored.device_id = changed.device_id
                        and stored.health_date >= changed.occurred_date
                        and stored.health_date < following.until_date
                ",
            },
            'dim_device': {
                'select': "
                    select stored.tenant_id, stored.device_id, stored.health_date
                    from {changes} as changed
                    inner join {this} as stored on stored.tenant_id = changed.tenant_id and stored.device_id = changed.device_id
                ",
            },
        },
        indexes=[{'columns': ['tenant_id', 'device_id', 'health_date'], 'unique': true}, {'columns': ['health_date']}],
        tags=['micro_batch'],
    )
}}

with

days as (

    select
        daily.*,
        daily.reading_date as health_date
    from {{ ref('fct_device_reading_daily') }} as daily
    where {{ is_touched({'tenant_id': 'daily.tenant_id', 'device_id': 'daily.device_id', 'health_date': 'daily.reading_date'}) }}

),

known as (

    select
        days.*,
        baseline.baseline_vibration_rms_mm_s,
        baseline.baseline_temperature_c,
        recent.recent_anomaly_share,
        version.maintenance_interval_days,
        maintenance.last_maintenance_date,
        days.health_date - coalesce(maintenance.last_maintenance_date, {{ date_of('version.installed_at') }}) as days_since_maintenance
    from days
    left join {{ ref('int_maintenance__device_baseline_daily') }} as baseline
        on days.tenant_id = baseline.tenant_id
        and days.device_id = baseline.device_id
        and days.reading_date = baseline.reading_date
    left join lateral (
        select sum(recent_day.anomalous_hour_count)::double precision / nullif(sum(recent_day.hour_count), 0)::double precision as recent_anomaly_share
        from {{ ref('int_maintenance__device_baseline_daily') }} as recent_day
        where
            recent_day.tenant_id = days.tenant_id
            and recent_day.device_id = days.device_id
            and recent_day.reading_date between days.reading_date - 6 and days.reading_date
    ) as recent on true
    left join {{ ref('dim_device') }} as version
        on days.device_key = version.device_key
    left join lateral (
        select max(event.occurred_date) as last_maintenance_date
        from {{ ref('fct_maintenance_event') }} as event
        where
            event.tenant_id = days.tenant_id
            and event.device_id = days.device_id
            and event.occurred_date <= days.health_date
            and event.is_maintenance
    ) as maintenance on true

),

penalised as (

    select
        *,
        -- Each penalty grows in a straight line between the two values named in the doc block health_score.
        coalesce(40 * least(1, greatest(0, vibration_rms_mm_s / nullif(baseline_vibration_rms_mm_s, 0) - 1.1)), 0) as vibration_penalty,
        coalesce(25 * least(1, greatest(0, (avg_temperature_c - baseline_temperature_c - 3) / 15)), 0) as temperature_penalty,
        25 * least(1, error_or_fault_count::double precision / reading_count / 0.10) as error_penalty,
        10 * least(1, greatest(
            0,
            (20 - min_battery_pct) / 20,
            (95 - avg_accuracy_pct) / 10,
            faulty_count::double precision / reading_count
        )) as sensor_penalty
    from known

),

scored as (

    select
        -- ids
        tenant_id,
        device_id,
        health_date,
        device_key,
        facility_id,

        -- attributes
        device_type,

        -- measures
        vibration_rms_mm_s / nullif(baseline_vibration_rms_mm_s, 0) as vibration_ratio,
        avg_temperature_c - baseline_temperature_c as temperature_excess_c,
        error_or_fault_count::double precision / reading_count as error_share,
        min_battery_pct,
        avg_accuracy_pct,
        vibration_penalty,
        temperature_penalty,
        error_penalty,
        sensor_penalty,
        100 - least(100, vibration_penalty + temperature_penalty + error_penalty + sensor_penalty) as health_score,
        least(100, vibration_penalty + temperature_penalty + error_penalty + sensor_penalty) / 100 as health_loss,
        recent_anomaly_share,
        last_maintenance_date,
        days_since_maintenance,
        maintenance_interval_days,
        -- GREATEST passes over NULL: without the CASE an unknown interval would read as in time.
        case
            when days_since_maintenance is not null and maintenance_interval_days is not null
                then greatest(0, days_since_maintenance::double precision / maintenance_interval_days - 1)
        end as overdue_maintenance_ratio,

        -- metadata
        _batch_id
    from penalised

)

select * from scored
