"""The assets that DAGs announce to each other. An event is a hint to look; the truth is in Postgres (decision 4)."""

from __future__ import annotations

from airflow.sdk import Asset


def raw_asset(stream: str) -> Asset:
    """`raw.<stream>` got rows; the event carries the counts of the landing run."""
    return Asset(name=f"raw.{stream}", uri=f"tidemark://warehouse/raw/{stream}", group="raw")


def mart_asset(schema: str, model: str) -> Asset:
    """A mart was brought to the horizon of a build; the event carries the build id."""
    return Asset(name=f"{schema}.{model}", uri=f"tidemark://warehouse/{schema}/{model}", group="mart")


def prediction_asset(use_case: str) -> Asset:
    """`predictions.<use_case>` got rows; the event carries their number."""
    return Asset(name=f"predictions.{use_case}", uri=f"tidemark://warehouse/predictions/{use_case}", group="prediction")


# A backfill asked for spans of event time to be recomputed; `build_marts` reads them from ops.touch_request.
TOUCH_REQUESTS = Asset(name="ops.touch_request", uri="tidemark://warehouse/ops/touch_request", group="ops")
# All tables of features of a build: they come after the maintenance marts, which they are made of.
DEVICE_FEATURES = mart_asset("features", "feat_device_daily")
DEVICE_FAILURE = prediction_asset("device_failure")
DEVICE_FAILURE_24H = prediction_asset("device_failure_24h")
COMPONENT_FAILURE = prediction_asset("component_failure")
REMAINING_LIFE = prediction_asset("remaining_life")
