-- Grain: one row per tenant, machine and feature_date (UTC) on which a reading of the last 28 days became usable (happened and known). Not additive.
-- Machines only (device type machine_controller): the other kinds of device have no maintenance, so nobody predicts their failures.
-- Point in time: a row holds only what was known by the end of feature_date. What happens afterwards (the label) is not here;
-- ML takes it from fct_maintenance_event.
-- Touched-bucket incremental: a changed day of readings touches the feature dates whose 28-day window holds it, those that the change empties included (hence
-- the input stg_device_telemetry, which names the days that a reading left); a maintenance event touches all later feature dates of its machine (which of two
-- events was known first decides how long it counts); a changed registry touches all feature dates of the machine.
{%- set windows = [1, 3, 7] %}
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'feature_date'],
        event_time='feature_date',
        inputs={
            'int_maintenance__reading_known_daily': {
                'select': "
                    select usable.tenant_id, usable.device_id, usable.usable_date as feature_date
                    from {changes} as changed
                    inner join {input} as usable
                        on usable.tenant_id = changed.tenant_id
                        and usable.device_id = changed.device_id
                        and usable.usable_date between changed.reading_date and changed.reading_date + 27
                ",
            },
            'stg_device_telemetry': {
                'select': "
                    select stored.tenant_id, stored.device_id, stored.feature_date
                    from (select distinct tenant_id, device_id, (event_at at time zone 'UTC')::date as reading_date from {changes} as reading) as changed
                    inner join {this} as stored
                        on stored.tenant_id = changed.tenant_id
                        and stored.device_id = changed.device_id
                        and stored.feature_date between changed.reading_date and changed.reading_date + 27
                ",
            },
            'fct_maintenance_event': {
                'select': "
                    select stored.tenant_id, stored.device_id, stored.feature_date
                    from {changes} as changed
                    inner join {this} as stored
                        on stored.tenant_id = changed.tenant_id
                        and stored.device_id = changed.device_id
                        and stored.feature_date >= changed.occurred_date
                ",
            },
            'dim_device': {
                'select': "
                    select stored.tenant_id, stored.device_id, stored.feature_date
                    from {changes} as changed
                    inner join {this} as stored on stored.tenant_id = changed.tenant_id and stored.device_id = changed.device_id
                ",
            },
        },
        indexes=[{'columns': ['tenant_id', 'device_id', 'feature_date'], 'unique': true}, {'columns': ['feature_date']}],
        tags=['micro_batch'],
    )
}}

with

spine as (

    select distinct
        usable.tenant_id,
        usable.device_id,
        usable.usable_date as feature_date
    from {{ ref('int_maintenance__reading_known_daily') }} as usable
    where
        usable.usable_date - usable.reading_date < 28
        and {{ is_touched({'tenant_id': 'usable.tenant_id', 'device_id': 'usable.device_id', 'feature_date': 'usable.usable_date'}) }}

),

featured as (

    select
        -- ids
        spine.tenant_id,
        spine.device_id,
        spine.feature_date,

        -- attributes of the device, as known by then
        version.model_name,
        version.facility_id,
        version.reporting_interval_s,
        version.maintenance_interval_days,
        version.rated_power_kw,
        spine.feature_date - {{ date_of('version.installed_at') }} as age_days,

        -- readings, as known by then
        readings.day_count_28d,
        {%- for days in windows %}
        readings.reading_count_{{ days }}d,
        readings.vibration_rms_{{ days }}d_mm_s,
        readings.max_vibration_{{ days }}d_mm_s,
        readings.avg_temperature_{{ days }}d_c,
        readings.max_temperature_{{ days }}d_c,
        readings.avg_load_{{ days }}d_pct,
        readings.energy_{{ days }}d_kwh,
        readings.runtime_{{ days }}d_h,
        readings.error_count_{{ days }}d,
        readings.fault_count_{{ days }}d,
        readings.warning_count_{{ days }}d,
        readings.running_share_{{ days }}d,
        {%- endfor %}
        readings.vibration_rms_28d_mm_s,
        readings.avg_temperature_28d_c,
        readings.vibration_rms_1d_mm_s / nullif(readings.vibration_rms_28d_mm_s, 0) as vibration_ratio_1d_to_28d,
        readings.vibration_rms_7d_mm_s / nullif(readings.vibration_rms_28d_mm_s, 0) as vibration_ratio_7d_to_28d,
        readings.avg_temperature_1d_c - readings.avg_temperature_28d_c as temperature_excess_1d_to_28d_c,
        readings.runtime_h,
        spine.feature_date - readings.last_reading_date as days_since_reading,

        -- maintenance, as known by then
        spine.feature_date - events.last_failure_date as days_since_failure,
        spine.feature_date - events.last_maintenance_date as days_since_maintenance,
        coalesce(events.failure_count_30d, 0) as failure_count_30d,
        coalesce(events.maintenance_count_30d, 0) as maintenance_count_30d,
        -- GREATEST passes over NULL: without the CASE an unknown interval would read as in time.
        case
            when coalesce(events.last_maintenance_date, {{ date_of('version.installed_at') }}) is not null and version.maintenance_interval_days is not null
                then greatest(
                    0,
                    (spine.feature_date - coalesce(events.last_maintenance_date, {{ date_of('version.installed_at') }}))::double precision
                    / version.maintenance_interval_days - 1
                )
        end as overdue_maintenance_ratio,

        -- timestamps
        {{ start_of_date('(spine.feature_date + 1)') }} as known_until_at,

        -- metadata
        readings._batch_id
    from spine
    left join lateral (
        select
            count(distinct known.reading_date) as day_count_28d,
            {%- for days in windows %}
            {%- set recent = 'filter (where known.reading_date > spine.feature_date - ' ~ days ~ ')' %}
            coalesce(sum(known.reading_count) {{ recent }}, 0)::bigint as reading_count_{{ days }}d,
            sqrt((
                sum(known.sum_squared_vibration_mm2_s2::numeric) {{ recent }} / nullif(sum(known.vibration_count) {{ recent }}, 0)
            )::double precision) as vibration_rms_{{ days }}d_mm_s,
            max(known.max_vibration_mm_s) {{ recent }} as max_vibration_{{ days }}d_mm_s,
            (
                sum(known.sum_temperature_c::numeric) {{ recent }} / nullif(sum(known.temperature_count) {{ recent }}, 0)
            )::double precision as avg_temperature_{{ days }}d_c,
            max(known.max_temperature_c) {{ recent }} as max_temperature_{{ days }}d_c,
            (sum(known.sum_load_pct::numeric) {{ recent }} / nullif(sum(known.load_count) {{ recent }}, 0))::double precision as avg_load_{{ days }}d_pct,
            (sum(known.energy_kwh::numeric) {{ recent }})::double precision as energy_{{ days }}d_kwh,
            max(known.max_runtime_h) {{ recent }} - min(known.min_runtime_h) {{ recent }} as runtime_{{ days }}d_h,
            coalesce(sum(known.error_count) {{ recent }}, 0)::bigint as error_count_{{ days }}d,
            coalesce(sum(known.fault_count) {{ recent }}, 0)::bigint as fault_count_{{ days }}d,
            coalesce(sum(known.warning_count) {{ recent }}, 0)::bigint as warning_count_{{ days }}d,
            (
                sum(known.running_count) {{ recent }} / nullif(sum(known.reading_count) {{ recent }}, 0)
            )::double precision as running_share_{{ days }}d,
            {%- endfor %}
            sqrt((sum(known.sum_squared_vibration_mm2_s2::numeric) / nullif(sum(known.vibration_count), 0))::double precision) as vibration_rms_28d_mm_s,
            (sum(known.sum_temperature_c::numeric) / nullif(sum(known.temperature_count), 0))::double precision as avg_temperature_28d_c,
            max(known.max_runtime_h) as runtime_h,
            max(known.reading_date) as last_reading_date,
            max(known._batch_id) as _batch_id
        from {{ ref('int_maintenance__reading_known_daily') }} as known
        where
            known.tenant_id = spine.tenant_id
            and known.device_id = spine.device_id
            and known.reading_date between spine.feature_date - 27 and spine.feature_date
            and known.known_date <= spine.feature_date
    ) as readings on true
    left join lateral (
        select
            max(event.occurred_date) filter (where event.is_failure) as last_failure_date,
            max(event.occurred_date) filter (where event.is_maintenance) as last_maintenance_date,
            count(*) filter (where event.is_failure and event.occurred_date > spine.feature_date - 30) as failure_count_30d,
            count(*) filter (where event.is_maintenance and event.occurred_date > spine.feature_date - 30) as maintenance_count_30d
        from {{ ref('fct_maintenance_event') }} as event
        where
            event.tenant_id = spine.tenant_id
            and event.device_id = spine.device_id
            and event.occurred_date <= spine.feature_date
            and event.known_at < {{ start_of_date('(spine.feature_date + 1)') }}
    ) as events on true
    left join lateral (
        select candidate.*
        from {{ ref('dim_device') }} as candidate
        where
            candidate.tenant_id = spine.tenant_id
            and candidate.device_id = spine.device_id
            and candidate.valid_from_at < {{ start_of_date('(spine.feature_date + 1)') }}
            and candidate.known_at < {{ start_of_date('(spine.feature_date + 1)') }}
        order by candidate.valid_from_at desc
        limit 1
    ) as version on true

)

select * from featured
