-- Grain: one row per device and start of validity, the version written last. Nothing is filtered here.
{{ config(materialized='view') }}

with

source as (

    select * from {{ source('raw', 'device_registry') }}

),

renamed as (

    select
        -- ids
        tenant_id,
        event_id,
        device_id,
        facility_id,
        line_id,
        station_id,

        -- attributes
        device_type,
        model_name,
        manufacturer_name,
        registry_status,
        firmware_version,
        time_zone_name,

        -- measures
        reporting_interval_s,
        maintenance_interval_days,
        rated_power_kw,
        latitude_deg,
        longitude_deg,

        -- timestamps
        event_at,
        updated_at,
        installed_at,

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
