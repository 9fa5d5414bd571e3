{#-
    Models with a row per event keep where and on which local day it happened: the version of the device of then, its facility, and the facility's time zone. The rows
    are a day (UTC) a bucket. A registry that changes touches the stored days with a row that it would have otherwise, found by comparing; nothing else.
-#}

{#- Mapping of dim_device. `date` is the bucket's date, `time` the time of a row. -#}
{% macro moved_in_registry(date, time) -%}
    select distinct stored.tenant_id, stored.device_id, stored.{{ date }}
    from {changes} as changed
    inner join {this} as stored on stored.tenant_id = changed.tenant_id and stored.device_id = changed.device_id
    left join {input} as version
        on stored.tenant_id = version.tenant_id
        and stored.device_id = version.device_id
        and stored.{{ time }} >= version.valid_from_at
        and (version.valid_to_at is null or stored.{{ time }} < version.valid_to_at)
    where
        stored.device_key is distinct from version.device_key
        or stored.facility_id <> coalesce(version.facility_id, 'unregistered')
{%- endmacro %}

{#- Rows of a model whose facility has another time zone now than they have: two ranges of an index on tenant, facility and zone, because all facilities of a tenant come at once. -#}
{% macro rows_of_another_zone() -%}
    select stored.*
    from {changes} as changed
    inner join {input} as facility on facility.tenant_id = changed.tenant_id
    cross join lateral (
        select early.*
        from {this} as early
        where early.tenant_id = facility.tenant_id and early.facility_id = facility.facility_id and early.time_zone_name < coalesce(facility.time_zone_name, 'UTC')
        union all
        select late.*
        from {this} as late
        where late.tenant_id = facility.tenant_id and late.facility_id = facility.facility_id and late.time_zone_name > coalesce(facility.time_zone_name, 'UTC')
    ) as stored
{%- endmacro %}

{#- Mapping of dim_facility. -#}
{% macro moved_in_time_zone(date) -%}
    select distinct tenant_id, device_id, {{ date }} from ({{ rows_of_another_zone() }}) as moved
{%- endmacro %}

{#- Changed UTC days of an input, as the local days that their rows can lie on in any zone. -#}
{% macro days_on_both_sides(date, local_date) -%}
    select changed.tenant_id, changed.device_id, changed.{{ date }} + step.days as {{ local_date }}
    from {changes} as changed
    cross join (values (-1), (0), (1)) as step (days)
{%- endmacro %}

{#-
    UTC days that a touched local day of a device lies on in any zone (UTC-12 to UTC+14): tenant_id, device_id, utc_date. To be joined by equality with the UTC day of
    a row, so that a first fill is hashed, and by the range of the day, so that a few devices are found by the index on device and time. In a unit test `everything`
    stands for the touched days.
-#}
{% macro days_near_touched(date_column, everything) -%}
    select distinct
        touched.tenant_id,
        touched.device_id,
        touched.{{ date_column }} + step.days as utc_date
    from {{ touched_buckets_or(everything) }} as touched
    cross join (values (-1), (0), (1)) as step (days)
{%- endmacro %}

{#- The version of a row's device that was in force, and known, by the end of a day; for a lateral join. -#}
{% macro version_known_on(day, row, relation) -%}
    select candidate.*
    from {{ relation }} as candidate
    where
        candidate.tenant_id = {{ row }}.tenant_id
        and candidate.device_id = {{ row }}.device_id
        and candidate.valid_from_at < {{ start_of_date('(' ~ day ~ ' + 1)') }}
        and candidate.known_at < {{ start_of_date('(' ~ day ~ ' + 1)') }}
    order by candidate.valid_from_at desc
    limit 1
{%- endmacro %}
