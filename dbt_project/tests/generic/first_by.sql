{#- Of each group the rows of one kind (`first`) have at least as much of a measure as any row of another kind (`after`). Looks at the whole table. -#}
{% test first_by(model, groups, measure, first, after) %}
select
    {%- for group in groups %}
    {{ group }},
    {%- endfor %}
    min({{ measure }}) filter (where {{ first }}) as least_of_first,
    max({{ measure }}) filter (where {{ after }}) as most_of_after
from {{ model }}
group by {{ groups | join(', ') }}
having min({{ measure }}) filter (where {{ first }}) < max({{ measure }}) filter (where {{ after }})
{% endtest %}
