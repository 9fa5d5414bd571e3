-- Grain: one row per tenant, use case, machine (or component of one), feature_date and model version: every prediction of the questions of the var
-- prediction_questions, of the champion and of versions in its shadow, in one shape. Not additive.
-- A view. Its bucket says how changes are known: what writes predictions logs them under the name of this view (ops.log_predictions).
{{ config(materialized='view', bucket=['tenant_id', 'use_case', 'feature_date'], meta={'traced_to': 'feat_device_daily'}) }}

with

predictions as (

    {%- for question in prediction_questions() %}
    {%- set quantiles = question.get('quantiles') or ['null::double precision'] * 3 %}
    select
        tenant_id,
        '{{ question.name }}'::text as use_case,
        device_id,
        {{ question.get('component', 'null::text') }} as component_code,
        feature_date,
        model_version,
        feature_snapshot,
        {{ question.horizon_days }} as horizon_days,
        {{ question.get('probability', 'null::double precision') }} as predicted_probability,
        {{ quantiles[0] }} as predicted_low_days,
        {{ quantiles[1] }} as predicted_median_days,
        {{ quantiles[2] }} as predicted_high_days,
        known_at,
        outcome_from,
        outcome_to,
        outcome_to + interval '{{ question.settling_days }} days' as settled_at
    from {{ source('predictions', question.get('relation', question.name)) }}
    where model_name = '{{ question.name }}'
    {{ 'union all' if not loop.last }}
    {%- endfor %}

)

select * from predictions
