{#-
    Sessions: times in which a device said something again and again, with less than the gap of its type (session_gap_s) between two readings. They are found in four
    steps, so that a device that never falls silent costs what was touched and a row a week, not all it ever said: runs within an hour, within a day, within a week,
    sessions over weeks.
-#}

{#-
    Rows of a relation that follow each other within the gap, as one. The relation has tenant_id, device_id, device_key, device_type, started_at, ended_at,
    reading_count, _batch_id and what `within` names; its rows do not overlap. The gap is that of the later of two rows, by the type that it was then.
-#}
{% macro runs_of(relation, within=[]) -%}
    {%- set by = (['tenant_id', 'device_id'] + within) | join(', ') -%}
    select
        {{ by }},
        (array_agg(device_key order by started_at))[1] as device_key,
        (array_agg(device_type order by started_at))[1] as device_type,
        min(started_at) as started_at,
        max(ended_at) as ended_at,
        sum(reading_count)::bigint as reading_count,
        max(_batch_id) as _batch_id
    from (
        select
            marked.*,
            sum(is_first) over (partition by {{ by }} order by started_at) as run_number
        from (
            select
                part.*,
                case
                    when
                        {{ seconds_of('part.started_at') }} - {{ seconds_of('lag(part.ended_at) over (partition by ' ~ by ~ ' order by part.started_at)') }}
                        <= {{ session_gap_s('part.device_type') }}
                        then 0
                    else 1
                end as is_first
            from {{ relation }} as part
        ) as marked
    ) as numbered
    group by {{ by }}, run_number
{%- endmacro %}

{#- Weeks (UTC, 7 days from midnight) of spans of time, and the week before and after each: a gap is shorter, so what follows a run within its gap is in one of them. -#}
{% macro weeks_around(spans) -%}
    select distinct
        span.tenant_id,
        span.device_id,
        week_at
    from {{ spans }} as span
    cross join generate_series(
        {{ window_of('span.span_from', '7 days') }} - interval '168 hours', {{ window_of('span.span_to', '7 days') }} + interval '168 hours', interval '168 hours'
    ) as week_at
{%- endmacro %}

{#-
    Mapping of changed weeks of runs to sessions, which are known by start and end: those stored that a changed week or the day before or after it holds, because they
    may have grown, been joined or been split, and those that are there now. Weeks that a stored session reaches are read whole, so that no session is cut off by what
    is read unless another changed week lies there, whose own weeks are read as well.
-#}
{% macro sessions_moved() -%}
    with changed_span as (
        select distinct
            changed.tenant_id,
            changed.device_id,
            changed.week_at as span_from,
            changed.week_at as span_to
        from {changes} as changed
    ),
    reached as (
        select
            changed_span.*,
            -- Sessions do not overlap: of those that started earlier only the last can reach the day before. The index finds it, however many there are.
            coalesce(
                (
                    select max(before.started_at)
                    from {this} as before
                    where
                        before.tenant_id = changed_span.tenant_id
                        and before.device_id = changed_span.device_id
                        and before.started_at < changed_span.span_from - interval '24 hours'
                ),
                '-infinity'
            ) as first_started_at
        from changed_span
    ),
    stored_span as (
        select distinct stored.tenant_id, stored.device_id, stored.started_at as span_from, stored.ended_at as span_to
        from reached
        inner join {this} as stored
            on stored.tenant_id = reached.tenant_id
            and stored.device_id = reached.device_id
            and stored.started_at >= reached.first_started_at
            and stored.started_at < reached.span_from + interval '192 hours'
            and stored.ended_at >= reached.span_from - interval '24 hours'
    ),
    near as ({{ weeks_around('(select * from changed_span union select * from stored_span)') }}),
    found as ({{ runs_of('(select part.* from near inner join {input} as part using (tenant_id, device_id, week_at))') }})
    select tenant_id, device_id, span_from as started_at, span_to as ended_at from stored_span
    union
    select found.tenant_id, found.device_id, found.started_at, found.ended_at
    from found
    inner join changed_span
        on found.tenant_id = changed_span.tenant_id
        and found.device_id = changed_span.device_id
        and found.started_at < changed_span.span_from + interval '192 hours'
        and found.ended_at >= changed_span.span_from - interval '24 hours'
{%- endmacro %}

{#- Runs of a week that touched sessions are made of, with the weeks around them: what comes before or after a session shows whether it is whole. -#}
{% macro runs_of_touched_sessions(relation) -%}
    {%- if in_unit_test() or not execute -%}{{ return(relation) }}{%- endif -%}
    (
        select part.*
        from (
            {{ weeks_around('(select tenant_id, device_id, started_at as span_from, ended_at as span_to from ' ~ touched_name() ~ ')') }}
        ) as near
        inner join {{ relation }} as part using (tenant_id, device_id, week_at)
    )
{%- endmacro %}
