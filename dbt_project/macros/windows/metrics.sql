{#-
    What the window models know of devices, written once. `all_readings` stands for every reading, whatever it measured: it has a count and no values, and it is
    what a device that measures nothing (a tracker, a camera) is seen by.
-#}

{#- Metrics of device telemetry: code, and the column or expression of stg_device_telemetry that measures it. Codes carry the unit. -#}
{% macro device_metrics() -%}
    {{ return({
        'temperature_c': 'temperature_c',
        'humidity_pct': 'humidity_pct',
        'pressure_hpa': 'pressure_hpa',
        'dew_point_c': 'dew_point_c',
        'vibration_mm_s': "case
            when num_nonnulls(vibration_x_mm_s, vibration_y_mm_s, vibration_z_mm_s) > 0
                then sqrt(power(coalesce(vibration_x_mm_s, 0), 2) + power(coalesce(vibration_y_mm_s, 0), 2) + power(coalesce(vibration_z_mm_s, 0), 2))
        end",
        'energy_kwh': 'energy_kwh',
        'load_pct': 'load_pct',
        'battery_pct': 'battery_pct',
    }) }}
{%- endmacro %}

{#-
    Seconds without a reading after which a session of a device is over; more than a minute and less than a day (the models of sessions rely on both). What reports
    on its own is silent only when it is off or cut off; what reports when something happens is in a session while things go on happening.
-#}
{% macro session_gap_s(device_type) -%}
    case {{ device_type }}
        when 'security_camera' then 900
        when 'smart_lock' then 900
        when 'quality_camera' then 1800
        when 'gps_tracker' then 2700
        else 7200
    end
{%- endmacro %}
