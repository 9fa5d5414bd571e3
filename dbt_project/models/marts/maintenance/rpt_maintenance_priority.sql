-- Grain: one row per tenant and device with readings in the 30 days up to the tenant's newest health_date (as_of_date), retired devices left out. Not additive.
-- Formula of maintenance_priority_score: doc block maintenance_priority_score; formula_version changes whenever the formula or a weight does.
-- Depends on everything (a budget ranks all devices of a tenant): refilled on the hourly call and after scoring. Time is data time: the newest day of the data.
{{
    config(
        materialized='refilled_table',
        indexes=[{'columns': ['tenant_id', 'device_id'], 'unique': true}],
        trace={
            'fct_device_health_daily': {'device_id': 'device_id', 'health_date': 'health_date'},
            'dim_device': {'device_id': 'device_id', 'device_key': 'device_key'},
            'predictions.device_failure': {
                'device_id': 'device_id',
                'prediction_date': 'feature_date',
                'prediction_model_name': 'model_name',
                'prediction_model_version': 'model_version',
            },
        },
        tags=['priorities', 'hourly'],
    )
}}

with

health as (

    select
        *,
        max(health_date) over (partition by tenant_id) as as_of_date
    from {{ ref('fct_device_health_daily') }}

),

newest_health as (

    select distinct on (tenant_id, device_id) *
    from health
    where health_date > as_of_date - 30
    order by tenant_id asc, device_id asc, health_date desc

),

current_devices as (

    select *
    from {{ ref('dim_device') }}
    where is_current

),

champions as (

    select
        use_case,
        model_version
    from {{ source('ops', 'model_history') }}
    where champion_until is null

),

predictions as (

    -- A prediction whose outcome window has passed says nothing about the days to come. Versions that score in the champion's shadow are not acted upon.
    select distinct on (newest_health.tenant_id, newest_health.device_id)
        newest_health.tenant_id,
        newest_health.device_id,
        prediction.failure_probability,
        prediction.feature_date as prediction_date,
        prediction.model_name as prediction_model_name,
        prediction.model_version as prediction_model_version
    from newest_health
    inner join {{ source('predictions', 'device_failure') }} as prediction
        on newest_health.tenant_id = prediction.tenant_id
        and newest_health.device_id = prediction.device_id
    inner join champions
        on prediction.model_name = champions.use_case
        and prediction.model_version = champions.model_version
    where
        prediction.feature_date <= newest_health.as_of_date
        and prediction.outcome_to > {{ start_of_date('newest_health.as_of_date') }}
    order by
        newest_health.tenant_id asc,
        newest_health.device_id asc,
        prediction.feature_date desc,
        prediction.model_name asc

),

inputs as (

    select
        newest_health.tenant_id,
        newest_health.device_id,
        newest_health.as_of_date,
        newest_health.health_date,
        current_devices.device_key,
        coalesce(current_devices.facility_id, newest_health.facility_id) as facility_id,
        current_devices.line_id,
        newest_health.device_type,
        predictions.failure_probability,
        predictions.prediction_date,
        predictions.prediction_model_name,
        predictions.prediction_model_version,
        newest_health.recent_anomaly_share,
        newest_health.health_score,
        newest_health.health_loss,
        newest_health.days_since_maintenance,
        newest_health.overdue_maintenance_ratio,
        newest_health._batch_id
    from newest_health
    left join current_devices
        on newest_health.tenant_id = current_devices.tenant_id
        and newest_health.device_id = current_devices.device_id
    left join predictions
        on newest_health.tenant_id = predictions.tenant_id
        and newest_health.device_id = predictions.device_id
    where current_devices.registry_status is distinct from 'retired'

),

scored as (

    select
        *,
        (
            1.2 * least(1, greatest(0, coalesce(failure_probability, 0)))::numeric
            + 0.7 * least(1, greatest(0, health_loss))::numeric
            + 0.6 * least(1, greatest(0, coalesce(recent_anomaly_share, 0)))::numeric
            + 0.5 * least(1, greatest(0, coalesce(overdue_maintenance_ratio, 0)))::numeric
        )::double precision as maintenance_priority_score
    from inputs

),

ranked as (

    -- Every device has a place of its own, equal scores included, so the flag never exceeds the budget and never depends on the order of rows.
    select
        *,
        row_number() over (
            partition by tenant_id
            order by maintenance_priority_score desc, coalesce(failure_probability, 0) desc, health_loss desc, device_id asc
        ) as priority_rank
    from scored

),

flagged as (

    select
        -- ids
        tenant_id,
        device_id,
        device_key,
        facility_id,
        line_id,

        -- attributes
        device_type,
        'priority-1' as formula_version,
        priority_rank <= {{ var('alert_budget_per_day') }} and maintenance_priority_score > 0 as is_high_priority,
        prediction_model_name,
        prediction_model_version,

        -- measures
        maintenance_priority_score,
        priority_rank,
        min(maintenance_priority_score) filter (where priority_rank <= {{ var('alert_budget_per_day') }} and maintenance_priority_score > 0)
            over (partition by tenant_id) as high_priority_threshold,
        failure_probability,
        recent_anomaly_share,
        health_score,
        health_loss,
        days_since_maintenance,
        overdue_maintenance_ratio,

        -- timestamps
        as_of_date,
        health_date,
        prediction_date,

        -- metadata
        _batch_id
    from ranked

)

select * from flagged
