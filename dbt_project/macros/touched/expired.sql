{#-
    Months that have left the raw table (ops.partition_state). A model that reads a staging view of such a stream can only recompute buckets whose rows are there:
    recomputing another one would empty it. So the touched set never holds them, and a rebuild that meant them is refused, but for `tidemark rebuild`, which
    brings the months back one by one. A month that was restored counts as being there.
-#}

{#-
    Expiring streams whose staging views a node reads, each with the bucket column that holds the time of its rows: [{'stream', 'column'}].
    What reads are the views that its SQL refers to; an input that is only named says which buckets changed, and needs no rows. `tidemark` refuses to deploy a
    project in which such a bucket does not lie within a month (include/transform/expiring.py).
-#}
{% macro expiring_inputs(node) -%}
    {%- set found = [] -%}
    {%- for parent in node.depends_on.nodes if parent.startswith('model.') and graph.nodes[parent].name.startswith('stg_') -%}
        {%- set stream = graph.nodes[parent].name[4:] -%}
        {%- set source = graph.sources['source.tidemark.raw.' ~ stream] -%}
        {%- if source.config.meta.get('expires') -%}
            {%- set mapping = node.config.get('inputs', {}).get('stg_' ~ stream, {}) -%}
            {%- for column, expression in mapping.items() if expression in [window_of('event_at', '1 minute'), hour_of('event_at'), date_of('event_at')] -%}
                {%- do found.append({'stream': stream, 'column': column}) -%}
            {%- endfor -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}

{#- Predicate: raw still holds what the bucket of this row is made of. `alias` names the row. True for a node that reads no expiring stream. -#}
{% macro is_in_raw(node, alias, only_stream=none) -%}
    {%- set conditions = [] -%}
    {%- for input in expiring_inputs(node) if only_stream is none or input.stream == only_stream -%}
        {%- do conditions.append(
            "not exists (select 1 from ops.partition_state as gone where gone.stream = '" ~ input.stream ~ "' and gone.state in ('expired', 'deleted')"
            ~ " and gone.month = date_trunc('month', " ~ alias ~ "." ~ input.column ~ "::timestamp)::date)"
        ) -%}
    {%- endfor -%}
    {{ return(conditions | join(' and ') or 'true') }}
{%- endmacro %}

{#- Stops a rebuild of this model where rows that it would need are in the lake only. `tidemark rebuild` sets the var and sees to those months itself. -#}
{% macro refuse_rebuild_of_expired() -%}
    {%- if var('rebuild_in_raw', false) | as_bool -%}{{ return('') }}{%- endif -%}
    {%- for input in expiring_inputs(model) -%}
        {%- set gone = run_query(
            "select count(*), to_char(min(month), 'YYYY-MM'), to_char(max(month), 'YYYY-MM') from ops.partition_state where stream = '" ~ input.stream
            ~ "' and state in ('expired', 'deleted')"
        )[0] -%}
        {%- if gone[0] | int > 0 -%}
            {{ exceptions.raise_compiler_error(
                this ~ " must be rebuilt (it is new, its SQL or inputs changed, or a rebuild was asked for), but " ~ gone[0] ~ " months of " ~ input.stream ~ " ("
                ~ gone[1] ~ " to " ~ gone[2] ~ ") have left the raw table: run `tidemark rebuild --select " ~ this.identifier
                ~ "`, which brings them back from the lake month by month"
            ) }}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}
