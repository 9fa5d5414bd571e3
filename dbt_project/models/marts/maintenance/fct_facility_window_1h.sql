-- Grain: one row per tenant, facility, metric and hour (UTC) with at least one reading of the metric.
-- Additive: reading_count, expected_reading_count, sum_value, sum_squared_value (within a metric). Not additive: avg_, min_, max_, stddev_value.
-- The sum of the facility's lines. Touched-bucket incremental: a changed hour of lines touches the same hour.
{{ config(**rollup_config('fct_line_window_1h', {}, completed_rollup(['facility_id', 'window_at'], true), ['facility_id'])) }}

with

grouped as (

    select
        tenant_id,
        facility_id,
        window_at,
        metric_code,
        {{ exact_sum('expected_reading_count') }} as expected_reading_count,
        {{ merged_measures() }},
        max(_batch_id) as _batch_id
    from {{ touched_rows(ref('fct_line_window_1h')) }}
    group by tenant_id, facility_id, window_at, metric_code

),
{{ completed_rollup(['facility_id', 'window_at'], true) }}
