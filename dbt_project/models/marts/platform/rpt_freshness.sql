-- Grain: one row per mart and stream that it is made of, directly or not. Not additive.
-- Says how far each mart is: models of one run become visible one after another, and a failed one stays behind.
-- A view over the ledger and the state of the models: always true, nothing to build. Which mart reads which stream comes from the project's own graph.
{{ config(materialized='view', trace={'ops.file': {'stream': 'stream', 'consumed_batch_id': 'batch_id'}}) }}

with

lineage as (

    -- One line a mart, stream and model on the way from the one to the other, the mart included.
    select
        mart,
        model,
        stream
    from (values {{ mart_lineage() }}) as listed (mart, model, stream)

),

states as (

    -- A model has one state line an input; all of them are moved by the same build.
    select
        state.model,
        max(state.build_id) as build_id,
        max(state.built_at) as built_at
    from {{ source('ops', 'model_state') }} as state
    group by state.model

),

consumed as (

    -- A mart is as far as the model on its way that stayed furthest behind.
    select
        lineage.mart,
        lineage.stream,
        case when bool_and(build.build_id is not null) then min(coalesce((build.horizon ->> lineage.stream)::bigint, 0)) end as consumed_batch_id,
        min(states.built_at) as oldest_built_at,
        max(states.built_at) filter (where lineage.model = lineage.mart) as built_at
    from lineage
    left join states on lineage.model = states.model
    left join {{ source('ops', 'build') }} as build on states.build_id = build.build_id
    group by lineage.mart, lineage.stream

),

compared as (

    select
        -- ids
        consumed.mart as mart_name,
        consumed.stream,

        -- attributes
        coalesce(consumed.consumed_batch_id, 0) >= coalesce(stream_state.last_batch_id, 0) as is_current,

        -- measures
        consumed.consumed_batch_id,
        coalesce(stream_state.last_batch_id, 0) as committed_batch_id,
        behind.batches_behind_count,

        -- timestamps
        consumed.built_at,
        consumed.oldest_built_at,
        stream_state.last_event_at,
        stream_state.last_arrived_at,
        stream_state.last_landed_at
    from consumed
    left join {{ source('ops', 'stream_state') }} as stream_state on consumed.stream = stream_state.stream
    cross join lateral (
        select count(*) as batches_behind_count
        from {{ source('ops', 'batch') }} as batch
        where batch.stream = consumed.stream and batch.batch_id > coalesce(consumed.consumed_batch_id, 0)
    ) as behind

)

select * from compared
