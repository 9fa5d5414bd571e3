{#- Mappings of int_maintenance__device_reported_change, which is what rpt_device_twin asks about the past of a device. -#}

{#-
    Changed hours, and the next hour of each device in which the input has a row that counts: `counts` is a condition on the row `later`, `time` its column of time,
    by which an index finds it however many others lie between.
-#}
{% macro hour_and_next(time, counts) -%}
    select changed.tenant_id, changed.device_id, changed.hour_at
    from {changes} as changed
    union
    select changed.tenant_id, changed.device_id, following.hour_at
    from {changes} as changed
    cross join lateral (
        select later.hour_at
        from {input} as later
        where
            later.tenant_id = changed.tenant_id
            and later.device_id = changed.device_id
            and later.{{ time }} >= changed.hour_at + interval '1 hour'
            and {{ counts }}
        order by later.{{ time }}
        limit 1
    ) as following
{%- endmacro %}

{#- All hours of an input that is new as a whole. -#}
{% macro every_hour() -%}
    select changed.tenant_id, changed.device_id, changed.hour_at from {changes} as changed
{%- endmacro %}

{#- Hours in which versions of the registry begin, of changed devices. -#}
{% macro hours_of_versions() -%}
    select version.tenant_id, version.device_id, {{ hour_of('version.valid_from_at') }} as hour_at
    from {changes} as changed
    inner join {input} as version on version.tenant_id = changed.tenant_id and version.device_id = changed.device_id
{%- endmacro %}

{#- Mapping of changed devices of the registry to the hours in which their interval changes, or changed before. -#}
{% macro intervals_moved() -%}
    {{ hours_of_versions() }}
    union
    select stored.tenant_id, stored.device_id, stored.hour_at
    from {changes} as changed
    inner join {this} as stored
        on stored.tenant_id = changed.tenant_id
        and stored.device_id = changed.device_id
        and stored.property_code = 'reporting_interval_s'
{%- endmacro %}
