-- Grain: one row per tenant (data set), unit and feature_date (UTC): the last cycle that the unit made on the day. Not additive.
-- Settings and sensors of any table, under their own names, in one column of values: the value of the row, and what the unit's own past makes of it (doc block
-- unit_values). A row holds only what the unit went through up to it: in the order of time, and of cycles where that is the same. Corrected rows replace what
-- was known: such tables are finished histories.
-- Touched-bucket incremental: a changed row moves everything after it, so a unit is recomputed whole.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'unit_id'],
        inputs={'stg_unit_readings': {}},
        indexes=[{'columns': ['tenant_id', 'unit_id', 'feature_date'], 'unique': true}],
        tags=['micro_batch'],
    )
}}

with

readings as (

    select * from {{ touched_rows(ref('stg_unit_readings')) }}

),

names as (

    select
        readings.tenant_id,
        readings.unit_id,
        readings.cycle,
        readings.event_at,
        readings._extra,
        jsonb_object_keys(readings._extra) as value_name
    from readings

),

texts_by_name as (

    select
        tenant_id,
        unit_id,
        cycle,
        event_at,
        value_name,
        _extra ->> value_name as value_text
    from names

),

named as (

    select
        *,
        case when {{ is_number('value_text') }} then value_text::double precision end as value_number
    from texts_by_name
    where value_text is not null

),

numbered as (

    select
        named.*,
        row_number() over (partition by named.tenant_id, named.unit_id, named.value_name order by named.event_at, named.cycle) as value_position
    from named
    where named.value_number is not null

),

followed as (

    -- Means by numeric: they must not depend on the order of rows. Slopes are taken over a frame that is ordered.
    select
        numbered.*,
        (avg(numbered.value_number::numeric) over last_5)::double precision as mean_5,
        (avg(numbered.value_number::numeric) over last_20)::double precision as mean_20,
        regr_slope(numbered.value_number, numbered.cycle::double precision) over last_20 as trend_20,
        (avg(numbered.value_number::numeric) filter (where numbered.value_position <= 5) over so_far)::double precision as mean_of_first_5
    from numbered
    window
        so_far as (partition by numbered.tenant_id, numbered.unit_id, numbered.value_name order by numbered.event_at, numbered.cycle rows unbounded preceding),
        last_5 as (partition by numbered.tenant_id, numbered.unit_id, numbered.value_name order by numbered.event_at, numbered.cycle rows 4 preceding),
        last_20 as (partition by numbered.tenant_id, numbered.unit_id, numbered.value_name order by numbered.event_at, numbered.cycle rows 19 preceding)

),

numbers as (

    select
        tenant_id,
        unit_id,
        cycle,
        jsonb_object_agg(value_name, value_number) as unit_values,
        jsonb_object_agg(value_name || '_mean_5', mean_5)
        || jsonb_object_agg(value_name || '_mean_20', mean_20)
        || jsonb_object_agg(value_name || '_trend_20', trend_20)
        || jsonb_object_agg(value_name || '_change', mean_5 - mean_of_first_5) as derived_values
    from followed
    group by tenant_id, unit_id, cycle

),

texts as (

    select
        tenant_id,
        unit_id,
        cycle,
        jsonb_object_agg(value_name, value_text) as unit_values
    from named
    where value_number is null
    group by tenant_id, unit_id, cycle

),

days as (

    select distinct on (tenant_id, unit_id, {{ date_of('event_at') }})
        tenant_id,
        unit_id,
        {{ date_of('event_at') }} as feature_date,
        cycle,
        _batch_id
    from readings
    order by tenant_id asc, unit_id asc, {{ date_of('event_at') }} asc, event_at desc, cycle desc

),

featured as (

    select
        -- ids
        days.tenant_id,
        days.unit_id,
        days.feature_date,

        -- measures
        days.cycle,
        -- A column of the table that has the name of a derived value keeps it.
        coalesce(numbers.derived_values, '{}'::jsonb) || coalesce(texts.unit_values, '{}'::jsonb) || coalesce(numbers.unit_values, '{}'::jsonb)
            as unit_values,

        -- metadata
        days._batch_id
    from days
    left join numbers
        on days.tenant_id = numbers.tenant_id
        and days.unit_id = numbers.unit_id
        and days.cycle = numbers.cycle
    left join texts
        on days.tenant_id = texts.tenant_id
        and days.unit_id = texts.unit_id
        and days.cycle = texts.cycle

)

select * from featured
