{#- What the strategy knows about a model's inputs. All of it comes from configs and contracts, nothing is guessed. -#}

{% macro is_touched_model() -%}
    {{ return(config.get('incremental_strategy') == 'touched_buckets' and config.get('materialized') == 'incremental') }}
{%- endmacro %}

{#- Inside a unit test there are fixtures instead of tables and no touched buckets: every row counts. -#}
{% macro in_unit_test() -%}
    {{ return(model.resource_type == 'unit_test') }}
{%- endmacro %}

{% macro touched_name() -%}
    {{ return('touched__' ~ this.identifier) }}
{%- endmacro %}

{% macro relation_key(relation) -%}
    {{ return(relation.schema ~ '.' ~ relation.identifier) }}
{%- endmacro %}

{#- Last committed batch of a stream that this build reads, or with 'touch' the last touch request. -#}
{% macro horizon_of(stream) -%}
    {%- set horizon = var('horizon', none) -%}
    {%- if horizon is string -%}{%- set horizon = fromjson(horizon) -%}{%- endif -%}
    {%- if horizon is none -%}
        {%- if execute and flags.WHICH in ['run', 'build', 'test'] -%}
            {{ exceptions.raise_compiler_error(
                "model " ~ this ~ " needs the var 'horizon' ({stream: last committed batch}), fixed once for all models of a run. "
                ~ "Build through the DAGs or `tidemark build`, which fix it."
            ) }}
        {%- endif -%}
        {{ return(0) }}
    {%- endif -%}
    {{ return(horizon.get(stream, 0) | int) }}
{%- endmacro %}

{#- Description of one input: kind 'stream' (a staging view) or 'model', its relation, key columns and column of event time. -#}
{% macro describe_input(name) -%}
    {%- set node = graph.nodes.get('model.tidemark.' ~ name) -%}
    {%- if not node -%}
        {{ exceptions.raise_compiler_error("inputs of " ~ this ~ " name '" ~ name ~ "', which is no model") }}
    {%- endif -%}
    {%- set relation = api.Relation.create(database=node.database, schema=node.schema, identifier=node.alias) -%}
    {%- if name.startswith('stg_') -%}
        {%- set stream = name[4:] -%}
        {%- set source = graph.sources['source.tidemark.raw.' ~ stream] -%}
        {%- set columns = ['tenant_id', 'event_at'] -%}
        {%- for column in source.config.meta.bucket_columns if column not in columns -%}{%- do columns.append(column) -%}{%- endfor -%}
        {{ return({'kind': 'stream', 'name': name, 'stream': stream, 'relation': relation, 'columns': columns, 'event_time': 'event_at', 'rowtype': 'raw.' ~ adapter.quote(stream)}) }}
    {%- endif -%}
    {%- set bucket = node.config.get('bucket') -%}
    {%- if not bucket -%}
        {{ exceptions.raise_compiler_error("input '" ~ name ~ "' of " ~ this ~ " declares no bucket, so its changes cannot be followed") }}
    {%- endif -%}
    {{ return({'kind': 'model', 'name': name, 'relation': relation, 'columns': bucket, 'event_time': node.config.get('event_time'), 'rowtype': relation}) }}
{%- endmacro %}

{#- SQL that yields this model's buckets for a relation of changed rows or buckets of an input. A `select` may also look things up in other inputs: {name}. -#}
{% macro mapped_buckets(mapping, input, changes) -%}
    {%- set bucket = config.require('bucket') -%}
    {%- if mapping.get('select') -%}
        {%- set text = namespace(sql=mapping['select'].replace('{changes}', changes).replace('{this}', this | string).replace('{input}', input.relation | string)) -%}
        {%- for name in config.require('inputs') if '{' ~ name ~ '}' in text.sql -%}
            {%- set text.sql = text.sql.replace('{' ~ name ~ '}', describe_input(name).relation | string) -%}
        {%- endfor -%}
        select {{ bucket | join(', ') }} from ({{ text.sql }}) as mapped
    {%- else -%}
        select {% for column in bucket %}{{ mapping.get(column, column) }} as {{ column }}{{ ', ' if not loop.last }}{% endfor %} from {{ changes }} as changed
    {%- endif -%}
{%- endmacro %}

{#- Fingerprint of what decides a model's content besides its inputs: its SQL, its bucket mapping and, where macros write its SQL, what they write (`definition`). -#}
{% macro model_checksum() -%}
    {{ return(local_md5(model.raw_code ~ (config.get('bucket') | string) ~ (config.get('inputs') | string) ~ (config.get('definition') or ''))) }}
{%- endmacro %}
