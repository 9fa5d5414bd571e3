{#-
    Vertical integrity: per tenant the sum of each named column equals an aggregate over another relation; nothing is lost or fanned out on the way.
    `measures`: {column of this model: aggregate over the other}. `compare_to` is the name of an input of the model, whose declared mapping says which of its rows are in scope.
    `time_there` is needed where the model remembers what its input has forgotten: the day that the model gives a row of the input.
-#}
{% test equal_totals(model, compare_to, measures, scope='touched_in_this_run', time_there=none) %}
with

here as (

    select
        tenant_id
        {%- for column in measures %},
        coalesce(sum({{ column }})::numeric, 0) as {{ column }}
        {%- endfor %}
    from {{ comparable_rows_in_scope(model, compare_to, scope) }} as tested
    where {{ is_still_in_input(model, own_time_of(model)) }}
    group by tenant_id

),

there as (

    select
        tenant_id
        {%- for column, aggregate in measures.items() %},
        coalesce(({{ aggregate }})::numeric, 0) as {{ column }}
        {%- endfor %}
    from {{ input_rows_in_scope(model, compare_to, scope) }} as compared
    where {{ is_still_in_input(model, time_there) }}
    group by tenant_id

)

select
    coalesce(here.tenant_id, there.tenant_id) as tenant_id
    {%- for column in measures %},
    here.{{ column }} as {{ column }}_here,
    there.{{ column }} as {{ column }}_there
    {%- endfor %}
from here
full outer join there on here.tenant_id = there.tenant_id
where
    {%- for column in measures %}
    {{ 'or ' if not loop.first }}abs(coalesce(here.{{ column }}, 0) - coalesce(there.{{ column }}, 0)) > 1e-9 * greatest(1, abs(coalesce(there.{{ column }}, 0)))
    {%- endfor %}
{% endtest %}
