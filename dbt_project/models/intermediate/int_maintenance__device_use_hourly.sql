-- Grain: one row per tenant, device, type it went by, facility and hour of the facility's clock in which it was used or, for what has a meter, drew energy.
-- Additive: use_count, energy_kwh. On the day on which clocks are set back two hours have one row.
-- Touched-bucket incremental by local day: a changed UTC day or window touches the local days that it lies on in any zone.
{%- set near = "
                    from {changes} as changed
                    cross join (values (interval '-12 hours'), (interval '0 hours'), (interval '14 hours')) as step (shift)
                    where " %}
{%- set moved = 'select changed.tenant_id, changed.device_id, ' ~ date_of('(changed.window_at + step.shift)') ~ ' as local_date' ~ near %}
{%- set of_a_home = "exists (
                        select 1 from {input} as there
                        where
                            there.tenant_id = changed.tenant_id and there.device_id = changed.device_id and there.window_at = changed.window_at
                            and there.metric_code = 'energy_kwh' and there.device_type in ('thermostat', 'smart_lock', 'security_camera')
                    )" %}
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'local_date'],
        event_time='local_date',
        inputs={
            'int_maintenance__device_use': {'select': days_on_both_sides('used_date', 'local_date')},
            'fct_device_window_15min': {
                'select': moved ~ of_a_home ~ "
                    or exists (
                        select 1 from {this} as stored
                        where
                            stored.tenant_id = changed.tenant_id and stored.device_id = changed.device_id
                            and stored.local_date = " ~ date_of('(changed.window_at + step.shift)') ~ ")",
                'select_when_new': moved ~ of_a_home,
            },
            'dim_facility': {
                'select': '
                    select distinct moved.tenant_id, moved.device_id, moved.local_date + step.days as local_date
                    from (' ~ rows_of_another_zone() ~ ') as moved
                    cross join (values (-2), (-1), (0), (1), (2)) as step (days)
                ',
            },
        },
        indexes=[{'columns': ['tenant_id', 'device_id', 'local_date']}, {'columns': ['tenant_id', 'local_date']}, {'columns': ['tenant_id', 'facility_id', 'time_zone_name']}],
        tags=['micro_batch', 'maintenance'],
    )
}}

with

touched_uses as (

    select used.*
    from {{ ref('int_maintenance__device_use') }} as used
    where
        used.device_type in ('thermostat', 'smart_lock', 'security_camera')
        and {{ is_touched({'tenant_id': 'used.tenant_id', 'device_id': 'used.device_id', 'local_date': 'used.local_date'}) }}

),

uses as (

    select
        tenant_id,
        device_id,
        device_type,
        facility_id,
        local_date,
        local_minute_number / 60 as local_hour_number,
        use_count,
        null::double precision as energy_kwh,
        _batch_id
    from touched_uses

),

near_days as (

    {{
        days_near_touched(
            'local_date', '(select tenant_id, device_id, ' ~ date_of('window_at') ~ ' as local_date from ' ~ ref('fct_device_window_15min') ~ ')'
        )
    }}

),

-- Materialized: else the planner, which thinks that a range of time holds next to nothing, pairs all near days of a device with all touched ones first.
windows as materialized (

    select
        part.tenant_id,
        part.device_id,
        part.device_type,
        coalesce(part.facility_id, 'unregistered') as facility_id,
        coalesce(facility.time_zone_name, 'UTC') as time_zone_name,
        part.window_at,
        part.sum_value,
        part._batch_id
    from near_days
    inner join {{ ref('fct_device_window_15min') }} as part
        on near_days.tenant_id = part.tenant_id
        and near_days.device_id = part.device_id
        and near_days.utc_date = {{ date_of('part.window_at') }}
        and part.window_at >= {{ start_of_date('near_days.utc_date') }}
        and part.window_at < {{ start_of_date('(near_days.utc_date + 1)') }}
    left join {{ ref('dim_facility') }} as facility
        on part.tenant_id = facility.tenant_id
        and part.facility_id = facility.facility_id
    where part.metric_code = 'energy_kwh' and part.device_type in ('thermostat', 'smart_lock', 'security_camera')

),

local_windows as (

    select
        tenant_id,
        device_id,
        device_type,
        facility_id,
        {{ local_date_of('window_at', 'time_zone_name') }} as local_date,
        {{ local_minute_of('window_at', 'time_zone_name') }} / 60 as local_hour_number,
        0 as use_count,
        sum_value as energy_kwh,
        _batch_id
    from windows

),

parts as (

    select * from uses
    union all
    select metered.*
    from local_windows as metered
    where {{ is_touched({'tenant_id': 'metered.tenant_id', 'device_id': 'metered.device_id', 'local_date': 'metered.local_date'}) }}

),

summed as (

    select
        tenant_id,
        device_id,
        device_type,
        facility_id,
        local_date,
        local_hour_number,
        sum(use_count)::bigint as use_count,
        {{ exact_sum('energy_kwh') }} as energy_kwh,
        max(_batch_id) as _batch_id
    from parts
    group by tenant_id, device_id, device_type, facility_id, local_date, local_hour_number

),

hours as (

    -- The zone is that of the facility now and no part of the grain: uses of months that have left raw stay on the days of the zone that was known then.
    select
        -- ids
        summed.tenant_id,
        summed.device_id,
        summed.device_type,
        summed.facility_id,
        summed.local_date,
        summed.local_hour_number,

        -- attributes
        coalesce(facility.time_zone_name, 'UTC') as time_zone_name,

        -- measures
        summed.use_count,
        summed.energy_kwh,

        -- metadata
        summed._batch_id
    from summed
    left join {{ ref('dim_facility') }} as facility
        on summed.tenant_id = facility.tenant_id
        and summed.facility_id = facility.facility_id

)

select * from hours
