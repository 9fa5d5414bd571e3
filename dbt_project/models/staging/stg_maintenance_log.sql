-- Grain: one row per log entry, the version written last. Nothing is filtered here.
{{ config(materialized='view') }}

with

source as (

    select * from {{ source('raw', 'maintenance_log') }}

),

renamed as (

    select
        -- ids
        tenant_id,
        event_id,
        log_id,
        device_id,

        -- attributes
        maintenance_type,
        component_code,
        error_code,
        notes,

        -- measures
        downtime_min,
        cost_usd,

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
