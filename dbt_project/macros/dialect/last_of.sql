{#- Value of the newest row of a group; the second order column breaks ties, so that the answer does not depend on the order of rows. -#}
{% macro last_of(expression, order_by, tie_break=none) -%}
    (array_agg({{ expression }} order by {{ order_by }} desc{% if tie_break %}, {{ tie_break }} desc{% endif %}))[1]
{%- endmacro %}

{#- Number that goes with the smallest or the largest of a number to order by, of rows that have both. (Elsewhere: MIN_BY, MAX_BY.) -#}
{% macro min_by(value, order_by) -%}
    (min(array[{{ order_by }}, {{ value }}]) filter (where {{ value }} is not null))[2]
{%- endmacro %}

{% macro max_by(value, order_by) -%}
    (max(array[{{ order_by }}, {{ value }}]) filter (where {{ value }} is not null))[2]
{%- endmacro %}
