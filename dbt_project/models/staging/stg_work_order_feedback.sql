-- Grain: one row per answer to a work order, the version written last. Nothing is filtered here.
{{ config(materialized='view') }}

with

source as (

    select * from {{ source('raw', 'work_order_feedback') }}

),

renamed as (

    select
        -- ids
        tenant_id,
        event_id,
        work_order_id,
        device_id,

        -- attributes
        verdict,
        component_code,
        why,

        -- timestamps
        event_at,
        updated_at,

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
