-- Grain: one row per tenant, machine (machine_controller) and 5 minutes (UTC) with at least one reading or event. Additive: every _count, _s and energy_kwh.
-- Not additive: avg_, max_. Three streams side by side: what the machine measured, what state it said it was in, and when the crew had it.
-- Touched-bucket incremental: a window of readings touches itself; an hour of events touches its own windows and those stored after it up to the next change of
-- state, because a state holds until then; a day of the maintenance log touches the windows that its entries cover, or covered.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'window_at'],
        event_time='window_at',
        inputs={
            'fct_device_window_5min': {},
            'fct_device_event': {'select': states_moved(), 'select_when_new': windows_of_events()},
            'fct_maintenance_event': {'select': crew_moved(), 'select_when_new': no_window()},
        },
        indexes=[{'columns': ['tenant_id', 'device_id', 'window_at'], 'unique': true}, {'columns': ['window_at']}],
        pre_hook="{{ analyze_if_new(ref('fct_device_window_5min')) }}",
        tags=['micro_batch'],
    )
}}
{#- States that have seconds of their own: the codes of machine_status in telemetry. -#}
{%- set states = ['running', 'idle', 'warning', 'fault', 'maintenance', 'off'] %}

with

touched_windows as (

    select
        tenant_id,
        device_id,
        window_at,
        window_at + interval '5 minutes' as window_end_at
    from {{
        touched_buckets_or(
            '(select tenant_id, device_id, window_at from ' ~ ref('fct_device_window_5min') ~ ' union select tenant_id, device_id, '
            ~ window_of('event_at', '5 minutes') ~ ' as window_at from ' ~ ref('fct_device_event') ~ ')'
        )
    }} as touched

),

measured as (

    select
        part.tenant_id,
        part.device_id,
        part.window_at,
        {{ last_of('part.device_key', 'part.last_at') }} as device_key,
        {{ last_of('part.facility_id', 'part.last_at') }} as facility_id,
        {{ last_of('part.line_id', 'part.last_at') }} as line_id,
        sum(part.reading_count) filter (where part.metric_code = 'all_readings')::bigint as reading_count,
        {%- for code in ['load_pct', 'temperature_c', 'vibration_mm_s'] %}
        {{ exact_sum("case when part.metric_code = '" ~ code ~ "' then part.sum_value end") }}
        / sum(part.reading_count) filter (where part.metric_code = '{{ code }}') as avg_{{ code }},
        max(part.max_value) filter (where part.metric_code = '{{ code }}') as max_{{ code }},
        {%- endfor %}
        {{ exact_sum("case when part.metric_code = 'energy_kwh' then part.sum_value end") }} as energy_kwh,
        max(part._batch_id) as _batch_id
    from touched_windows
    inner join {{ ref('fct_device_window_5min') }} as part
        on touched_windows.tenant_id = part.tenant_id
        and touched_windows.device_id = part.device_id
        and touched_windows.window_at = part.window_at
    -- What the registry does not know may be a machine; it becomes what it is when the registry says so.
    where coalesce(part.device_type, 'machine_controller') = 'machine_controller'
    group by part.tenant_id, part.device_id, part.window_at

),

happened as (

    select
        touched_windows.tenant_id,
        touched_windows.device_id,
        touched_windows.window_at,
        {{ last_of('event.device_key', 'event.event_at') }} as device_key,
        {{ last_of('event.facility_id', 'event.event_at') }} as facility_id,
        {{ last_of('event.line_id', 'event.event_at') }} as line_id,
        count(*) as event_count,
        count(*) filter (where event.event_type = 'error') as error_count,
        count(*) filter (where event.event_type = 'restart') as restart_count,
        (
            array_agg(event.event_code order by event.event_at desc, event.event_code desc) filter (where event.event_type = 'error')
        )[1] as last_error_code,
        max(event._batch_id) as _batch_id
    from touched_windows
    inner join {{ ref('fct_device_event') }} as event
        on touched_windows.tenant_id = event.tenant_id
        and touched_windows.device_id = event.device_id
        and touched_windows.window_at <= event.event_at
        and touched_windows.window_end_at > event.event_at
    where event.device_type = 'machine_controller'
    group by touched_windows.tenant_id, touched_windows.device_id, touched_windows.window_at

),

joined as (

    select
        touched_windows.tenant_id,
        touched_windows.device_id,
        touched_windows.window_at,
        touched_windows.window_end_at,
        case when measured.device_id is not null then measured.device_key else coalesce(happened.device_key, 'unregistered') end as device_key,
        case when measured.device_id is not null then measured.facility_id else happened.facility_id end as facility_id,
        case when measured.device_id is not null then measured.line_id else happened.line_id end as line_id,
        coalesce(measured.reading_count, 0) as reading_count,
        measured.avg_load_pct,
        measured.max_load_pct,
        measured.avg_temperature_c,
        measured.max_temperature_c,
        measured.avg_vibration_mm_s,
        measured.max_vibration_mm_s,
        measured.energy_kwh,
        coalesce(happened.event_count, 0) as event_count,
        coalesce(happened.error_count, 0) as error_count,
        coalesce(happened.restart_count, 0) as restart_count,
        happened.last_error_code,
        greatest(measured._batch_id, happened._batch_id) as _batch_id
    from touched_windows
    left join measured
        on touched_windows.tenant_id = measured.tenant_id
        and touched_windows.device_id = measured.device_id
        and touched_windows.window_at = measured.window_at
    left join happened
        on touched_windows.tenant_id = happened.tenant_id
        and touched_windows.device_id = happened.device_id
        and touched_windows.window_at = happened.window_at
    where measured.device_id is not null or happened.device_id is not null

),

changes as (

    -- The state that a window began in, and those that it changed to.
    select
        joined.tenant_id,
        joined.device_id,
        joined.window_at,
        joined.window_end_at,
        joined.window_at as span_from,
        state_before.event_code as state_code,
        state_before.event_at as since_at
    from joined
    left join lateral (
        select
            event.event_code,
            event.event_at
        from {{ ref('fct_device_event') }} as event
        where
            event.tenant_id = joined.tenant_id
            and event.device_id = joined.device_id
            and event.event_type = 'state_change'
            and event.event_at <= joined.window_at
        order by event.event_at desc, event.event_code desc
        limit 1
    ) as state_before on true
    union all
    select
        joined.tenant_id,
        joined.device_id,
        joined.window_at,
        joined.window_end_at,
        event.event_at as span_from,
        event.event_code as state_code,
        event.event_at as since_at
    from joined
    inner join {{ ref('fct_device_event') }} as event
        on joined.tenant_id = event.tenant_id
        and joined.device_id = event.device_id
        and joined.window_at < event.event_at
        and joined.window_end_at > event.event_at
    where event.event_type = 'state_change'

),

spans as (

    select
        *,
        extract(
            epoch from lead(span_from, 1, window_end_at) over (partition by tenant_id, device_id, window_at order by span_from, state_code) - span_from
        ) as span_s
    from changes

),

times as (

    select
        tenant_id,
        device_id,
        window_at,
        {{ last_of('state_code', 'span_from', 'state_code') }} as machine_state,
        {{ last_of('since_at', 'span_from', 'state_code') }} as machine_state_since_at,
        {%- for state in states %}
        coalesce(sum(span_s) filter (where state_code = '{{ state }}'), 0)::double precision as {{ state }}_s,
        {%- endfor %}
        coalesce(
            sum(span_s) filter (where state_code not in ('{{ states | join("', '") }}')), 0
        )::double precision as other_s,
        coalesce(sum(span_s) filter (where state_code is null), 0)::double precision as unknown_s
    from spans
    group by tenant_id, device_id, window_at

),

crew as (

    -- Entries may overlap (a failure, and its repair): each counts from where the ones begun before it end.
    select
        entry.tenant_id,
        entry.device_id,
        entry.window_at,
        {{ last_of('entry.maintenance_type', 'entry.occurred_at', 'entry.log_id') }} as maintenance_type,
        sum(greatest(0, extract(epoch from entry.span_to - greatest(entry.span_from, entry.covered_to))))::double precision as crew_downtime_s,
        max(entry._batch_id) as _batch_id
    from (
        select
            covering.*,
            max(covering.span_to) over (
                partition by covering.tenant_id, covering.device_id, covering.window_at
                order by covering.span_from, covering.span_to, covering.log_id rows between unbounded preceding and 1 preceding
            ) as covered_to
        from (
            select
                joined.tenant_id,
                joined.device_id,
                joined.window_at,
                log_entry.log_id,
                log_entry.maintenance_type,
                log_entry.occurred_at,
                greatest(log_entry.occurred_at, joined.window_at) as span_from,
                least({{ downtime_end('log_entry') }}, joined.window_end_at) as span_to,
                log_entry._batch_id
            from joined
            inner join {{ ref('fct_maintenance_event') }} as log_entry
                on joined.tenant_id = log_entry.tenant_id
                and joined.device_id = log_entry.device_id
                and {{ date_of('joined.window_at') }} >= log_entry.occurred_date
                and joined.window_end_at > log_entry.occurred_at
                and joined.window_at < {{ downtime_end('log_entry') }}
        ) as covering
    ) as entry
    group by entry.tenant_id, entry.device_id, entry.window_at

),

windows as (

    select
        -- ids
        joined.tenant_id,
        joined.device_id,
        joined.window_at,
        joined.device_key,
        joined.facility_id,
        joined.line_id,

        -- attributes
        times.machine_state,
        crew.maintenance_type,
        joined.last_error_code,
        case
            when crew.crew_downtime_s > 0 or times.maintenance_s > 0 then 'in_maintenance'
            when times.fault_s > 0 then 'failed'
            else coalesce(times.machine_state, 'unknown')
        end as condition_code,
        times.machine_state in ('off', 'fault', 'maintenance') and times.running_s + times.warning_s = 0 and joined.avg_load_pct > 5 as is_contradicted,

        -- measures
        joined.reading_count,
        joined.avg_load_pct,
        joined.max_load_pct,
        joined.avg_temperature_c,
        joined.max_temperature_c,
        joined.avg_vibration_mm_s,
        joined.max_vibration_mm_s,
        joined.energy_kwh,
        joined.event_count,
        joined.error_count,
        joined.restart_count,
        {%- for state in states %}
        times.{{ state }}_s,
        {%- endfor %}
        times.other_s,
        times.unknown_s,
        coalesce(crew.crew_downtime_s, 0) as crew_downtime_s,

        -- timestamps
        times.machine_state_since_at,

        -- metadata
        greatest(joined._batch_id, crew._batch_id) as _batch_id
    from joined
    inner join times
        on joined.tenant_id = times.tenant_id
        and joined.device_id = times.device_id
        and joined.window_at = times.window_at
    left join crew
        on joined.tenant_id = crew.tenant_id
        and joined.device_id = crew.device_id
        and joined.window_at = crew.window_at

)

select * from windows
