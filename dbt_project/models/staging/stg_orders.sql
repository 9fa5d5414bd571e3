-- Grain: one row per order, as changed last. Nothing is filtered here, cancelled and returned orders included.
{{ config(materialized='view') }}

with

source as (

    select * from {{ source('raw', 'orders') }}

),

renamed as (

    select
        -- ids
        tenant_id,
        event_id,
        order_id,
        customer_id,
        product_id,

        -- attributes
        order_status,
        currency_code,
        channel_code,
        category_name,
        payment_method,

        -- measures
        item_count,
        gross_usd,
        discount_usd,
        tax_usd,
        net_usd,

        -- timestamps
        event_at,
        updated_at,

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
