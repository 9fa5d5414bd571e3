"""Sends what the simulated company sends in one interval, at real cadence, while the stack is up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from include.settings import get_settings
from include.simulator.clock import to_datetime, to_ms
from include.simulator.device_events import planted
from include.simulator.faults import FaultRates, displace
from include.simulator.files import Destination
from include.simulator.sources import STREAMS, live_rows
from include.simulator.truth import Expected, FileTruth, count_faults, expected_of_arrivals, expected_of_repetition, file_truth, write_json
from include.simulator.world import DEFAULT_MACHINES, DEFAULT_SEED, make_world

LONGEST_INTERVAL = timedelta(hours=1)


@dataclass(frozen=True)
class IntervalSummary:
    """What was sent for an interval.

    Attributes:
        interval_start: Start of the arrivals.
        interval_end: End of the arrivals, exclusive.
        files: Number of files, at most one a stream; or of posts.
        expected: Per stream, what landing counts when everything that arrived before has been landed.
        faults: Rows with each fault.
    """

    interval_start: datetime
    interval_end: datetime
    files: int
    expected: dict[str, Expected]
    faults: dict[str, int]

    @property
    def events(self) -> int:
        """Rows in all files."""
        return sum(expected.landed for expected in self.expected.values())


def write_interval(
    destination: Destination,
    *,
    interval_start: datetime,
    interval_end: datetime,
    seed: int = DEFAULT_SEED,
    machines: int = DEFAULT_MACHINES,
    live_since: datetime | None = None,
    rates: FaultRates | None = None,
    truth_dir: Path | None = None,
) -> IntervalSummary:
    """Sends what arrives in [interval_start, interval_end).

    What is sent is a pure function of the arguments. A second call replaces each file by the same bytes under the same name; posts are stored once more, and
    what a call adds to the truth is what it stored, also where it ended in an error.

    Args:
        destination: Where to.
        interval_start: Start of the arrivals, with a time zone.
        interval_end: End of the arrivals, exclusive; at most an hour later.
        seed: The seed of the history that this continues.
        machines: The size of the history that this continues.
        live_since: `until` of the history that this continues. What arrived before it is not sent again, and what its sources still owed arrives.
        rates: Shares of faults; the documented ones when None.
        truth_dir: Where the ground truth goes; `truth_dir` of the settings when None.

    Raises:
        ValueError: If the interval is empty, too long, or before the simulated world begins.
    """
    if not timedelta(0) < interval_end - interval_start <= LONGEST_INTERVAL:
        raise ValueError(f"an interval is longer than 0 and at most {LONGEST_INTERVAL}, got {interval_start} to {interval_end}")
    rates = rates or FaultRates()
    start_ms, end_ms = to_ms(interval_start), to_ms(interval_end)
    live_since_ms = None if live_since is None else to_ms(live_since)
    world = make_world(seed, machines, end_ms, from_ms=start_ms)
    from_ms = start_ms if live_since_ms is None else max(start_ms, live_since_ms)
    folder = (truth_dir or get_settings().truth_dir) / "live"
    name = f"{to_datetime(end_ms - 1):%Y%m%dT%H%M%S%f}"
    earlier = sorted(folder.glob(f"{name}*.json")) if destination.adds_repetitions else []
    stored = _pieces_stored(earlier)
    files: list[FileTruth] = []
    uncertain: list[str] = []
    expected: dict[str, Expected] = {}
    try:
        for stream in STREAMS if from_ms < end_ms else ():
            expected[stream] = Expected()
            rows = displace(world.noise, live_rows(world, stream, from_ms, end_ms, rates, live_since_ms).arriving(from_ms, end_ms), rates)
            for number, piece in enumerate(destination.deliver(rows, end_ms) if len(rows) else ()):
                files.append(file_truth(piece.address, piece.rows))
                uncertain += [piece.address] if piece.may_be_twice else []
                expected[stream] += (expected_of_repetition if number < stored[stream] else expected_of_arrivals)(piece.rows)
    finally:
        counts = {stream: asdict(each) for stream, each in expected.items()}
        found = [each.truth() for each in planted(world, from_ms, end_ms)] if from_ms < end_ms else []
        truth = {"expected": counts, "files": [asdict(file) for file in files], "may_be_twice": uncertain, "planted": found}
        write_json(folder / (f"{name}-{len(earlier) + 1}.json" if earlier else f"{name}.json"), truth)
    return IntervalSummary(to_datetime(start_ms), to_datetime(end_ms), len(files), expected, count_faults(files))


def _pieces_stored(truths: Iterable[Path]) -> Counter[str]:
    """How many pieces of each stream earlier calls have stored: always the first ones."""
    most: Counter[str] = Counter()
    for path in truths:
        most |= Counter(file["stream"] for file in json.loads(path.read_text(encoding="utf-8"))["files"])
    return most
