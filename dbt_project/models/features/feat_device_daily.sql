-- Grain: one row per tenant, machine and feature_date (UTC). Not additive. Which machines and days: see int_maintenance__machine_feature_daily.
-- Point in time: a row holds only what was known by the end of feature_date, of the machine and of its siblings: the other machines of the same model in the
-- same tenant, on the same day. What happens afterwards (the label) is not here; ML takes it from fct_maintenance_event.
-- Touched-bucket incremental: a changed machine moves the means of its siblings, so a day of a tenant is recomputed whole.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'feature_date'],
        event_time='feature_date',
        inputs={'int_maintenance__machine_feature_daily': {}},
        indexes=[{'columns': ['tenant_id', 'device_id', 'feature_date'], 'unique': true}, {'columns': ['tenant_id', 'feature_date']}],
        tags=['micro_batch'],
    )
}}

with

machines as (

    select machine.*
    from {{ ref('int_maintenance__machine_feature_daily') }} as machine
    where {{ is_touched({'tenant_id': 'machine.tenant_id', 'feature_date': 'machine.feature_date'}) }}

),

summed as (

    -- Sums over the machine and its siblings; its own value is taken off again below.
    select
        machines.*,
        count(*) over siblings as family_count,
        count(machines.vibration_rms_7d_mm_s) over siblings as family_vibration_count,
        sum(machines.vibration_rms_7d_mm_s::numeric) over siblings as family_vibration,
        count(machines.avg_temperature_7d_c) over siblings as family_temperature_count,
        sum(machines.avg_temperature_7d_c::numeric) over siblings as family_temperature,
        count(machines.avg_load_7d_pct) over siblings as family_load_count,
        sum(machines.avg_load_7d_pct::numeric) over siblings as family_load,
        sum(machines.error_event_count_7d) over siblings as family_error_events
    from machines
    window siblings as (partition by machines.tenant_id, machines.feature_date, machines.model_name)

),

compared as (

    select
        summed.*,
        summed.model_name is not null as is_of_known_model,
        ((summed.family_vibration - summed.vibration_rms_7d_mm_s::numeric) / nullif(summed.family_vibration_count - 1, 0))::double precision
            as vibration_of_siblings,
        ((summed.family_temperature - summed.avg_temperature_7d_c::numeric) / nullif(summed.family_temperature_count - 1, 0))::double precision
            as temperature_of_siblings,
        ((summed.family_load - summed.avg_load_7d_pct::numeric) / nullif(summed.family_load_count - 1, 0))::double precision as load_of_siblings,
        ((summed.family_error_events - summed.error_event_count_7d) / nullif(summed.family_count - 1, 0)::numeric)::double precision
            as error_events_of_siblings
    from summed

),

featured as (

    select
        -- ids and everything that is known of the machine alone
        tenant_id,
        device_id,
        feature_date,
        model_name,
        facility_id,
        reporting_interval_s,
        maintenance_interval_days,
        rated_power_kw,
        age_days,
        day_count_28d,
        reading_count_1d,
        vibration_rms_1d_mm_s,
        max_vibration_1d_mm_s,
        avg_temperature_1d_c,
        max_temperature_1d_c,
        avg_pressure_1d_hpa,
        avg_load_1d_pct,
        energy_1d_kwh,
        runtime_1d_h,
        error_count_1d,
        fault_count_1d,
        warning_count_1d,
        running_share_1d,
        reading_count_3d,
        vibration_rms_3d_mm_s,
        max_vibration_3d_mm_s,
        avg_temperature_3d_c,
        max_temperature_3d_c,
        avg_pressure_3d_hpa,
        avg_load_3d_pct,
        energy_3d_kwh,
        runtime_3d_h,
        error_count_3d,
        fault_count_3d,
        warning_count_3d,
        running_share_3d,
        reading_count_7d,
        vibration_rms_7d_mm_s,
        max_vibration_7d_mm_s,
        avg_temperature_7d_c,
        max_temperature_7d_c,
        avg_pressure_7d_hpa,
        avg_load_7d_pct,
        energy_7d_kwh,
        runtime_7d_h,
        error_count_7d,
        fault_count_7d,
        warning_count_7d,
        running_share_7d,
        vibration_rms_28d_mm_s,
        avg_temperature_28d_c,
        avg_pressure_28d_hpa,
        vibration_kurtosis_1d,
        vibration_kurtosis_7d,
        vibration_crest_factor_1d,
        vibration_crest_factor_7d,
        vibration_ratio_1d_to_28d,
        vibration_ratio_7d_to_28d,
        temperature_excess_1d_to_28d_c,
        pressure_ratio_1d_to_28d,
        vibration_rms_trend_7d_mm_s_per_d,
        vibration_kurtosis_trend_7d_per_d,
        vibration_crest_factor_trend_7d_per_d,
        temperature_trend_7d_c_per_d,
        pressure_trend_7d_hpa_per_d,
        runtime_h,
        days_since_reading,
        error_event_count_1d,
        error_event_count_3d,
        error_event_count_7d,
        error_code_count_7d,
        error_codes_1d,
        last_error_code,
        days_since_error_event,
        days_since_failure,
        days_since_maintenance,
        failure_count_30d,
        maintenance_count_30d,
        runtime_since_maintenance_h,
        component_count,
        oldest_component_code,
        days_since_oldest_replacement,
        days_since_newest_replacement,
        overdue_maintenance_ratio,
        known_until_at,

        -- compared with the other machines of the model; NULL where the model is not known or no sibling has a value
        case when is_of_known_model then family_count - 1 end as sibling_count,
        case when is_of_known_model then vibration_rms_7d_mm_s / nullif(vibration_of_siblings, 0) end as vibration_ratio_to_siblings_7d,
        case when is_of_known_model then avg_temperature_7d_c - temperature_of_siblings end as temperature_excess_to_siblings_7d_c,
        case when is_of_known_model then avg_load_7d_pct - load_of_siblings end as load_excess_to_siblings_7d_pct,
        case when is_of_known_model then error_event_count_7d - error_events_of_siblings end as error_event_excess_to_siblings_7d,

        -- metadata
        _batch_id
    from compared

)

select * from featured
