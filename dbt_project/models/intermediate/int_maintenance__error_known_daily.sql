-- Grain: one row per tenant, machine, error code, day of the error event and day on which it was known (both UTC). Machines only (device type
-- machine_controller). Additive: error_event_count. Lets a feature of day D be counted from exactly the errors that were known by the end of D.
-- Errors here are events of device_events (it began to show an error); the error codes that readings carry are in int_maintenance__reading_known_daily.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'event_date'],
        event_time='event_date',
        inputs={'stg_device_events': {'event_date': date_of('event_at')}},
        indexes=[
            {'columns': ['tenant_id', 'device_id', 'event_date', 'known_date', 'error_code'], 'unique': true},
            {'columns': ['tenant_id', 'device_id', 'usable_date']},
            {'columns': ['tenant_id', 'event_date']},
        ],
        tags=['micro_batch', 'features'],
    )
}}

with

errors as (

    select
        *,
        {{ date_of('event_at') }} as event_date,
        {{ date_of('_known_at') }} as known_date
    from {{ touched_rows(ref('stg_device_events')) }}
    where event_type = 'error' and device_type = 'machine_controller'

),

counted as (

    select
        -- ids
        tenant_id,
        device_id,
        event_code as error_code,
        event_date,
        known_date,
        greatest(event_date, known_date) as usable_date,

        -- measures
        count(*) as error_event_count,

        -- timestamps
        max(event_at) as last_error_at,

        -- metadata
        max(_batch_id) as _batch_id
    from errors
    group by tenant_id, device_id, event_code, event_date, known_date

)

select * from counted
