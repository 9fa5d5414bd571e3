-- Grain: one row per tenant and tracker that was ever fixed: where it was last seen. Nothing to add up but rows.
-- The facility is the nearest one whose position is known; a tracker is at it within 1 km. Touched-bucket incremental by tracker: a changed day touches its
-- tracker, a changed facility the trackers of its tenant (there are few).
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id'],
        event_time='last_fix_at',
        inputs={
            'fct_device_position_daily': {},
            'dim_facility': {
                'select': '
                    select stored.tenant_id, stored.device_id
                    from {changes} as changed
                    inner join {this} as stored on stored.tenant_id = changed.tenant_id
                ',
            },
        },
        indexes=[{'columns': ['tenant_id', 'device_id'], 'unique': true}],
        tags=['micro_batch'],
    )
}}

with

newest_fixes as (

    select
        touched.tenant_id,
        touched.device_id,
        (
            select max(candidate.last_fix_at)
            from {{ ref('fct_device_position_daily') }} as candidate
            where candidate.tenant_id = touched.tenant_id and candidate.device_id = touched.device_id
        ) as last_fix_at
    from {{ touched_buckets_or('(select distinct tenant_id, device_id from ' ~ ref('fct_device_position_daily') ~ ')') }} as touched

),

newest as (

    select day.*
    from newest_fixes
    inner join {{ ref('fct_device_position_daily') }} as day
        on newest_fixes.tenant_id = day.tenant_id
        and newest_fixes.device_id = day.device_id
        and newest_fixes.last_fix_at = day.last_fix_at

),

placed as (

    select
        newest.*,
        nearest.facility_id as nearest_facility_id,
        nearest.distance_km as nearest_facility_distance_km
    from newest
    left join lateral (
        select
            facility.facility_id,
            {{ distance_km('newest.last_latitude_deg', 'newest.last_longitude_deg', 'facility.latitude_deg', 'facility.longitude_deg') }} as distance_km
        from {{ ref('dim_facility') }} as facility
        where facility.tenant_id = newest.tenant_id and facility.latitude_deg is not null and facility.longitude_deg is not null
        order by distance_km asc, facility.facility_id asc
        limit 1
    ) as nearest on true

),

positions as (

    select
        -- ids
        tenant_id,
        device_id,
        device_key,
        facility_id,
        nearest_facility_id,

        -- attributes
        coalesce(nearest_facility_distance_km <= 1, false) as is_at_facility,

        -- measures
        last_latitude_deg as latitude_deg,
        last_longitude_deg as longitude_deg,
        nearest_facility_distance_km,

        -- timestamps
        last_fix_at,
        local_date,

        -- metadata
        _batch_id
    from placed

)

select * from positions
