-- Grain: one row per tenant and facility named by any version of a device. device_count and line_count are of current, active devices, not additive over time.
-- Touched-bucket incremental: a changed device touches all facilities of its tenant (there are few), because it may have left one of them.
{{
    config(
        materialized='incremental',
        incremental_strategy='touched_buckets',
        bucket=['tenant_id'],
        event_time='first_valid_from_at',
        inputs={'dim_device': {}},
        indexes=[{'columns': ['tenant_id', 'facility_id'], 'unique': true}],
        tags=['micro_batch'],
    )
}}

with

devices as (

    select
        version.tenant_id,
        version.device_id,
        version.facility_id,
        version.line_id,
        version.is_current,
        version.registry_status,
        -- A name that the database does not know would stop every query that uses it.
        known_zone.time_zone_name,
        version.latitude_deg,
        version.longitude_deg,
        version.valid_from_at,
        version._batch_id
    from {{ touched_rows(ref('dim_device')) }} as version
    left join {{ time_zones() }} as known_zone on version.time_zone_name = known_zone.time_zone_name

),

facilities as (

    select
        -- ids
        {{ stable_key(['tenant_id', 'facility_id']) }} as facility_key,
        tenant_id,
        facility_id,

        -- attributes
        (array_agg(time_zone_name order by valid_from_at desc, device_id asc) filter (where time_zone_name is not null))[1] as time_zone_name,

        -- measures
        count(distinct device_id) filter (where is_current and registry_status = 'active') as device_count,
        count(distinct line_id) filter (where is_current and registry_status = 'active') as line_count,
        {{ exact_avg('case when is_current then latitude_deg end') }} as latitude_deg,
        {{ exact_avg('case when is_current then longitude_deg end') }} as longitude_deg,

        -- timestamps
        min(valid_from_at) as first_valid_from_at,

        -- metadata
        max(_batch_id) as _batch_id
    from devices
    group by tenant_id, facility_id

)

select * from facilities
