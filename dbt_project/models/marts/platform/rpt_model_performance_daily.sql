-- Grain: one row per tenant, use case, model version, feature_date and slice (slice_dimension, slice_value). Slice all holds every prediction; the others cut
-- the same predictions by plant, model of the machine, component and predicted probability, so add up within one dimension only.
-- Additive within a dimension, over days and tenants: counts and sums. Not additive: everything that is divided; add up sums and counts, and divide at the end.
-- Calibration by bins is the dimension probability_bin: avg_probability is what was promised there, positive_share what came.
-- Touched-bucket incremental: a changed outcome touches its day of its use case.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'use_case', 'feature_date'],
        event_time='feature_date',
        inputs={'fct_prediction_outcome': {}},
        indexes=[
            {'columns': ['tenant_id', 'use_case', 'feature_date', 'model_version', 'slice_dimension', 'slice_value'], 'unique': true},
        ],
        tags=['hourly'],
    )
}}

with

outcomes as (

    select outcome.*
    from {{ ref('fct_prediction_outcome') }} as outcome
    where {{ is_touched({'tenant_id': 'outcome.tenant_id', 'use_case': 'outcome.use_case', 'feature_date': 'outcome.feature_date'}) }}

),

cut as (

    -- Edges of the bins lie closer where probabilities of rare failures lie.
    select
        outcomes.*,
        'all' as every_prediction,
        coalesce(facility_id, '(unknown)') as facility,
        coalesce(machine_model_name, '(unknown)') as machine_model,
        case
            when predicted_probability < 0.01 then '0.00 to 0.01'
            when predicted_probability < 0.02 then '0.01 to 0.02'
            when predicted_probability < 0.05 then '0.02 to 0.05'
            when predicted_probability < 0.1 then '0.05 to 0.10'
            when predicted_probability < 0.2 then '0.10 to 0.20'
            when predicted_probability < 0.4 then '0.20 to 0.40'
            when predicted_probability < 0.6 then '0.40 to 0.60'
            when predicted_probability < 0.8 then '0.60 to 0.80'
            when predicted_probability is not null then '0.80 to 1.00'
        end as probability_bin
    from outcomes

),

sliced as (

    {% for dimension, column in {
        'all': 'every_prediction',
        'facility_id': 'facility',
        'machine_model_name': 'machine_model',
        'component_code': 'component_code',
        'probability_bin': 'probability_bin',
    }.items() -%}
    select
        tenant_id,
        use_case,
        model_version,
        feature_date,
        '{{ dimension }}'::text as slice_dimension,
        {{ column }} as slice_value,
        has_occurred,
        is_alert,
        is_within_interval,
        predicted_probability,
        predicted_low_days,
        predicted_high_days,
        squared_error,
        log_loss,
        absolute_error_days
    from cut
    where {{ column }} is not null
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

summed as (

    select
        tenant_id,
        use_case,
        model_version,
        feature_date,
        slice_dimension,
        slice_value,
        count(*) as prediction_count,
        count(*) filter (where has_occurred) as positive_count,
        count(*) filter (where is_alert) as alert_count,
        count(*) filter (where is_alert and has_occurred) as true_alert_count,
        count(is_within_interval) as interval_count,
        count(*) filter (where is_within_interval) as covered_count,
        min(predicted_probability) filter (where is_alert) as alert_threshold,
        {{ exact_sum('predicted_probability') }} as probability_sum,
        {{ exact_sum('squared_error') }} as squared_error_sum,
        {{ exact_sum('log_loss') }} as log_loss_sum,
        {{ exact_sum('absolute_error_days') }} as absolute_error_sum_days,
        {{ exact_sum('predicted_high_days - predicted_low_days') }} as interval_sum_days
    from sliced
    group by tenant_id, use_case, model_version, feature_date, slice_dimension, slice_value

),

measured as (

    select
        -- ids
        tenant_id,
        use_case,
        model_version,
        feature_date,
        slice_dimension,
        slice_value,

        -- measures that add up
        prediction_count,
        positive_count,
        alert_count,
        true_alert_count,
        interval_count,
        covered_count,
        probability_sum,
        squared_error_sum,
        log_loss_sum,
        absolute_error_sum_days,
        interval_sum_days,

        -- measures that do not
        alert_threshold,
        probability_sum / prediction_count as avg_probability,
        positive_count::double precision / prediction_count as positive_share,
        squared_error_sum / prediction_count as brier_score,
        log_loss_sum / prediction_count as avg_log_loss,
        true_alert_count::double precision / nullif(alert_count, 0) as alert_precision,
        true_alert_count::double precision / nullif(positive_count, 0) as alert_recall,
        covered_count::double precision / nullif(interval_count, 0) as interval_coverage,
        absolute_error_sum_days / nullif(interval_count, 0) as mean_absolute_error_days,
        interval_sum_days / nullif(interval_count, 0) as mean_interval_days
    from summed

)

select * from measured
