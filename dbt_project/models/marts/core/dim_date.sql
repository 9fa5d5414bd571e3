-- Grain: one row per calendar day between the vars first_date and last_date. Nothing to add up.
-- Depends on no data; refilled on the hourly call so that a changed var takes effect.
{{
    config(
        materialized='refilled_table',
        indexes=[{'columns': ['calendar_date'], 'unique': true}],
        tags=['hourly'],
    )
}}

with

days as (

    select day::date as calendar_date
    from generate_series(date '{{ var("first_date") }}', date '{{ var("last_date") }}', interval '1 day') as day

),

described as (

    select
        calendar_date,

        -- attributes
        extract(year from calendar_date)::integer as year_number,
        extract(quarter from calendar_date)::integer as quarter_number,
        extract(month from calendar_date)::integer as month_number,
        to_char(calendar_date, 'FMMonth') as month_name,
        extract(isoyear from calendar_date)::integer as iso_year_number,
        extract(week from calendar_date)::integer as iso_week_number,
        extract(day from calendar_date)::integer as day_of_month_number,
        extract(doy from calendar_date)::integer as day_of_year_number,
        extract(isodow from calendar_date)::integer as iso_weekday_number,
        to_char(calendar_date, 'FMDay') as weekday_name,
        extract(isodow from calendar_date) in (6, 7) as is_weekend,
        date_trunc('month', calendar_date::timestamp)::date as month_start_date,
        date_trunc('week', calendar_date::timestamp)::date as week_start_date
    from days

)

select * from described
