-- Grain: one row per customer and version. Personal fields appear as keyed pseudonyms only. `_extra` (fields that no contract has classified)
-- and `_content_hash` (an unkeyed hash over the clear row, open to guessing) stay in raw: both could give a person away.
{{ config(materialized='view') }}

with

source as (

    select * from {{ source('raw', 'customers') }}

),

renamed as (

    select
        -- ids
        tenant_id,
        event_id,
        customer_id,
        full_name_pseudonym,
        email_pseudonym,
        phone_pseudonym,
        birth_year_pseudonym,
        gender_code_pseudonym,

        -- attributes
        country_code,
        city_name,
        income_level,
        is_loyalty_member,
        has_marketing_consent,

        -- timestamps
        event_at,
        registered_at,

        -- metadata
        _arrived_at,
        _known_at,
        _landed_at,
        _batch_id,
        _file_id,
        _row_number
    from source

)

select * from renamed
