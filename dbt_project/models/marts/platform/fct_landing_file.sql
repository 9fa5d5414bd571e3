-- Grain: one row per file of the landing zone (address and content). Additive: every _count and size_bytes.
-- landed = accepted + quarantined + duplicate + corrected, as the file landed; replays do not change these counts.
-- quarantined + replay_quarantined = open + replayed + discarded, as it stands now.
-- A view over the ledger: always true, nothing to build.
{{ config(materialized='view', trace={'ops.file': {'file_id': 'file_id'}}) }}

with

ledger as (

    select *
    from {{ source('ops', 'file') }}
    where kind = 'arrival'

),

replays as (

    select
        file_id,
        sum(accepted)::bigint as accepted_count,
        coalesce(sum(quarantined) filter (where is_whole), 0)::bigint as new_quarantined_count
    from {{ source('ops', 'file_replay') }}
    group by file_id

),

quarantined as (

    select
        file_id,
        count(*) filter (where state = 'open') as open_count,
        count(*) filter (where state = 'replayed') as replayed_count,
        count(*) filter (where state = 'discarded') as discarded_count
    from {{ source('ops', 'quarantine') }}
    group by file_id

),

files as (

    select
        -- ids
        ledger.tenant_id,
        ledger.file_id,
        ledger.batch_id,

        -- attributes
        ledger.stream,
        ledger.address,
        ledger.file_format,
        ledger.mapping as mapping_name,
        ledger.contract_version,
        ledger.state as file_state,
        ledger.error as error_message,

        -- measures
        ledger.size_bytes,
        ledger.attempts as attempt_count,
        ledger.landed as landed_count,
        ledger.accepted as accepted_count,
        ledger.quarantined as quarantined_count,
        ledger.duplicate as duplicate_count,
        ledger.corrected as corrected_count,
        coalesce(replays.accepted_count, 0) as replay_accepted_count,
        coalesce(replays.new_quarantined_count, 0) as replay_quarantined_count,
        coalesce(quarantined.open_count, 0) as open_count,
        coalesce(quarantined.replayed_count, 0) as replayed_count,
        coalesce(quarantined.discarded_count, 0) as discarded_count,

        -- timestamps
        ledger.arrived_at,
        {{ date_of('ledger.arrived_at') }} as arrived_date,
        ledger.landed_at,
        ledger.first_event_at,
        ledger.last_event_at
    from ledger
    left join replays on ledger.file_id = replays.file_id
    left join quarantined on ledger.file_id = quarantined.file_id

)

select * from files
