{#- Rows of a staging view up to the horizon of this build; of another model, all its rows. -#}
{% macro rows_up_to_horizon(relation) -%}
    {%- if in_unit_test() or not relation.identifier.startswith('stg_') -%}
        {{ return(relation) }}
    {%- endif -%}
    (select * from {{ relation }} where _batch_id <= {{ horizon_of(relation.identifier[4:]) }})
{%- endmacro %}

{#-
    Rows of an input, up to the horizon, whose bucket this run recomputes. For inputs whose mapping names one expression a bucket column.
    Equality on the mapped expression lets a large set be hashed; the range on the input's time lets a small set use its index and prune partitions.
-#}
{% macro touched_rows(relation) -%}
    {%- if in_unit_test() or not execute -%}
        {{ return(relation) }}
    {%- endif -%}
    {%- set mapping = config.require('inputs')[relation.identifier] -%}
    {%- if mapping is undefined or mapping is none or mapping.get('select') -%}
        {{ exceptions.raise_compiler_error("touched_rows(" ~ relation.identifier ~ ") in " ~ this ~ " needs inputs['" ~ relation.identifier ~ "'] with one expression a bucket column; use is_touched() for other mappings") }}
    {%- endif -%}
    {%- set input = describe_input(relation.identifier) -%}
    {%- set bucket = config.require('bucket') -%}
    {%- set touched = touched_name() -%}
    (
        select candidate.*
        from (
            select
                input_row.*
                {%- for column in bucket if column in mapping %},
                {{ mapping[column] }} as touched__{{ column }}
                {%- endfor %}
            from {{ relation }} as input_row
            {%- if input.kind == 'stream' %}
            where input_row._batch_id <= {{ horizon_of(input.stream) }}
            {%- endif %}
        ) as candidate
        inner join {{ touched }} as touched
            on {% for column in bucket -%}
                touched.{{ column }} = candidate.{{ 'touched__' ~ column if column in mapping else column }}
                {%- if not loop.last %} and {% endif %}
            {%- endfor %}
            {%- set time = input.event_time %}
            {%- for column in bucket if time and column in mapping %}
            {%- set length = length_of_window(mapping[column], time) %}
            {%- if length %}
            and candidate.{{ time }} >= touched.{{ column }} and candidate.{{ time }} < touched.{{ column }} + interval '{{ length }}'
            {%- elif mapping[column] == date_of(time) %}
            and candidate.{{ time }} >= {{ start_of_date('touched.' ~ column) }} and candidate.{{ time }} < {{ start_of_date('(touched.' ~ column ~ ' + 1)') }}
            {%- endif %}
            {%- endfor %}
        {%- for column in bucket if time and column in mapping %}
        {%- set length = length_of_window(mapping[column], time) %}
        {%- if length %}
        where
            candidate.{{ time }} >= (select min({{ column }}) from {{ touched }})
            and candidate.{{ time }} < (select max({{ column }}) + interval '{{ length }}' from {{ touched }})
        {%- elif mapping[column] == date_of(time) %}
        where
            candidate.{{ time }} >= (select {{ start_of_date('min(' ~ column ~ ')') }} from {{ touched }})
            and candidate.{{ time }} < (select {{ start_of_date('(max(' ~ column ~ ') + 1)') }} from {{ touched }})
        {%- endif %}
        {%- endfor %}
    )
{%- endmacro %}

{#- Predicate that keeps the rows whose bucket this run recomputes. `columns` maps each bucket column to the expression that holds it here. -#}
{% macro is_touched(columns) -%}
    {%- if in_unit_test() or not execute -%}
        {{ return('true') }}
    {%- endif -%}
    exists (
        select 1 from {{ touched_name() }} as touched
        where {% for column in config.require('bucket') if column in columns -%}
            touched.{{ column }} = {{ columns[column] }}{{ ' and ' if not loop.last }}
        {%- endfor %}
    )
{%- endmacro %}

{#- Length of the window that an expression takes of a time: '1 minute' for window_of('event_at', '1 minute'). None for any other expression. -#}
{% macro length_of_window(expression, time) -%}
    {%- for length in ['1 minute', '5 minutes', '15 minutes', '1 hour', '1 day', '7 days'] if expression == window_of(time, length) -%}{{ return(length) }}{%- endfor -%}
    {{ return(none) }}
{%- endmacro %}

{#- The touched buckets of this run, as a relation to begin a query from; in a unit test, where there are none, `everything`. -#}
{% macro touched_buckets_or(everything) -%}
    {{ return(everything if in_unit_test() or not execute else touched_name()) }}
{%- endmacro %}
