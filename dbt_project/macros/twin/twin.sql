{#- Mappings of int_maintenance__device_reported_change, which is what rpt_device_twin asks about the past of a device. -#}

{#-
    Mapping of changed hours of reported values to the hours in which a value may have changed: the hour itself and, for each property, the next hour that reports it,
    whose first value is compared with the last one before it.
-#}
{% macro moved_by_reports() -%}
    select changed.tenant_id, changed.device_id, changed.hour_at
    from {changes} as changed
    union
    select changed.tenant_id, changed.device_id, {{ hour_of('following.started_at') }} as hour_at
    from {changes} as changed
    cross join (values ('firmware_version'), ('setpoint_c')) as property (property_code)
    cross join lateral (
        select min(later.started_at) as started_at
        from {input} as later
        where
            later.tenant_id = changed.tenant_id
            and later.device_id = changed.device_id
            and later.property_code = property.property_code
            and later.started_at >= changed.hour_at + interval '1 hour'
    ) as following
    where following.started_at is not null
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
