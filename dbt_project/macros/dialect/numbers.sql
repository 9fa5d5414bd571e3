{#- Whether a text is a number that a double precision takes: digits with a point and an exponent, no words such as NaN. -#}
{% macro is_number(text) -%}
    ({{ text }} ~ '^\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,2})?\s*$' and length({{ text }}) <= 40)
{%- endmacro %}
