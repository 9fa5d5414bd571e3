-- Grain: one row per tenant and customer, the newest version (type 1). Holds no clear personal data, and no pseudonym of a field with few values
-- (gender, year of birth): who knows the frequencies would read those.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'customer_id'],
        event_time='updated_at',
        inputs={'stg_customers': {}},
        indexes=[{'columns': ['tenant_id', 'customer_id'], 'unique': true}],
        tags=['micro_batch'],
    )
}}

with

versions as (

    select * from {{ touched_rows(ref('stg_customers')) }}

),

ranked as (

    select
        *,
        row_number() over (partition by tenant_id, customer_id order by event_at desc, event_id desc) as nth_newest,
        count(*) over (partition by tenant_id, customer_id) as version_count,
        min(registered_at) over (partition by tenant_id, customer_id) as first_registered_at,
        max(_batch_id) over (partition by tenant_id, customer_id) as newest_batch_id
    from versions

),

newest as (

    select
        -- ids
        {{ stable_key(['tenant_id', 'customer_id']) }} as customer_key,
        tenant_id,
        customer_id,
        full_name_pseudonym,
        email_pseudonym,
        phone_pseudonym,

        -- attributes
        country_code,
        city_name,
        income_level,
        is_loyalty_member,
        has_marketing_consent,

        -- measures
        version_count,

        -- timestamps
        first_registered_at as registered_at,
        event_at as updated_at,

        -- metadata
        newest_batch_id as _batch_id
    from ranked
    where nth_newest = 1

)

select * from newest
