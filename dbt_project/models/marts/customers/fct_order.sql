-- Grain: one row per tenant and order, as changed last. Additive over orders with is_sale: every _usd and item_count.
-- net_usd = gross_usd - discount_usd + tax_usd.
-- Touched-bucket incremental: an order is recomputed when a copy of it won over the stored one.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'order_id'],
        event_time='order_date',
        inputs={'stg_orders': {}},
        indexes=[
            {'columns': ['tenant_id', 'order_id'], 'unique': true},
            {'columns': ['tenant_id', 'customer_id']},
            {'columns': ['order_date']},
        ],
        tags=['micro_batch'],
    )
}}

with

orders as (

    select * from {{ touched_rows(ref('stg_orders')) }}

),

sales as (

    select
        -- ids
        tenant_id,
        order_id,
        customer_id,
        product_id,

        -- attributes
        order_status,
        order_status not in ('cancelled', 'returned') as is_sale,
        currency_code,
        channel_code,
        category_name,
        payment_method,

        -- measures
        item_count,
        gross_usd,
        coalesce(discount_usd, 0) as discount_usd,
        coalesce(tax_usd, 0) as tax_usd,
        net_usd,

        -- timestamps
        event_at as ordered_at,
        {{ date_of('event_at') }} as order_date,
        updated_at,

        -- metadata
        _batch_id
    from orders

)

select * from sales
