"""Retention: what leaves raw, lake, marts and zone at a time, by the contracts. A plan says it, a run does it; both say what has to wait, and for what."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

import psycopg

from include.contracts import load_contract, streams
from include.contracts.model import Contract
from include.lake import files
from include.lake.errors import LakeError
from include.lake.expire import MonthHeldBack, expire_month, unread
from include.lake.forget import forget, forgotten_months, rows_to_forget
from include.lake.months import MonthState, last_day, months, next_month, partition_of, partitions, set_deleted, start_of
from include.lake.rebuild_state import unfinished
from include.lake.steps import LakeStep
from include.lake.sweep import sweep_stream
from include.lake.zone_retention import due_in_zone, expire_zone
from include.landing.crash import crash_point
from include.transform.expiring import consumers
from include.transform.forgetting import forgetful_models
from include.warehouse import Role, connect


class RetentionError(LakeError):
    """Something that was due could not be done for another reason than that it had to wait; everything else that was due is done."""


class Place(StrEnum):
    """Where something leaves from."""

    RAW = "raw"
    LAKE = "lake"
    MARTS = "marts"
    ZONE = "zone"


@dataclass(frozen=True)
class Item:
    """Something that leaves, or is due to.

    Attributes:
        stream: The stream.
        place: From where.
        month: First day of the month of event time; None for files of the zone, and for a mart, whose rows may be made of several.
        rows: Rows of the month or of the mart; None for files of the zone.
        files: Files; None for a partition of raw and a mart.
        size_bytes: Their size; None for a partition of raw and a mart.
        table: The mart, as `schema.name`; None for any other place.
        waits_for: Why it cannot leave yet; None where it can, or did.
    """

    stream: str
    place: Place
    month: date | None = None
    rows: int | None = None
    files: int | None = None
    size_bytes: int | None = None
    table: str | None = None
    waits_for: str | None = None


def plan(at: datetime, only: Sequence[str] = ()) -> list[Item]:
    """What is due at a time; changes nothing.

    A month whose models have read it may still have to wait when it is compared with the lake: that is what the run finds out.

    Args:
        at: The time that counts as now.
        only: Streams; all where none is named.
    """
    items: list[Item] = []
    with connect(Role.LOADER, autocommit=True) as connection:
        waits = _rebuild_under_way(connection)
        for contract in _contracts(only):
            for month, rows in _due_in_raw(connection, contract, at):
                waiting = unread(connection, contract.stream, month, consumers(contract.stream))
                items.append(Item(contract.stream, Place.RAW, month, rows, waits_for=waits or "; ".join(waiting) or None))
            of_lake = list(_due_in_lake(connection, contract, at))
            items += of_lake
            items += _due_in_marts(contract.stream, forgotten_months(connection, contract.stream) | {item.month for item in of_lake if item.month is not None})
            zone = due_in_zone(connection, contract, at)
            if zone.files:
                items.append(Item(contract.stream, Place.ZONE, files=zone.files, size_bytes=zone.size_bytes))
    return items


def expire_raw(at: datetime, only: Sequence[str] = ()) -> list[Item]:
    """Drops months that are older than the contract keeps them in raw, and restored ones whose time is over, as far as nothing has to wait for them.

    Args:
        at: The time that counts as now.
        only: Streams; all where none is named.

    Returns:
        What left and what waits.

    Raises:
        RetentionError: If the lake does not hold what it should, or a lock was not free. Every other month was tried.
    """
    items: list[Item] = []
    failures: list[str] = []
    with connect(Role.LOADER, autocommit=True) as connection:
        waits = _rebuild_under_way(connection)
        for contract in _contracts(only):
            for month, rows in _due_in_raw(connection, contract, at):
                waiting, left = waits, rows
                if waiting is None:
                    try:
                        left = expire_month(connection, contract.stream, month, consumers(contract.stream), at).rows
                    except MonthHeldBack as error:
                        waiting = str(error)
                    except LakeError as error:
                        failures.append(str(error))
                        continue
                items.append(Item(contract.stream, Place.RAW, month, left, waits_for=waiting))
    if failures:
        raise RetentionError("; ".join(failures))
    return items


def expire_lake(at: datetime, only: Sequence[str] = ()) -> list[Item]:
    """Deletes months from the lake that are older than the contract keeps them there. Only months that have left raw, and whole ones: one of which some days
    are missing could never be restored without emptying what models hold of those days.

    Args:
        at: The time that counts as now.
        only: Streams; all where none is named.

    Returns:
        What left.
    """
    items: list[Item] = []
    with connect(Role.LOADER, autocommit=True) as connection:
        for contract in _contracts(only):
            for item in list(_due_in_lake(connection, contract, at)):
                if item.month is None:
                    continue
                with connection.transaction():
                    files.lock_lake(connection, contract.stream)
                    if not set_deleted(connection, contract.stream, item.month):
                        continue  # somebody has it restored since it was found to be due
                    lines = files.live_files(connection, contract.stream, item.month, last_day(item.month))
                    files.mark_expiring(connection, [line.file_id for line in lines])
                items.append(item)
                crash_point(LakeStep.LAKE_AFTER_MARK)
            if contract.expires:
                sweep_stream(contract.stream)  # what is marked goes, that of a run that was killed included
    return items


def forget_in_marts(only: Sequence[str] = ()) -> list[Item]:
    """Deletes rows of models that say they forget, where they are made of months that the lake has deleted; models below follow with their next build.

    Args:
        only: Streams; all where none is named.

    Returns:
        What left.

    Raises:
        RetentionError: If a build held a model for longer than 30 seconds. Every other model was tried.
    """
    items: list[Item] = []
    failures: list[str] = []
    with connect(Role.TRANSFORMER, autocommit=True) as connection:
        for model in forgetful_models():
            if only and model.stream not in only:
                continue
            try:
                rows = forget(connection, model)
            except LakeError as error:
                failures.append(str(error))
                continue
            if rows:
                items.append(Item(model.stream, Place.MARTS, rows=rows, table=model.model))
    if failures:
        raise RetentionError("; ".join(failures))
    return items


def expire_zone_files(at: datetime, only: Sequence[str] = ()) -> list[Item]:
    """Deletes bytes of files from the zone that landed longer ago than the contract keeps them and are not needed any more (`include.lake.zone_retention`)."""
    done = [expire_zone(contract.stream, at) for contract in _contracts(only)]
    return [Item(one.stream, Place.ZONE, files=one.files, size_bytes=one.size_bytes) for one in done if one.files]


def run(at: datetime, only: Sequence[str] = ()) -> list[Item]:
    """All that is due: raw, then lake, then marts, then zone. Returns what left and what waits.

    Raises:
        RetentionError: See `expire_raw` and `forget_in_marts`; what comes behind was not looked at then.
    """
    return [*expire_raw(at, only), *expire_lake(at, only), *forget_in_marts(only), *expire_zone_files(at, only)]


def _contracts(only: Sequence[str]) -> Iterator[Contract]:
    yield from (load_contract(stream) for stream in (only or streams()))


def _rebuild_under_way(connection: psycopg.Connection) -> str | None:
    rebuild = unfinished(connection)
    return None if rebuild is None else f"rebuild {rebuild.rebuild_id} is not finished: run `{rebuild.command}` again"


def _due_in_raw(connection: psycopg.Connection, contract: Contract, at: datetime) -> Iterator[tuple[date, int]]:
    """Months and their rows by the book; months that hold none stay, as nothing in the lake would stand for them."""
    if contract.hot_retention is None:
        return
    gone = months(connection, contract.stream)
    for month in partitions(connection, contract.stream):
        state = gone.get(month)
        if start_of(next_month(month)) > at - contract.hot_retention or (state is not None and state.keep_until is not None and state.keep_until > at):
            continue
        row = connection.execute(
            "select coalesce(sum(row_count), 0)::bigint from ops.movement where stream = %s and partition = %s",
            (contract.stream, partition_of(contract.stream, month)),
        ).fetchone()
        if row is not None and row[0] > 0:
            yield month, int(row[0])


def _due_in_lake(connection: psycopg.Connection, contract: Contract, at: datetime) -> Iterator[Item]:
    if contract.lake_retention is None:
        return
    for month in months(connection, contract.stream).values():
        if month.state is MonthState.EXPIRED and start_of(next_month(month.month)) <= at - contract.lake_retention:
            lines = files.live_files(connection, contract.stream, month.month, last_day(month.month))
            yield Item(contract.stream, Place.LAKE, month.month, sum(line.row_count for line in lines), len(lines), sum(line.size_bytes for line in lines))


def _due_in_marts(stream: str, gone: Collection[date]) -> Iterator[Item]:
    """What models that forget hold of months that are deleted, or are due to be."""
    if gone:
        with connect(Role.TRANSFORMER) as connection:
            for model in forgetful_models():
                rows = rows_to_forget(connection, model, gone) if model.stream == stream else 0
                if rows:
                    yield Item(stream, Place.MARTS, rows=rows, table=model.model)
