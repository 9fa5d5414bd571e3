-- Grain: one row per tenant, device, version of the device (device_key), metric and 5-minute step (UTC) in which the device said anything,
-- for the 15 minutes that end with it.
-- Nothing here is additive: neighbouring rows share readings. Add up fct_device_window_5min instead.
-- From the windows of 5 minutes. Touched-bucket incremental: a changed one touches its own step and the steps with readings within 15 minutes after it.
{{ config(**sliding_windows_config('15 minutes')) }}
{{ sliding_windows('15 minutes') }}
