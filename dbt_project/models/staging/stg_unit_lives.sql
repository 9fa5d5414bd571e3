-- Grain: one row per unit, the copy that arrived last. Nothing is filtered here.
{{ config(materialized='view') }}

with

source as (

    select * from {{ source('raw', 'unit_lives') }}

),

renamed as (

    select
        -- ids
        tenant_id,
        event_id,
        unit_id,

        -- measures
        remaining_cycles,

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
