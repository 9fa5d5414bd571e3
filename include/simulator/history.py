"""Writes the history of the simulated company into the landing zone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from include.settings import get_settings
from include.simulator.clock import DAY, HOUR, to_datetime, to_ms
from include.simulator.faults import FaultRates, displace
from include.simulator.files import LandingZone, write_file
from include.simulator.rows import Rows, join_rows
from include.simulator.sources import STREAMS, VERSIONED, slow_rows, switch_rows
from include.simulator.truth import Expected, FileTruth, Ledger, count_faults, failures, file_truth, write_truth
from include.simulator.world import DEFAULT_MACHINES, DEFAULT_SEED, World, make_world

RECENT_DAYS = 3
"""Whole days before `until` whose files are small: hourly for telemetry, four-hourly for the rest."""
NEWEST_SHARE = 0.15

Progress = Callable[[int, int], None]
"""Called with the files written so far and the files to write."""

_STEP_MS = 10 * DAY
LAST_MS = 1 << 62


@dataclass(frozen=True)
class HistorySummary:
    """What was written.

    Attributes:
        since: First moment of the history.
        recent_from: Midnight from which files are small; older files hold a day.
        until: End of the history, exclusive.
        files: Number of files.
        expected: Per stream, what landing counts when it has landed them all.
        faults: Rows with each fault.
        failures: Failures of machines.
        recent_failures: Failures in the newest 15 % of the time.
    """

    since: datetime
    recent_from: datetime
    until: datetime
    files: int
    expected: dict[str, Expected]
    faults: dict[str, int]
    failures: int
    recent_failures: int

    @property
    def events(self) -> int:
        """Rows in all files."""
        return sum(expected.landed for expected in self.expected.values())


def write_history(
    zone: LandingZone,
    *,
    until: datetime,
    days: int = 180,
    seed: int = DEFAULT_SEED,
    machines: int = DEFAULT_MACHINES,
    rates: FaultRates | None = None,
    truth_dir: Path | None = None,
    progress: Progress | None = None,
) -> HistorySummary:
    """Writes everything that arrived in the `days` before `until`. The same arguments write the same bytes.

    Args:
        zone: Where to.
        until: End of the history, with a time zone. The registry switches to the real cadence then.
        days: Length of the history, at least 1.
        seed: Same seed, same company.
        machines: Machines of the plant; everything else grows with it.
        rates: Shares of faults; the documented ones when None.
        truth_dir: Where the ground truth goes; `truth_dir` of the settings when None.
        progress: Called after each file.

    Raises:
        ValueError: If an argument makes no sense, or the history would begin before the simulated world does.
    """
    if days < 1:
        raise ValueError(f"a history needs at least 1 day, got {days}")
    until_ms, rates = to_ms(until), rates or FaultRates()
    since_ms = until_ms - days * DAY
    world = make_world(seed, machines, until_ms, from_ms=since_ms)
    recent_ms = max(since_ms, (until_ms - RECENT_DAYS * DAY) // DAY * DAY)
    plan = {stream: slot_ends(since_ms, recent_ms, until_ms, HOUR if stream == "device_telemetry" else 4 * HOUR) for stream in STREAMS}
    total, done = sum(len(ends) for ends in plan.values()), 0
    files: list[FileTruth] = []
    ledger = Ledger()
    for stream, ends in plan.items():
        for end_ms, rows in _rows_by_file(world, stream, since_ms, until_ms, ends, rates):
            done += 1
            if len(rows):
                arranged = displace(world.noise, rows, rates)
                files.append(file_truth(write_file(zone, arranged, end_ms, "simulator"), arranged))
                ledger.add(arranged)
            if progress is not None:
                progress(done, total)
    made = failures(world, since_ms, until_ms)
    newest = until - NEWEST_SHARE * timedelta(days=days)
    told = {"seed": seed, "machines": machines, "days": days, "until": until.isoformat(), "since": to_datetime(since_ms).isoformat(), "rates": asdict(rates)}
    write_truth(truth_dir or get_settings().truth_dir, world, since_ms, until_ms, files, ledger.counts, told)
    return HistorySummary(
        to_datetime(since_ms),
        to_datetime(recent_ms),
        to_datetime(until_ms),
        len(files),
        ledger.counts,
        count_faults(files),
        len(made),
        sum(failure["failed_at"] >= newest for failure in made),
    )


def slot_ends(since_ms: int, recent_ms: int, until_ms: int, recent_step_ms: int) -> list[int]:
    """Ends of the times of arrival that share a file: midnights, then smaller steps from `recent_ms` on, then `until_ms`."""
    midnights = range((since_ms // DAY + 1) * DAY, recent_ms + 1, DAY)
    steps = range((recent_ms // recent_step_ms + 1) * recent_step_ms, until_ms, recent_step_ms)
    return sorted({*midnights, *steps, until_ms})


def _rows_by_file(world: World, stream: str, since_ms: int, until_ms: int, ends: list[int], rates: FaultRates) -> Iterator[tuple[int, Rows]]:
    """Rows of each file; events are drawn ten days at a time, and what arrives later waits for its file."""
    waiting = join_rows(stream, [])
    position, last = 0, since_ms
    for start_ms in range(since_ms, until_ms, _STEP_MS):
        end_ms = min(start_ms + _STEP_MS, until_ms)
        fresh = slow_rows(world, stream, start_ms, end_ms, rates, is_live=False, is_export=start_ms == since_ms)
        parts = [waiting, fresh]
        if stream in VERSIONED and end_ms == until_ms:
            parts.append(switch_rows(world, stream, until_ms))
        ready = position
        while ready < len(ends) and ends[ready] <= end_ms:
            ready += 1
        everything = join_rows(stream, parts).arriving(last, LAST_MS)
        cuts = np.searchsorted(everything.arrived_ms, ends[position:ready])
        begin = 0
        for end, cut in zip(ends[position:ready], cuts.tolist(), strict=True):
            yield end, everything.take(np.arange(begin, cut))
            begin, last = cut, end
        waiting = everything.take(np.arange(begin, len(everything)))
        position = ready
