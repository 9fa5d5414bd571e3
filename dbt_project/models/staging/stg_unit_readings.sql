-- Grain: one row per unit and cycle, the copy that arrived last. Nothing is filtered. Settings and sensors stand in _extra, under the names of their table.
{{ config(materialized='view') }}

with

source as (

    select * from {{ source('raw', 'unit_readings') }}

),

renamed as (

    select
        -- ids
        tenant_id,
        event_id,
        unit_id,

        -- attributes
        runs_to_failure,
        has_failed,

        -- measures
        cycle,
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
