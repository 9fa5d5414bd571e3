-- Grain: one row per tenant (data set), unit and moment of failure, from whatever a table says of it. Not additive.
-- A cycle counts as a day. A unit that runs to failure fails half a day after the end of the day of its last row, so that its last row has a life of half
-- a cycle left, and a life of n cycles that is stated for a row ends n and a half days after the end of its day.
-- Touched-bucket incremental: a unit is recomputed whole, because a later row moves its last one.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'unit_id'],
        inputs={'stg_unit_readings': {}, 'stg_unit_lives': {}},
        indexes=[{'columns': ['tenant_id', 'unit_id', 'occurred_at'], 'unique': true}],
        tags=['micro_batch'],
    )
}}

with

readings as (

    select
        *,
        {{ start_of_date('(' ~ date_of('event_at') ~ ' + 1)') }} as day_end_at
    from {{ touched_rows(ref('stg_unit_readings')) }}

),

lives as (

    select * from {{ touched_rows(ref('stg_unit_lives')) }}

),

last_readings as (

    select distinct on (tenant_id, unit_id) *
    from readings
    order by tenant_id asc, unit_id asc, event_at desc, cycle desc

),

stated as (

    select
        tenant_id,
        unit_id,
        day_end_at + interval '12 hours' as occurred_at,
        'has_failed' as stated_by,
        _batch_id
    from readings
    where has_failed
    union all
    select
        tenant_id,
        unit_id,
        day_end_at + interval '12 hours' as occurred_at,
        'runs_to_failure' as stated_by,
        _batch_id
    from last_readings
    where runs_to_failure
    union all
    select
        tenant_id,
        unit_id,
        day_end_at + interval '12 hours' + remaining_cycles * interval '1 day' as occurred_at,
        'remaining_cycles' as stated_by,
        _batch_id
    from last_readings
    where remaining_cycles is not null
    union all
    select
        last_readings.tenant_id,
        last_readings.unit_id,
        last_readings.day_end_at + interval '12 hours' + lives.remaining_cycles * interval '1 day' as occurred_at,
        'unit_lives' as stated_by,
        greatest(last_readings._batch_id, lives._batch_id) as _batch_id
    from last_readings
    inner join lives
        on last_readings.tenant_id = lives.tenant_id
        and last_readings.unit_id = lives.unit_id

),

failures as (

    select
        -- ids
        tenant_id,
        unit_id,

        -- attributes
        min(stated_by) as stated_by,

        -- timestamps
        occurred_at,

        -- metadata
        max(_batch_id) as _batch_id
    from stated
    group by tenant_id, unit_id, occurred_at

)

select * from failures
