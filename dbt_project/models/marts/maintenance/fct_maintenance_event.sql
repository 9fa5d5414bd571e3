-- Grain: one row per tenant and entry: of the maintenance log, or the crew's answer to a proposed work order. Additive: downtime_min, cost_usd (of an answer
-- they stand in the log). The crew's free text stays in staging: it may name people.
-- Touched-bucket incremental: an entry touches the day of its device on which it happened (and the day it was moved from); a changed registry touches the
-- days whose entries belong to another version of the device now (found by comparing; nothing else).
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'occurred_date'],
        event_time='occurred_date',
        inputs={
            'stg_maintenance_log': {'occurred_date': date_of('event_at')},
            'stg_work_order_feedback': {'occurred_date': date_of('event_at')},
            'dim_device': {
                'select': "
                    select stored.tenant_id, stored.device_id, stored.occurred_date
                    from {changes} as changed
                    inner join {this} as stored on stored.tenant_id = changed.tenant_id and stored.device_id = changed.device_id
                    left join {input} as version
                        on version.tenant_id = stored.tenant_id
                        and version.device_id = stored.device_id
                        and stored.occurred_at >= version.valid_from_at
                        and (version.valid_to_at is null or stored.occurred_at < version.valid_to_at)
                    where stored.device_key is distinct from version.device_key
                ",
            },
        },
        indexes=[{'columns': ['tenant_id', 'log_id'], 'unique': true}, {'columns': ['tenant_id', 'device_id', 'occurred_date']}],
        tags=['micro_batch'],
    )
}}

with

entries as (

    select
        tenant_id,
        log_id,
        device_id,
        'maintenance_log' as entry_source,
        maintenance_type,
        component_code,
        error_code,
        downtime_min,
        cost_usd,
        event_at,
        updated_at,
        _known_at,
        _batch_id
    from {{ touched_rows(ref('stg_maintenance_log')) }}
    union all
    -- A fault that the crew found and mended would have become a failure: for those who learn from outcomes it counts as one. A false alarm was a look.
    select
        tenant_id,
        'work_order_feedback:' || work_order_id as log_id,
        device_id,
        'work_order_feedback' as entry_source,
        case when verdict = 'done' then 'prevented_failure' else 'inspection' end as maintenance_type,
        component_code,
        null as error_code,
        null::double precision as downtime_min,
        null::double precision as cost_usd,
        event_at,
        updated_at,
        _known_at,
        _batch_id
    from {{ touched_rows(ref('stg_work_order_feedback')) }}

),

events as (

    select
        -- ids
        entries.tenant_id,
        entries.log_id,
        entries.device_id,
        version.device_key,

        -- attributes
        entries.entry_source,
        entries.maintenance_type,
        entries.component_code,
        entries.error_code,
        entries.maintenance_type = 'failure' as is_failure,
        entries.maintenance_type in ('repair', 'service', 'prevented_failure') as is_maintenance,

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
