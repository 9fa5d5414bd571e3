{#-
    Months that are gone for good: raw and lake have deleted them, as their contract says (`deleted` in ops.partition_state). A model says what becomes of what it made
    of them, with the days of the stream that a row is made of, counted from its own day (the bucket column `event_time`), first and last:
    `forgets={'device_events': [-57, 1]}`     a row goes with the first of its days; retention deletes it (include/lake/forget.py),
    `remembers={'device_events': [-1, 31]}`   a row that says nothing of persons stays as it was when its days were there.
    Neither can be computed again, so the touched set holds neither, whatever asks for them: a change below, a backfill, a rebuild.
-#}

{#- Predicate: none of the days that a row of a model is made of is gone for good. `time` is the row's own day. True for a model that neither forgets nor remembers. -#}
{% macro is_made_of_kept_days(node, time) -%}
    {%- set conditions = [] -%}
    {%- for setting in ['forgets', 'remembers'] -%}
        {%- for stream, days in (node.config.get(setting) or {}).items() -%}
            {%- do conditions.append(
                "not exists (select 1 from ops.partition_state as gone where gone.stream = '" ~ stream ~ "' and gone.state = 'deleted'"
                ~ " and gone.month <= (" ~ time ~ ")::date + (" ~ days[1] ~ ")"
                ~ " and (gone.month + interval '1 month')::date > (" ~ time ~ ")::date + (" ~ days[0] ~ "))"
            ) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(conditions | join(' and ') or 'true') }}
{%- endmacro %}
