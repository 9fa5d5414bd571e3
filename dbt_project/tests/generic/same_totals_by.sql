{#- Horizontal integrity: two models agree on the same measure, group by group. `groups` and `measures`: {column or expression here: the same over there}. -#}
{% test same_totals_by(model, compare_to, groups, measures, scope='nightly') %}
{%- set looked_at = effective_scope(scope) == 'all' %}
with

here as (

    select
        {%- for group in groups %}
        {{ group }} as group_{{ loop.index }},
        {%- endfor %}
        {%- for measure in measures %}
        ({{ measure }})::numeric as measure_{{ loop.index }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ model }}
    where {{ looked_at }}
    group by {% for group in groups %}{{ group }}{{ ', ' if not loop.last }}{% endfor %}

),

there as (

    select
        {%- for group in groups.values() %}
        {{ group }} as group_{{ loop.index }},
        {%- endfor %}
        {%- for measure in measures.values() %}
        ({{ measure }})::numeric as measure_{{ loop.index }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ relation_named(compare_to) if execute else model }}
    where {{ looked_at }}
    group by {% for group in groups.values() %}{{ group }}{{ ', ' if not loop.last }}{% endfor %}

)

select
    here.*,
    {%- for measure in measures %}
    there.measure_{{ loop.index }} as compared_{{ loop.index }}{{ ',' if not loop.last }}
    {%- endfor %}
from here
full outer join there on {% for group in groups %}here.group_{{ loop.index }} = there.group_{{ loop.index }}{{ ' and ' if not loop.last }}{% endfor %}
where
    {%- for measure in measures %}
    {{ 'or ' if not loop.first }}abs(coalesce(here.measure_{{ loop.index }}, 0) - coalesce(there.measure_{{ loop.index }}, 0)) > 1e-9 * greatest(1, abs(coalesce(there.measure_{{ loop.index }}, 0)))
    {%- endfor %}
{% endtest %}
