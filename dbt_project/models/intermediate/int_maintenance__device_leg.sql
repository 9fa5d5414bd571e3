-- Grain: one row per tenant, tracker and leg: the way from one fix to the next, by the time of the later one. Additive: distance_km, duration_s.
-- A leg stands when its mean speed is below 5 km/h: what a position wanders by itself is not distance. A leg faster than 250 km/h has a wrong fix at one of its
-- ends and is no distance either.
-- Touched-bucket incremental by UTC day of the later fix: a changed day touches itself and the next day with fixes, whose first leg begins in it.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'leg_date'],
        event_time='leg_date',
        inputs={
            'int_maintenance__device_position': {
                'select': '
                    select changed.tenant_id, changed.device_id, changed.fix_date as leg_date from {changes} as changed
                    union all
                    select changed.tenant_id, changed.device_id, following.leg_date
                    from {changes} as changed
                    cross join lateral (
                        select min(later.fix_date) as leg_date
                        from {input} as later
                        where later.tenant_id = changed.tenant_id and later.device_id = changed.device_id and later.fix_date > changed.fix_date
                    ) as following
                ',
            },
        },
        indexes=[
            {'columns': ['tenant_id', 'device_id', 'leg_date']},
            {'columns': ['tenant_id', 'device_id', 'local_date']},
            {'columns': ['tenant_id', 'device_id', 'is_standing', 'started_at']},
            {'columns': ['tenant_id', 'device_id', 'started_at'], 'unique': true},
            {'columns': ['tenant_id', 'device_id', 'ended_at'], 'unique': true},
        ],
        tags=['micro_batch', 'maintenance'],
    )
}}

with

fixes as (

    select
        fix.*,
        lag(fix.fixed_at) over day_of_tracker as previous_at,
        lag(fix.latitude_deg) over day_of_tracker as previous_latitude_deg,
        lag(fix.longitude_deg) over day_of_tracker as previous_longitude_deg
    from {{ ref('int_maintenance__device_position') }} as fix
    where {{ is_touched({'tenant_id': 'fix.tenant_id', 'device_id': 'fix.device_id', 'leg_date': 'fix.fix_date'}) }}
    window day_of_tracker as (partition by fix.tenant_id, fix.device_id, fix.fix_date order by fix.fixed_at)

),

first_fixes as (

    select
        fixes.*,
        origin.fixed_at as from_at,
        origin.latitude_deg as from_latitude_deg,
        origin.longitude_deg as from_longitude_deg
    from fixes
    inner join lateral (
        select
            earlier.fixed_at,
            earlier.latitude_deg,
            earlier.longitude_deg
        from {{ ref('int_maintenance__device_position') }} as earlier
        where
            earlier.tenant_id = fixes.tenant_id
            and earlier.device_id = fixes.device_id
            and earlier.fixed_at < fixes.fixed_at
        order by earlier.fixed_at desc
        limit 1
    ) as origin on true
    where fixes.previous_at is null

),

joined as (

    select
        *,
        previous_at as from_at,
        previous_latitude_deg as from_latitude_deg,
        previous_longitude_deg as from_longitude_deg
    from fixes
    where previous_at is not null
    union all
    select * from first_fixes

),

measured as (

    select
        *,
        extract(epoch from fixed_at - from_at)::double precision as duration_s,
        {{ distance_km('from_latitude_deg', 'from_longitude_deg', 'latitude_deg', 'longitude_deg') }} as straight_km
    from joined

),

judged as (

    select
        *,
        straight_km < 5 * duration_s / 3600 as is_standing,
        straight_km <= 250 * duration_s / 3600 as is_plausible
    from measured

),

legs as (

    select
        -- ids
        tenant_id,
        device_id,
        device_key,
        facility_id,

        -- attributes
        time_zone_name,
        is_standing,
        is_plausible,

        -- measures
        duration_s,
        case when is_standing or not is_plausible then 0 else straight_km end as distance_km,
        from_latitude_deg,
        from_longitude_deg,
        latitude_deg,
        longitude_deg,

        -- timestamps
        from_at as started_at,
        fixed_at as ended_at,
        fix_date as leg_date,
        local_date,

        -- metadata
        _batch_id
    from judged

)

select * from legs
