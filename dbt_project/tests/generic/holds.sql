{#- An identity that every row fulfils. An expression that is NULL fails: write what a missing value means. -#}
{% test holds(model, expression, scope='touched_in_this_run') %}
select *
from {{ rows_in_scope(model, scope) }} as tested
where ({{ expression }}) is not true
{% endtest %}
