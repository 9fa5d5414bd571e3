-- Grain: one row per tenant, device, version of the device (device_key), metric and minute (UTC) with at least one reading of the metric.
-- Additive: reading_count, expected_reading_count, sum_value, sum_squared_value (within a metric). Not additive: avg_, min_, max_, stddev_, first_, last_value.
-- The only level of windows that reads events. A reading belongs to the version of the registry that held when it was taken; where there was none, to the key
-- 'unregistered'. Touched-bucket incremental: a minute is recomputed whole; a registry that changes touches exactly the minutes that it moves (decision 0027).
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'window_at'],
        event_time='window_at',
        inputs={
            'stg_device_telemetry': {'window_at': window_of('event_at', '1 minute')},
            'dim_device': {'select': moved_by_registry('window_at', 'stored.window_at', "stored.window_at + interval '1 minute'")},
        },
        definition=definition_of((device_metrics() | string) ~ completed_windows('window_at', 'a', 'b')),
        indexes=[{'columns': ['tenant_id', 'device_id', 'window_at', 'device_key', 'metric_code'], 'unique': true}, {'columns': ['window_at']}],
        tags=['micro_batch', 'windows'],
    )
}}

with

readings as (

    select
        tenant_id,
        device_id,
        event_at,
        {{ window_of('event_at', '1 minute') }} as window_at,
        {{ seconds_of('event_at') }} as event_s,
        {%- for code, expression in device_metrics().items() %}
        {{ expression }} as {{ code }},
        {%- endfor %}
        _batch_id
    from {{ touched_rows(ref('stg_device_telemetry')) }}

),

attributed as (

    select
        readings.*,
        {%- for column in registry_columns() %}
        version.{{ column }},
        {%- endfor %}
        coalesce(version.device_key, 'unregistered') as device_key
    from readings
    left join {{ ref('dim_device') }} as version
        on readings.tenant_id = version.tenant_id
        and readings.device_id = version.device_id
        and readings.event_at >= version.valid_from_at
        and (version.valid_to_at is null or readings.event_at < version.valid_to_at)

),

measured as (

    {% for code in ['all_readings'] + (device_metrics() | list) -%}
    select
        tenant_id,
        device_id,
        device_key,
        '{{ code }}' as metric_code,
        window_at,
        {%- for column in registry_columns() %}
        {{ column }},
        {%- endfor %}
        {{ 'null::double precision' if code == 'all_readings' else code }} as metric_value,
        event_s,
        event_at,
        _batch_id
    from attributed
    {%- if code != 'all_readings' %}
    where {{ code }} is not null
    {%- endif %}
    {%- if not loop.last %}
    union all
    {% endif %}
    {%- endfor %}

),

grouped as (

    select
        tenant_id,
        device_id,
        device_key,
        metric_code,
        window_at,
        {%- for column in registry_columns() %}
        any_value({{ column }}) as {{ column }},
        {%- endfor %}
        count(*) as reading_count,
        {{ exact_sum('metric_value') }} as sum_value,
        {{ exact_sum('metric_value::numeric * metric_value::numeric') }} as sum_squared_value,
        min(metric_value) as min_value,
        max(metric_value) as max_value,
        {{ min_by('metric_value', 'event_s') }} as first_value,
        {{ max_by('metric_value', 'event_s') }} as last_value,
        min(event_at) as first_at,
        max(event_at) as last_at,
        max(_batch_id) as _batch_id
    from measured
    group by tenant_id, device_id, device_key, metric_code, window_at

),
{{ completed_windows('window_at', 'window_at', "window_at + interval '1 minute'") }}
