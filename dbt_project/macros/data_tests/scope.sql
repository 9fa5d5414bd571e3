{#-
    Which rows a data test looks at. `touched_in_this_run`: the buckets that the build in var build_id recomputed, which is all that can have become wrong; the
    nightly run (var full_tests) and calls by hand (no build_id) look at the whole table. `nightly`: nothing but on the nightly run. `all`: always the whole table.
-#}
{% macro effective_scope(scope) -%}
    {%- if scope not in ['touched_in_this_run', 'nightly', 'all'] -%}
        {{ exceptions.raise_compiler_error("scope of a data test is touched_in_this_run, nightly or all, not '" ~ scope ~ "'") }}
    {%- endif -%}
    {%- if scope == 'all' or var('full_tests', false) | as_bool or not var('build_id', none) -%}{{ return('all') }}{%- endif -%}
    {{ return(scope) }}
{%- endmacro %}

{#- A model of the project by name. Tests name a model of another call by name and not by ref(): with a ref dbt would leave the test out of every call that does not select both. -#}
{% macro model_named(name) -%}
    {%- set node = graph.nodes.get('model.tidemark.' ~ name) -%}
    {%- if not node -%}{{ exceptions.raise_compiler_error("a data test names '" ~ name ~ "', which is no model") }}{%- endif -%}
    {{ return(node) }}
{%- endmacro %}

{% macro relation_named(name) -%}
    {%- set node = model_named(name) -%}
    {{ return(api.Relation.create(database=node.database, schema=node.schema, identifier=node.alias)) }}
{%- endmacro %}

{#- Whether the build recomputed every bucket of a relation, or the relation has none. -#}
{% macro everything_is_in_scope(relation, scope) -%}
    {%- if effective_scope(scope) == 'all' or not model_named(relation.identifier).config.get('bucket') -%}{{ return(true) }}{%- endif -%}
    {%- set rebuilt = run_query(
        "select exists (select 1 from ops.bucket_change where relation = '" ~ relation.schema ~ "." ~ relation.identifier
        ~ "' and build_id = '" ~ var('build_id') ~ "' and bucket is null)"
    ) -%}
    {{ return(rebuilt[0][0]) }}
{%- endmacro %}

{#- The buckets that this build recomputed or emptied. -#}
{% macro buckets_in_scope(relation) -%}
    {%- set bucket = model_named(relation.identifier).config.get('bucket') -%}
    (
        select distinct {% for column in bucket %}bucket_row.{{ column }}{{ ', ' if not loop.last }}{% endfor %}
        from ops.bucket_change as logged, lateral jsonb_populate_record(null::{{ relation }}, logged.bucket) as bucket_row
        where logged.relation = '{{ relation.schema }}.{{ relation.identifier }}' and logged.build_id = '{{ var("build_id") }}'
    )
{%- endmacro %}

{#- Rows of the tested model that are in scope. -#}
{% macro rows_in_scope(relation, scope) -%}
    {%- if not execute -%}{{ return(relation) }}{%- endif -%}
    {%- if effective_scope(scope) == 'nightly' -%}{{ return("(select * from " ~ relation ~ " where false)") }}{%- endif -%}
    {%- if everything_is_in_scope(relation, scope) -%}{{ return(relation) }}{%- endif -%}
    {%- set bucket = model_named(relation.identifier).config.get('bucket') -%}
    (
        select tested.*
        from {{ relation }} as tested
        inner join {{ buckets_in_scope(relation) }} as touched
            on {% for column in bucket %}tested.{{ column }} = touched.{{ column }}{{ ' and ' if not loop.last }}{% endfor %}
    )
{%- endmacro %}

{#- Rows of one of the tested model's inputs that its rows in scope are made of, up to the horizon of the build. The mapping is the one the model declares. -#}
{% macro input_rows_in_scope(relation, input_name, scope) -%}
    {%- set input = relation_named(input_name) if execute else relation -%}
    {%- if not execute -%}{{ return(relation) }}{%- endif -%}
    {%- if effective_scope(scope) == 'nightly' -%}{{ return("(select * from " ~ input ~ " where false)") }}{%- endif -%}
    {%- set conditions = [] -%}
    {%- if input_name.startswith('stg_') and var('horizon', none) -%}
        {%- do conditions.append("input_row._batch_id <= " ~ horizon_of(input_name[4:])) -%}
    {%- endif -%}
    {%- if everything_is_in_scope(relation, scope) -%}
        {%- if not conditions -%}{{ return(input) }}{%- endif -%}
        {{ return("(select * from " ~ input ~ " as input_row where " ~ conditions[0] ~ ")") }}
    {%- endif -%}
    {%- set node = model_named(relation.identifier) -%}
    {%- set mapping = node.config.inputs[input_name] -%}
    {%- if mapping.get('select') -%}
        {{ exceptions.raise_compiler_error("a data test compares " ~ relation ~ " with " ~ input_name ~ ", whose changes map to several buckets: give the test scope nightly") }}
    {%- endif -%}
    {%- for column in node.config.bucket -%}
        {%- set expression = mapping.get(column, column) -%}
        {%- do conditions.append("(" ~ expression ~ ") = touched." ~ column) -%}
        {%- for time in ['event_at', 'hour_at', 'window_at'] -%}
            {#- The range says nothing new; it lets a small set use the index on time and prune partitions. -#}
            {%- set length = length_of_window(expression, time) -%}
            {%- if length -%}
                {%- do conditions.append(time ~ " >= touched." ~ column ~ " and " ~ time ~ " < touched." ~ column ~ " + interval '" ~ length ~ "'") -%}
            {%- elif expression == date_of(time) -%}
                {%- do conditions.append(time ~ " >= " ~ start_of_date('touched.' ~ column) ~ " and " ~ time ~ " < " ~ start_of_date('(touched.' ~ column ~ ' + 1)')) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    (
        select input_row.*
        from {{ buckets_in_scope(relation) }} as touched
        cross join lateral (
            select * from {{ input }} as input_row where {{ conditions | join(' and ') }}
        ) as input_row
    )
{%- endmacro %}

{#-
    Rows of the tested model in scope, without those whose input rows have left the raw table: what is to be compared with an input can only be compared where
    that still holds its rows.
-#}
{% macro comparable_rows_in_scope(relation, input_name, scope) -%}
    {%- set rows = rows_in_scope(relation, scope) -%}
    {%- if not execute or not input_name.startswith('stg_') -%}{{ return(rows) }}{%- endif -%}
    {{ return("(select * from " ~ rows ~ " as comparable where " ~ is_in_raw(model_named(relation.identifier), 'comparable', input_name[4:]) ~ ")") }}
{%- endmacro %}

{#- The column that holds a row's own day, for models that forget or remember. -#}
{% macro own_time_of(relation) -%}
    {{ return(model_named(relation.identifier).config.get('event_time') if execute else none) }}
{%- endmacro %}

{#- Predicate: what a remembering model made of its input can still be compared with it. `time` is the row's day by the model. -#}
{% macro is_still_in_input(relation, time) -%}
    {%- if not execute -%}{{ return('true') }}{%- endif -%}
    {%- set node = model_named(relation.identifier) -%}
    {%- if not node.config.get('remembers') -%}{{ return('true') }}{%- endif -%}
    {%- if not time -%}
        {{ exceptions.raise_compiler_error(relation ~ " remembers what its input forgot: say in `time_there` of its data test which day it gives a row of the input") }}
    {%- endif -%}
    {{ return(is_made_of_kept_days(node, time)) }}
{%- endmacro %}
