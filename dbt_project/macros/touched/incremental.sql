{#-
    dbt's own incremental materialization, for models that are there and follow touched buckets without what these need not ask: a model none of whose inputs moved
    since it was built is marked as built and done, and columns are asked for once. Most models of a build every few minutes are of the first kind, and making
    their empty tables of touched buckets would be what the build costs.
-#}
{% materialization incremental, adapter='postgres' %}
    {%- set existing_relation = load_cached_relation(this) -%}
    {%- if not is_touched_model() or existing_relation is none or not existing_relation.is_table -%}
        {{ return(dbt.materialization_incremental_default()) }}
    {%- endif -%}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- if nothing_moved() -%}
        {%- call statement('mark_built') -%}
            update ops.model_state set build_id = '{{ var('build_id', invocation_id) }}', built_at = clock_timestamp() where model = '{{ relation_key(this) }}'
        {%- endcall -%}
        {{ store_raw_result('main', message='NOTHING MOVED', code='NOTHING MOVED', rows_affected=0) }}
        {%- do adapter.commit() -%}
        {{ return({'relations': [target_relation]}) }}
    {%- endif -%}

    {%- set temp_relation = make_temp_relation(target_relation) -%}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {%- do run_query(get_create_table_as_sql(True, temp_relation, sql)) -%}
    {%- call statement('main') -%}
        {{ get_incremental_touched_buckets_sql({
            'target_relation': target_relation, 'temp_relation': temp_relation, 'dest_columns': columns_in_step(temp_relation, existing_relation)
        }) }}
    {%- endcall -%}
    {%- do apply_grants(target_relation, config.get('grants'), should_revoke=should_revoke(existing_relation, False)) -%}
    {%- do persist_docs(target_relation, model) -%}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{#- The table's columns, after it was given those that the new rows have beyond it (on_schema_change). -#}
{% macro columns_in_step(temp_relation, existing_relation) -%}
    {%- set columns_of = "(select array_agg((attname, atttypid, atttypmod) order by attname) from pg_attribute where attrelid = '{}'::regclass and attnum > 0 and not attisdropped)" -%}
    {%- set compared = run_query(
        "select " ~ columns_of.format(temp_relation) ~ " = " ~ columns_of.format(existing_relation) ~ ", (select json_agg(json_build_object('name', attname) order by attnum)::text"
        ~ " from pg_attribute where attrelid = '" ~ existing_relation ~ "'::regclass and attnum > 0 and not attisdropped)"
    )[0] -%}
    {%- if compared[0] -%}{{ return(fromjson(compared[1])) }}{%- endif -%}
    {%- set contract = config.get('contract') -%}
    {%- if not contract or not contract.enforced -%}
        {%- do adapter.expand_target_column_types(from_relation=temp_relation, to_relation=existing_relation) -%}
    {%- endif -%}
    {{ return(process_schema_changes(config.get('on_schema_change'), temp_relation, existing_relation) or adapter.get_columns_in_relation(existing_relation)) }}
{%- endmacro %}

{#-
    Whether the model's table is as a build up to this horizon would leave it: it has the grants that it is to have, its SQL is what it was, and each
    input stands where it stood, a stream at the horizon of this build, a model without a bucket logged since. False where anything else may have to be done.
-#}
{% macro nothing_moved() -%}
    {%- if var('rebuild', false) | as_bool or var('rebuild_months', []) -%}{{ return(false) }}{%- endif -%}
    {%- set key = relation_key(this) -%}
    {%- set stands = ["(state.input = 'touch' and state.position >= " ~ horizon_of('touch') ~ ")"] -%}
    {%- for name in config.require('inputs') -%}
        {%- set input = describe_input(name) -%}
        {%- if input.kind == 'stream' -%}
            {%- do stands.append("(state.input = '" ~ name ~ "' and state.position = " ~ horizon_of(input.stream) ~ ")") -%}
        {%- else -%}
            {%- do stands.append("(state.input = '" ~ name ~ "' and not exists (select from ops.bucket_change as logged where logged.relation = '"
                ~ relation_key(input.relation) ~ "' and logged.change_id > state.position))") -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set granted = [] -%}
    {%- for privilege, roles in (config.get('grants') or {}).items() -%}
        {%- for role in ([roles] if roles is string else roles) -%}{%- do granted.append("'" ~ role ~ ":" ~ privilege | upper ~ "'") -%}{%- endfor -%}
    {%- endfor -%}
    {%- do run_query("select ops.lock_model('" ~ key ~ "')") -%}
    {%- set standing = run_query(
        "with granted as (select pg_get_userbyid(entry.grantee) || ':' || entry.privilege_type as line from pg_class as relation, aclexplode(relation.relacl) as entry"
        ~ " where relation.oid = '" ~ this ~ "'::regclass and entry.grantee <> relation.relowner),"
        ~ " wanted as (select unnest(array[" ~ granted | join(', ') ~ "]::text[]) as line)"
        ~ " select count(*) = " ~ stands | length ~ " and count(*) filter (where checksum = '" ~ model_checksum() ~ "' and (" ~ stands | join(' or ') ~ ")) = count(*)"
        ~ " and not exists ((select line from wanted except select line from granted) union all (select line from granted except select line from wanted))"
        ~ " from ops.model_state as state where model = '" ~ key ~ "'"
    ) -%}
    {{ return(standing[0][0]) }}
{%- endmacro %}
