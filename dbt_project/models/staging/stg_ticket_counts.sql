-- Grain: one row per point of sale and slot, as published last. Renamed and typed at landing; nothing is filtered here.
{{ config(materialized='view') }}

with

source as (

    select * from {{ source('raw', 'ticket_counts') }}

),

renamed as (

    select
        -- ids
        tenant_id,
        event_id,
        location_id,

        -- measures
        sold_count,
        redeemed_count,

        -- timestamps
        event_at,

        -- metadata
        _arrived_at,
        _known_at,
        _landed_at,
        _batch_id,
        _file_id,
        _row_number,
        _content_hash,
        _extra
    from source

)

select * from renamed
