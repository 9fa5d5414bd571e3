-- Grain: one row per tenant, facility, metric and 15 minutes (UTC) with at least one reading of the metric.
-- Additive: reading_count, sum_value, sum_squared_value (within a metric). Not additive: min_, max_value.
-- What days by local time are made of: every time zone of today is off UTC by a multiple of 15 minutes. Touched-bucket incremental: a changed
-- window of a device touches the window of its tenant.
{{ config(**rollup_config('fct_device_window_15min', {}, '', ['facility_id'])) }}

with

parts as (

    select
        *,
        coalesce(facility_id, 'unregistered') as place_id
    from {{ touched_rows(ref('fct_device_window_15min')) }}

),

grouped as (

    select
        tenant_id,
        place_id as facility_id,
        window_at,
        metric_code,
        {{ merged_measures() }},
        max(_batch_id) as _batch_id
    from parts
    group by tenant_id, place_id, window_at, metric_code

)

select * from grouped
