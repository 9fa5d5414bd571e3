{#- Start of the UTC hour of a timestamp. Immutable, so it can stand in an index. -#}
{% macro hour_of(column) -%}
    date_bin(interval '1 hour', {{ column }}, timestamptz '2000-01-01 00:00:00+00')
{%- endmacro %}

{#- UTC date of a timestamp. -#}
{% macro date_of(column) -%}
    ({{ column }} at time zone 'UTC')::date
{%- endmacro %}

{#- First instant of a UTC date. -#}
{% macro start_of_date(column) -%}
    ({{ column }}::timestamp at time zone 'UTC')
{%- endmacro %}
