-- Grain: one row per tenant, device, version of the device (device_key), metric and 5-minute step (UTC) in which the device said anything,
-- for the hour that ends with it.
-- Nothing here is additive: neighbouring rows share readings. Add up fct_device_window_5min instead.
-- From the windows of 5 minutes. Touched-bucket incremental: a changed one touches its own step and the steps with readings within 1 hour after it.
{{ config(**sliding_windows_config('1 hour')) }}
{{ sliding_windows('1 hour') }}
