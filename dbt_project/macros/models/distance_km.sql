{#-
    Distance in km between two positions in degrees (WGS 84), on a sphere of the Earth's mean radius: at most 0.5 % off. By the haversine formula, which is exact
    for positions that are close (R. W. Sinnott, Virtues of the Haversine, 1984). NULL where a coordinate is.
-#}
{% macro distance_km(latitude, longitude, to_latitude, to_longitude) -%}
    2 * 6371.0088 * asin(least(1, sqrt(
        power(sin(radians(({{ to_latitude }}) - ({{ latitude }})) / 2), 2)
        + cos(radians({{ latitude }})) * cos(radians({{ to_latitude }})) * power(sin(radians(({{ to_longitude }}) - ({{ longitude }})) / 2), 2)
    )))
{%- endmacro %}
