-- Grain: one row per tenant, device, property and time at which its value changed; the first value of a property is a change too. Nothing is additive.
-- Few rows: what a twin asks about the past is asked here. Firmware is what readings name, the set point what events set, the interval what the registry says.
-- Touched-bucket incremental: an hour of firmware or of set points touches itself and the next hour that has one, because its first value is compared with the
-- last before it; a registry that changes touches the hours in which versions of the device begin, or began (macros/twin/changes.sql).
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'hour_at'],
        event_time='hour_at',
        inputs={
            'int_maintenance__device_firmware_hourly': {'select': hour_and_next('started_at', 'true'), 'select_when_new': every_hour()},
            'fct_device_event': {
                'select': hour_and_next('event_at', "later.event_type = 'setpoint' and later.setpoint_c is not null"),
                'select_when_new': every_hour(),
            },
            'dim_device': {'select': intervals_moved(), 'select_when_new': hours_of_versions()},
        },
        indexes=[
            {'columns': ['tenant_id', 'device_id', 'property_code', 'changed_at'], 'unique': true},
            {'columns': ['tenant_id', 'device_id', 'hour_at']},
            {'columns': ['hour_at']},
        ],
        pre_hook="{{ analyze_if_new(ref('int_maintenance__device_firmware_hourly')) }}",
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
            '(select tenant_id, device_id, hour_at from ' ~ ref('int_maintenance__device_firmware_hourly')
            ~ ' union select tenant_id, device_id, hour_at from ' ~ ref('fct_device_event')
            ~ ' union select tenant_id, device_id, ' ~ hour_of('valid_from_at') ~ ' as hour_at from ' ~ ref('dim_device') ~ ')'
        )
    }} as touched

),

firmware as (

    select
        run.tenant_id,
        run.device_id,
        'firmware_version' as property_code,
        run.hour_at,
        run.started_at as changed_at,
        previous.firmware_version as previous_value,
        run.firmware_version as reported_value,
        run._batch_id
    from touched_hours
    inner join {{ ref('int_maintenance__device_firmware_hourly') }} as run
        on touched_hours.tenant_id = run.tenant_id
        and touched_hours.device_id = run.device_id
        and touched_hours.hour_at = run.hour_at
    left join lateral (
        select earlier.firmware_version
        from {{ ref('int_maintenance__device_firmware_hourly') }} as earlier
        where earlier.tenant_id = run.tenant_id and earlier.device_id = run.device_id and earlier.started_at < run.started_at
        order by earlier.started_at desc
        limit 1
    ) as previous on true

),

set_points as (

    -- Of two that came into force at the same moment one counts, always the same.
    select distinct on (happened.tenant_id, happened.device_id, happened.event_at)
        happened.tenant_id,
        happened.device_id,
        'setpoint_c' as property_code,
        happened.hour_at,
        happened.event_at as changed_at,
        previous.setpoint_c::text as previous_value,
        happened.setpoint_c::text as reported_value,
        happened._batch_id
    from touched_hours
    inner join {{ ref('fct_device_event') }} as happened
        on touched_hours.tenant_id = happened.tenant_id
        and touched_hours.device_id = happened.device_id
        and touched_hours.hour_at = happened.hour_at
    left join lateral (
        select earlier.setpoint_c
        from {{ ref('fct_device_event') }} as earlier
        where
            earlier.tenant_id = happened.tenant_id
            and earlier.device_id = happened.device_id
            and earlier.event_type = 'setpoint'
            and earlier.setpoint_c is not null
            and earlier.event_at < happened.event_at
        order by earlier.event_at desc, earlier.event_code desc
        limit 1
    ) as previous on true
    where happened.event_type = 'setpoint' and happened.setpoint_c is not null
    order by happened.tenant_id asc, happened.device_id asc, happened.event_at asc, happened.event_code desc

),

intervals as (

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

known_values as (

    select * from firmware
    union all
    select * from set_points
    union all
    select * from intervals

),

changes as (

    select *
    from known_values
    where previous_value is null or reported_value <> previous_value

)

select * from changes
