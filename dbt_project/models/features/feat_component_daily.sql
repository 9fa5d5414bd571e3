-- Grain: one row per tenant, machine, component and feature_date (UTC), for each component that the maintenance log of the machine had named by the end of the
-- day. Not additive. A component that was never named is not known, and its first failure is in nobody's data set.
-- Point in time: a row holds only what was known by the end of feature_date. The label comes from fct_maintenance_event.
-- Touched-bucket incremental: a maintenance event touches all later feature dates of its tenant, as it does in feat_device_daily, which is read by whole days.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'feature_date'],
        event_time='feature_date',
        inputs={
            'feat_device_daily': {},
            'fct_maintenance_event': {
                'select': "
                    select distinct machine.tenant_id, machine.feature_date
                    from {changes} as changed
                    inner join {feat_device_daily} as machine
                        on machine.tenant_id = changed.tenant_id
                        and machine.device_id = changed.device_id
                        and machine.feature_date >= changed.occurred_date
                ",
            },
        },
        indexes=[{'columns': ['tenant_id', 'device_id', 'component_code', 'feature_date'], 'unique': true}, {'columns': ['tenant_id', 'feature_date']}],
        tags=['micro_batch'],
    )
}}

with

machines as (

    select machine.*
    from {{ ref('feat_device_daily') }} as machine
    where {{ is_touched({'tenant_id': 'machine.tenant_id', 'feature_date': 'machine.feature_date'}) }}

),

featured as (

    select
        -- ids
        machines.tenant_id,
        machines.device_id,
        component.component_code,
        machines.feature_date,

        -- the component, as known by then
        machines.feature_date - component.last_replaced_date as days_since_replacement,
        machines.feature_date - component.last_failure_date as days_since_component_failure,
        component.replacement_count,
        component.component_failure_count,
        (component.last_replaced_date - component.first_replaced_date)
        / nullif(component.replacement_date_count - 1, 0)::double precision as avg_replacement_interval_days,
        machines.days_since_oldest_replacement = machines.feature_date - component.last_replaced_date as is_oldest_component,
        component.component_code || ':' || coalesce(machines.error_codes_1d, 'none') as component_error_codes_1d,

        -- its machine, as known by then
        machines.model_name,
        machines.facility_id,
        machines.age_days,
        machines.vibration_rms_1d_mm_s,
        machines.vibration_ratio_1d_to_28d,
        machines.vibration_ratio_7d_to_28d,
        machines.vibration_kurtosis_1d,
        machines.vibration_crest_factor_1d,
        machines.vibration_rms_trend_7d_mm_s_per_d,
        machines.vibration_ratio_to_siblings_7d,
        machines.temperature_excess_1d_to_28d_c,
        machines.temperature_trend_7d_c_per_d,
        machines.temperature_excess_to_siblings_7d_c,
        machines.pressure_ratio_1d_to_28d,
        machines.pressure_trend_7d_hpa_per_d,
        machines.avg_load_7d_pct,
        machines.runtime_7d_h,
        machines.error_count_1d,
        machines.error_count_7d,
        machines.fault_count_7d,
        machines.error_event_count_1d,
        machines.error_event_count_3d,
        machines.error_event_count_7d,
        machines.last_error_code,
        machines.days_since_error_event,
        machines.days_since_maintenance,

        -- timestamps
        machines.known_until_at,

        -- metadata
        machines._batch_id
    from machines
    inner join lateral (
        select
            event.component_code,
            max(event.occurred_date) filter (where event.is_maintenance) as last_replaced_date,
            min(event.occurred_date) filter (where event.is_maintenance) as first_replaced_date,
            count(distinct event.occurred_date) filter (where event.is_maintenance) as replacement_date_count,
            count(*) filter (where event.is_maintenance) as replacement_count,
            max(event.occurred_date) filter (where event.is_failure) as last_failure_date,
            count(*) filter (where event.is_failure) as component_failure_count
        from {{ ref('fct_maintenance_event') }} as event
        where
            event.tenant_id = machines.tenant_id
            and event.device_id = machines.device_id
            and event.component_code is not null
            and event.occurred_date <= machines.feature_date
            and event.known_at < {{ start_of_date('(machines.feature_date + 1)') }}
        group by event.component_code
    ) as component on true

)

select * from featured
