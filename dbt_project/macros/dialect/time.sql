{#- Start of the window of a length ('5 minutes') that holds a timestamp; windows are counted from midnight UTC. Immutable, so it can stand in an index. -#}
{% macro window_of(column, length) -%}
    date_bin(interval '{{ length }}', {{ column }}, timestamptz '2000-01-01 00:00:00+00')
{%- endmacro %}

{#- Start of the UTC hour of a timestamp. -#}
{% macro hour_of(column) -%}
    {{ window_of(column, '1 hour') }}
{%- endmacro %}

{#- Time in seconds since 1970. A double tells microseconds apart until the year 2255. -#}
{% macro seconds_of(column) -%}
    date_part('epoch', {{ column }})
{%- endmacro %}

{#- Date of a timestamp in a time zone. -#}
{% macro local_date_of(column, time_zone) -%}
    ({{ column }} at time zone {{ time_zone }})::date
{%- endmacro %}

{#- Relation of the time zones that the database knows: time_zone_name. A name from outside must be one of them before it stands behind `at time zone`. -#}
{% macro time_zones() -%}
    (select name as time_zone_name from pg_catalog.pg_timezone_names)
{%- endmacro %}

{#- UTC date of a timestamp. -#}
{% macro date_of(column) -%}
    ({{ column }} at time zone 'UTC')::date
{%- endmacro %}

{#- First instant of a UTC date. -#}
{% macro start_of_date(column) -%}
    ({{ column }}::timestamp at time zone 'UTC')
{%- endmacro %}

{#- First day of the month of a date. -#}
{% macro month_of(column) -%}
    date_trunc('month', {{ column }}::timestamp)::date
{%- endmacro %}

{#- Day of the week of a date, 1 for Monday to 7 for Sunday (ISO 8601). -#}
{% macro weekday_of(column) -%}
    extract(isodow from {{ column }})::integer
{%- endmacro %}

{#- Minutes since midnight, by the clock of a time zone: 0 to 1439. On the day on which clocks are set back some come twice, on the other some never. -#}
{% macro local_minute_of(column, time_zone) -%}
    (extract(hour from {{ column }} at time zone {{ time_zone }}) * 60 + extract(minute from {{ column }} at time zone {{ time_zone }}))::integer
{%- endmacro %}
