-- Grain: one row per tenant and work order that is worth its cost on the newest planned day of the tenant. Additive: waiting_usd, acting_usd, benefit_usd.
-- The decision is made in ml/decisions/work_orders.py; here it is joined with what the crew answered. State proposed: within what the crew can do that day.
-- Depends on everything (orders are ranked against each other): refilled on the hourly call and after each decision. Time is data time.
{{
    config(
        materialized='refilled_table',
        indexes=[{'columns': ['tenant_id', 'work_order_id'], 'unique': true}],
        trace={
            'predictions.device_failure': {
                'device_id': 'device_id',
                'prediction_date': 'feature_date',
                'model_name': 'model_name',
                'model_version': 'model_version',
            },
        },
        tags=['priorities', 'hourly'],
    )
}}

-- The table has a row a machine and day for ever: tenants and their newest days are looked up in its index, one after the other.
with recursive

tenants as (

    select min(tenant_id) as tenant_id
    from {{ source('decisions', 'work_order') }}
    union all
    select (
        select min(next_order.tenant_id)
        from {{ source('decisions', 'work_order') }} as next_order
        where next_order.tenant_id > tenants.tenant_id
    ) as tenant_id
    from tenants
    where tenants.tenant_id is not null

),

newest_days as (

    select
        tenants.tenant_id,
        (
            select max(of_tenant.planned_date)
            from {{ source('decisions', 'work_order') }} as of_tenant
            where of_tenant.tenant_id = tenants.tenant_id
        ) as planned_date
    from tenants

),

orders as (

    select work_order.*
    from newest_days
    inner join {{ source('decisions', 'work_order') }} as work_order
        on newest_days.tenant_id = work_order.tenant_id
        and newest_days.planned_date = work_order.planned_date

),

answers as (

    select
        tenant_id,
        log_id,
        maintenance_type,
        occurred_at,
        _batch_id
    from {{ ref('fct_maintenance_event') }}
    where entry_source = 'work_order_feedback'

),

scheduled as (

    select
        -- ids
        orders.tenant_id,
        orders.work_order_id,
        orders.device_id,
        orders.facility_id,

        -- attributes
        orders.device_type,
        orders.component_code,
        orders.state,
        orders.reasons,
        case answers.maintenance_type when 'prevented_failure' then 'done' when 'inspection' then 'false_alarm' end as verdict,
        orders.model_name,
        orders.model_version,

        -- measures
        orders.benefit_rank,
        orders.failure_probability,
        orders.waiting_usd,
        orders.acting_usd,
        orders.benefit_usd,
        orders.remaining_life_p05_d,
        orders.remaining_life_p50_d,
        orders.remaining_life_p95_d,

        -- timestamps
        orders.planned_date,
        orders.prediction_date,
        answers.occurred_at as answered_at,

        -- metadata
        answers._batch_id
    from orders
    left join answers
        on orders.tenant_id = answers.tenant_id
        and 'work_order_feedback:' || orders.work_order_id = answers.log_id
    where orders.state in ('proposed', 'over_capacity')

)

select * from scheduled
