{#-
    Patterns over fct_device_event (decision 0028). A pattern is one entry here: its code, within how many minutes of its first event it is complete, and a condition
    for each step. A condition speaks of the columns of the event of its step (`event_type`, `event_code`, `severity_code`, `temperature_c`, `load_pct`, …) and may name
    those of an earlier step as `step_1.event_code`. docs/runbooks/add-a-pattern.md says how one is added.
-#}
{% macro device_patterns() -%}
    {{ return([
        {
            'code': 'error_restart_error',
            'within_min': 10,
            'steps': ["event_type = 'error'", "event_type = 'restart'", "event_type = 'error' and event_code = step_1.event_code"],
        },
        {
            'code': 'overheating_load_drop',
            'within_min': 15,
            'steps': ["event_type = 'controller_event' and event_code = 'overheating'", "event_type = 'controller_event' and event_code = 'load_drop'"],
        },
        {
            'code': 'fault_again',
            'within_min': 60,
            'steps': [
                "event_type = 'state_change' and event_code = 'fault'",
                "event_type = 'state_change' and event_code = 'running'",
                "event_type = 'state_change' and event_code = 'fault'",
            ],
        },
    ]) }}
{%- endmacro %}

{#- Hours after the one in which an instance begins that its last event may lie in, for the longest of all patterns. -#}
{% macro longest_pattern_h() -%}
    {%- set longest = device_patterns() | map(attribute='within_min') | max -%}
    {{ return((longest + 59) // 60) }}
{%- endmacro %}

{#-
    Mapping of changed hours of events to the hours in which instances begin that may see them: its own, and those before it in which a pattern can begin that is not
    over yet. An instance is a function of the events between its first and its last, so nothing else moves.
-#}
{% macro moved_by_events() -%}
    select distinct changed.tenant_id, changed.device_id, changed.hour_at - back.hour_count * interval '1 hour' as hour_at
    from {changes} as changed
    cross join generate_series(0, {{ longest_pattern_h() }}) as back (hour_count)
{%- endmacro %}

{#-
    Instances of one pattern. From each event that may be a first step, every further step is the first event after the one before that meets its condition; events in
    between do not matter. Later means a later time: what happened at the same moment has no order.

    `starts` are the events to begin from, `events` all of them. Rows: columns of the first and the last event, and the codes of all.
-#}
{% macro instances_of(pattern, starts, events) -%}
    {%- set last = pattern.steps | length -%}
    select
        step_1.tenant_id,
        step_1.device_id,
        '{{ pattern.code }}' as pattern_code,
        step_1.hour_at,
        step_1.device_key,
        step_1.device_type,
        step_1.facility_id,
        step_1.line_id,
        step_1.event_type as started_event_type,
        step_1.event_code as started_event_code,
        step_{{ last }}.event_type as ended_event_type,
        step_{{ last }}.event_code as ended_event_code,
        {% for number in range(1, last + 1) %}{{ " || ' > ' || " if not loop.first }}step_{{ number }}.event_code{% endfor %} as event_codes,
        {{ last }}::bigint as step_count,
        step_1.event_at as started_at,
        step_{{ last }}.event_at as ended_at,
        greatest({% for number in range(1, last + 1) %}step_{{ number }}._batch_id{{ ', ' if not loop.last }}{% endfor %}) as _batch_id
    from (select * from {{ starts }} as event where {{ pattern.steps[0] }}) as step_1
    {%- for number in range(2, last + 1) %}
    cross join lateral (
        select
            event.event_type,
            event.event_code,
            event.severity_code,
            event.temperature_c,
            event.load_pct,
            event.setpoint_c,
            event.event_at,
            event._batch_id
        from {{ events }} as event
        where
            event.tenant_id = step_1.tenant_id
            and event.device_id = step_1.device_id
            and event.event_at > step_{{ number - 1 }}.event_at
            and event.event_at <= step_1.event_at + interval '{{ pattern.within_min }} minutes'
            and ({{ pattern.steps[number - 1] }})
        order by event.event_at asc, event.event_type asc, event.event_code asc
        limit 1
    ) as step_{{ number }}
    {%- endfor %}
{%- endmacro %}
