{#- Shape and direction of values, from sums, so that they do not depend on the order of rows. Numeric inside, double precision out. -#}

{#- Kurtosis (fourth central moment over squared variance; 3 for a normal distribution, Joanes and Gill 1998: g2 + 3) from a count and the sums of the first
    four powers. NULL with fewer than four values, and where they hardly differ: sums are kept with 15 digits, so with a variance of r of the mean square the fourth
    moment is off by about 1e-14 / r^2 of itself: 1 % at 1e-6, all of it at 1e-7. No kurtosis is below 1: what rounding takes off there is given back. -#}
{% macro exact_kurtosis(count, sum_1, sum_2, sum_3, sum_4) -%}
    {%- set number = 'nullif(' ~ count ~ ', 0)' -%}
    {%- set mean = '(' ~ sum_1 ~ ' / ' ~ number ~ ')' -%}
    {%- set variance = '(' ~ sum_2 ~ ' / ' ~ number ~ ' - ' ~ mean ~ ' * ' ~ mean ~ ')' -%}
    case
        when {{ count }} >= 4 and {{ variance }} > {{ sum_2 }} / {{ number }} * 0.000001
            then greatest(
                1,
                (
                    {{ sum_4 }} / {{ number }} - 4 * {{ mean }} * {{ sum_3 }} / {{ number }}
                    + 6 * {{ mean }} * {{ mean }} * {{ sum_2 }} / {{ number }} - 3 * {{ mean }} * {{ mean }} * {{ mean }} * {{ mean }}
                ) / ({{ variance }} * {{ variance }})
            )::double precision
    end
{%- endmacro %}

{#- Slope of the least-squares line of a value over a whole number (days), of the rows of a FILTER. NULL with fewer than three values. -#}
{% macro exact_slope(value, day, filter) -%}
    case
        when count({{ value }}) {{ filter }} >= 3
            then (
                (
                    count({{ value }}) {{ filter }} * sum({{ day }} * ({{ value }})::numeric) {{ filter }}
                    - sum(case when {{ value }} is not null then {{ day }} end) {{ filter }} * sum(({{ value }})::numeric) {{ filter }}
                ) / nullif(
                    count({{ value }}) {{ filter }} * sum(case when {{ value }} is not null then {{ day }} * {{ day }} end) {{ filter }}
                    - sum(case when {{ value }} is not null then {{ day }} end) {{ filter }}
                    * sum(case when {{ value }} is not null then {{ day }} end) {{ filter }},
                    0
                )::numeric
            )::double precision
    end
{%- endmacro %}
