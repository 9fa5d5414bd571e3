-- Grain: one row per tenant, tracker and stop, by its start: legs below 5 km/h that follow each other for at least 5 minutes. Additive: duration_s.
-- A stop may last over days and through silence, where the tracker is found again where it was; the newest one may still go on (is_open).
-- Touched-bucket incremental by the UTC day of the fix that first showed the stop: a changed day of legs touches itself, the next day with legs (whose first
-- leg may now go on with a stop) and the day from which the tracker has been standing when the changed day begins.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'stop_date'],
        event_time='stop_date',
        inputs={
            'int_maintenance__device_leg': {
                'select': "
                    select changed.tenant_id, changed.device_id, changed.leg_date as stop_date from {changes} as changed
                    union all
                    select changed.tenant_id, changed.device_id, following.leg_date as stop_date
                    from {changes} as changed
                    cross join lateral (
                        select min(later.leg_date) as leg_date
                        from {input} as later
                        where later.tenant_id = changed.tenant_id and later.device_id = changed.device_id and later.leg_date > changed.leg_date
                    ) as following
                    union all
                    select changed.tenant_id, changed.device_id, standing.leg_date as stop_date
                    from {changes} as changed
                    left join lateral (
                        select moving.ended_at
                        from {input} as moving
                        where
                            moving.tenant_id = changed.tenant_id and moving.device_id = changed.device_id and not moving.is_standing
                            and moving.started_at < " ~ start_of_date('changed.leg_date') ~ " and moving.leg_date < changed.leg_date
                        order by moving.started_at desc
                        limit 1
                    ) as arrival on true
                    cross join lateral (
                        select since.leg_date
                        from {input} as since
                        where since.tenant_id = changed.tenant_id and since.device_id = changed.device_id and since.started_at >= coalesce(arrival.ended_at, '-infinity')
                        order by since.started_at
                        limit 1
                    ) as standing
                ",
            },
        },
        indexes=[{'columns': ['tenant_id', 'device_id', 'stop_date']}, {'columns': ['tenant_id', 'device_id', 'local_date']}, {'columns': ['local_date']}],
        tags=['micro_batch'],
    )
}}

with

first_legs as (

    select leg.*
    from {{ ref('int_maintenance__device_leg') }} as leg
    left join {{ ref('int_maintenance__device_leg') }} as earlier
        on leg.tenant_id = earlier.tenant_id
        and leg.device_id = earlier.device_id
        and leg.started_at = earlier.ended_at
    where
        leg.is_standing
        and coalesce(not earlier.is_standing, true)
        and {{ is_touched({'tenant_id': 'leg.tenant_id', 'device_id': 'leg.device_id', 'stop_date': 'leg.leg_date'}) }}

),

departed as (

    select
        first_legs.*,
        departure.departed_at
    from first_legs
    cross join lateral (
        select min(moving.started_at) as departed_at
        from {{ ref('int_maintenance__device_leg') }} as moving
        where
            moving.tenant_id = first_legs.tenant_id
            and moving.device_id = first_legs.device_id
            and not moving.is_standing
            and moving.started_at > first_legs.started_at
    ) as departure

),

stood as (

    select
        departed.*,
        stay.last_at,
        stay.fix_count,
        stay.mean_latitude_deg,
        stay.mean_longitude_deg,
        stay.newest_batch_id
    from departed
    cross join lateral (
        select
            max(part.ended_at) as last_at,
            count(*) as fix_count,
            {{ exact_avg('part.latitude_deg') }} as mean_latitude_deg,
            {{ exact_avg('part.longitude_deg') }} as mean_longitude_deg,
            max(part._batch_id) as newest_batch_id
        from {{ ref('int_maintenance__device_leg') }} as part
        where
            part.tenant_id = departed.tenant_id
            and part.device_id = departed.device_id
            and part.started_at >= departed.started_at
            -- A range that the index ends: an OR would read all legs after the stop.
            and part.started_at < coalesce(departed.departed_at, 'infinity')
    ) as stay

),

stops as (

    select
        -- ids
        tenant_id,
        device_id,
        started_at,
        device_key,
        facility_id,

        -- attributes
        departed_at is null as is_open,

        -- measures
        extract(epoch from last_at - started_at)::double precision as duration_s,
        fix_count,
        mean_latitude_deg as latitude_deg,
        mean_longitude_deg as longitude_deg,

        -- timestamps
        last_at as ended_at,
        leg_date as stop_date,
        local_date,

        -- metadata
        newest_batch_id as _batch_id
    from stood
    where last_at - started_at >= interval '5 minutes'

)

select * from stops
