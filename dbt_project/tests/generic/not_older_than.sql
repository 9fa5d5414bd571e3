{#-
    Freshness by the ledger: the newest time in a column is not further behind the newest event of the stream than `tolerance`. Compares data with data, never with the
    clock: silence of the source is the business of the stream's own freshness, a mart that does not follow is ours. A stream without events passes.
-#}
{% test not_older_than(model, column, stream, tolerance, scope='all') %}
select
    tested.newest,
    watermark.last_event_at
from (select max({{ column }}) as newest from {{ model }}) as tested
inner join ops.stream_state as watermark on watermark.stream = '{{ stream }}'
where
    {{ effective_scope(scope) == 'all' }}
    and watermark.last_event_at is not null
    and (tested.newest is null or tested.newest::timestamptz < watermark.last_event_at - interval '{{ tolerance }}')
{% endtest %}
