"""What the dbt project makes of streams whose months leave the raw table: which models must have read a month before, and what no model may do."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from include.contracts import load_contract, streams
from include.transform.invocation import DbtError, manifest_json

Node = dict[str, Any]

# What the macros date_of, hour_of and window_of make of event_at: the buckets that lie within one UTC month. A test fails where these differ from the macros.
WITHIN_A_MONTH = (
    "(event_at at time zone 'UTC')::date",
    "date_bin(interval '1 hour', event_at, timestamptz '2000-01-01 00:00:00+00')",
    "date_bin(interval '1 minute', event_at, timestamptz '2000-01-01 00:00:00+00')",
)
HOT_ONLY = "reads_what_raw_holds"  # config.meta of a model that is meant to forget what leaves raw


def expiring_streams() -> tuple[str, ...]:
    """Streams whose months leave the raw table."""
    return tuple(stream for stream in streams() if load_contract(stream).expires)


def consumers(stream: str, manifest: Node | None = None) -> tuple[str, ...]:
    """Incremental models that name a stream's staging view as an input, as `schema.name`: a month may leave raw once each of them has read it."""
    return tuple(
        sorted(
            f"{node['schema']}.{node['alias']}" for node in models_of(manifest or manifest_json()) if f"stg_{stream}" in (node["config"].get("inputs") or {})
        )
    )


def check_expiring(manifest: Node | None = None, expiring: Collection[str] | None = None) -> None:
    """Refuses a project with a model that would lose rows when months leave the raw table.

    Raises:
        DbtError: If there is one; the message names each, and what to do.
    """
    problems = list(unsafe_models(manifest or manifest_json(), expiring_streams() if expiring is None else expiring))
    if problems:
        raise DbtError("models read streams whose months leave the raw table, and would lose what they hold of them:\n" + "\n".join(problems))


def unsafe_models(manifest: Node, expiring: Collection[str]) -> Iterator[str]:
    """A line for each reading of an expiring stream that would not outlive the rows.

    Args:
        manifest: The parsed project.
        expiring: The streams.
    """
    for node in models_of(manifest):
        name = node["name"]
        for stream in expiring:
            is_staging = name == f"stg_{stream}"
            if any(parent == f"source.{node['package_name']}.raw.{stream}" for parent in node["depends_on"]["nodes"]) and not is_staging:
                yield f"{name} reads raw.{stream}: read stg_{stream}, and only in buckets within a month"
            if f"model.{node['package_name']}.stg_{stream}" not in node["depends_on"]["nodes"] or node["config"].get("meta", {}).get(HOT_ONLY):
                continue
            mapping = (node["config"].get("inputs") or {}).get(f"stg_{stream}")
            if node["config"].get("incremental_strategy") != "touched_buckets" or mapping is None:
                yield (
                    f"{name} ({node['config']['materialized']}) reads all of stg_{stream}: read a mart, or say `meta: {{{HOT_ONLY}: true}}` "
                    "if it is to hold what raw holds and nothing else"
                )
            elif not any(expression in WITHIN_A_MONTH for expression in mapping.values()):
                yield (
                    f"{name} reads stg_{stream} in buckets that no column keeps within a month: map a bucket column to date_of('event_at'), "
                    "hour_of('event_at') or window_of('event_at', '1 minute'), or read a mart that does"
                )


def models_of(manifest: Node) -> list[Node]:
    """Models of the parsed project that are switched on."""
    return [node for node in manifest["nodes"].values() if node["resource_type"] == "model" and node["config"]["enabled"]]
