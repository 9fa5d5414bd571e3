-- Grain: one row per tenant, stream and day (UTC) on which files arrived. Additive: every _count. Over several days recompute shares and score from the counts.
-- Formula of data_quality_score: doc block data_quality_score. Files that are still pending count from the moment they are landed.
-- A view over the ledger: always true, nothing to build.
{{ config(materialized='view', trace={'ops.file': {'stream': 'stream', 'arrived_date': date_of('arrived_at')}}) }}

with

files as (

    select *
    from {{ ref('fct_landing_file') }}
    where file_state not in ('pending', 'restored')

),

daily as (

    select
        tenant_id,
        stream,
        arrived_date,
        count(*) as file_count,
        -- the bytes of an expired file are gone; an error says that they could not be read when they were there
        count(*) filter (where file_state = 'landed' or (file_state in ('expiring', 'expired') and error_message is null)) as readable_file_count,
        count(*) filter (where file_state = 'failed') as failed_file_count,
        sum(landed_count)::bigint as landed_count,
        sum(accepted_count)::bigint as accepted_count,
        sum(quarantined_count)::bigint as quarantined_count,
        sum(duplicate_count)::bigint as duplicate_count,
        sum(corrected_count)::bigint as corrected_count,
        max(arrived_at) as last_arrived_at
    from files
    group by tenant_id, stream, arrived_date

),

shared as (

    select
        *,
        readable_file_count::double precision / file_count as readable_file_share,
        1 - quarantined_count::double precision / nullif(landed_count, 0) as valid_share,
        1 - duplicate_count::double precision / nullif(landed_count, 0) as unique_share
    from daily

),

scored as (

    select
        -- ids
        tenant_id,
        stream,
        arrived_date,

        -- measures
        100 * (
            0.7 * coalesce(valid_share, readable_file_share) + 0.1 * coalesce(unique_share, readable_file_share) + 0.2 * readable_file_share
        ) as data_quality_score,
        valid_share,
        unique_share,
        readable_file_share,
        file_count,
        readable_file_count,
        failed_file_count,
        landed_count,
        accepted_count,
        quarantined_count,
        duplicate_count,
        corrected_count,

        -- timestamps
        last_arrived_at
    from shared

)

select * from scored
