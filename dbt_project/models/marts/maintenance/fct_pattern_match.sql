-- Grain: one row per tenant, device, pattern and event that completed it. Additive: count the rows of one pattern; not duration_s, instances may overlap.
-- Of several first events whose instance ends with the same event the last one counts, so that a burst of errors is one instance and not many.
-- Touched-bucket incremental by the hour of the first event: an event touches its own hour and those before it that a pattern can reach across.
-- What the patterns are: macros/patterns/patterns.sql.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'hour_at'],
        event_time='hour_at',
        inputs={'fct_device_event': {'select': moved_by_events()}},
        definition=definition_of((device_patterns() | string) ~ instances_of(device_patterns()[0], 'starts', 'events')),
        indexes=[
            {'columns': ['tenant_id', 'device_id', 'pattern_code', 'ended_at', 'ended_event_type', 'ended_event_code'], 'unique': true},
            {'columns': ['tenant_id', 'device_id', 'hour_at']},
            {'columns': ['started_at']},
        ],
        tags=['micro_batch'],
    )
}}

with

hours as (

    -- An instance also depends on whether a later one ends with the same event.
    select distinct
        touched.tenant_id,
        touched.device_id,
        touched.hour_at + ahead.hour_count * interval '1 hour' as hour_at
    from {{ touched_buckets_or('(select tenant_id, device_id, hour_at from ' ~ ref('fct_device_event') ~ ')') }} as touched
    cross join generate_series(0, {{ longest_pattern_h() }}) as ahead (hour_count)

),

starts as (

    select event.*
    from hours
    inner join {{ ref('fct_device_event') }} as event
        on hours.tenant_id = event.tenant_id
        and hours.device_id = event.device_id
        and hours.hour_at = event.hour_at

),

instances as (

    {% for pattern in device_patterns() -%}
    {{ instances_of(pattern, 'starts', ref('fct_device_event')) }}
    {% if not loop.last -%}
    union all
    {% endif -%}
    {%- endfor %}

),

ranked as (

    select
        *,
        row_number() over (
            partition by tenant_id, device_id, pattern_code, ended_at, ended_event_type, ended_event_code
            order by started_at desc, started_event_type asc, started_event_code asc
        ) as nth_shortest
    from instances

),

matches as (

    select
        -- ids
        tenant_id,
        device_id,
        pattern_code,
        device_key,
        facility_id,
        line_id,

        -- attributes
        device_type,
        started_event_type,
        started_event_code,
        ended_event_type,
        ended_event_code,
        event_codes,

        -- measures
        step_count,
        extract(epoch from ended_at - started_at)::double precision as duration_s,

        -- timestamps
        started_at,
        ended_at,
        hour_at,

        -- metadata
        _batch_id
    from ranked
    where
        nth_shortest = 1
        and {{ is_touched({'tenant_id': 'ranked.tenant_id', 'device_id': 'ranked.device_id', 'hour_at': 'ranked.hour_at'}) }}

)

select * from matches
