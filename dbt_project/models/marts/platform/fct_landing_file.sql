-- Grain: one row per file of the landing zone (address and content). Additive: every _count and size_bytes.
-- landed = accepted + quarantined + duplicate + corrected.
-- A view over the ledger: always true, nothing to build.
{{ config(materialized='view', trace={'ops.file': {'file_id': 'file_id'}}) }}

with

ledger as (

    select * from {{ source('ops', 'file') }}

),

files as (

    select
        -- ids
        tenant_id,
        file_id,
        batch_id,

        -- attributes
        stream,
        address,
        file_format,
        mapping as mapping_name,
        contract_version,
        state as file_state,
        error as error_message,

        -- measures
        size_bytes,
        attempts as attempt_count,
        landed as landed_count,
        accepted as accepted_count,
        quarantined as quarantined_count,
        duplicate as duplicate_count,
        corrected as corrected_count,

        -- timestamps
        arrived_at,
        {{ date_of('arrived_at') }} as arrived_date,
        landed_at,
        first_event_at,
        last_event_at
    from ledger

)

select * from files
