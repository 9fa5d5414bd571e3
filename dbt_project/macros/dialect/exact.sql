{#- Sums and averages that do not depend on the order of rows: sum(float8) does, numeric does not. Out comes double precision.
    PostgreSQL takes 15 significant digits of a double into numeric, more than any sensor or price has; the 16th and 17th of a computed value are rounded. -#}
{% macro exact_sum(expression) -%}
    sum(({{ expression }})::numeric)::double precision
{%- endmacro %}

{% macro exact_avg(expression) -%}
    (sum(({{ expression }})::numeric) / nullif(count({{ expression }}), 0))::double precision
{%- endmacro %}
