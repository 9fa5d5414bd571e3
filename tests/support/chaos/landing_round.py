"""One round of landing in a process that may be killed, as it runs every five minutes."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import psycopg

from include.landing import LandingBusy, crash, land_pending
from include.warehouse import WarehouseUnavailable
from tests.support.chaos.watch import Watch, tell_lost


def land_round(watch: Watch, streams: Iterable[str], *, arrived_from: datetime | None = None, arrived_before: datetime | None = None) -> None:
    """Lands what is pending of each stream and tells `busy`, the loss of the server, or `idle` where there was nothing.

    Args:
        watch: Is told every step that a load passes.
        streams: Names of streams, in the order in which they land.
        arrived_from: Takes files that arrived at this time or later.
        arrived_before: Takes files that arrived before this time.

    Raises:
        AssertionError: A file failed or a stream is held although nothing is wrong.
    """
    crash.listener = lambda step: watch.passes(step.value)
    files = 0
    for stream in streams:
        try:
            result = land_pending(stream, arrived_from=arrived_from, arrived_before=arrived_before)
        except LandingBusy as error:
            watch.tell("busy", str(error))
            return
        except (WarehouseUnavailable, psycopg.OperationalError) as error:
            tell_lost(watch, error)
            return
        if result.failed_files or result.is_held:
            raise AssertionError(f"{stream}: {result} although nothing is wrong with any file")
        files += result.files
    if not files:
        watch.tell("idle")
