{#-
    Views are replaced in place. dbt's own way renames and drops with CASCADE, which takes analysts' views along. Where columns went away PostgreSQL refuses
    the replacement; then the view is dropped without CASCADE, which fails loudly if somebody's view still reads it.
-#}
{% materialization view, adapter='postgres' %}
    {%- set existing_relation = load_cached_relation(this) -%}
    {%- set target_relation = this.incorporate(type='view') -%}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {%- if existing_relation is not none and existing_relation.type != 'view' -%}
        {{ exceptions.raise_compiler_error(this ~ " is a " ~ existing_relation.type ~ " in the database and a view in the project: drop it by hand first") }}
    {%- endif -%}
    {%- set contract = config.get('contract') -%}
    {%- call statement('main') -%}
        {% if contract and contract.enforced %}{{ get_assert_columns_equivalent(sql) }}{% endif %}
        do $create_view$
        begin
            execute $statement$create or replace view {{ target_relation }} as ({{ sql }})$statement$;
        exception when invalid_table_definition then
            execute $statement$drop view {{ target_relation }}$statement$;
            execute $statement$create view {{ target_relation }} as ({{ sql }})$statement$;
        end
        $create_view$;
    {%- endcall -%}
    {%- do apply_grants(target_relation, config.get('grants'), should_revoke=should_revoke(existing_relation, False)) -%}
    {%- do persist_docs(target_relation, model) -%}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {%- do adapter.commit() -%}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}
