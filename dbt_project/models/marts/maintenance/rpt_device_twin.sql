-- Grain: one row per tenant and device that is registered, has a desired state or was ever heard of. Nothing is additive.
-- Time is the device's own: a drift is as old as it was at the last contact. Who fell silent is a question about all devices: compare last_contact_at.
-- Touched-bucket incremental: what changes about a device touches the device. Each value is looked up by an index: the cost follows the touched devices,
-- not their past.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id'],
        event_time='last_contact_at',
        inputs={
            'dim_device': {},
            'dim_device_desired_state': {},
            'fct_device_window_1d': {},
            'fct_device_event': {},
            'int_maintenance__device_reported_change': {},
            'fct_device_health_daily': {},
        },
        indexes=[{'columns': ['tenant_id', 'device_id'], 'unique': true}],
        tags=['micro_batch'],
    )
}}

with

devices as (

    select
        tenant_id,
        device_id
    from {{
        touched_buckets_or(
            '(select tenant_id, device_id from ' ~ ref('dim_device') ~ ' union select tenant_id, device_id from ' ~ ref('dim_device_desired_state')
            ~ ' union select tenant_id, device_id from ' ~ ref('fct_device_window_1d') ~ ' union select tenant_id, device_id from ' ~ ref('fct_device_event') ~ ')'
        )
    }} as touched

),

known as (

    select
        devices.tenant_id,
        devices.device_id,
        version.device_key,
        version.facility_id,
        version.line_id,
        coalesce(version.device_type, event.device_type) as device_type,
        version.model_name,
        version.registry_status,
        version.firmware_version as registered_firmware_version,
        desired.valid_from_at as desired_since_at,
        desired.target_firmware_version,
        desired.target_reporting_interval_s,
        desired.target_setpoint_c,
        desired.firmware_target_since_at,
        desired.interval_target_since_at,
        desired.setpoint_target_since_at,
        contact.last_at as last_reading_at,
        battery.last_value as battery_pct,
        event.event_at as last_event_at,
        event.event_type as last_event_type,
        event.event_code as last_event_code,
        machine_state.event_code as reported_state,
        machine_state.event_at as reported_state_since_at,
        last_error.event_code as last_error_code,
        last_error.event_at as last_error_at,
        health.health_score,
        health.health_date,
        greatest(version._batch_id, desired._batch_id, contact._batch_id, event._batch_id, health._batch_id) as _batch_id
    from devices
    left join {{ ref('dim_device') }} as version
        on devices.tenant_id = version.tenant_id
        and devices.device_id = version.device_id
        and version.is_current
    left join {{ ref('dim_device_desired_state') }} as desired
        on devices.tenant_id = desired.tenant_id
        and devices.device_id = desired.device_id
        and desired.is_current
    left join lateral (
        select
            day.window_at,
            day.last_at,
            day._batch_id
        from {{ ref('fct_device_window_1d') }} as day
        where day.tenant_id = devices.tenant_id and day.device_id = devices.device_id and day.metric_code = 'all_readings'
        order by day.window_at desc, day.last_at desc
        limit 1
    ) as contact on true
    left join lateral (
        -- What a battery said more than a week before the last contact says nothing of it.
        select day.last_value
        from {{ ref('fct_device_window_1d') }} as day
        where
            day.tenant_id = devices.tenant_id
            and day.device_id = devices.device_id
            and day.metric_code = 'battery_pct'
            and day.window_at > contact.window_at - interval '7 days'
        order by day.last_at desc
        limit 1
    ) as battery on true
    left join lateral (
        select
            happened.event_at,
            happened.event_type,
            happened.event_code,
            happened.device_type,
            happened._batch_id
        from {{ ref('fct_device_event') }} as happened
        where happened.tenant_id = devices.tenant_id and happened.device_id = devices.device_id
        order by happened.event_at desc, happened.event_type desc, happened.event_code desc
        limit 1
    ) as event on true
    left join lateral (
        select
            happened.event_at,
            happened.event_code
        from {{ ref('fct_device_event') }} as happened
        where happened.tenant_id = devices.tenant_id and happened.device_id = devices.device_id and happened.event_type = 'state_change'
        order by happened.event_at desc, happened.event_code desc
        limit 1
    ) as machine_state on true
    left join lateral (
        select
            happened.event_at,
            happened.event_code
        from {{ ref('fct_device_event') }} as happened
        where happened.tenant_id = devices.tenant_id and happened.device_id = devices.device_id and happened.event_type = 'error'
        order by happened.event_at desc, happened.event_code desc
        limit 1
    ) as last_error on true
    left join lateral (
        select
            day.health_score,
            day.health_date,
            day._batch_id
        from {{ ref('fct_device_health_daily') }} as day
        where day.tenant_id = devices.tenant_id and day.device_id = devices.device_id
        order by day.health_date desc
        limit 1
    ) as health on true
    where num_nonnulls(version.device_key, desired.valid_from_at, contact.last_at, event.event_at) > 0

),

properties as (

    -- What a device can be told to have; values as text, which are equal where the values are.
    select
        tenant_id,
        device_id,
        'firmware_version' as property_code,
        target_firmware_version as target_value,
        firmware_target_since_at as target_since_at
    from known
    union all
    select
        tenant_id,
        device_id,
        'reporting_interval_s' as property_code,
        target_reporting_interval_s::text as target_value,
        interval_target_since_at as target_since_at
    from known
    union all
    select
        tenant_id,
        device_id,
        'setpoint_c' as property_code,
        target_setpoint_c::text as target_value,
        setpoint_target_since_at as target_since_at
    from known

),

reported as (

    select
        properties.*,
        newest.reported_value,
        newest.changed_at as reported_since_at,
        newest.reported_value <> properties.target_value as is_drifting
    from properties
    left join lateral (
        select
            value_then.reported_value,
            value_then.changed_at
        from {{ ref('int_maintenance__device_reported_change') }} as value_then
        where
            value_then.tenant_id = properties.tenant_id
            and value_then.device_id = properties.device_id
            and value_then.property_code = properties.property_code
        order by value_then.changed_at desc
        limit 1
    ) as newest on true

),

in_force as (

    -- The value that a drifting property had when its target was named: older ones are of no matter.
    select
        reported.*,
        coalesce(at_target.changed_at, '-infinity') as relevant_from
    from reported
    left join lateral (
        select value_then.changed_at
        from {{ ref('int_maintenance__device_reported_change') }} as value_then
        where
            reported.is_drifting
            and value_then.tenant_id = reported.tenant_id
            and value_then.device_id = reported.device_id
            and value_then.property_code = reported.property_code
            and value_then.changed_at <= reported.target_since_at
        order by value_then.changed_at desc
        limit 1
    ) as at_target on true

),

left_target as (

    select
        in_force.*,
        agreed.next_changed_at
    from in_force
    left join lateral (
        -- The last value that was as desired, and when it went.
        select value_then.next_changed_at
        from (
            select
                candidate.reported_value,
                candidate.changed_at,
                lead(candidate.changed_at) over (order by candidate.changed_at) as next_changed_at
            from {{ ref('int_maintenance__device_reported_change') }} as candidate
            where
                in_force.is_drifting
                and candidate.tenant_id = in_force.tenant_id
                and candidate.device_id = in_force.device_id
                and candidate.property_code = in_force.property_code
                and candidate.changed_at >= in_force.relevant_from
        ) as value_then
        where value_then.reported_value = in_force.target_value
        order by value_then.changed_at desc
        limit 1
    ) as agreed on true

),

first_reported as (

    -- Without a value that was as desired the drift is as old as the target, or as the first value since then where there was none before.
    select
        left_target.*,
        coalesce(left_target.next_changed_at, earliest.changed_at) as left_at
    from left_target
    left join lateral (
        select value_then.changed_at
        from {{ ref('int_maintenance__device_reported_change') }} as value_then
        where
            left_target.is_drifting
            and value_then.tenant_id = left_target.tenant_id
            and value_then.device_id = left_target.device_id
            and value_then.property_code = left_target.property_code
            and value_then.changed_at >= left_target.relevant_from
        order by value_then.changed_at asc
        limit 1
    ) as earliest on true

),

dated as (

    select
        *,
        case when is_drifting then greatest(target_since_at, left_at) end as drifting_since_at
    from first_reported

),

side_by_side as (

    select
        tenant_id,
        device_id,
        {%- for name, code in {'firmware': 'firmware_version', 'interval': 'reporting_interval_s', 'setpoint': 'setpoint_c'}.items() %}
        max(reported_value) filter (where property_code = '{{ code }}') as reported_{{ code }},
        max(reported_since_at) filter (where property_code = '{{ code }}') as {{ name }}_reported_since_at,
        bool_or(is_drifting) filter (where property_code = '{{ code }}') as is_{{ name }}_drifting,
        max(drifting_since_at) filter (where property_code = '{{ code }}') as {{ name }}_drifting_since_at,
        {%- endfor %}
        count(*) filter (where is_drifting) as drift_count
    from dated
    group by tenant_id, device_id

),

contacted as (

    select
        known.*,
        side_by_side.reported_firmware_version,
        side_by_side.reported_reporting_interval_s::bigint as reported_reporting_interval_s,
        side_by_side.reported_setpoint_c::double precision as reported_setpoint_c,
        side_by_side.firmware_reported_since_at,
        side_by_side.interval_reported_since_at,
        side_by_side.setpoint_reported_since_at,
        side_by_side.is_firmware_drifting,
        side_by_side.is_interval_drifting,
        side_by_side.is_setpoint_drifting,
        side_by_side.firmware_drifting_since_at,
        side_by_side.interval_drifting_since_at,
        side_by_side.setpoint_drifting_since_at,
        side_by_side.drift_count,
        greatest(known.last_reading_at, known.last_event_at) as last_contact_at
    from known
    inner join side_by_side
        on known.tenant_id = side_by_side.tenant_id
        and known.device_id = side_by_side.device_id

),

twins as (

    select
        -- ids
        tenant_id,
        device_id,
        device_key,
        facility_id,
        line_id,

        -- attributes
        device_type,
        model_name,
        registry_status,
        case
            when registry_status = 'retired' then 'retired'
            when last_contact_at is null then 'never_heard'
            when drift_count > 0 then 'drifting'
            when desired_since_at is null then 'nothing_desired'
            else 'as_desired'
        end as twin_status,
        reported_state,
        registered_firmware_version,
        target_firmware_version,
        reported_firmware_version,
        is_firmware_drifting,
        is_interval_drifting,
        is_setpoint_drifting,
        last_event_type,
        last_event_code,
        last_error_code,

        -- measures
        target_reporting_interval_s,
        reported_reporting_interval_s,
        target_setpoint_c,
        reported_setpoint_c,
        -- GREATEST passes over NULL: without the CASE no drift would read as one of no age.
        {%- for name in ['firmware', 'interval', 'setpoint'] %}
        case
            when is_{{ name }}_drifting then greatest(0, extract(epoch from last_contact_at - {{ name }}_drifting_since_at))::double precision
        end as {{ name }}_drift_s,
        {%- endfor %}
        drift_count,
        battery_pct,
        health_score,

        -- timestamps
        last_contact_at,
        last_reading_at,
        last_event_at,
        last_error_at,
        reported_state_since_at,
        desired_since_at,
        firmware_target_since_at,
        firmware_reported_since_at,
        firmware_drifting_since_at,
        interval_target_since_at,
        interval_reported_since_at,
        interval_drifting_since_at,
        setpoint_target_since_at,
        setpoint_reported_since_at,
        setpoint_drifting_since_at,
        health_date,

        -- metadata
        _batch_id
    from contacted

)

select * from twins
