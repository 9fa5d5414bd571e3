{#- What fct_machine_state_5min shares between its SQL and its mappings. -#}

{#- Until when an entry of the maintenance log kept the machine from work. NULL where it states no downtime. -#}
{% macro downtime_end(entry) -%}
    ({{ entry }}.occurred_at + {{ entry }}.downtime_min * interval '1 minute')
{%- endmacro %}

{#- Days that a downtime can reach beyond the day on which it began: the contract allows 100,000 minutes. -#}
{% macro longest_downtime_d() -%}
    {{ return(70) }}
{%- endmacro %}

{#- Windows in which the events of changed hours happened. -#}
{% macro windows_of_events() -%}
    select event.tenant_id, event.device_id, {{ window_of('event.event_at', '5 minutes') }} as window_at
    from {changes} as changed
    inner join {input} as event
        on event.tenant_id = changed.tenant_id
        and event.device_id = changed.device_id
        and event.hour_at = changed.hour_at
{%- endmacro %}

{#- Mapping of changed hours of events: their windows, and the stored ones up to the next change of state after the hour, which may have begun in another state. -#}
{% macro states_moved() -%}
    {{ windows_of_events() }}
    union
    select stored.tenant_id, stored.device_id, stored.window_at
    from {changes} as changed
    cross join lateral (
        select coalesce(min(later.event_at), timestamptz 'infinity') as until_at
        from {input} as later
        where
            later.tenant_id = changed.tenant_id
            and later.device_id = changed.device_id
            and later.event_type = 'state_change'
            and later.event_at >= changed.hour_at + interval '1 hour'
    ) as following
    inner join {this} as stored
        on stored.tenant_id = changed.tenant_id
        and stored.device_id = changed.device_id
        and stored.window_at >= changed.hour_at
        and stored.window_at < following.until_at
{%- endmacro %}

{#-
    Mapping of changed days of the maintenance log: stored windows that an entry of the day covers now, and those that any entry covered before; an entry without
    downtime covers the moment at which it was made.
-#}
{% macro crew_moved() -%}
    select stored.tenant_id, stored.device_id, stored.window_at
    from {changes} as changed
    inner join {this} as stored
        on stored.tenant_id = changed.tenant_id
        and stored.device_id = changed.device_id
        and stored.window_at >= {{ start_of_date('changed.occurred_date') }}
        and stored.window_at < {{ start_of_date('(changed.occurred_date + ' ~ (longest_downtime_d() + 1) ~ ')') }}
    where
        stored.maintenance_type is not null
        or exists (
            select 1
            from {input} as entry
            where
                entry.tenant_id = changed.tenant_id
                and entry.device_id = changed.device_id
                and entry.occurred_date = changed.occurred_date
                and entry.occurred_at < stored.window_at + interval '5 minutes'
                and {{ downtime_end('entry') }} > stored.window_at
        )
{%- endmacro %}

{#- When the whole log is new, so are all stored windows, and an entry makes none. -#}
{% macro no_window() -%}
    select changed.tenant_id, changed.device_id, null::timestamptz as window_at from {changes} as changed where false
{%- endmacro %}
