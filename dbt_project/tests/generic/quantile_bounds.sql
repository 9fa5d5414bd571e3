{#- A quantile of a column lies in its bounds: single odd values pass, a shifted unit or scale does not. No rows pass. -#}
{% test quantile_bounds(model, column, quantile, lowest, highest, scope='nightly') %}
select measured.value
from (
    select percentile_disc({{ quantile }}) within group (order by {{ column }}) as value
    from {{ rows_in_scope(model, scope) }} as tested
) as measured
where measured.value < {{ lowest }} or measured.value > {{ highest }}
{% endtest %}
