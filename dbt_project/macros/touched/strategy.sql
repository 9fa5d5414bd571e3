{#- Step 3 of the strategy: the touched buckets go, what was recomputed comes. See the doc block touched_buckets. -#}
{% macro get_incremental_touched_buckets_sql(arg_dict) -%}
    {%- set target_relation = arg_dict['target_relation'] -%}
    {%- set columns = get_quoted_csv(arg_dict['dest_columns'] | map(attribute='name')) -%}
    delete from {{ target_relation }} as stored
    using {{ touched_name() }} as touched
    where {% for column in config.require('bucket') %}stored.{{ column }} = touched.{{ column }}{{ ' and ' if not loop.last }}{% endfor %};
    insert into {{ target_relation }} ({{ columns }})
    select {{ columns }} from {{ arg_dict['temp_relation'] }};
{%- endmacro %}
