{#-
    Pre-hook of a model that joins a large set of touched buckets with a table that an earlier model of the same build has just made: PostgreSQL has no statistics of it
    yet and would join row by row. Does nothing once the table has been analysed.
-#}
{% macro analyze_if_new(relation) -%}
    {%- if not execute or model.resource_type != 'model' -%}{{ return('') }}{%- endif -%}
    {%- set never = run_query(
        "select not exists (select 1 from pg_stats where schemaname = '" ~ relation.schema ~ "' and tablename = '" ~ relation.identifier ~ "')"
    ) -%}
    {%- if never[0][0] -%}
        analyze {{ relation }}
    {%- endif -%}
{%- endmacro %}
