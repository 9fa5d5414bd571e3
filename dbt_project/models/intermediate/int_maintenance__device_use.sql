-- Grain: one row per event in which somebody used a device of a home or a door (tenant, device, time, type and code of event): a lock was locked or unlocked,
-- somebody tried to get in, a thermostat was set by somebody and not by its program, a camera saw something. Additive: use_count.
-- Each with the facility of then and its local day. Touched-bucket incremental by UTC day; a registry or a zone that changes touches the days that it moves.
-- When a home's door opens tells when its people come and go: the rows go for good when the contract's time is over, who did it with them (decision 30).
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'used_date'],
        event_time='used_date',
        forgets={'device_events': [0, 0]},
        inputs={
            'stg_device_events': {'used_date': date_of('event_at')},
            'dim_device': {'select': moved_in_registry('used_date', 'used_at')},
            'dim_facility': {'select': moved_in_time_zone('used_date')},
        },
        indexes=[
            {'columns': ['tenant_id', 'device_id', 'used_date']},
            {'columns': ['tenant_id', 'device_id', 'local_date']},
            {'columns': ['tenant_id', 'facility_id', 'time_zone_name']},
        ],
        tags=['micro_batch', 'maintenance'],
    )
}}

with

uses as (

    select
        *,
        {{ date_of('event_at') }} as used_date,
        event_type in ('unlock', 'access') as is_access
    from {{ touched_rows(ref('stg_device_events')) }}
    where
        event_type in ('unlock', 'access')
        -- What a lock or a thermostat does on its own is no use.
        or (event_type = 'lock' and event_code <> 'auto')
        or (event_type = 'setpoint' and event_code <> 'program')
        or (event_type = 'controller_event' and device_type = 'security_camera')

),

attributed as (

    select
        uses.*,
        version.device_key,
        coalesce(version.facility_id, 'unregistered') as facility_id,
        coalesce(facility.time_zone_name, 'UTC') as time_zone_name
    from uses
    left join {{ ref('dim_device') }} as version
        on uses.tenant_id = version.tenant_id
        and uses.device_id = version.device_id
        and uses.event_at >= version.valid_from_at
        and (version.valid_to_at is null or uses.event_at < version.valid_to_at)
    left join {{ ref('dim_facility') }} as facility
        on version.tenant_id = facility.tenant_id
        and version.facility_id = facility.facility_id

),

located as (

    select
        -- ids
        tenant_id,
        device_id,
        device_key,
        facility_id,
        -- Devices number people on their own: the same name at two devices is two people, and must not look like one who can be followed.
        {{ stable_key(['tenant_id', 'device_id', 'actor_id_pseudonym']) }} as actor_pseudonym,

        -- attributes
        device_type,
        event_type,
        event_code,
        is_access,
        time_zone_name,

        -- measures
        1 as use_count,
        {{ local_minute_of('event_at', 'time_zone_name') }} as local_minute_number,

        -- timestamps
        event_at as used_at,
        used_date,
        {{ local_date_of('event_at', 'time_zone_name') }} as local_date,

        -- metadata
        _batch_id
    from attributed

)

select * from located
