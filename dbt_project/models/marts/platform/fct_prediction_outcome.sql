-- Grain: one row per tenant, use case, machine (or component of one), feature_date and model version, once the outcome window and the settling time are over
-- and the outcome is known: of a machine that left before the end of its window, and had no event until then, nobody knows it, and the prediction is left out.
-- Additive over rows: squared_error, log_loss and counts of flags; probabilities and ranks are not. Versions predict the same outcomes: add up one at a time.
-- Time is data time: the newest feature_date of the tenant says what is over, so a tenant that fell silent has no new outcomes instead of good ones. A machine
-- was there to the end when it has features on the first day of its tenant from the last day of the window on, or within the settling time after it.
-- Touched-bucket incremental: a new or changed prediction touches its day; a new newest day touches what it settles (beyond the newest day that did not
-- change), and any day what it says of machines that stayed or left; a maintenance event, a corrected or removed one too, touches the settled days whose
-- outcome window holds it. A failure that is known late changes the outcome of predictions made long before.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'use_case', 'feature_date'],
        event_time='feature_date',
        definition=prediction_questions() | string ~ var('alert_budget_per_day') | string,
        inputs={
            'int_platform__prediction': {},
            'feat_device_daily': {
                'select': "
                    select prediction.tenant_id, prediction.use_case, prediction.feature_date
                    from (
                        select
                            newest.tenant_id,
                            newest.newest_date,
                            (
                                select feature.feature_date
                                from {feat_device_daily} as feature
                                where
                                    feature.tenant_id = newest.tenant_id
                                    and feature.feature_date < newest.newest_date
                                    and not exists (
                                        select from {changes} as other
                                        where other.tenant_id = feature.tenant_id and other.feature_date = feature.feature_date
                                    )
                                order by feature.feature_date desc
                                limit 1
                            ) as unchanged_date
                        from (
                            select changed.tenant_id, max(changed.feature_date) as newest_date
                            from {changes} as changed
                            group by changed.tenant_id
                        ) as newest
                    ) as moved
                    cross join (values " ~ settled_after_days() ~ ") as question (use_case, settled_after_days, horizon_days)
                    inner join {int_platform__prediction} as prediction
                        on prediction.tenant_id = moved.tenant_id
                        and prediction.use_case = question.use_case
                        and prediction.feature_date > coalesce(moved.unchanged_date - question.settled_after_days, '-infinity')
                        and prediction.feature_date <= moved.newest_date - question.settled_after_days
                    union all
                    select prediction.tenant_id, prediction.use_case, prediction.feature_date
                    from (
                        select
                            changed.tenant_id,
                            changed.feature_date,
                            (
                                select feature.feature_date
                                from {feat_device_daily} as feature
                                where feature.tenant_id = changed.tenant_id and feature.feature_date < changed.feature_date - " ~ longest_settling_days() ~ "
                                order by feature.feature_date desc
                                limit 1
                            ) as date_before,
                            (
                                select max(feature.feature_date) from {feat_device_daily} as feature where feature.tenant_id = changed.tenant_id
                            ) as newest_date
                        from {changes} as changed
                    ) as seen
                    cross join (values " ~ settled_after_days() ~ ") as question (use_case, settled_after_days, horizon_days)
                    inner join {int_platform__prediction} as prediction
                        on prediction.tenant_id = seen.tenant_id
                        and prediction.use_case = question.use_case
                        and prediction.feature_date > coalesce(seen.date_before - question.horizon_days, '-infinity')
                        and prediction.feature_date <= least(seen.feature_date - question.horizon_days, seen.newest_date - question.settled_after_days)
                    union all
                    select stored.tenant_id, stored.use_case, stored.feature_date
                    from {changes} as changed
                    inner join {this} as stored on stored.tenant_id = changed.tenant_id and stored.feature_date = changed.feature_date
                ",
                'select_when_new': 'select distinct tenant_id, use_case, feature_date from {int_platform__prediction}',
            },
            'fct_maintenance_event': {
                'select': "
                    select prediction.tenant_id, prediction.use_case, prediction.feature_date
                    from (
                        select
                            entry.*,
                            (
                                select max(feature.feature_date) from {feat_device_daily} as feature where feature.tenant_id = entry.tenant_id
                            ) as newest_date
                        from {changes} as entry
                    ) as changed
                    cross join (values " ~ settled_after_days() ~ ") as question (use_case, settled_after_days, horizon_days)
                    inner join {int_platform__prediction} as prediction
                        on prediction.tenant_id = changed.tenant_id
                        and prediction.device_id = changed.device_id
                        and prediction.use_case = question.use_case
                        and prediction.feature_date >= changed.occurred_date - 1 - question.horizon_days
                        and prediction.feature_date < changed.occurred_date
                        and prediction.feature_date <= changed.newest_date - question.settled_after_days
                ",
                'select_when_new': 'select distinct tenant_id, use_case, feature_date from {int_platform__prediction}',
            },
        },
        indexes=[
            {'columns': ['tenant_id', 'use_case', 'feature_date']},
            {'columns': ['tenant_id', 'device_id', 'feature_date']},
        ],
        tags=['hourly'],
    )
}}

with

predictions as (

    select prediction.*
    from {{ ref('int_platform__prediction') }} as prediction
    where
        {{ is_touched({'tenant_id': 'prediction.tenant_id', 'use_case': 'prediction.use_case', 'feature_date': 'prediction.feature_date'}) }}

),

newest_days as (

    -- By tenant, looked up in the index.
    select
        tenants.tenant_id,
        (
            select max(feature.feature_date)
            from {{ ref('feat_device_daily') }} as feature
            where feature.tenant_id = tenants.tenant_id
        ) as newest_date
    from (select distinct tenant_id from predictions) as tenants

),

settled as (

    select
        predictions.*,
        {{ date_of('predictions.outcome_to') }} - 1 as last_date
    from predictions
    inner join newest_days on predictions.tenant_id = newest_days.tenant_id
    inner join (values {{ settled_after_days() }}) as question (use_case, settled_after_days, horizon_days) on predictions.use_case = question.use_case
    where predictions.feature_date + question.settled_after_days <= newest_days.newest_date

),

window_ends as (

    -- The first day of the tenant that can show who is still there: a plant may stand still when a window ends.
    select
        ends.tenant_id,
        ends.last_date,
        (
            select min(feature.feature_date)
            from {{ ref('feat_device_daily') }} as feature
            where feature.tenant_id = ends.tenant_id and feature.feature_date >= ends.last_date
        ) as roll_call_date
    from (
        select distinct
            tenant_id,
            last_date
        from settled
    ) as ends

),

joined as (

    select
        settled.*,
        machine.facility_id,
        machine.model_name as machine_model_name,
        happened.first_event_at,
        happened.first_known_at,
        coalesce(happened.event_count, 0) as event_count,
        exists(
            select 1
            from {{ ref('feat_device_daily') }} as later
            where
                later.tenant_id = settled.tenant_id
                and later.device_id = settled.device_id
                and later.feature_date between window_ends.roll_call_date and window_ends.roll_call_date + {{ longest_settling_days() }}
        ) as is_followed,
        row_number() over (
            partition by settled.tenant_id, settled.use_case, settled.feature_date, settled.model_version
            order by
                settled.predicted_probability desc nulls last,
                settled.predicted_median_days asc nulls last,
                settled.device_id asc,
                settled.component_code asc nulls first
        ) as risk_rank
    from settled
    inner join window_ends
        on settled.tenant_id = window_ends.tenant_id
        and settled.last_date = window_ends.last_date
    left join {{ ref('feat_device_daily') }} as machine
        on settled.tenant_id = machine.tenant_id
        and settled.device_id = machine.device_id
        and settled.feature_date = machine.feature_date
    cross join lateral (
        select
            min(event.occurred_at) as first_event_at,
            min(event.known_at) as first_known_at,
            count(*) as event_count
        from {{ ref('fct_maintenance_event') }} as event
        where
            event.tenant_id = settled.tenant_id
            and event.device_id = settled.device_id
            and event.occurred_date >= settled.feature_date
            and event.occurred_date <= {{ date_of('settled.outcome_to') }}
            and event.occurred_at > settled.outcome_from
            and event.occurred_at <= settled.outcome_to
            and (settled.component_code is null or event.component_code = settled.component_code)
            and {{ answers('settled.use_case', 'event') }}
    ) as happened

),

measured as (

    select
        *,
        event_count > 0 as has_occurred,
        ({{ seconds_of('coalesce(first_event_at, outcome_to)') }} - {{ seconds_of('outcome_from') }}) / 86400 as outcome_days,
        case when event_count > 0 then predicted_probability else 1 - predicted_probability end as outcome_probability
    from joined
    where event_count > 0 or is_followed

),

outcomes as (

    select
        -- ids
        tenant_id,
        use_case,
        device_id,
        component_code,
        feature_date,
        model_version,
        feature_snapshot,
        facility_id,

        -- attributes
        machine_model_name,
        risk_rank <= {{ var('alert_budget_per_day') }} as is_alert,
        has_occurred,
        case when predicted_low_days is not null then outcome_days between predicted_low_days and predicted_high_days end as is_within_interval,

        -- measures
        risk_rank,
        predicted_probability,
        predicted_low_days,
        predicted_median_days,
        predicted_high_days,
        event_count,
        outcome_days,
        power(predicted_probability - has_occurred::integer, 2) as squared_error,
        -- A probability of 0 or 1 that is wrong would cost infinitely much; it costs what one in a thousand million does.
        case when outcome_probability is not null then -ln(greatest(outcome_probability, 1e-9)) end as log_loss,
        abs(predicted_median_days - outcome_days) as absolute_error_days,

        -- timestamps
        known_at,
        outcome_from,
        outcome_to,
        settled_at,
        first_event_at,
        first_known_at
    from measured

)

select * from outcomes
