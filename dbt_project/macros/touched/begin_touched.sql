{#- First statement of a model's transaction: lock the model, read its state, collect the touched buckets. -#}
{% macro begin_touched() -%}
    {%- if not execute or not is_touched_model() -%}{{ return('') }}{%- endif -%}
    {%- set key = relation_key(this) -%}
    {%- set inputs = config.require('inputs') -%}
    {%- set bucket = config.require('bucket') -%}
    {%- set checksum = model_checksum() -%}
    {%- do run_query("select ops.lock_model('" ~ key ~ "')") -%}

    {%- set state = {} -%}
    {%- for row in run_query("select input, position, checksum from ops.model_state where model = '" ~ key ~ "'") -%}
        {%- do state.update({row[0]: {'position': row[1] | int, 'checksum': row[2]}}) -%}
    {%- endfor -%}
    {%- set exists_now = load_cached_relation(this) is not none -%}
    {%- set flags_of_run = namespace(rebuild=(not exists_now) or var('rebuild', false) | as_bool or 'touch' not in state) -%}
    {%- for name in inputs -%}
        {%- if name not in state or state[name].checksum != checksum -%}{%- set flags_of_run.rebuild = true -%}{%- endif -%}
    {%- endfor -%}
    {%- if flags_of_run.rebuild -%}{%- do refuse_rebuild_of_expired() -%}{%- endif -%}
    {%- set touch_from = state.get('touch', {}).get('position', 0) -%}
    {%- set touch_to = horizon_of('touch') -%}
    {#- A rebuild by `tidemark rebuild` names months that it has brought back: they are asked for like a backfill, but of the models of this call only. -#}
    {%- set asked = [] -%}
    {%- for month in var('rebuild_months', []) -%}
        {%- do asked.append(" union all select timestamptz '" ~ month ~ " 00:00:00+00', timestamptz '" ~ month ~ " 00:00:00+00' + interval '1 month'") -%}
    {%- endfor -%}
    {%- set spans = "(select event_from, event_to from ops.touch_request where request_id > " ~ touch_from ~ " and request_id <= " ~ touch_to ~ (asked | join) ~ ")" -%}
    {%- set any_touch = touch_to > touch_from or asked | length > 0 -%}

    {%- set positions = {'touch': [touch_from, touch_to] | max} -%}
    {%- set parts = [] -%}
    {%- for name, mapping in inputs.items() -%}
        {%- set input = describe_input(name) -%}
        {%- set columns = input.columns | join(', ') -%}
        {%- if input.kind == 'stream' -%}
            {%- set upto = horizon_of(input.stream) -%}
            {%- set since = 0 if flags_of_run.rebuild else state[name].position -%}
            {%- if exists_now or '{this}' not in mapping.get('select', '') -%}
                {%- do parts.append(mapped_buckets(mapping, input, "(select " ~ columns ~ " from " ~ input.relation ~ " where _batch_id > " ~ since ~ " and _batch_id <= " ~ upto ~ ")")) -%}
            {%- endif -%}
            {%- if not flags_of_run.rebuild -%}
                {%- set old = "(select " ~ ("old_row." ~ (input.columns | join(', old_row.'))) ~ " from ops.row_change as moved, lateral jsonb_populate_record(null::" ~ input.rowtype
                    ~ ", moved.position) as old_row where moved.stream = '" ~ input.stream ~ "' and moved.batch_id > " ~ since ~ " and moved.batch_id <= " ~ upto ~ ")" -%}
                {%- do parts.append(mapped_buckets(mapping, input, old)) -%}
            {%- endif -%}
            {%- if any_touch and not flags_of_run.rebuild -%}
                {%- do parts.append(mapped_buckets(mapping, input, "(select " ~ columns ~ " from " ~ input.relation ~ " as asked_row inner join " ~ spans
                    ~ " as span on asked_row.event_at >= span.event_from and asked_row.event_at < span.event_to where asked_row._batch_id <= " ~ upto ~ ")")) -%}
            {%- endif -%}
        {%- else -%}
            {%- set input_key = relation_key(input.relation) -%}
            {%- set since = 0 if flags_of_run.rebuild else state[name].position -%}
            {%- set log = run_query("select coalesce(max(change_id), " ~ since ~ "), coalesce(bool_or(bucket is null), false) from ops.bucket_change where relation = '"
                ~ input_key ~ "' and change_id > " ~ since)[0] -%}
            {%- set upto = log[0] | int -%}
            {%- if flags_of_run.rebuild or log[1] -%}
                {#- All of the input is new, and so is every row of this model: a mapping that looks for neighbours of changes, or for rows of this model, says what that means. -#}
                {%- set whole = {'select': mapping['select_when_new']} if mapping.get('select_when_new') else mapping -%}
                {%- if exists_now or '{this}' not in whole.get('select', '') -%}
                    {%- do parts.append(mapped_buckets(whole, input, "(select distinct " ~ columns ~ " from " ~ input.relation ~ ")")) -%}
                {%- endif -%}
                {%- if exists_now -%}
                    {%- do parts.append("select " ~ (bucket | join(', ')) ~ " from " ~ this) -%}
                {%- endif -%}
            {%- else -%}
                {%- set changed = "(select distinct " ~ ("bucket_row." ~ (input.columns | join(', bucket_row.'))) ~ " from ops.bucket_change as logged, lateral jsonb_populate_record(null::"
                    ~ input.rowtype ~ ", logged.bucket) as bucket_row where logged.relation = '" ~ input_key ~ "' and logged.change_id > " ~ since ~ " and logged.change_id <= " ~ upto ~ ")" -%}
                {%- do parts.append(mapped_buckets(mapping, input, changed)) -%}
                {%- if any_touch and input.event_time -%}
                    {%- do parts.append(mapped_buckets(mapping, input, "(select distinct " ~ columns ~ " from " ~ input.relation ~ " as asked_row where " ~ lies_in_span('asked_row.' ~ input.event_time, spans) ~ ")")) -%}
                {%- endif -%}
            {%- endif -%}
        {%- endif -%}
        {%- do positions.update({name: upto}) -%}
    {%- endfor -%}
    {%- if exists_now and (flags_of_run.rebuild or (any_touch and config.get('event_time'))) -%}
        {%- do parts.append("select " ~ (bucket | join(', ')) ~ " from " ~ this ~ " as own_row"
            ~ ("" if flags_of_run.rebuild else " where " ~ lies_in_span('own_row.' ~ config.get('event_time'), spans))) -%}
    {%- endif -%}

    create temporary table {{ touched_name() }} on commit drop as
    select distinct {{ bucket | join(', ') }}
    from (
        {{ parts | join('\n        union all\n        ') }}
    ) as touched
    where {% for column in bucket %}{{ column }} is not null and {% endfor %}{{ is_in_raw(model, 'touched') }}
        and {{ is_made_of_kept_days(model, 'touched.' ~ config.get('event_time')) }};
    create index on {{ touched_name() }} ({{ bucket | join(', ') }});
    analyze {{ touched_name() }};
    create temporary table touched_state__{{ this.identifier }} on commit drop as
    select input, position, {{ 'true' if flags_of_run.rebuild else 'false' }} as is_rebuild, '{{ checksum }}' as checksum
    from (values {% for input, position in positions.items() %}('{{ input }}', {{ position }}::bigint){{ ', ' if not loop.last }}{% endfor %}) as positions (input, position);
{%- endmacro %}

{#- Whether a time or date lies in one of the asked spans. -#}
{% macro lies_in_span(column, spans) -%}
    exists (
        select 1 from {{ spans }} as span
        where {{ column }}::timestamp >= span.event_from at time zone 'UTC' and {{ column }}::timestamp < span.event_to at time zone 'UTC'
    )
{%- endmacro %}
