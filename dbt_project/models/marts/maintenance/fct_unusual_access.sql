-- Grain: one row per access event (unlock or attempt to get in) at a time of day at which the device was hardly ever used before. Counts of rows are additive.
-- Unusual: of the device's own days of the same kind (Monday to Friday, or the weekend) among the 56 local days before the event's day, none has an access
-- within half an hour of this time of day, or a single one of more than ten. With fewer than 8 such days nobody knows what is usual, and nothing is unusual.
-- Days before a move to another facility do not count. Only what happened on days before decides, not what happened later nor when it arrived: late events
-- repair the rows.
-- A row goes for good with the first of the days that it was compared with, because without them nobody can say any more that it was unusual (decision 30).
-- Touched-bucket incremental by local day of a device: a changed day of use touches its local days, and those of the 56 days after that have any.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id', 'device_id', 'local_date'],
        event_time='local_date',
        forgets={'device_events': [-57, 1]},
        inputs={
            'int_maintenance__device_use': {
                'select': days_on_both_sides('used_date', 'local_date') ~ '
                    union
                    select later.tenant_id, later.device_id, later.local_date
                    from {changes} as changed
                    inner join {input} as later
                        on later.tenant_id = changed.tenant_id
                        and later.device_id = changed.device_id
                        and later.local_date between changed.used_date and changed.used_date + 57
                ',
                'select_when_new': days_on_both_sides('used_date', 'local_date'),
            },
        },
        indexes=[{'columns': ['tenant_id', 'device_id', 'local_date']}, {'columns': ['local_date']}],
        tags=['micro_batch'],
    )
}}

with

accesses as (

    select
        entry.*,
        {{ weekday_of('entry.local_date') }} >= 6 as is_weekend
    from {{ ref('int_maintenance__device_use') }} as entry
    where
        entry.is_access
        and {{ is_touched({'tenant_id': 'entry.tenant_id', 'device_id': 'entry.device_id', 'local_date': 'entry.local_date'}) }}

),

compared as (

    select
        accesses.*,
        profile.profile_day_count,
        profile.similar_day_count
    from accesses
    cross join lateral (
        select
            count(distinct earlier.local_date) as profile_day_count,
            count(distinct earlier.local_date) filter (
                -- Half an hour apart on the clock's round of 1,440 minutes.
                where
                abs(earlier.local_minute_number - accesses.local_minute_number) <= 30
                or abs(earlier.local_minute_number - accesses.local_minute_number) >= 1410
            ) as similar_day_count
        from {{ ref('int_maintenance__device_use') }} as earlier
        where
            earlier.tenant_id = accesses.tenant_id
            and earlier.device_id = accesses.device_id
            and earlier.local_date between accesses.local_date - 56 and accesses.local_date - 1
            and earlier.facility_id = accesses.facility_id
            and earlier.is_access
            and ({{ weekday_of('earlier.local_date') }} >= 6) = accesses.is_weekend
    ) as profile

),

unusual as (

    select
        -- ids
        tenant_id,
        device_id,
        device_key,
        facility_id,
        actor_pseudonym,

        -- attributes
        device_type,
        event_type,
        event_code,
        time_zone_name,
        is_weekend,

        -- measures
        {{ weekday_of('local_date') }} as iso_weekday_number,
        local_minute_number / 60 as local_hour_number,
        local_minute_number,
        profile_day_count,
        similar_day_count,
        (100.0 * similar_day_count / profile_day_count)::double precision as similar_day_pct,

        -- timestamps
        used_at as accessed_at,
        local_date,

        -- metadata
        _batch_id
    from compared
    where profile_day_count >= 8 and (similar_day_count = 0 or (similar_day_count = 1 and profile_day_count > 10))

)

select * from unusual
