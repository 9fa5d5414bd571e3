-- Grain: one row per tenant, device and version of what the device is meant to be (type 2), from valid_from_at (inclusive) to valid_to_at (exclusive).
-- A version is complete: what it leaves out is not asked for.
-- Touched-bucket incremental: a device is recomputed whole, because a version inserted between two old ones also ends the one before it.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id'],
        event_time='valid_from_at',
        inputs={'stg_device_desired_state': {}},
        indexes=[{'columns': ['tenant_id', 'device_id', 'valid_from_at'], 'unique': true}],
        tags=['micro_batch'],
    )
}}

with

versions as (

    select * from {{ touched_rows(ref('stg_device_desired_state')) }}

),

followed as (

    select
        *,
        lead(event_at) over device_versions as valid_to_at,
        lag(target_firmware_version) over device_versions as previous_firmware_version,
        lag(target_reporting_interval_s) over device_versions as previous_reporting_interval_s,
        lag(target_setpoint_c) over device_versions as previous_setpoint_c
    from versions
    window device_versions as (partition by tenant_id, device_id order by event_at)

),

compared as (

    -- A target that a version repeats has been asked for since the first that named it.
    select
        *,
        case when (target_firmware_version is distinct from previous_firmware_version) then event_at end as firmware_changed_at,
        case when (target_reporting_interval_s is distinct from previous_reporting_interval_s) then event_at end as interval_changed_at,
        case when (target_setpoint_c is distinct from previous_setpoint_c) then event_at end as setpoint_changed_at
    from followed

),

dated as (

    select
        -- ids
        tenant_id,
        device_id,

        -- attributes
        target_firmware_version,
        valid_to_at is null as is_current,

        -- measures
        target_reporting_interval_s,
        target_setpoint_c,

        -- timestamps
        event_at as valid_from_at,
        valid_to_at,
        case when target_firmware_version is not null then max(firmware_changed_at) over so_far end as firmware_target_since_at,
        case when target_reporting_interval_s is not null then max(interval_changed_at) over so_far end as interval_target_since_at,
        case when target_setpoint_c is not null then max(setpoint_changed_at) over so_far end as setpoint_target_since_at,
        updated_at,

        -- metadata
        _batch_id
    from compared
    window so_far as (partition by tenant_id, device_id order by event_at rows between unbounded preceding and current row)

)

select * from dated
