{#- The grain: no two rows with the same values of these columns, and none of them NULL. -#}
{% test unique_combination(model, columns, scope='touched_in_this_run') %}
select
    {{ columns | join(', ') }},
    count(*) as row_count
from {{ rows_in_scope(model, scope) }} as tested
group by {{ columns | join(', ') }}
having count(*) > 1{% for column in columns %} or {{ column }} is null{% endfor %}
{% endtest %}
