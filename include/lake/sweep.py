"""Bytes that no reader needs any more: files that others replaced, and what exports and compactions that died have left."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from include.contracts import load_contract
from include.lake import files, store
from include.lake.steps import LakeStep
from include.landing.crash import crash_point
from include.landing.object_store import ObjectStore, modified_at
from include.warehouse import Role, connect

GRACE = timedelta(hours=24)
"""Whoever listed live files before they were replaced has this long to read them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sweep:
    """What a sweep removed.

    Attributes:
        stream: The stream.
        replaced: Files that others had replaced.
        strangers: Files without a line in `ops.file`: of exports that died, or put there by somebody else.
        size_bytes: Bytes of all of them.
    """

    stream: str
    replaced: int = 0
    strangers: int = 0
    size_bytes: int = 0


def sweep_stream(stream: str, *, grace: timedelta = GRACE) -> Sweep:
    """Removes what is older than the grace and not live. A removal is marked before and confirmed after it, so that one that died is finished by the next.

    Args:
        stream: The stream.
        grace: How long replaced files, and files without a line, are left alone.

    Raises:
        LakeBusy: If the lake of the stream is being written.
        LakeError: If the lake is another warehouse's.
        ZoneError: If the store fails.
    """
    load_contract(stream)
    lake = store.open_lake()
    with connect(Role.LOADER, autocommit=True) as connection, files.holding_lake(connection, stream):
        store.refuse_strangers(lake, connection, stream)
        marked = files.mark_expiring(connection, files.to_remove(connection, stream, grace))
        store.write_manifest(lake, connection, stream)  # first: whoever must fill an empty warehouse is not to look for bytes that are gone
        for file in marked:
            lake.remove(file.address)
            crash_point(LakeStep.SWEEP_MID)
        files.mark_expired(connection, [file.file_id for file in marked])
        strangers = _strangers(connection, lake, stream, datetime.now(UTC) - grace)
        for address in strangers:
            log.warning("%s in %s has no line in ops.file and is removed", address, lake.url)
            lake.remove(address)
    return Sweep(stream, len(marked), len(strangers), sum(file.size_bytes for file in marked) + sum(strangers.values()))


def _strangers(connection: psycopg.Connection, lake: ObjectStore, stream: str, before: datetime) -> dict[str, int]:
    """Size by address of files with names of the lake that were last written before a moment and that it does not know. Others are somebody else's, such as
    the zone's where both have one root.
    """
    found = {lake.relative(path): info for path, info in lake.files_below("", stream).items() if info["type"] == "file"}
    kept = files.known_addresses(connection, stream)
    return {
        address: int(info["size"])
        for address, info in found.items()
        if store.is_own_name(stream, address) and address not in kept and modified_at(info) <= before
    }
