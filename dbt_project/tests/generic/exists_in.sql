{#- Every row finds its partner. `columns`: {column here: column there}; rows with a NULL in one of them have no partner to find. `to` is the name of a model; `needed` says which rows must. -#}
{% test exists_in(model, to, columns, needed='true', scope='touched_in_this_run') %}
select tested.*
from {{ rows_in_scope(model, scope) }} as tested
where
    {{ needed }} and
    {% for column in columns %}tested.{{ column }} is not null and {% endfor %}
    not exists (
        select 1
        from {{ relation_named(to) if execute else model }} as partner
        where {% for here, there in columns.items() %}partner.{{ there }} = tested.{{ here }}{{ ' and ' if not loop.last }}{% endfor %}
    )
{% endtest %}
