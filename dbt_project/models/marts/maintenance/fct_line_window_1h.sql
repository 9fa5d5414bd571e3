-- Grain: one row per tenant, facility, line, metric and hour (UTC) with at least one reading of the metric.
-- Additive: reading_count, expected_reading_count, sum_value, sum_squared_value (within a metric). Not additive: avg_, min_, max_, stddev_value.
-- The sum of the hours of the line's devices, at the place of then. Touched-bucket incremental: a changed hour of a device touches the hour of its tenant.
{{ config(**rollup_config('fct_device_window_1h', {}, completed_rollup(['facility_id', 'line_id', 'window_at'], true), ['facility_id', 'line_id'])) }}

with

parts as (

    select
        *,
        coalesce(facility_id, 'unregistered') as place_id,
        coalesce(line_id, 'none') as place_line_id
    from {{ touched_rows(ref('fct_device_window_1h')) }}

),

grouped as (

    select
        tenant_id,
        place_id as facility_id,
        place_line_id as line_id,
        window_at,
        metric_code,
        {{ exact_sum('expected_reading_count') }} as expected_reading_count,
        {{ merged_measures() }},
        max(_batch_id) as _batch_id
    from parts
    group by tenant_id, place_id, place_line_id, window_at, metric_code

),
{{ completed_rollup(['facility_id', 'line_id', 'window_at'], true) }}
