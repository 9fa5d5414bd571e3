{#- Last statement of a model's transaction: log the buckets it recomputed or emptied and move its state. -#}
{% macro end_touched() -%}
    {%- if not execute or config.get('materialized') not in ['incremental', 'refilled_table'] -%}{{ return('') }}{%- endif -%}
    {%- set key = relation_key(this) -%}
    {%- set build_id = var('build_id', invocation_id) -%}
    {%- if not is_touched_model() -%}
        {%- if config.get('materialized') == 'incremental' -%}
            {{ exceptions.raise_compiler_error(this ~ ": incremental models of this house use incremental_strategy='touched_buckets'") }}
        {%- endif -%}
        insert into ops.model_state (model, input, position, checksum, build_id) values ('{{ key }}', '*', 0, '{{ model_checksum() }}', '{{ build_id }}')
        on conflict (model, input) do update set checksum = excluded.checksum, build_id = excluded.build_id, built_at = clock_timestamp();
    {%- else -%}
    insert into ops.bucket_change (relation, bucket, build_id)
    select '{{ key }}', null, '{{ build_id }}' where exists (select 1 from touched_state__{{ this.identifier }} where is_rebuild);
    insert into ops.bucket_change (relation, bucket, build_id)
    select '{{ key }}', to_jsonb(touched), '{{ build_id }}' from {{ touched_name() }} as touched
    where not exists (select 1 from touched_state__{{ this.identifier }} where is_rebuild);
    delete from ops.model_state where model = '{{ key }}' and input not in (select input from touched_state__{{ this.identifier }});
    insert into ops.model_state (model, input, position, checksum, build_id)
    select '{{ key }}', input, position, checksum, '{{ build_id }}' from touched_state__{{ this.identifier }}
    on conflict (model, input) do update
    set position = excluded.position, checksum = excluded.checksum, build_id = excluded.build_id, built_at = clock_timestamp();
    do $analyze$
    begin
        -- A table that was filled whole has no statistics yet, and the next model of this build joins it.
        if exists (select 1 from touched_state__{{ this.identifier }} where is_rebuild) then
            analyze {{ this }};
        end if;
    end
    $analyze$;
    drop table {{ touched_name() }}, touched_state__{{ this.identifier }};
    {%- endif -%}
{%- endmacro %}
