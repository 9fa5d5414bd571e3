{#-
    Lines ('mart', 'model on the way', 'stream') for every mart that is made of a stream, from the project's graph: `model` is the mart itself or a model that lies
    between it and the stream. Staging views hold nothing and are left out; so are views over ops, which are always true.
-#}
{% macro mart_lineage() -%}
    {%- if not execute -%}{{ return("(null::text, null::text, null::text)") }}{%- endif -%}
    {%- set lines = [] -%}
    {%- for mart in graph.nodes.values() | selectattr('resource_type', 'equalto', 'model') | sort(attribute='unique_id') -%}
        {%- if mart.config.materialized in ['incremental', 'refilled_table'] and ('marts' in mart.fqn or 'features' in mart.fqn) -%}
            {%- for model_id in models_above(mart.unique_id) -%}
                {%- set step = graph.nodes[model_id] -%}
                {%- if step.config.materialized != 'view' -%}
                    {%- for stream in streams_above(model_id) -%}
                        {%- do lines.append("('" ~ mart.schema ~ "." ~ mart.alias ~ "', '" ~ step.schema ~ "." ~ step.alias ~ "', '" ~ stream ~ "')") -%}
                    {%- endfor -%}
                {%- endif -%}
            {%- endfor -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(lines | join(',\n        ')) }}
{%- endmacro %}

{#- A model and every model it is made of, directly or not. -#}
{% macro models_above(unique_id) -%}
    {%- set found = [unique_id] -%}
    {%- for model_id in found -%}
        {%- for parent in graph.nodes[model_id].depends_on.nodes if parent.startswith('model.') and parent not in found -%}
            {%- do found.append(parent) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}

{#- Streams that a model is made of, directly or not. -#}
{% macro streams_above(unique_id) -%}
    {%- set streams = [] -%}
    {%- for model_id in models_above(unique_id) -%}
        {%- for parent in graph.nodes[model_id].depends_on.nodes if parent.startswith('source.tidemark.raw.') -%}
            {%- set stream = parent.split('.')[3] -%}
            {%- if stream not in streams -%}{%- do streams.append(stream) -%}{%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(streams | sort) }}
{%- endmacro %}
