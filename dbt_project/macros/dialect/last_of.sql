{#- Value of the newest row of a group; the second order column breaks ties, so that the answer does not depend on the order of rows. -#}
{% macro last_of(expression, order_by, tie_break=none) -%}
    (array_agg({{ expression }} order by {{ order_by }} desc{% if tie_break %}, {{ tie_break }} desc{% endif %}))[1]
{%- endmacro %}
