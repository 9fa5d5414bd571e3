-- Grain: one row per tracker and time of the fix, the first among its copies. Nothing is filtered here.
{{ config(materialized='view') }}

with

source as (

    select * from {{ source('raw', 'gps_positions') }}

),

renamed as (

    select
        -- ids
        tenant_id,
        event_id,
        device_id,

        -- measures
        latitude_deg,
        longitude_deg,
        speed_km_h,
        heading_deg,
        accuracy_m,
        satellite_count,

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
