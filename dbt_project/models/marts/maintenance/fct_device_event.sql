-- Grain: one row per tenant, device, time, type and code of event. Additive: count the rows.
-- Locks, unlocks and attempts at access are not here: when a home's door opens tells when its people come and go, and that leaves with the months of raw.
-- Touched-bucket incremental: an event touches its hour; a registry that changes touches the hours whose events belong to another version, or stood elsewhere.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'hour_at'],
        event_time='hour_at',
        inputs={
            'stg_device_events': {'hour_at': hour_of('event_at')},
            'dim_device': {
                'select': "
                    select distinct stored.tenant_id, stored.device_id, stored.hour_at
                    from {changes} as changed
                    inner join {this} as stored on stored.tenant_id = changed.tenant_id and stored.device_id = changed.device_id
                    left join {input} as version
                        on version.tenant_id = stored.tenant_id
                        and version.device_id = stored.device_id
                        and stored.event_at >= version.valid_from_at
                        and (version.valid_to_at is null or stored.event_at < version.valid_to_at)
                    where
                        stored.device_key is distinct from version.device_key
                        or stored.facility_id is distinct from version.facility_id
                        or stored.line_id is distinct from version.line_id
                ",
            },
        },
        indexes=[
            {'columns': ['tenant_id', 'device_id', 'event_at', 'event_type', 'event_code'], 'unique': true},
            {'columns': ['tenant_id', 'device_id', 'event_type', 'event_at']},
            {'columns': ['tenant_id', 'device_id', 'hour_at']},
            {'columns': ['hour_at']},
        ],
        tags=['micro_batch'],
    )
}}

with

happened as (

    select
        *,
        {{ hour_of('event_at') }} as hour_at
    from {{ touched_rows(ref('stg_device_events')) }}
    where event_type not in ('lock', 'unlock', 'access')

),

events as (

    select
        -- ids
        happened.tenant_id,
        happened.device_id,
        version.device_key,
        version.facility_id,
        version.line_id,

        -- attributes
        happened.device_type,
        happened.event_type,
        happened.event_code,
        happened.previous_state,
        happened.severity_code,

        -- measures
        happened.temperature_c,
        happened.load_pct,
        happened.setpoint_c,

        -- timestamps
        happened.event_at,
        happened.hour_at,

        -- metadata
        happened._batch_id
    from happened
    left join {{ ref('dim_device') }} as version
        on happened.tenant_id = version.tenant_id
        and happened.device_id = version.device_id
        and happened.event_at >= version.valid_from_at
        and (version.valid_to_at is null or happened.event_at < version.valid_to_at)

)

select * from events
