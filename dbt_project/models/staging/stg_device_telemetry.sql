-- Grain: one row per reading (tenant, device, reading time), the winner among its copies. Renamed and typed at landing; nothing is filtered here.
{{ config(materialized='view') }}

with

source as (

    select * from {{ source('raw', 'device_telemetry') }}

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
        error_code,
        machine_status,
        firmware_version,
        quality_status,

        -- measures
        latitude_deg,
        longitude_deg,
        temperature_c,
        humidity_pct,
        pressure_hpa,
        dew_point_c,
        vibration_x_mm_s,
        vibration_y_mm_s,
        vibration_z_mm_s,
        energy_kwh,
        load_pct,
        runtime_h,
        battery_pct,
        signal_strength_dbm,
        accuracy_pct,

        -- timestamps
        event_at,
        last_maintenance_at,
        calibrated_at,

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
