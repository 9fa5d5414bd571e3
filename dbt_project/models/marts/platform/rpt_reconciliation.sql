-- Grain: one row per file of the landing zone (address and content). Additive: every _count of the file; those of its batch repeat on each of its files.
-- is_balanced: every row the file brought is counted once; the quarantine holds as many as the ledger says; the batch that landed it adds up over its files,
-- and its movements put as many rows into raw as it accepted. Whether raw still holds them is what the comparison of partitions says (ops.partition_check).
-- A view over the ledger: always true, nothing to build.
{{ config(materialized='view', trace={'ops.file': {'file_id': 'file_id'}}) }}

with

files as (

    select * from {{ ref('fct_landing_file') }}

),

batch_files as (

    select
        batch_id,
        sum(landed_count) as landed_count,
        sum(accepted_count) as accepted_count
    from files
    group by batch_id

),

moved as (

    -- A corrected row comes and leaves within its batch. One that loses its place to an earlier arrival leaves under the batch that had counted it.
    select
        batch_id,
        sum(row_count) as row_count
    from {{ source('ops', 'movement') }}
    where reason in ('load', 'correction')
    group by batch_id

),

batches as (

    select
        batch.batch_id,
        batch.accepted as accepted_count,
        coalesce(moved.row_count, 0)::bigint as moved_count,
        batch.landed = batch_files.landed_count and batch.accepted = batch_files.accepted_count as is_sum_of_files
    from {{ source('ops', 'batch') }} as batch
    inner join batch_files on batch.batch_id = batch_files.batch_id
    left join moved on batch.batch_id = moved.batch_id

),

compared as (

    select
        -- ids
        files.tenant_id,
        files.file_id,
        files.batch_id,

        -- attributes
        files.stream,
        files.address,
        files.file_state,
        files.landed_count = files.accepted_count + files.quarantined_count + files.duplicate_count + files.corrected_count as is_every_row_counted,
        files.quarantined_count + files.replay_quarantined_count
        = files.open_count + files.replayed_count + files.discarded_count as is_quarantine_complete,
        files.batch_id is null
        or coalesce(batches.is_sum_of_files and batches.moved_count = batches.accepted_count, false) as is_batch_balanced,

        -- measures
        files.landed_count,
        files.accepted_count,
        files.quarantined_count,
        files.duplicate_count,
        files.corrected_count,
        files.open_count + files.replayed_count + files.discarded_count as quarantine_row_count,
        batches.accepted_count as batch_accepted_count,
        batches.moved_count as batch_moved_count,

        -- timestamps
        files.arrived_at,
        files.landed_at
    from files
    left join batches on files.batch_id = batches.batch_id

),

judged as (

    select
        tenant_id,
        file_id,
        batch_id,
        stream,
        address,
        file_state,
        is_every_row_counted and is_quarantine_complete and is_batch_balanced as is_balanced,
        is_every_row_counted,
        is_quarantine_complete,
        is_batch_balanced,
        landed_count,
        accepted_count,
        quarantined_count,
        duplicate_count,
        corrected_count,
        quarantine_row_count,
        batch_accepted_count,
        batch_moved_count,
        arrived_at,
        landed_at
    from compared

)

select * from judged
