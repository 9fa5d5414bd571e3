-- Grain: one row per tenant and device that is registered, has a desired state or was ever heard of. Nothing is additive.
-- Time is the device's own: a drift is as old as it was at the last contact. Who fell silent is a question about all devices: compare last_contact_at with the newest.
-- Touched-bucket incremental: what changes about a device touches the device. Each value is looked up by an index: the cost follows the touched devices, not their past.
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
        definition=definition_of(twin_properties() | string),
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
        error.event_code as last_error_code,
        error.event_at as last_error_at,
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
    {%- for alias, event_type in {'machine_state': 'state_change', 'error': 'error'}.items() %}
    left join lateral (
        select
            happened.event_at,
            happened.event_code
        from {{ ref('fct_device_event') }} as happened
        where happened.tenant_id = devices.tenant_id and happened.device_id = devices.device_id and happened.event_type = '{{ event_type }}'
        order by happened.event_at desc, happened.event_code desc
        limit 1
    ) as {{ alias }} on true
    {%- endfor %}
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

reported as (

    select
        known.*
        {%- for property in twin_properties() %},
        {{ property.name }}_report.reported_value::{{ property.type }} as reported_{{ property.code }},
        {{ property.name }}_report.changed_at as {{ property.name }}_reported_since_at,
        {{ property.name }}_report.reported_value::{{ property.type }} <> known.target_{{ property.code }} as is_{{ property.name }}_drifting
        {%- endfor %}
    from known
    {%- for property in twin_properties() %}
    left join lateral (
        select
            change.reported_value,
            change.changed_at
        from {{ ref('int_maintenance__device_reported_change') }} as change
        where change.tenant_id = known.tenant_id and change.device_id = known.device_id and change.property_code = '{{ property.code }}'
        order by change.changed_at desc
        limit 1
    ) as {{ property.name }}_report on true
    {%- endfor %}

),

drifting as (

    -- A drift began when the device left its target for good, and not before the target was named: the first change after the last value since then that agreed.
    select
        reported.*
        {%- for property in twin_properties() %},
        case
            when reported.is_{{ property.name }}_drifting then greatest(reported.{{ property.name }}_target_since_at, {{ property.name }}_drift.left_at)
        end as {{ property.name }}_drifting_since_at
        {%- endfor %}
    from reported
    {%- for property in twin_properties() %}
    left join lateral (
        select min(change.changed_at) filter (where change.agreed_at is null or change.changed_at > change.agreed_at) as left_at
        from (
            select
                candidate.changed_at,
                max(candidate.changed_at) filter (
                    where candidate.reported_value::{{ property.type }} = reported.target_{{ property.code }}
                ) over () as agreed_at
            from {{ ref('int_maintenance__device_reported_change') }} as candidate
            where
                reported.is_{{ property.name }}_drifting
                and candidate.tenant_id = reported.tenant_id
                and candidate.device_id = reported.device_id
                and candidate.property_code = '{{ property.code }}'
                and candidate.changed_at >= coalesce((
                    select max(before.changed_at)
                    from {{ ref('int_maintenance__device_reported_change') }} as before
                    where
                        before.tenant_id = reported.tenant_id
                        and before.device_id = reported.device_id
                        and before.property_code = '{{ property.code }}'
                        and before.changed_at <= reported.{{ property.name }}_target_since_at
                ), '-infinity')
        ) as change
    ) as {{ property.name }}_drift on true
    {%- endfor %}

),

contacted as (

    select
        *,
        greatest(last_reading_at, last_event_at) as last_contact_at,
        {% for property in twin_properties() %}coalesce(is_{{ property.name }}_drifting, false)::integer{{ ' + ' if not loop.last }}{% endfor %} as drift_count
    from drifting

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
        {%- for property in twin_properties() %}
        is_{{ property.name }}_drifting,
        {%- endfor %}
        last_event_type,
        last_event_code,
        last_error_code,

        -- measures
        target_reporting_interval_s,
        reported_reporting_interval_s,
        target_setpoint_c,
        reported_setpoint_c,
        {%- for property in twin_properties() %}
        -- GREATEST passes over NULL: without the CASE no drift would read as one of no age.
        case
            when is_{{ property.name }}_drifting
                then greatest(0, extract(epoch from last_contact_at - {{ property.name }}_drifting_since_at))::double precision
        end as {{ property.name }}_drift_s,
        {%- endfor %}
        drift_count::bigint as drift_count,
        battery_pct,
        health_score,

        -- timestamps
        last_contact_at,
        last_reading_at,
        last_event_at,
        last_error_at,
        reported_state_since_at,
        desired_since_at,
        {%- for property in twin_properties() %}
        {{ property.name }}_target_since_at,
        {{ property.name }}_reported_since_at,
        {{ property.name }}_drifting_since_at,
        {%- endfor %}
        health_date,

        -- metadata
        _batch_id
    from contacted

)

select * from twins
