{#- Hash of several text expressions that is the same after every rebuild. The length before each part keeps ('a|b', 'c') apart from ('a', 'b|c'). -#}
{% macro stable_key(expressions) -%}
    md5(
        {%- for expression in expressions %}
        octet_length({{ expression }})::text || ':' || {{ expression }}{{ ' || ' if not loop.last }}
        {%- endfor %}
    )
{%- endmacro %}
