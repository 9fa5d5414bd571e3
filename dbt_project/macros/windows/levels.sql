{#-
    Windows of device readings, level upon level (decision 0027). The first level reads events and says which version of the registry each belongs to; every other
    level is made of the rows below it and of the registry, by the macros of this file.
-#}

{#- Columns that a window has from the version of the registry that its readings belong to. -#}
{% macro registry_columns() -%}
    {{ return(['device_type', 'facility_id', 'line_id', 'firmware_version', 'reporting_interval_s']) }}
{%- endmacro %}

{#-
    Readings that a version of the registry lets expect between two times: the seconds in which it held and the device was active, over the reporting interval.
    0 where the device was not active or the version did not hold, NULL where there is no version. A share of a reading counts: a device that reports every hour
    owes a sixtieth a minute. A version that did not hold has windows where a minute has left raw before the registry was corrected: it keeps the version it had.
-#}
{% macro expected_readings(version, window_from, window_to) -%}
    (case
        when {{ version }}.registry_status = 'active'
            then greatest(0, extract(
                epoch from least({{ version }}.valid_to_at, {{ window_to }}) - greatest({{ version }}.valid_from_at, {{ window_from }})
            )) / {{ version }}.reporting_interval_s
        when {{ version }}.device_key is not null then 0
    end)::double precision
{%- endmacro %}

{#-
    Mapping of dim_device to the buckets of the first level: exactly the stored windows that hold a row which the registry as it is now would have otherwise —
    readings that belong to another version, other attributes, other expectations. Silent windows have no row and need none.

    `at` is the bucket column; the window reaches from `window_from` to `window_to`, expressions over the row `stored`. The rows of all_readings speak for those of
    the metrics, which they include.
-#}
{% macro moved_by_registry(at, window_from, window_to) -%}
    select distinct stored.tenant_id, stored.device_id, stored.{{ at }}
    from {changes} as changed
    inner join {this} as stored on stored.tenant_id = changed.tenant_id and stored.device_id = changed.device_id
    left join {input} as version on stored.device_key = version.device_key
    where
        stored.metric_code = 'all_readings'
        and case
            when version.device_key is not null
                then
                    coalesce(stored.last_at >= version.valid_to_at, false)
                    or stored.expected_reading_count is distinct from {{ expected_readings('version', window_from, window_to) }}
                    {%- for column in registry_columns() %}
                    or stored.{{ column }} is distinct from version.{{ column }}
                    {%- endfor %}
            when stored.device_key = 'unregistered'
                then exists (
                    select 1
                    from {input} as candidate
                    where
                        candidate.tenant_id = stored.tenant_id
                        and candidate.device_id = stored.device_id
                        and candidate.valid_from_at <= stored.last_at
                        and (candidate.valid_to_at is null or candidate.valid_to_at > stored.first_at)
                )
            else true
        end
{%- endmacro %}

{#-
    The same for a level above the first. Versions and attributes come from the windows below and are touched by them; what such a level asks the registry itself is the
    expectation. Asked for more, windows of months that have left raw, whose minutes stay as they were, would differ for ever.
-#}
{% macro expected_otherwise(at, window_from, window_to) -%}
    select distinct stored.tenant_id, stored.device_id, stored.{{ at }}
    from {changes} as changed
    inner join {this} as stored on stored.tenant_id = changed.tenant_id and stored.device_id = changed.device_id
    left join {input} as version on stored.device_key = version.device_key
    where
        stored.metric_code = 'all_readings'
        and stored.expected_reading_count is distinct from {{ expected_readings('version', window_from, window_to) }}
{%- endmacro %}

{#- Measures of a group of rows of a lower level. -#}
{% macro merged_measures() -%}
        sum(reading_count)::bigint as reading_count,
        {{ exact_sum('sum_value') }} as sum_value,
        {{ exact_sum('sum_squared_value') }} as sum_squared_value,
        min(min_value) as min_value,
        max(max_value) as max_value
{%- endmacro %}

{#- Mean and standard deviation from count and sums. The deviation is that of the population; where all values are equal it is 0 and not what rounding leaves. -#}
{% macro mean_of_sums() -%}
    sum_value / reading_count
{%- endmacro %}

{% macro deviation_of_sums() -%}
    case
        when min_value = max_value then 0
        when min_value < max_value then sqrt(greatest(
            0, ((sum_squared_value::numeric - sum_value::numeric * sum_value::numeric / reading_count) / reading_count)::double precision
        ))
    end
{%- endmacro %}

{% macro share_of_expected() -%}
    case when expected_reading_count > 0 then least(100, 100.0 * reading_count / expected_reading_count) end
{%- endmacro %}

{#- What every model of windows of a device ends with: the rows of `grouped`, with what they are to be expected to be by the registry. -#}
{% macro completed_windows(at, window_from, window_to) %}
expected as (

    select
        grouped.*,
        {{ expected_readings('version', window_from, window_to) }} as expected_reading_count
    from grouped
    left join {{ ref('dim_device') }} as version on grouped.device_key = version.device_key

),

windows as (

    select
        -- ids
        tenant_id,
        device_id,
        device_key,
        metric_code,
        {{ at }},
        facility_id,
        line_id,

        -- attributes
        device_type,
        firmware_version,

        -- measures
        reporting_interval_s,
        reading_count,
        expected_reading_count,
        {{ share_of_expected() }} as completeness_pct,
        sum_value,
        sum_squared_value,
        {{ mean_of_sums() }} as avg_value,
        min_value,
        max_value,
        {{ deviation_of_sums() }} as stddev_value,
        first_value,
        last_value,

        -- timestamps
        first_at,
        last_at,

        -- metadata
        _batch_id
    from expected

)

-- By time, so that a first fill lies on disk as it would have if every batch had come on time: the newest windows, which batches read, on few pages.
select * from windows
order by {{ at }}
{%- endmacro %}

{#- Rows of a lower level, put together: columns of `grouped` but the ids and the window. -#}
{% macro merged_windows() -%}
        {%- for column in registry_columns() %}
        any_value({{ column }}) as {{ column }},
        {%- endfor %}
        {{ merged_measures() }},
        {{ min_by('first_value', seconds_of('first_at')) }} as first_value,
        {{ max_by('last_value', seconds_of('last_at')) }} as last_value,
        min(first_at) as first_at,
        max(last_at) as last_at,
        max(_batch_id) as _batch_id
{%- endmacro %}

{#- SQL of a level: windows of `length`, from the windows of the level below it. -#}
{% macro device_windows(below, length) %}
with

parts as (

    select
        *,
        {{ window_of('window_at', length) }} as level_at
    from {{ touched_rows(ref(below)) }}

),

grouped as (

    select
        tenant_id,
        device_id,
        device_key,
        metric_code,
        level_at as window_at,
{{ merged_windows() }}
    from parts
    group by tenant_id, device_id, device_key, metric_code, level_at

),
{{ completed_windows('window_at', 'window_at', "window_at + interval '" ~ length ~ "'") }}
{%- endmacro %}

{#- Arguments of config() for a level. `definition` makes a change of these macros a change of the model. -#}
{% macro device_windows_config(below, length) -%}
    {{ return({
        'materialized': 'incremental',
        'incremental_strategy': 'touched_buckets',
        'bucket': ['tenant_id', 'device_id', 'window_at'],
        'event_time': 'window_at',
        'inputs': {
            below: {'window_at': window_of('window_at', length)},
            'dim_device': {'select': expected_otherwise('window_at', 'stored.window_at', "stored.window_at + interval '" ~ length ~ "'")},
        },
        'definition': definition_of(device_windows(below, length)),
        'indexes': [{'columns': ['tenant_id', 'device_id', 'window_at', 'device_key', 'metric_code'], 'unique': true}, {'columns': ['window_at']}],
        'tags': ['micro_batch', 'windows'],
    }) }}
{%- endmacro %}

{#- Fingerprint of SQL that macros write, the same in every database. -#}
{% macro definition_of(written) -%}
    {{ return(local_md5(written | replace(this.database, ''))) }}
{%- endmacro %}

{#- Touched ends of sliding windows whose last 5 minutes have readings. -#}
{% macro touched_steps(relation) -%}
    {%- if in_unit_test() or not execute -%}
    select distinct tenant_id, device_id, window_at + interval '5 minutes' as window_end_at from {{ relation }}
    {%- else -%}
    select touched.tenant_id, touched.device_id, touched.window_end_at
    from {{ touched_name() }} as touched
    where exists (
        select 1
        from {{ relation }} as step
        where
            step.tenant_id = touched.tenant_id
            and step.device_id = touched.device_id
            and step.window_at = touched.window_end_at - interval '5 minutes'
    )
    {%- endif -%}
{%- endmacro %}

{#- How many steps of 5 minutes a sliding window has. -#}
{% macro steps_of(length) -%}
    {{ return({'15 minutes': 3, '1 hour': 12}[length]) }}
{%- endmacro %}

{#-
    SQL of a sliding level: for every 5-minute window in which the device said something, what happened in the `length` that ends with it. A step of silence has no
    row, like a window of silence.

    The windows that a step covers are named one by one and joined by equality: few touched steps look theirs up in the index, a first fill hashes them all. A
    range in the join would leave only nested loops over all windows of a device, which is quadratic in the history.
-#}
{% macro sliding_windows(length) %}
with

steps as (

    {{ touched_steps(ref('fct_device_window_5min')) }}

),

parts as (

    select
        part.*,
        steps.window_end_at
    from steps
    cross join generate_series(1, {{ steps_of(length) }}) as back (step)
    inner join {{ ref('fct_device_window_5min') }} as part
        on steps.tenant_id = part.tenant_id
        and steps.device_id = part.device_id
        and part.window_at = steps.window_end_at - back.step * interval '5 minutes'

),

grouped as (

    select
        tenant_id,
        device_id,
        device_key,
        metric_code,
        window_end_at,
{{ merged_windows() }}
    from parts
    group by tenant_id, device_id, device_key, metric_code, window_end_at

),
{{ completed_windows('window_end_at', "window_end_at - interval '" ~ length ~ "'", 'window_end_at') }}
{%- endmacro %}

{#-
    Arguments of config() for a sliding level. `offset 0` keeps PostgreSQL, which cannot know how many buckets a log holds, from joining the changes with all of the
    input: every change is one look into its index.
-#}
{% macro sliding_windows_config(length) -%}
    {{ return({
        'materialized': 'incremental',
        'incremental_strategy': 'touched_buckets',
        'bucket': ['tenant_id', 'device_id', 'window_end_at'],
        'event_time': 'window_end_at',
        'inputs': {
            'fct_device_window_5min': {
                'select': "
                    select changed.tenant_id, changed.device_id, changed.window_at + interval '5 minutes' as window_end_at
                    from {changes} as changed
                    union
                    select changed.tenant_id, changed.device_id, later.window_at + interval '5 minutes' as window_end_at
                    from {changes} as changed
                    cross join lateral (
                        select distinct within.window_at
                        from {input} as within
                        where
                            within.tenant_id = changed.tenant_id
                            and within.device_id = changed.device_id
                            and within.window_at > changed.window_at
                            and within.window_at < changed.window_at + interval '" ~ length ~ "'
                        offset 0
                    ) as later
                ",
                'select_when_new': "select changed.tenant_id, changed.device_id, changed.window_at + interval '5 minutes' as window_end_at from {changes} as changed",
            },
            'dim_device': {'select': expected_otherwise('window_end_at', "stored.window_end_at - interval '" ~ length ~ "'", 'stored.window_end_at')},
        },
        'definition': definition_of(sliding_windows(length)),
        'indexes': [{'columns': ['tenant_id', 'device_id', 'window_end_at', 'device_key', 'metric_code'], 'unique': true}, {'columns': ['window_end_at']}],
        'tags': ['micro_batch', 'windows'],
    }) }}
{%- endmacro %}
