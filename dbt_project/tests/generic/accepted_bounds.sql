{#- Values lie in their inclusive bounds. `bounds`: {column: [lowest, highest]}, null for an open side. NULL passes: whether it may be NULL is a constraint. -#}
{% test accepted_bounds(model, bounds, scope='touched_in_this_run') %}
select *
from {{ rows_in_scope(model, scope) }} as tested
where
    false
    {%- for column, ends in bounds.items() %}
    {%- if ends[0] is not none %}
    or {{ column }} < {{ ends[0] }}
    {%- endif %}
    {%- if ends[1] is not none %}
    or {{ column }} > {{ ends[1] }}
    {%- endif %}
    or {{ column }}::text = 'NaN'
    {%- endfor %}
{% endtest %}
