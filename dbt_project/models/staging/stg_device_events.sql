-- Grain: one row per device, time, type and code of event, the first among its copies. Nothing is filtered here; who did it is a pseudonym.
{{ config(materialized='view') }}

with

source as (

    select * from {{ source('raw', 'device_events') }}

),

renamed as (

    select
        -- ids
        tenant_id,
        event_id,
        device_id,
        actor_id_pseudonym,

        -- attributes
        device_type,
        event_type,
        event_code,
        previous_state,
        severity_code,

        -- measures
        temperature_c,
        load_pct,
        setpoint_c,

        -- timestamps
        event_at,

        -- metadata
        _arrived_at,
        _known_at,
        _landed_at,
        _batch_id,
        _file_id,
        _row_number
    from source

)

select * from renamed
