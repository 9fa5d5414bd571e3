{#- As many rows as the input has in scope, per tenant: no join added or dropped any. `counted` says which rows of the input the model has, `own` which
    rows of the model are of the input. -#}
{% test no_fanout(model, compare_to, counted='true', own='true', scope='touched_in_this_run') %}
with

here as (select tenant_id, count(*) as row_count from {{ comparable_rows_in_scope(model, compare_to, scope) }} as tested where {{ own }} group by tenant_id),

there as (select tenant_id, count(*) as row_count from {{ input_rows_in_scope(model, compare_to, scope) }} as compared where {{ counted }} group by tenant_id)

select
    coalesce(here.tenant_id, there.tenant_id) as tenant_id,
    here.row_count as rows_here,
    there.row_count as rows_there
from here
full outer join there on here.tenant_id = there.tenant_id
where here.row_count is distinct from there.row_count
{% endtest %}
