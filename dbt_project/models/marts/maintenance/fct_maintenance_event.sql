-- Grain: one row per tenant and log entry. Additive: downtime_min, cost_usd. The crew's free text stays in staging: it may name people.
-- Touched-bucket incremental: a log entry touches the day of its device on which it happened (and the day it was moved from); a changed registry touches every
-- day of the device that has entries, because it decides which version of the device the entry belongs to.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'occurred_date'],
        event_time='occurred_date',
        inputs={
            'stg_maintenance_log': {'occurred_date': date_of('event_at')},
            'dim_device': {
                'select': "
                    select stored.tenant_id, stored.device_id, stored.occurred_date
                    from {changes} as changed
                    inner join {this} as stored on stored.tenant_id = changed.tenant_id and stored.device_id = changed.device_id
                ",
            },
        },
        indexes=[{'columns': ['tenant_id', 'log_id'], 'unique': true}, {'columns': ['tenant_id', 'device_id', 'occurred_date']}],
        tags=['micro_batch'],
    )
}}

with

entries as (

    select * from {{ touched_rows(ref('stg_maintenance_log')) }}

),

events as (

    select
        -- ids
        entries.tenant_id,
        entries.log_id,
        entries.device_id,
        version.device_key,

        -- attributes
        entries.maintenance_type,
        entries.component_code,
        entries.error_code,
        entries.maintenance_type = 'failure' as is_failure,
        entries.maintenance_type in ('repair', 'service') as is_maintenance,

        -- measures
        entries.downtime_min,
        entries.cost_usd,

        -- timestamps
        entries.event_at as occurred_at,
        {{ date_of('entries.event_at') }} as occurred_date,
        entries.updated_at,
        entries._known_at as known_at,

        -- metadata
        entries._batch_id
    from entries
    left join {{ ref('dim_device') }} as version
        on entries.tenant_id = version.tenant_id
        and entries.device_id = version.device_id
        and entries.event_at >= version.valid_from_at
        and (version.valid_to_at is null or entries.event_at < version.valid_to_at)

)

select * from events
