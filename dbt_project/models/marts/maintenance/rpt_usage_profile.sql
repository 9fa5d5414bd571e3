-- Grain: one row per tenant, month, type of device (thermostat, smart_lock, security_camera) and hour of the week by the clock of the home. All 168 hours are
-- there, also those in which nobody did anything. Additive: device_day_count, used_hour_count, use_count, energy_kwh; day_count over months. Not: used_pct.
-- Touched-bucket incremental by month of a tenant: a changed day touches its month, and the first and the last one that the tenant's days reach, because they
-- are as long as there are days; a registry that changes touches the months of its tenant, because it says how many devices there were to use.
-- A month whose events are gone for good stays as it was: it tells of a type of device and an hour of the week, not of a home and a day (decision 30).
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'month_start_date'],
        event_time='month_start_date',
        remembers={'device_events': [-1, 31]},
        inputs={
            'int_maintenance__type_use_hourly': {
                'select': "
                    select changed.tenant_id, " ~ month_of('changed.local_date') ~ " as month_start_date from {changes} as changed
                    union
                    select stored.tenant_id, stored.month_start_date
                    from (select distinct tenant_id from {changes} as any_change) as changed
                    inner join {this} as stored on stored.tenant_id = changed.tenant_id
                    cross join lateral (
                        select min(there.local_date) as first_date, max(there.local_date) as last_date from {input} as there where there.tenant_id = stored.tenant_id
                    ) as known
                    where
                        stored.first_date is distinct from greatest(stored.month_start_date, known.first_date)
                        or stored.last_date is distinct from least((stored.month_start_date + interval '1 month')::date - 1, known.last_date)
                ",
                'select_when_new': "select changed.tenant_id, " ~ month_of('changed.local_date') ~ " as month_start_date from {changes} as changed",
            },
            'dim_device': {
                'select': '
                    select distinct stored.tenant_id, stored.month_start_date
                    from {changes} as changed
                    inner join {this} as stored on stored.tenant_id = changed.tenant_id
                ',
            },
            'dim_facility': {
                'select': '
                    select distinct stored.tenant_id, stored.month_start_date
                    from {changes} as changed
                    inner join {this} as stored on stored.tenant_id = changed.tenant_id
                ',
            },
        },
        indexes=[{'columns': ['tenant_id', 'month_start_date', 'device_type', 'iso_weekday_number', 'local_hour_number'], 'unique': true}],
        tags=['micro_batch'],
    )
}}

with

used as (

    select
        used.*,
        {{ month_of('used.local_date') }} as month_start_date
    from {{
        touched_buckets_or(
            '(select distinct tenant_id, ' ~ month_of('local_date') ~ ' as month_start_date from ' ~ ref('int_maintenance__type_use_hourly') ~ ')'
        )
    }} as touched
    inner join {{ ref('int_maintenance__type_use_hourly') }} as used
        on touched.tenant_id = used.tenant_id
        and touched.month_start_date <= used.local_date
        and (touched.month_start_date + interval '1 month')::date > used.local_date

),

known as (

    select
        tenants.tenant_id,
        span.first_date,
        span.last_date
    from (select distinct tenant_id from used) as tenants
    cross join lateral (
        select
            min(there.local_date) as first_date,
            max(there.local_date) as last_date
        from {{ ref('int_maintenance__type_use_hourly') }} as there
        where there.tenant_id = tenants.tenant_id
    ) as span

),

months as (

    select distinct
        used.tenant_id,
        used.month_start_date,
        greatest(used.month_start_date, known.first_date) as first_date,
        least((used.month_start_date + interval '1 month')::date - 1, known.last_date) as last_date
    from used
    inner join known on used.tenant_id = known.tenant_id

),

days as (

    select
        months.tenant_id,
        months.month_start_date,
        months.first_date,
        months.last_date,
        months.first_date + step.day_number as local_date,
        {{ weekday_of('(months.first_date + step.day_number)') }} as iso_weekday_number
    from months
    cross join generate_series(0, 30) as step (day_number)
    where months.first_date + step.day_number <= months.last_date

),

weekdays as (

    select
        tenant_id,
        month_start_date,
        first_date,
        last_date,
        iso_weekday_number,
        count(*) as day_count
    from days
    group by tenant_id, month_start_date, first_date, last_date, iso_weekday_number

),

-- Local days on which a version of the registry says that a device of a home was there to be used.
registered as (

    select
        version.tenant_id,
        version.device_id,
        version.device_type,
        {{ local_date_of('version.valid_from_at', "coalesce(facility.time_zone_name, 'UTC')") }} as first_date,
        {{ local_date_of('version.valid_to_at', "coalesce(facility.time_zone_name, 'UTC')") }} as last_date
    from {{ ref('dim_device') }} as version
    left join {{ ref('dim_facility') }} as facility
        on version.tenant_id = facility.tenant_id
        and version.facility_id = facility.facility_id
    where version.registry_status = 'active' and version.device_type in ('thermostat', 'smart_lock', 'security_camera')

),

present as (

    select distinct
        days.tenant_id,
        days.month_start_date,
        days.iso_weekday_number,
        days.local_date,
        registered.device_type,
        registered.device_id
    from days
    inner join registered
        on days.tenant_id = registered.tenant_id
        and days.local_date >= registered.first_date
        and (registered.last_date is null or days.local_date <= registered.last_date)

),

device_days as (

    select
        tenant_id,
        month_start_date,
        device_type,
        iso_weekday_number,
        count(*) as device_day_count
    from present
    group by tenant_id, month_start_date, device_type, iso_weekday_number

),

hours_of_week as (

    select
        tenant_id,
        month_start_date,
        device_type,
        {{ weekday_of('local_date') }} as iso_weekday_number,
        local_hour_number,
        sum(used_hour_count)::bigint as used_hour_count,
        sum(use_count)::bigint as use_count,
        {{ exact_sum('energy_kwh') }} as energy_kwh
    from used
    group by tenant_id, month_start_date, device_type, {{ weekday_of('local_date') }}, local_hour_number

),

types as (

    select
        tenant_id,
        month_start_date,
        device_type,
        max(_batch_id) as _batch_id
    from used
    group by tenant_id, month_start_date, device_type

),

profile as (

    select
        -- ids
        types.tenant_id,
        types.month_start_date,
        types.device_type,
        weekdays.iso_weekday_number,
        clock.local_hour_number,

        -- measures
        weekdays.day_count,
        coalesce(device_days.device_day_count, 0) as device_day_count,
        coalesce(hours_of_week.used_hour_count, 0) as used_hour_count,
        coalesce(hours_of_week.use_count, 0) as use_count,
        hours_of_week.energy_kwh,
        case
            when device_days.device_day_count > 0
                then least(100, 100.0 * coalesce(hours_of_week.used_hour_count, 0) / device_days.device_day_count)::double precision
        end as used_pct,

        -- timestamps
        weekdays.first_date,
        weekdays.last_date,

        -- metadata
        types._batch_id
    from types
    inner join weekdays
        on types.tenant_id = weekdays.tenant_id
        and types.month_start_date = weekdays.month_start_date
    cross join generate_series(0, 23) as clock (local_hour_number)
    left join device_days
        on types.tenant_id = device_days.tenant_id
        and types.month_start_date = device_days.month_start_date
        and types.device_type = device_days.device_type
        and weekdays.iso_weekday_number = device_days.iso_weekday_number
    left join hours_of_week
        on types.tenant_id = hours_of_week.tenant_id
        and types.month_start_date = hours_of_week.month_start_date
        and types.device_type = hours_of_week.device_type
        and weekdays.iso_weekday_number = hours_of_week.iso_weekday_number
        and clock.local_hour_number = hours_of_week.local_hour_number

)

select * from profile
