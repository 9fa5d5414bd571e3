-- Grain: one row per tenant, tracker and day by the clock of its facility on which it was fixed. Additive: fix_count, distance_km, moving_s, stop_count,
-- stop_s, implausible_leg_count. Not additive: max_speed_km_h. A leg counts on the day on which it ends, a stop on the day on which it was first seen, with all
-- of its length.
-- Touched-bucket incremental by local day of a tracker: a changed UTC day touches the local days that its fixes, legs and stops lie on in any zone.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'local_date'],
        event_time='local_date',
        inputs={
            'int_maintenance__device_position': {'select': days_on_both_sides('fix_date', 'local_date')},
            'int_maintenance__device_leg': {'select': days_on_both_sides('leg_date', 'local_date')},
            'fct_device_stop': {'select': days_on_both_sides('stop_date', 'local_date')},
        },
        indexes=[
            {'columns': ['tenant_id', 'device_id', 'local_date'], 'unique': true},
            {'columns': ['tenant_id', 'device_id', 'last_fix_at']},
            {'columns': ['local_date']},
        ],
        tags=['micro_batch'],
    )
}}

with

touched_fixes as (

    select fix.*
    from {{ ref('int_maintenance__device_position') }} as fix
    where {{ is_touched({'tenant_id': 'fix.tenant_id', 'device_id': 'fix.device_id', 'local_date': 'fix.local_date'}) }}

),

fixes as (

    select
        tenant_id,
        device_id,
        local_date,
        {{ last_of('facility_id', 'fixed_at') }} as facility_id,
        {{ last_of('device_key', 'fixed_at') }} as device_key,
        {{ last_of('latitude_deg', 'fixed_at') }} as last_latitude_deg,
        {{ last_of('longitude_deg', 'fixed_at') }} as last_longitude_deg,
        {{ last_of('time_zone_name', 'fixed_at') }} as time_zone_name,
        count(*) as fix_count,
        max(speed_km_h) as max_speed_km_h,
        min(fixed_at) as first_fix_at,
        max(fixed_at) as last_fix_at,
        max(_batch_id) as _batch_id
    from touched_fixes
    group by tenant_id, device_id, local_date

),

touched_legs as (

    select leg.*
    from {{ ref('int_maintenance__device_leg') }} as leg
    where {{ is_touched({'tenant_id': 'leg.tenant_id', 'device_id': 'leg.device_id', 'local_date': 'leg.local_date'}) }}

),

legs as (

    select
        tenant_id,
        device_id,
        local_date,
        {{ exact_sum('distance_km') }} as distance_km,
        {{ exact_sum('case when not is_standing and is_plausible then duration_s else 0 end') }} as moving_s,
        count(*) filter (where not is_plausible) as implausible_leg_count
    from touched_legs
    group by tenant_id, device_id, local_date

),

touched_stops as (

    select stay.*
    from {{ ref('fct_device_stop') }} as stay
    where {{ is_touched({'tenant_id': 'stay.tenant_id', 'device_id': 'stay.device_id', 'local_date': 'stay.local_date'}) }}

),

stops as (

    select
        tenant_id,
        device_id,
        local_date,
        count(*) as stop_count,
        {{ exact_sum('duration_s') }} as stop_s
    from touched_stops
    group by tenant_id, device_id, local_date

),

days as (

    select
        -- ids
        fixes.tenant_id,
        fixes.device_id,
        fixes.local_date,
        fixes.device_key,
        fixes.facility_id,

        -- attributes
        fixes.time_zone_name,

        -- measures
        fixes.fix_count,
        coalesce(legs.distance_km, 0) as distance_km,
        coalesce(legs.moving_s, 0) as moving_s,
        coalesce(stops.stop_count, 0) as stop_count,
        coalesce(stops.stop_s, 0) as stop_s,
        coalesce(legs.implausible_leg_count, 0) as implausible_leg_count,
        fixes.max_speed_km_h,
        fixes.last_latitude_deg,
        fixes.last_longitude_deg,

        -- timestamps
        fixes.first_fix_at,
        fixes.last_fix_at,

        -- metadata
        fixes._batch_id
    from fixes
    left join legs
        on fixes.tenant_id = legs.tenant_id
        and fixes.device_id = legs.device_id
        and fixes.local_date = legs.local_date
    left join stops
        on fixes.tenant_id = stops.tenant_id
        and fixes.device_id = stops.device_id
        and fixes.local_date = stops.local_date

)

select * from days
