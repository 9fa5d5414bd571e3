-- Grain: one row per tenant, device_type and cost_date (UTC) on which something was logged or a work order was answered. Additive: every count and _usd column.
-- Incurred is what the log says, and downtime at the reviewed rate (decisions.maintenance_cost; without one downtime counts 0). Avoided is an estimate, doc
-- block avoided_usd: nobody sees the failure that did not come.
-- Depends on everything (a reviewed rate moves every day): refilled on the hourly call and after each decision.
{{
    config(
        materialized='refilled_table',
        indexes=[{'columns': ['tenant_id', 'device_type', 'cost_date'], 'unique': true}],
        trace={'fct_maintenance_event': {'cost_date': 'occurred_date'}},
        tags=['priorities', 'hourly'],
    )
}}

with

events as (

    select
        event.tenant_id,
        event.log_id,
        event.entry_source,
        event.maintenance_type,
        event.is_failure,
        event.occurred_date,
        event._batch_id,
        coalesce(version.device_type, 'unknown') as device_type,
        coalesce(event.cost_usd, 0)::numeric as work_usd,
        (coalesce(event.downtime_min, 0)::numeric / 60) * coalesce(rate.downtime_usd_per_h, 0)::numeric as downtime_usd
    from {{ ref('fct_maintenance_event') }} as event
    left join {{ ref('dim_device') }} as version
        on event.device_key = version.device_key
    left join {{ source('decisions', 'maintenance_cost') }} as rate
        on version.device_type = rate.device_type

),

judged as (

    select
        events.*,
        work_order.failure_probability::numeric * work_order.prevented_share::numeric * work_order.failure_usd::numeric as expected_usd,
        work_order.failure_usd::numeric as prevented_usd,
        work_order.work_usd::numeric as order_usd
    from events
    left join {{ source('decisions', 'work_order') }} as work_order
        on events.tenant_id = work_order.tenant_id
        and events.log_id = 'work_order_feedback:' || work_order.work_order_id

),

summed as (

    select
        -- ids
        tenant_id,

        -- attributes
        device_type,

        -- measures
        count(*) filter (where is_failure) as failure_count,
        coalesce(sum(work_usd + downtime_usd) filter (where maintenance_type in ('failure', 'repair')), 0)::double precision as failure_usd,
        count(*) filter (where entry_source = 'maintenance_log' and maintenance_type in ('service', 'inspection')) as planned_count,
        coalesce(
            sum(work_usd + downtime_usd) filter (where entry_source = 'maintenance_log' and maintenance_type in ('service', 'inspection')), 0
        )::double precision as planned_usd,
        coalesce(sum(work_usd + downtime_usd), 0)::double precision as incurred_usd,
        count(*) filter (where maintenance_type = 'prevented_failure') as prevented_count,
        count(*) filter (where entry_source = 'work_order_feedback' and maintenance_type = 'inspection') as false_alarm_count,
        coalesce(sum(order_usd), 0)::double precision as order_usd,
        coalesce(sum(expected_usd), 0)::double precision as avoided_usd,
        coalesce(sum(prevented_usd) filter (where maintenance_type = 'prevented_failure'), 0)::double precision as max_avoided_usd,

        -- timestamps
        occurred_date as cost_date,

        -- metadata
        max(_batch_id) as _batch_id
    from judged
    group by tenant_id, device_type, occurred_date

)

select * from summed
