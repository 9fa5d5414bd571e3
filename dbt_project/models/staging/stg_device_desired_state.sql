-- Grain: one row per device and start of validity, the version written last. Nothing is filtered here.
{{ config(materialized='view') }}

with

source as (

    select * from {{ source('raw', 'device_desired_state') }}

),

renamed as (

    select
        -- ids
        tenant_id,
        event_id,
        device_id,

        -- attributes
        target_firmware_version,

        -- measures
        target_reporting_interval_s,
        target_setpoint_c,

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
