-- Grain: one row per tenant, device, property and time at which its value changed; the first value of a property is a change too. Nothing is additive.
-- Few rows: what a twin asks about the past is asked here. Firmware and set point are what the device reports, the interval what the registry says.
-- Touched-bucket incremental: an hour of reports touches itself and the next hour that reports the same property; a registry that changes touches the hours in
-- which versions of the device begin, or began.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'hour_at'],
        event_time='hour_at',
        inputs={
            'int_maintenance__device_reported_hourly': {'select': moved_by_reports()},
            'dim_device': {'select': intervals_moved(), 'select_when_new': hours_of_versions()},
        },
        indexes=[
            {'columns': ['tenant_id', 'device_id', 'property_code', 'changed_at'], 'unique': true},
            {'columns': ['tenant_id', 'device_id', 'hour_at']},
            {'columns': ['hour_at']},
        ],
        pre_hook="{{ analyze_if_new(ref('int_maintenance__device_reported_hourly')) }}",
        tags=['micro_batch', 'maintenance'],
    )
}}

with

touched_hours as (

    select
        tenant_id,
        device_id,
        hour_at
    from {{
        touched_buckets_or(
            '(select tenant_id, device_id, hour_at from ' ~ ref('int_maintenance__device_reported_hourly') ~ ' union select tenant_id, device_id, '
            ~ hour_of('valid_from_at') ~ ' as hour_at from ' ~ ref('dim_device') ~ ')'
        )
    }} as touched

),

reported as (

    select
        run.tenant_id,
        run.device_id,
        run.property_code,
        run.hour_at,
        run.started_at as changed_at,
        previous.reported_value as previous_value,
        run.reported_value,
        run._batch_id
    from touched_hours
    inner join {{ ref('int_maintenance__device_reported_hourly') }} as run
        on touched_hours.tenant_id = run.tenant_id
        and touched_hours.device_id = run.device_id
        and touched_hours.hour_at = run.hour_at
    left join lateral (
        select earlier.reported_value
        from {{ ref('int_maintenance__device_reported_hourly') }} as earlier
        where
            earlier.tenant_id = run.tenant_id
            and earlier.device_id = run.device_id
            and earlier.property_code = run.property_code
            and earlier.started_at < run.started_at
        order by earlier.started_at desc
        limit 1
    ) as previous on true

),

registered as (

    select
        version.tenant_id,
        version.device_id,
        'reporting_interval_s' as property_code,
        touched_hours.hour_at,
        version.valid_from_at as changed_at,
        previous.reporting_interval_s::text as previous_value,
        version.reporting_interval_s::text as reported_value,
        version._batch_id
    from touched_hours
    inner join {{ ref('dim_device') }} as version
        on touched_hours.tenant_id = version.tenant_id
        and touched_hours.device_id = version.device_id
        and touched_hours.hour_at <= version.valid_from_at
        and version.valid_from_at < touched_hours.hour_at + interval '1 hour'
    left join lateral (
        select earlier.reporting_interval_s
        from {{ ref('dim_device') }} as earlier
        where
            earlier.tenant_id = version.tenant_id
            and earlier.device_id = version.device_id
            and earlier.valid_from_at < version.valid_from_at
        order by earlier.valid_from_at desc
        limit 1
    ) as previous on true

),

changes as (

    select *
    from reported
    where reported_value is distinct from previous_value
    union all
    select *
    from registered
    where reported_value is distinct from previous_value

)

select * from changes
