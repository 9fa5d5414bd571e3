-- Grain: one row per tenant, machine and feature_date (UTC). Not additive. What was known of the machine alone by the end of the day; how it compares with its
-- siblings is in features.feat_device_daily.
-- A machine has a row on every day on which a reading or an error of its last 28 days became usable (happened and known), and, where the registry knew it as a
-- machine in use by then, on every day on which any machine of the tenant reported: silence is a row too.
-- Machines only (device type machine_controller): the other kinds of device have no maintenance, so nobody predicts their failures.
-- Point in time: a row holds only what was known by the end of feature_date. What happens afterwards (the label) is not here;
-- ML takes it from fct_maintenance_event.
-- Touched-bucket incremental: a changed day of readings or errors touches the feature dates whose 28-day window holds it, those that the change empties
-- included (hence the inputs stg_device_telemetry and stg_device_events, which name the days that a row left), those whose runtime since maintenance began on
-- it, and all machines on the day itself; a maintenance event touches all later feature dates of its machine (which of two events was known first decides how
-- long it counts); a changed registry touches the feature dates on which it says something else of the machine than is stored (found by comparing), those that
-- the machine lacks, and those that it must lose.
{%- set windows = [1, 3, 7] %}
{#- Of a changed day: the 28 days whose features use it, and the day itself for every machine, because silence is a row too. -#}
{%- set days_that_use = "
    select usable.tenant_id, usable.device_id, usable.usable_date as feature_date
    from {changes} as changed
    inner join {input} as usable
        on usable.tenant_id = changed.tenant_id
        and usable.device_id = changed.device_id
        and usable.usable_date between changed.{day} and changed.{day} + 27
    union
    select machine.tenant_id, machine.device_id, changed.{day}
    from (select distinct device_day.tenant_id, device_day.{day} from {changes} as device_day) as changed
    inner join (
        select distinct version.tenant_id, version.device_id
        from {dim_device} as version
        where version.device_type = 'machine_controller'
    ) as machine on machine.tenant_id = changed.tenant_id
" -%}
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'feature_date'],
        event_time='feature_date',
        definition=exact_kurtosis('n', 's1', 's2', 's3', 's4') ~ exact_slope('v', 'd', 'f'),
        inputs={
            'int_maintenance__reading_known_daily': {'select': days_that_use.replace('{day}', 'reading_date')},
            'int_maintenance__error_known_daily': {'select': days_that_use.replace('{day}', 'event_date')},
            'stg_device_telemetry': {
                'select': "
                    select stored.tenant_id, stored.device_id, stored.feature_date
                    from (select distinct tenant_id, device_id, (event_at at time zone 'UTC')::date as reading_date from {changes} as reading) as changed
                    inner join {this} as stored
                        on stored.tenant_id = changed.tenant_id
                        and stored.device_id = changed.device_id
                        and stored.feature_date >= changed.reading_date
                        and (
                            stored.feature_date <= changed.reading_date + 27
                            or stored.feature_date - stored.days_since_maintenance between changed.reading_date - 27 and changed.reading_date
                        )
                ",
            },
            'stg_device_events': {
                'select': "
                    select stored.tenant_id, stored.device_id, stored.feature_date
                    from (select distinct tenant_id, device_id, (event_at at time zone 'UTC')::date as event_date from {changes} as event) as changed
                    inner join {this} as stored
                        on stored.tenant_id = changed.tenant_id
                        and stored.device_id = changed.device_id
                        and stored.feature_date between changed.event_date and changed.event_date + 27
                ",
            },
            'fct_maintenance_event': {
                'select': "
                    select stored.tenant_id, stored.device_id, stored.feature_date
                    from {changes} as changed
                    inner join {this} as stored
                        on stored.tenant_id = changed.tenant_id
                        and stored.device_id = changed.device_id
                        and stored.feature_date >= changed.occurred_date
                ",
            },
            'dim_device': {
                'select': "
                    select stored.tenant_id, stored.device_id, stored.feature_date
                    from {changes} as changed
                    inner join {this} as stored on stored.tenant_id = changed.tenant_id and stored.device_id = changed.device_id
                    left join lateral (" ~ version_known_on('stored.feature_date', 'stored', '{input}') ~ ") as version on true
                    where
                        (
                            stored.model_name, stored.facility_id, stored.reporting_interval_s, stored.maintenance_interval_days, stored.rated_power_kw,
                            stored.age_days
                        ) is distinct from (
                            version.model_name, version.facility_id, version.reporting_interval_s, version.maintenance_interval_days, version.rated_power_kw,
                            stored.feature_date - (version.installed_at at time zone 'UTC')::date
                        )
                        or (
                            (version.device_type = 'machine_controller' and version.registry_status = 'active') is not true
                            and (
                                select reading.reading_date
                                from {int_maintenance__reading_known_daily} as reading
                                where
                                    reading.tenant_id = stored.tenant_id and reading.device_id = stored.device_id
                                    and reading.usable_date = stored.feature_date and reading.usable_date - reading.reading_date < 28
                                limit 1
                            ) is null
                            and (
                                select error.event_date
                                from {int_maintenance__error_known_daily} as error
                                where
                                    error.tenant_id = stored.tenant_id and error.device_id = stored.device_id
                                    and error.usable_date = stored.feature_date and error.usable_date - error.event_date < 28
                                limit 1
                            ) is null
                        )
                    union all
                    select lacking.tenant_id, lacking.device_id, lacking.active_date
                    from (
                        select machine.tenant_id, machine.device_id, machine.first_date + day.number as active_date
                        from (
                            select
                                known.tenant_id,
                                known.device_id,
                                greatest(
                                    (min(greatest(known.valid_from_at, known.known_at)) at time zone 'UTC')::date,
                                    least(
                                        (select min(reading.reading_date) from {int_maintenance__reading_known_daily} as reading where reading.tenant_id = known.tenant_id),
                                        (select min(error.event_date) from {int_maintenance__error_known_daily} as error where error.tenant_id = known.tenant_id)
                                    )
                                ) as first_date,
                                greatest(
                                    (select max(reading.reading_date) from {int_maintenance__reading_known_daily} as reading where reading.tenant_id = known.tenant_id),
                                    (select max(error.event_date) from {int_maintenance__error_known_daily} as error where error.tenant_id = known.tenant_id)
                                ) as last_date
                            from {changes} as changed
                            inner join {input} as known
                                on known.tenant_id = changed.tenant_id
                                and known.device_id = changed.device_id
                                and known.device_type = 'machine_controller'
                                and known.registry_status = 'active'
                            group by known.tenant_id, known.device_id
                        ) as machine
                        cross join lateral generate_series(0, machine.last_date - machine.first_date) as day (number)
                    ) as lacking
                    cross join lateral (" ~ version_known_on('lacking.active_date', 'lacking', '{input}') ~ ") as version
                    cross join lateral (
                        (
                            select 1 as one from {int_maintenance__reading_known_daily} as reading
                            where reading.tenant_id = lacking.tenant_id and reading.reading_date = lacking.active_date
                            limit 1
                        )
                        union all
                        (
                            select 1 as one from {int_maintenance__error_known_daily} as error
                            where error.tenant_id = lacking.tenant_id and error.event_date = lacking.active_date
                            limit 1
                        )
                        limit 1
                    ) as active
                    where
                        version.device_type = 'machine_controller'
                        and version.registry_status = 'active'
                        and (
                            select stored.feature_date
                            from {this} as stored
                            where stored.tenant_id = lacking.tenant_id and stored.device_id = lacking.device_id and stored.feature_date = lacking.active_date
                            limit 1
                        ) is null
                ",
            },
        },
        indexes=[{'columns': ['tenant_id', 'device_id', 'feature_date'], 'unique': true}, {'columns': ['tenant_id', 'feature_date']}],
        tags=['micro_batch', 'features'],
    )
}}

with

own_dates as (

    select
        usable.tenant_id,
        usable.device_id,
        usable.usable_date as feature_date
    from {{ ref('int_maintenance__reading_known_daily') }} as usable
    where
        usable.usable_date - usable.reading_date < 28
        and {{ is_touched({'tenant_id': 'usable.tenant_id', 'device_id': 'usable.device_id', 'feature_date': 'usable.usable_date'}) }}
    union
    select
        usable.tenant_id,
        usable.device_id,
        usable.usable_date as feature_date
    from {{ ref('int_maintenance__error_known_daily') }} as usable
    where
        usable.usable_date - usable.event_date < 28
        and {{ is_touched({'tenant_id': 'usable.tenant_id', 'device_id': 'usable.device_id', 'feature_date': 'usable.usable_date'}) }}

),

active_dates as (

    select
        reading.tenant_id,
        reading.reading_date as active_date
    from {{ ref('int_maintenance__reading_known_daily') }} as reading
    where {{ is_touched({'tenant_id': 'reading.tenant_id', 'feature_date': 'reading.reading_date'}) }}
    union
    select
        error.tenant_id,
        error.event_date as active_date
    from {{ ref('int_maintenance__error_known_daily') }} as error
    where {{ is_touched({'tenant_id': 'error.tenant_id', 'feature_date': 'error.event_date'}) }}

),

registered_dates as (

    select distinct
        machine.tenant_id,
        machine.device_id,
        active_dates.active_date as feature_date
    from active_dates
    inner join {{ ref('dim_device') }} as machine
        on active_dates.tenant_id = machine.tenant_id
        and machine.device_type = 'machine_controller'
        and machine.valid_from_at < {{ start_of_date('(active_dates.active_date + 1)') }}
        and machine.known_at < {{ start_of_date('(active_dates.active_date + 1)') }}
    where {{ is_touched({'tenant_id': 'machine.tenant_id', 'device_id': 'machine.device_id', 'feature_date': 'active_dates.active_date'}) }}

),

spine as (

    select
        tenant_id,
        device_id,
        feature_date,
        bool_or(has_signal) as has_signal
    from (
        select
            own_dates.*,
            true as has_signal
        from own_dates
        union all
        select
            registered_dates.*,
            false as has_signal
        from registered_dates
    ) as dates
    group by tenant_id, device_id, feature_date

),

known_days as (

    select
        spine.tenant_id,
        spine.device_id,
        spine.feature_date,
        day.reading_date,
        day.reading_count,
        day.vibration_count,
        day.sum_vibration,
        day.sum_squared_vibration,
        day.sum_cubed_vibration,
        day.sum_fourth_vibration,
        day.max_vibration_mm_s,
        day.temperature_count,
        day.sum_temperature,
        day.max_temperature_c,
        day.pressure_count,
        day.sum_pressure,
        day.load_count,
        day.sum_load,
        day.energy,
        day.min_runtime_h,
        day.max_runtime_h,
        day.error_count,
        day.fault_count,
        day.warning_count,
        day.running_count,
        day._batch_id,
        day.reading_date - spine.feature_date as day_number,
        sqrt((day.sum_squared_vibration / nullif(day.vibration_count, 0))::double precision) as vibration_rms_mm_s,
        {{ exact_kurtosis('day.vibration_count', 'day.sum_vibration', 'day.sum_squared_vibration', 'day.sum_cubed_vibration', 'day.sum_fourth_vibration') }}
            as vibration_kurtosis,
        (day.sum_temperature / nullif(day.temperature_count, 0))::double precision as avg_temperature_c,
        (day.sum_pressure / nullif(day.pressure_count, 0))::double precision as avg_pressure_hpa
    from spine
    inner join lateral (
        select
            known.reading_date,
            sum(known.reading_count) as reading_count,
            sum(known.vibration_count) as vibration_count,
            sum(known.sum_vibration_mm_s::numeric) as sum_vibration,
            sum(known.sum_squared_vibration_mm2_s2::numeric) as sum_squared_vibration,
            sum(known.sum_cubed_vibration_mm3_s3::numeric) as sum_cubed_vibration,
            sum(known.sum_fourth_vibration_mm4_s4::numeric) as sum_fourth_vibration,
            max(known.max_vibration_mm_s) as max_vibration_mm_s,
            sum(known.temperature_count) as temperature_count,
            sum(known.sum_temperature_c::numeric) as sum_temperature,
            max(known.max_temperature_c) as max_temperature_c,
            sum(known.pressure_count) as pressure_count,
            sum(known.sum_pressure_hpa::numeric) as sum_pressure,
            sum(known.load_count) as load_count,
            sum(known.sum_load_pct::numeric) as sum_load,
            sum(known.energy_kwh::numeric) as energy,
            min(known.min_runtime_h) as min_runtime_h,
            max(known.max_runtime_h) as max_runtime_h,
            sum(known.error_count) as error_count,
            sum(known.fault_count) as fault_count,
            sum(known.warning_count) as warning_count,
            sum(known.running_count) as running_count,
            max(known._batch_id) as _batch_id
        from {{ ref('int_maintenance__reading_known_daily') }} as known
        where
            known.tenant_id = spine.tenant_id
            and known.device_id = spine.device_id
            and known.reading_date between spine.feature_date - 27 and spine.feature_date
            and known.known_date <= spine.feature_date
        group by known.reading_date
    ) as day on true

),

readings as (

    select
        tenant_id,
        device_id,
        feature_date,
        count(*) as day_count_28d,
        {%- for days in windows %}
        {%- set recent = 'filter (where day_number > -' ~ days ~ ')' %}
        (sum(reading_count) {{ recent }})::bigint as reading_count_{{ days }}d,
        sqrt((sum(sum_squared_vibration) {{ recent }} / nullif(sum(vibration_count) {{ recent }}, 0))::double precision) as vibration_rms_{{ days }}d_mm_s,
        max(max_vibration_mm_s) {{ recent }} as max_vibration_{{ days }}d_mm_s,
        (sum(sum_temperature) {{ recent }} / nullif(sum(temperature_count) {{ recent }}, 0))::double precision as avg_temperature_{{ days }}d_c,
        max(max_temperature_c) {{ recent }} as max_temperature_{{ days }}d_c,
        (sum(sum_pressure) {{ recent }} / nullif(sum(pressure_count) {{ recent }}, 0))::double precision as avg_pressure_{{ days }}d_hpa,
        (sum(sum_load) {{ recent }} / nullif(sum(load_count) {{ recent }}, 0))::double precision as avg_load_{{ days }}d_pct,
        (sum(energy) {{ recent }})::double precision as energy_{{ days }}d_kwh,
        max(max_runtime_h) {{ recent }} - min(min_runtime_h) {{ recent }} as runtime_{{ days }}d_h,
        (sum(error_count) {{ recent }})::bigint as error_count_{{ days }}d,
        (sum(fault_count) {{ recent }})::bigint as fault_count_{{ days }}d,
        (sum(warning_count) {{ recent }})::bigint as warning_count_{{ days }}d,
        (sum(running_count) {{ recent }} / nullif(sum(reading_count) {{ recent }}, 0))::double precision as running_share_{{ days }}d,
        {%- endfor %}
        {%- for days in [1, 7] %}
        {%- set recent = 'filter (where day_number > -' ~ days ~ ')' %}
        {{ exact_kurtosis(
            'sum(vibration_count) ' ~ recent, 'sum(sum_vibration) ' ~ recent, 'sum(sum_squared_vibration) ' ~ recent, 'sum(sum_cubed_vibration) ' ~ recent,
            'sum(sum_fourth_vibration) ' ~ recent
        ) }} as vibration_kurtosis_{{ days }}d,
        {%- endfor %}
        {%- set week = 'filter (where day_number > -7)' %}
        {{ exact_slope('vibration_rms_mm_s', 'day_number', week) }} as vibration_rms_trend_7d_mm_s_per_d,
        {{ exact_slope('vibration_kurtosis', 'day_number', week) }} as vibration_kurtosis_trend_7d_per_d,
        {{ exact_slope('max_vibration_mm_s / nullif(vibration_rms_mm_s, 0)', 'day_number', week) }} as vibration_crest_factor_trend_7d_per_d,
        {{ exact_slope('avg_temperature_c', 'day_number', week) }} as temperature_trend_7d_c_per_d,
        {{ exact_slope('avg_pressure_hpa', 'day_number', week) }} as pressure_trend_7d_hpa_per_d,
        sqrt((sum(sum_squared_vibration) / nullif(sum(vibration_count), 0))::double precision) as vibration_rms_28d_mm_s,
        (sum(sum_temperature) / nullif(sum(temperature_count), 0))::double precision as avg_temperature_28d_c,
        (sum(sum_pressure) / nullif(sum(pressure_count), 0))::double precision as avg_pressure_28d_hpa,
        max(max_runtime_h) as runtime_h,
        max(reading_date) as last_reading_date,
        max(_batch_id) as _batch_id
    from known_days
    group by tenant_id, device_id, feature_date

),

component_days as (

    select
        spine.tenant_id,
        spine.device_id,
        spine.feature_date,
        component.component_code,
        component.last_replaced_date
    from spine
    inner join lateral (
        select
            event.component_code,
            max(event.occurred_date) as last_replaced_date
        from {{ ref('fct_maintenance_event') }} as event
        where
            event.tenant_id = spine.tenant_id
            and event.device_id = spine.device_id
            and event.is_maintenance
            and event.component_code is not null
            and event.occurred_date <= spine.feature_date
            and event.known_at < {{ start_of_date('(spine.feature_date + 1)') }}
        group by event.component_code
    ) as component on true

),

components as (

    select
        tenant_id,
        device_id,
        feature_date,
        count(*) as component_count,
        (array_agg(component_code order by last_replaced_date asc, component_code asc))[1] as oldest_component_code,
        min(last_replaced_date) as oldest_replaced_date,
        max(last_replaced_date) as newest_replaced_date
    from component_days
    group by tenant_id, device_id, feature_date

),

featured as (

    select
        -- ids
        spine.tenant_id,
        spine.device_id,
        spine.feature_date,

        -- attributes of the device, as known by then
        version.model_name,
        version.facility_id,
        version.reporting_interval_s,
        version.maintenance_interval_days,
        version.rated_power_kw,
        spine.feature_date - {{ date_of('version.installed_at') }} as age_days,

        -- readings, as known by then
        coalesce(readings.day_count_28d, 0) as day_count_28d,
        {%- for days in windows %}
        coalesce(readings.reading_count_{{ days }}d, 0) as reading_count_{{ days }}d,
        readings.vibration_rms_{{ days }}d_mm_s,
        readings.max_vibration_{{ days }}d_mm_s,
        readings.avg_temperature_{{ days }}d_c,
        readings.max_temperature_{{ days }}d_c,
        readings.avg_pressure_{{ days }}d_hpa,
        readings.avg_load_{{ days }}d_pct,
        readings.energy_{{ days }}d_kwh,
        readings.runtime_{{ days }}d_h,
        coalesce(readings.error_count_{{ days }}d, 0) as error_count_{{ days }}d,
        coalesce(readings.fault_count_{{ days }}d, 0) as fault_count_{{ days }}d,
        coalesce(readings.warning_count_{{ days }}d, 0) as warning_count_{{ days }}d,
        readings.running_share_{{ days }}d,
        {%- endfor %}
        readings.vibration_rms_28d_mm_s,
        readings.avg_temperature_28d_c,
        readings.avg_pressure_28d_hpa,
        readings.vibration_kurtosis_1d,
        readings.vibration_kurtosis_7d,
        readings.max_vibration_1d_mm_s / nullif(readings.vibration_rms_1d_mm_s, 0) as vibration_crest_factor_1d,
        readings.max_vibration_7d_mm_s / nullif(readings.vibration_rms_7d_mm_s, 0) as vibration_crest_factor_7d,
        readings.vibration_rms_1d_mm_s / nullif(readings.vibration_rms_28d_mm_s, 0) as vibration_ratio_1d_to_28d,
        readings.vibration_rms_7d_mm_s / nullif(readings.vibration_rms_28d_mm_s, 0) as vibration_ratio_7d_to_28d,
        readings.avg_temperature_1d_c - readings.avg_temperature_28d_c as temperature_excess_1d_to_28d_c,
        readings.avg_pressure_1d_hpa / nullif(readings.avg_pressure_28d_hpa, 0) as pressure_ratio_1d_to_28d,
        readings.vibration_rms_trend_7d_mm_s_per_d,
        readings.vibration_kurtosis_trend_7d_per_d,
        readings.vibration_crest_factor_trend_7d_per_d,
        readings.temperature_trend_7d_c_per_d,
        readings.pressure_trend_7d_hpa_per_d,
        readings.runtime_h,
        spine.feature_date - readings.last_reading_date as days_since_reading,

        -- errors, as known by then
        {%- for days in windows %}
        coalesce(errors.error_event_count_{{ days }}d, 0) as error_event_count_{{ days }}d,
        {%- endfor %}
        errors.error_code_count_7d,
        errors.error_codes_1d,
        errors.last_error_code,
        spine.feature_date - errors.last_error_date as days_since_error_event,

        -- maintenance, as known by then
        spine.feature_date - events.last_failure_date as days_since_failure,
        spine.feature_date - events.last_maintenance_date as days_since_maintenance,
        coalesce(events.failure_count_30d, 0) as failure_count_30d,
        coalesce(events.maintenance_count_30d, 0) as maintenance_count_30d,
        readings.runtime_h - service.runtime_at_maintenance_h as runtime_since_maintenance_h,
        coalesce(components.component_count, 0) as component_count,
        components.oldest_component_code,
        spine.feature_date - components.oldest_replaced_date as days_since_oldest_replacement,
        spine.feature_date - components.newest_replaced_date as days_since_newest_replacement,
        -- GREATEST passes over NULL: without the CASE an unknown interval would read as in time.
        case
            when coalesce(events.last_maintenance_date, {{ date_of('version.installed_at') }}) is not null and version.maintenance_interval_days is not null
                then greatest(
                    0,
                    (spine.feature_date - coalesce(events.last_maintenance_date, {{ date_of('version.installed_at') }}))::double precision
                    / version.maintenance_interval_days - 1
                )
        end as overdue_maintenance_ratio,

        -- timestamps
        {{ start_of_date('(spine.feature_date + 1)') }} as known_until_at,

        -- metadata
        greatest(readings._batch_id, errors._batch_id) as _batch_id
    from spine
    left join readings
        on spine.tenant_id = readings.tenant_id
        and spine.device_id = readings.device_id
        and spine.feature_date = readings.feature_date
    left join components
        on spine.tenant_id = components.tenant_id
        and spine.device_id = components.device_id
        and spine.feature_date = components.feature_date
    left join lateral (
        select
            {%- for days in windows %}
            (sum(known.error_event_count) filter (where known.event_date > spine.feature_date - {{ days }}))::bigint as error_event_count_{{ days }}d,
            {%- endfor %}
            count(distinct known.error_code) filter (where known.event_date > spine.feature_date - 7) as error_code_count_7d,
            -- In the order of bytes, whatever the server's language is.
            string_agg(distinct known.error_code collate "C", '+' order by known.error_code collate "C")
            filter (where known.event_date = spine.feature_date) as error_codes_1d,
            {{ last_of('known.error_code', 'known.last_error_at', 'known.error_code') }} as last_error_code,
            max(known.event_date) as last_error_date,
            max(known._batch_id) as _batch_id
        from {{ ref('int_maintenance__error_known_daily') }} as known
        where
            known.tenant_id = spine.tenant_id
            and known.device_id = spine.device_id
            and known.event_date between spine.feature_date - 27 and spine.feature_date
            and known.known_date <= spine.feature_date
    ) as errors on true
    left join lateral (
        select
            max(event.occurred_date) filter (where event.is_failure) as last_failure_date,
            max(event.occurred_date) filter (where event.is_maintenance) as last_maintenance_date,
            count(*) filter (where event.is_failure and event.occurred_date > spine.feature_date - 30) as failure_count_30d,
            count(*) filter (where event.is_maintenance and event.occurred_date > spine.feature_date - 30) as maintenance_count_30d
        from {{ ref('fct_maintenance_event') }} as event
        where
            event.tenant_id = spine.tenant_id
            and event.device_id = spine.device_id
            and event.occurred_date <= spine.feature_date
            and event.known_at < {{ start_of_date('(spine.feature_date + 1)') }}
    ) as events on true
    -- The hour meter only rises, so its lowest reading from then on is the one at the maintenance. A machine that is silent for four weeks after it has none.
    left join lateral (
        select min(known.min_runtime_h) as runtime_at_maintenance_h
        from {{ ref('int_maintenance__reading_known_daily') }} as known
        where
            known.tenant_id = spine.tenant_id
            and known.device_id = spine.device_id
            and known.reading_date between events.last_maintenance_date and least(events.last_maintenance_date + 27, spine.feature_date)
            and known.known_date <= spine.feature_date
    ) as service on true
    left join lateral (
        {{ version_known_on('spine.feature_date', 'spine', ref('dim_device')) }}
    ) as version on true
    where spine.has_signal or (version.device_type = 'machine_controller' and version.registry_status = 'active')

)

select * from featured
