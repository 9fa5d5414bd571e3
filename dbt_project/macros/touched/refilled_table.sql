{#-
    A table that depends on everything (ranks, top shares): emptied and refilled in one transaction, never swapped, so that analysts' views, grants and policies
    on it survive. DELETE, not TRUNCATE: a reader whose snapshot is older than a TRUNCATE would see an empty table.
-#}
{% materialization refilled_table, adapter='postgres' %}
    {%- set existing_relation = load_cached_relation(this) -%}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- set temp_relation = make_temp_relation(target_relation) -%}
    {%- set grant_config = config.get('grants') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {%- do run_query("select ops.lock_model('" ~ relation_key(this) ~ "')") -%}

    {%- if existing_relation is none -%}
        {%- call statement('main') -%}{{ get_create_table_as_sql(False, target_relation, sql) }}{%- endcall -%}
        {%- do create_indexes(target_relation) -%}
    {%- else -%}
        {%- do run_query(get_create_table_as_sql(True, temp_relation, sql)) -%}
        {%- set columns = process_schema_changes('sync_all_columns', temp_relation, existing_relation) -%}
        {%- if not columns -%}{%- set columns = adapter.get_columns_in_relation(existing_relation) -%}{%- endif -%}
        {%- set names = get_quoted_csv(columns | map(attribute='name')) -%}
        {%- call statement('main') -%}
            delete from {{ target_relation }};
            insert into {{ target_relation }} ({{ names }}) select {{ names }} from {{ temp_relation }};
        {%- endcall -%}
    {%- endif -%}

    {%- do apply_grants(target_relation, grant_config, should_revoke=should_revoke(existing_relation, False)) -%}
    {%- do persist_docs(target_relation, model) -%}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}
