-- Grain: one row per tenant, tracker and time of a fix. Nothing to add up but rows.
-- A fix with the facility of then and its local day. Kept beside staging because a leg begins where the month before ended, which may have left raw.
-- Touched-bucket incremental by UTC day; a registry or a time zone that changes touches the days that it moves.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'fix_date'],
        event_time='fix_date',
        inputs={
            'stg_gps_positions': {'fix_date': date_of('event_at')},
            'dim_device': {'select': moved_in_registry('fix_date', 'fixed_at')},
            'dim_facility': {'select': moved_in_time_zone('fix_date')},
        },
        indexes=[
            {'columns': ['tenant_id', 'device_id', 'fix_date']},
            {'columns': ['tenant_id', 'device_id', 'local_date']},
            {'columns': ['tenant_id', 'device_id', 'fixed_at'], 'unique': true},
            {'columns': ['tenant_id', 'facility_id', 'time_zone_name']},
        ],
        tags=['micro_batch', 'maintenance'],
    )
}}

with

fixes as (

    select
        *,
        {{ date_of('event_at') }} as fix_date
    from {{ touched_rows(ref('stg_gps_positions')) }}

),

attributed as (

    select
        fixes.*,
        version.device_key,
        coalesce(version.facility_id, 'unregistered') as facility_id,
        coalesce(facility.time_zone_name, 'UTC') as time_zone_name
    from fixes
    left join {{ ref('dim_device') }} as version
        on fixes.tenant_id = version.tenant_id
        and fixes.device_id = version.device_id
        and fixes.event_at >= version.valid_from_at
        and (version.valid_to_at is null or fixes.event_at < version.valid_to_at)
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

        -- attributes
        time_zone_name,

        -- measures
        latitude_deg,
        longitude_deg,
        speed_km_h,

        -- timestamps
        event_at as fixed_at,
        fix_date,
        {{ local_date_of('event_at', 'time_zone_name') }} as local_date,

        -- metadata
        _batch_id
    from attributed

)

select * from located
