-- Grain: one row per stream and day (UTC) on which space was measured. Bytes and rows of zone, raw and lake are additive over streams; those of marts are not,
-- because a mart that is made of several streams counts under each of them; nothing is additive over days. What concerns database and disk repeats on each row.
-- A view over the daily measurements of keep_house: nothing to build. Which mart is made of which stream is what the project's own graph says today.
{{ config(materialized='view', trace={'ops.file': {'stream': 'stream'}}) }}

with

measured as (

    select * from {{ source('ops', 'storage_snapshot') }}

),

lineage as (

    select distinct
        model,
        stream
    from (values {{ mart_lineage() }}) as listed (mart, model, stream)

),

marts as (

    -- The models on the way to a mart are part of what the mart costs.
    select
        measured.snapshot_date,
        lineage.stream,
        sum(measured.size_bytes)::bigint as mart_bytes,
        sum(measured.row_count)::bigint as mart_row_count
    from measured
    inner join lineage on measured.name = lineage.model
    where measured.store = 'model'
    group by measured.snapshot_date, lineage.stream

),

streams as (

    select
        snapshot_date,
        name as stream,
        sum(size_bytes) filter (where store = 'zone')::bigint as zone_bytes,
        sum(row_count) filter (where store = 'zone')::bigint as zone_row_count,
        sum(file_count) filter (where store = 'zone')::bigint as zone_file_count,
        sum(size_bytes) filter (where store = 'raw')::bigint as raw_bytes,
        sum(row_count) filter (where store = 'raw')::bigint as raw_row_count,
        sum(size_bytes) filter (where store = 'lake')::bigint as lake_bytes,
        sum(row_count) filter (where store = 'lake')::bigint as lake_row_count,
        sum(file_count) filter (where store = 'lake')::bigint as lake_file_count,
        sum(size_bytes)::bigint as stored_bytes,
        max(taken_at) as measured_at
    from measured
    where store in ('zone', 'raw', 'lake')
    group by snapshot_date, name

),

grown as (

    select
        *,
        snapshot_date - lag(snapshot_date) over (partition by stream order by snapshot_date) as day_count,
        stored_bytes - lag(stored_bytes) over (partition by stream order by snapshot_date) as growth_bytes
    from streams

),

whole as (

    select
        snapshot_date,
        max(size_bytes) filter (where store = 'database') as database_bytes,
        max(size_bytes) filter (where store = 'disk') as disk_bytes,
        max(free_bytes) as disk_free_bytes
    from measured
    where store in ('database', 'disk')
    group by snapshot_date

),

filled as (

    -- Over a week, so that one day of an import or of a vacuum does not decide. Where the disk was exchanged, the older measurements say nothing.
    select
        *,
        snapshot_date - first_value(snapshot_date) over week as day_count,
        first_value(disk_free_bytes) over week - disk_free_bytes as filled_bytes
    from whole
    window week as (partition by disk_bytes order by snapshot_date range between interval '7 days' preceding and current row)

),

reported as (

    select
        -- ids
        grown.snapshot_date,
        grown.stream,

        -- measures
        grown.zone_bytes,
        grown.zone_row_count,
        grown.zone_file_count,
        grown.raw_bytes,
        grown.raw_row_count,
        grown.lake_bytes,
        grown.lake_row_count,
        grown.lake_file_count,
        coalesce(marts.mart_bytes, 0) as mart_bytes,
        coalesce(marts.mart_row_count, 0) as mart_row_count,
        grown.stored_bytes,
        grown.growth_bytes::double precision / grown.day_count as growth_bytes_per_day,
        filled.database_bytes,
        filled.disk_bytes,
        filled.disk_free_bytes,
        filled.filled_bytes::double precision / nullif(filled.day_count, 0) as disk_growth_bytes_per_day,
        case
            when filled.filled_bytes > 0 then filled.disk_free_bytes::double precision * filled.day_count / filled.filled_bytes
        end as days_until_full,

        -- timestamps
        grown.measured_at
    from grown
    left join marts on grown.snapshot_date = marts.snapshot_date and grown.stream = marts.stream
    left join filled on grown.snapshot_date = filled.snapshot_date

)

select * from reported
