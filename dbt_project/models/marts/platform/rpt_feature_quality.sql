-- Grain: one row per tenant, feature table, feature and feature_date. Additive over days and tenants: counts. Shares are not; divide sums of counts.
-- Completeness: known_share. Freshness: renewed_share, the values that are other than the day before; a feature that stands still longer than it uses to has
-- lost its source. Consistency: out_of_range_count, by the bounds declared in macro watched_features; is_constant, all rows of the day alike.
-- Touched-bucket incremental: a changed day of a feature table touches itself and the day after, which is compared with it.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'feature_date'],
        event_time='feature_date',
        definition=watched_features() | string,
        inputs={
            'feat_device_daily': {
                'select': 'select tenant_id, feature_date + later as feature_date from {changes} as changed cross join (values (0), (1)) as days (later)',
            },
            'feat_component_daily': {
                'select': 'select tenant_id, feature_date + later as feature_date from {changes} as changed cross join (values (0), (1)) as days (later)',
            },
        },
        indexes=[
            {'columns': ['tenant_id', 'feature_date', 'feature_table', 'feature_name'], 'unique': true},
        ],
        tags=['hourly'],
    )
}}

{%- set entities = {'feat_device_daily': ['device_id'], 'feat_component_daily': ['device_id', 'component_code']} %}
{%- set watched = watched_features() %}

with

{% for table, entity in entities.items() -%}
{{ table }}_compared as (

    select
        today.tenant_id,
        {%- for feature in watched[table] %}
        today.{{ feature }},
        yesterday.{{ feature }} as {{ feature }}__before,
        {%- endfor %}
        today.feature_date
    from {{ ref(table) }} as today
    left join {{ ref(table) }} as yesterday
        on today.tenant_id = yesterday.tenant_id
        {%- for column in entity %}
        and today.{{ column }} = yesterday.{{ column }}
        {%- endfor %}
        and today.feature_date = yesterday.feature_date + 1
    where {{ is_touched({'tenant_id': 'today.tenant_id', 'feature_date': 'today.feature_date'}) }}

),

{% endfor -%}
counted as (

    {% for table in entities -%}
    {%- set last_table = loop.last -%}
    {%- for feature, (kind, lowest, highest) in watched[table].items() -%}
    select
        tenant_id,
        feature_date,
        '{{ table }}'::text as feature_table,
        '{{ feature }}'::text as feature_name,
        '{{ kind }}'::text as feature_kind,
        count(*) as row_count,
        count({{ feature }}) as known_count,
        count(*) filter (where {{ feature }} is not null and {{ feature }}__before is not null) as compared_count,
        count(*) filter (where {{ feature }} <> {{ feature }}__before) as renewed_count,
        {%- if kind == 'number' %}
        count(*) filter (
            where {{ feature }} in ('NaN'::double precision, 'Infinity'::double precision, '-Infinity'::double precision)
            {%- if lowest is not none %} or {{ feature }} < {{ lowest }}{% endif %}
            {%- if highest is not none %} or {{ feature }} > {{ highest }}{% endif %}
        ) as out_of_range_count,
        min({{ feature }})::double precision as lowest_value,
        max({{ feature }})::double precision as highest_value,
        {%- else %}
        null::bigint as out_of_range_count,
        null::double precision as lowest_value,
        null::double precision as highest_value,
        {%- endif %}
        min({{ feature }}::text) = max({{ feature }}::text) as is_alike
    from {{ table }}_compared
    group by tenant_id, feature_date
    {{ 'union all' if not (last_table and loop.last) }}
    {% endfor -%}
    {%- endfor %}

),

measured as (

    select
        -- ids
        tenant_id,
        feature_table,
        feature_name,
        feature_date,

        -- attributes
        feature_kind,
        row_count > 1 and known_count = row_count and is_alike as is_constant,

        -- measures
        row_count,
        known_count,
        known_count::double precision / row_count as known_share,
        compared_count,
        renewed_count,
        renewed_count::double precision / nullif(compared_count, 0) as renewed_share,
        out_of_range_count,
        out_of_range_count::double precision / nullif(known_count, 0) as out_of_range_share,
        lowest_value,
        highest_value
    from counted

)

select * from measured
