-- Grain: one row per tenant and customer with at least one sale (an order neither cancelled nor returned). Additive: sale_count, net_usd.
-- Formula of customer_value_score: doc block customer_value_score. Time is data time: as_of_at is the tenant's newest order.
-- Depends on everything (one more order can move every customer's rank): refilled on the hourly call.
{{
    config(
        materialized='refilled_table',
        indexes=[{'columns': ['tenant_id', 'customer_id'], 'unique': true}],
        trace={'fct_order': {'customer_id': 'customer_id'}},
        tags=['hourly'],
    )
}}

with

orders as (

    select
        *,
        max(ordered_at) over (partition by tenant_id) as as_of_at
    from {{ ref('fct_order') }}

),

customers as (

    select
        tenant_id,
        customer_id,
        max(as_of_at) as as_of_at,
        min(ordered_at) as first_sale_at,
        max(ordered_at) as last_sale_at,
        count(*) as sale_count,
        {{ exact_sum('net_usd') }} as net_usd,
        max(_batch_id) as _batch_id
    from orders
    where is_sale
    group by tenant_id, customer_id

),

ranked as (

    select
        *,
        percent_rank() over (partition by tenant_id order by last_sale_at) as recency_rank,
        percent_rank() over (partition by tenant_id order by sale_count) as frequency_rank,
        percent_rank() over (partition by tenant_id order by net_usd) as monetary_rank
    from customers

),

scored as (

    select
        *,
        (0.3 * recency_rank::numeric + 0.3 * frequency_rank::numeric + 0.4 * monetary_rank::numeric)::double precision as customer_value_score
    from ranked

),

placed as (

    -- Every customer has a place of its own, equal scores included, so the share is met and does not depend on the order of rows.
    select
        *,
        row_number() over (partition by tenant_id order by customer_value_score desc, net_usd desc, customer_id asc) as value_rank,
        count(*) over (partition by tenant_id) as customer_count
    from scored

),

flagged as (

    select
        -- ids
        tenant_id,
        customer_id,

        -- attributes
        value_rank <= ceil({{ var('high_value_share') }}::numeric * customer_count) as is_high_value,

        -- measures
        customer_value_score,
        value_rank,
        sale_count,
        net_usd,
        ({{ date_of('as_of_at') }} - {{ date_of('last_sale_at') }}) as days_since_sale,
        recency_rank,
        frequency_rank,
        monetary_rank,

        -- timestamps
        first_sale_at,
        last_sale_at,
        as_of_at,

        -- metadata
        _batch_id
    from placed

)

select * from flagged
