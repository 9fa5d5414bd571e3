{#- Rows of the newest complete day are within shares of the median of the 28 days before it. Fewer than 7 days before it say nothing and pass. Time is data time. -#}
{% test steady_volume(model, date_column, lowest_share, highest_share, scope='nightly') %}
with

days as (

    select
        {{ date_column }} as day,
        count(*) as row_count
    from {{ rows_in_scope(model, scope) }} as tested
    group by {{ date_column }}

),

newest as (

    select max(day) - 1 as day from days

),

judged as (

    select
        newest.day,
        (select days.row_count from days where days.day = newest.day) as row_count,
        (select percentile_disc(0.5) within group (order by days.row_count) from days where days.day between newest.day - 28 and newest.day - 1) as usual,
        (select count(*) from days where days.day between newest.day - 28 and newest.day - 1) as day_count
    from newest

)

select *
from judged
where day_count >= 7 and (coalesce(row_count, 0) < {{ lowest_share }} * usual or coalesce(row_count, 0) > {{ highest_share }} * usual)
{% endtest %}
