{#- Lines and facilities: sums of the windows of their devices (decision 0027). A bucket is a window of a tenant, because a device that moved leaves one facility and enters another. -#}

{#- Last CTE of a roll-up: means and deviations of `grouped`. `ids` are the columns of its grain but tenant and metric; `with_expected` where expectations add up. -#}
{% macro completed_rollup(ids, with_expected=false) %}
rolled_up as (

    select
        -- ids
        tenant_id,
        {%- for column in ids %}
        {{ column }},
        {%- endfor %}
        metric_code,

        -- measures
        reading_count,
        {%- if with_expected %}
        expected_reading_count,
        {{ share_of_expected() }} as completeness_pct,
        {%- endif %}
        sum_value,
        sum_squared_value,
        {{ mean_of_sums() }} as avg_value,
        min_value,
        max_value,
        {{ deviation_of_sums() }} as stddev_value,

        -- metadata
        _batch_id
    from grouped

)

select * from rolled_up
{%- endmacro %}

{#- Predicate: a time lies within a touched local date of any zone (UTC-12 to UTC+14). Says nothing new beside is_touched; it lets the index on time be used. -#}
{% macro lies_near_touched_dates(column, date_column) -%}
    {%- if in_unit_test() or not execute -%}{{ return('true') }}{%- endif -%}
    {{ column }} >= (select {{ start_of_date('min(' ~ date_column ~ ')') }} - interval '14 hours' from {{ touched_name() }})
    and {{ column }} < (select {{ start_of_date('max(' ~ date_column ~ ')') }} + interval '36 hours' from {{ touched_name() }})
{%- endmacro %}

{#- Arguments of config() for a roll-up whose bucket is a window of a tenant. -#}
{% macro rollup_config(of, at_mapping, definition, ids) -%}
    {{ return({
        'materialized': 'incremental',
        'incremental_strategy': 'touched_buckets',
        'bucket': ['tenant_id', 'window_at'],
        'event_time': 'window_at',
        'inputs': {of: at_mapping},
        'definition': definition_of(merged_measures() ~ definition),
        'indexes': [{'columns': ['window_at', 'tenant_id'] + ids + ['metric_code'], 'unique': true}],
        'tags': ['micro_batch', 'maintenance', 'windows'],
    }) }}
{%- endmacro %}
