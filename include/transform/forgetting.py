"""What becomes of marts about persons when a contract's time is over: which models forget, and which would keep what they must not."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from include.contracts import load_contract, streams
from include.transform.expiring import Node, models_of
from include.transform.invocation import DbtError, manifest_json

OF_PERSONS = ("personal", "pseudonym")  # config.meta.classification of a column


@dataclass(frozen=True)
class Forgetful:
    """A model that forgets rows made of months of a stream that are gone for good.

    Attributes:
        model: Its table, as `schema.name`.
        stream: The stream.
        bucket: Its bucket columns.
        day_column: The one that holds the own day of a row.
        first_day: First day of the stream that a row is made of, counted from its own day.
        last_day: Last such day.
    """

    model: str
    stream: str
    bucket: tuple[str, ...]
    day_column: str
    first_day: int
    last_day: int


def streams_about_persons() -> tuple[str, ...]:
    """Streams with a personal field whose months are deleted for good at some age."""
    return tuple(
        stream for stream in streams() if load_contract(stream).lake_retention is not None and any(field.is_personal for field in load_contract(stream).fields)
    )


def forgetful_models(manifest: Node | None = None) -> tuple[Forgetful, ...]:
    """Models that forget, a line for each stream, in order of their tables."""
    found = [
        Forgetful(f"{node['schema']}.{node['alias']}", stream, tuple(node["config"]["bucket"]), node["config"]["event_time"], first, last)
        for node in models_of(manifest or manifest_json())
        for stream, (first, last) in (node["config"].get("forgets") or {}).items()
    ]
    return tuple(sorted(found, key=lambda each: (each.model, each.stream)))


def check_forgetting(manifest: Node | None = None) -> None:
    """Refuses a project with a table about persons that would outlive what its contracts promise.

    Raises:
        DbtError: If there is one, or one says how it forgets and cannot; the message names each, and what to do.
    """
    problems = list(unforgetful_models(manifest or manifest_json(), streams_about_persons()))
    if problems:
        raise DbtError("tables about persons have to forget what their contracts say is gone:\n" + "\n".join(problems))


def unforgetful_models(manifest: Node, about_persons: Collection[str]) -> Iterator[str]:
    """A line for each table that holds a column about persons and does not forget, and for each statement that cannot be acted upon.

    Args:
        manifest: The parsed project.
        about_persons: Streams about persons whose months are deleted for good.
    """
    for node in models_of(manifest):
        name, config = node["name"], node["config"]
        forgets, remembers = config.get("forgets") or {}, config.get("remembers") or {}
        classified = [column for column, told in node["columns"].items() if (told["config"].get("meta") or {}).get("classification") in OF_PERSONS]
        if classified and config["materialized"] != "view":
            for stream in sorted(_streams_above(manifest, node) & set(about_persons) - set(forgets)):
                yield (
                    f"{name} holds {', '.join(classified)} and is made of {stream}, whose months are deleted: say "
                    f"`forgets={{'{stream}': [first, last]}}`, the days that a row is made of, counted from its own (macros/touched/forgotten.sql)"
                )
        for stream, days in (*forgets.items(), *remembers.items()):
            if stream not in streams() or load_contract(stream).lake_retention is None:
                yield f"{name} speaks of months of {stream}, which are never deleted: remove it from `forgets` or `remembers`"
            if config.get("incremental_strategy") != "touched_buckets" or config.get("event_time") not in (config.get("bucket") or ()):
                yield f"{name} forgets or remembers {stream}: give it touched buckets with the day of a row among them, and name that column as `event_time`"
            if not (isinstance(days, list) and len(days) == 2 and all(type(day) is int for day in days) and days[0] <= days[1]):
                yield f"{name} says {days!r} of {stream}: give the first and the last day, two whole numbers"


def _streams_above(manifest: Node, node: Node) -> set[str]:
    """Streams that a model is made of, directly or not."""
    found, raw = [node["unique_id"]], f"source.{node['package_name']}.raw."
    for unique_id in found:
        found += [parent for parent in manifest["parent_map"].get(unique_id, ()) if parent not in found]
    return {unique_id.removeprefix(raw) for unique_id in found if unique_id.startswith(raw)}
