-- Grain: one row per tenant, facility, metric and day by the facility's own clock with at least one reading of the metric. A facility without a known time zone
-- counts in UTC. The day on which clocks change has 23 or 25 hours.
-- Additive: reading_count, sum_value, sum_squared_value (within a metric). Not additive: avg_, min_, max_, stddev_value.
-- The sum of the facility's windows of 15 minutes. Touched-bucket incremental: a changed window touches the days that it lies on in any zone of the tenant's
-- facilities; a facility whose zone changed touches its stored days and the two on each side, which is as far as two zones are apart.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'local_date'],
        event_time='local_date',
        inputs={
            'int_maintenance__facility_window_15min': {
                'select': "
                    select changed.tenant_id, " ~ date_of('(changed.window_at + step.shift)') ~ " as local_date
                    from {changes} as changed
                    cross join (values (interval '-12 hours'), (interval '0 hours'), (interval '14 hours')) as step (shift)
                ",
            },
            'dim_facility': {
                'select': "
                    select distinct stored.tenant_id, stored.local_date + step.days as local_date
                    from {changes} as changed
                    inner join {this} as stored on stored.tenant_id = changed.tenant_id
                    left join {input} as facility on stored.tenant_id = facility.tenant_id and stored.facility_id = facility.facility_id
                    cross join (values (-2), (-1), (0), (1), (2)) as step (days)
                    where stored.time_zone_name <> coalesce(facility.time_zone_name, 'UTC')
                ",
            },
        },
        definition=definition_of(merged_measures() ~ completed_rollup(['facility_id', 'local_date', 'time_zone_name'])),
        indexes=[{'columns': ['tenant_id', 'local_date', 'facility_id', 'metric_code'], 'unique': true}],
        tags=['micro_batch', 'windows'],
    )
}}

with

-- Materialized: else the planner, which thinks that the range of time holds next to nothing, pairs every window with every touched day first.
windows as materialized (

    select
        part.*,
        coalesce(facility.time_zone_name, 'UTC') as time_zone_name,
        {{ local_date_of('part.window_at', "coalesce(facility.time_zone_name, 'UTC')") }} as local_date
    from {{ ref('int_maintenance__facility_window_15min') }} as part
    left join {{ ref('dim_facility') }} as facility
        on part.tenant_id = facility.tenant_id
        and part.facility_id = facility.facility_id
    where {{ lies_near_touched_dates('part.window_at', 'local_date') }}

),

grouped as (

    select
        tenant_id,
        facility_id,
        local_date,
        time_zone_name,
        metric_code,
        {{ merged_measures() }},
        max(_batch_id) as _batch_id
    from windows
    where {{ is_touched({'tenant_id': 'windows.tenant_id', 'local_date': 'windows.local_date'}) }}
    group by tenant_id, facility_id, local_date, time_zone_name, metric_code

),
{{ completed_rollup(['facility_id', 'local_date', 'time_zone_name']) }}
