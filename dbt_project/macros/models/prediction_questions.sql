{#- What fct_prediction_outcome must know of each question that is asked of machines; declared in the var prediction_questions. -#}

{#- The questions, each with name, horizon_days, settling_days, condition, and probability or quantiles; component and relation where they have one. -#}
{% macro prediction_questions() -%}
    {{ return(var('prediction_questions')) }}
{%- endmacro %}

{#- Lines ('use case', days, days): a prediction of a day is settled when the newest day of features is at least so many days later; its horizon. -#}
{% macro settled_after_days() -%}
    {%- set lines = [] -%}
    {%- for question in prediction_questions() -%}
        {#- The horizon begins at the end of the day, and of the newest day nothing counts as known yet. -#}
        {%- do lines.append("('" ~ question.name ~ "', " ~ (1 + question.horizon_days + question.settling_days) ~ ", " ~ question.horizon_days ~ ")") -%}
    {%- endfor -%}
    {{ return(lines | join(', ')) }}
{%- endmacro %}

{#- Days of the longest time that an outcome takes to be reported. -#}
{% macro longest_settling_days() -%}
    {{ return(prediction_questions() | map(attribute='settling_days') | max) }}
{%- endmacro %}

{#- Predicate: the event answers the question of a use case. -#}
{% macro answers(use_case, event) -%}
    case {{ use_case }}
        {%- for question in prediction_questions() %}
        when '{{ question.name }}' then
            {%- for column, values in question.condition.items() %}
            {{ event }}.{{ column }} in ('{{ values | join("', '") }}'){{ ' and' if not loop.last }}
            {%- endfor %}
        {%- endfor %}
    end
{%- endmacro %}
