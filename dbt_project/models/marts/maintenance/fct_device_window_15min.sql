-- Grain: one row per tenant, device, version of the device (device_key), metric and 15 minutes (UTC) with at least one reading of the metric.
-- Additive: reading_count, expected_reading_count, sum_value, sum_squared_value (within a metric). Not additive: avg_, min_, max_, stddev_, first_, last_value.
-- From the windows of fct_device_window_5min, never from readings. Touched-bucket incremental: macros/windows/levels.sql.
{{ config(**device_windows_config('fct_device_window_5min', '15 minutes')) }}
{{ device_windows('fct_device_window_5min', '15 minutes') }}
