-- Grain: one row per tenant, facility, metric and day (UTC) with at least one reading of the metric.
-- Additive: reading_count, sum_value, sum_squared_value (within a metric). Not additive: avg_, min_, max_, stddev_value.
-- The sum of the facility's hours. Touched-bucket incremental: a changed hour touches its day.
{{
    config(**rollup_config(
        'fct_facility_window_1h', {'window_at': window_of('window_at', '1 day')}, completed_rollup(['facility_id', 'window_at']), ['facility_id']
    ))
}}

with

hours as (

    select
        *,
        {{ window_of('window_at', '1 day') }} as day_at
    from {{ touched_rows(ref('fct_facility_window_1h')) }}

),

grouped as (

    select
        tenant_id,
        facility_id,
        day_at as window_at,
        metric_code,
        {{ merged_measures() }},
        max(_batch_id) as _batch_id
    from hours
    group by tenant_id, facility_id, day_at, metric_code

),
{{ completed_rollup(['facility_id', 'window_at']) }}
