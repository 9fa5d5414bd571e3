-- Grain: one row per tenant, device and session, by its start: a time in which one reading follows the other within the gap of the device's type. Additive:
-- reading_count, duration_s. A session has no longest length and may cross days; the newest one may still go on.
-- Touched-bucket incremental, known by start and end: a reading that comes late may join two sessions, one that is removed may split one
-- (macros/windows/sessions.sql).
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'started_at', 'ended_at'],
        event_time='started_at',
        inputs={
            'int_maintenance__device_activity_weekly': {
                'select': sessions_moved(),
                'select_when_new': 'select * from (' ~ runs_of('{input}') ~ ') as found',
            },
        },
        definition=definition_of(runs_of('runs')),
        indexes=[{'columns': ['tenant_id', 'device_id', 'started_at'], 'unique': true}, {'columns': ['started_at']}],
        tags=['micro_batch', 'windows'],
    )
}}

with

runs as (

    select run.* from {{ runs_of_touched_sessions(ref('int_maintenance__device_activity_weekly')) }} as run

),

joined as (

    {{ runs_of('runs') }}

),

sessions as (

    select
        -- ids
        tenant_id,
        device_id,
        started_at,
        device_key,

        -- attributes
        device_type,

        -- measures
        reading_count,
        extract(epoch from ended_at - started_at)::double precision as duration_s,
        {{ session_gap_s('device_type') }} as session_gap_s,

        -- timestamps
        ended_at,

        -- metadata
        _batch_id
    from joined
    where {{ is_touched({'tenant_id': 'joined.tenant_id', 'device_id': 'joined.device_id', 'started_at': 'joined.started_at', 'ended_at': 'joined.ended_at'}) }}

)

select * from sessions
