-- Grain: one row per tenant, stream, day (UTC) on which files arrived, and error code. Additive over days and streams, not over codes: a row may have several.
-- Over several days recompute the share from the counts. all_quarantined_count and landed_count are those of the whole day, repeated on each of its rows.
-- A view over the quarantine and the ledger: always true, nothing to build. Reads neither originals nor errors, which may hold personal data.
{{ config(materialized='view', trace={'ops.file': {'stream': 'stream', 'arrived_date': date_of('arrived_at')}}) }}

with

quarantine as (

    select
        file_id,
        codes,
        state,
        quarantined_at
    from {{ source('ops', 'quarantine') }}

),

files as (

    select
        tenant_id,
        stream,
        file_id,
        {{ date_of('arrived_at') }} as arrived_date,
        landed
    from {{ source('ops', 'file') }}
    where kind = 'arrival'

),

read_after_all as (

    select
        file_id,
        sum(landed) as landed
    from {{ source('ops', 'file_replay') }}
    where is_whole
    group by file_id

),

landed as (

    select
        files.tenant_id,
        files.stream,
        files.arrived_date,
        sum(files.landed + coalesce(read_after_all.landed, 0))::bigint as landed_count
    from files
    left join read_after_all on files.file_id = read_after_all.file_id
    group by files.tenant_id, files.stream, files.arrived_date

),

refused as (

    select
        files.tenant_id,
        files.stream,
        files.arrived_date,
        quarantine.codes,
        quarantine.state,
        quarantine.quarantined_at
    from quarantine
    inner join files on quarantine.file_id = files.file_id

),

daily as (

    select
        tenant_id,
        stream,
        arrived_date,
        count(*) as all_quarantined_count
    from refused
    group by tenant_id, stream, arrived_date

),

reasons as (

    select
        refused.tenant_id,
        refused.stream,
        refused.arrived_date,
        reason.code as error_code,
        count(*) as quarantined_count,
        count(*) filter (where refused.state = 'open') as open_count,
        count(*) filter (where refused.state = 'replayed') as replayed_count,
        count(*) filter (where refused.state = 'discarded') as discarded_count,
        max(refused.quarantined_at) as last_quarantined_at
    from refused
    cross join unnest(refused.codes) as reason (code)
    group by refused.tenant_id, refused.stream, refused.arrived_date, reason.code

),

ranked as (

    select
        -- ids
        reasons.tenant_id,
        reasons.stream,
        reasons.arrived_date,
        reasons.error_code,

        -- measures
        row_number() over (
            partition by reasons.tenant_id, reasons.stream, reasons.arrived_date
            order by reasons.quarantined_count desc, reasons.error_code asc
        ) as reason_rank,
        reasons.quarantined_count,
        reasons.open_count,
        reasons.replayed_count,
        reasons.discarded_count,
        daily.all_quarantined_count,
        landed.landed_count,
        reasons.quarantined_count::double precision / landed.landed_count as quarantined_share,

        -- timestamps
        reasons.last_quarantined_at
    from reasons
    inner join daily on reasons.tenant_id = daily.tenant_id and reasons.stream = daily.stream and reasons.arrived_date = daily.arrived_date
    inner join landed on reasons.tenant_id = landed.tenant_id and reasons.stream = landed.stream and reasons.arrived_date = landed.arrived_date

)

select * from ranked
