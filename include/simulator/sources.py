"""The streams of the simulated company, as rows with their faults and arrival times."""

from __future__ import annotations

import numpy as np

from include.simulator.clock import DAY, HOUR, MINUTE
from include.simulator.customers import customer_rows
from include.simulator.desired import desired_at_switch, desired_rows
from include.simulator.device_events import device_event_rows
from include.simulator.devices import live_versions, registry_rows
from include.simulator.faults import FAST, LONGEST_LATENESS_MS, SLOW, FaultRates, apply_faults, crc, offline_until
from include.simulator.maintenance import maintenance_rows
from include.simulator.noise import Longs
from include.simulator.positions import position_rows
from include.simulator.rows import Rows, join_rows
from include.simulator.shop import LONGEST_LIFE_MS, order_rows, shop_scale
from include.simulator.telemetry import telemetry_rows
from include.simulator.world import World

STREAMS = ("device_telemetry", "device_registry", "maintenance_log", "orders", "customers", "device_events", "gps_positions", "device_desired_state")
VERSIONED = frozenset({"device_registry", "device_desired_state"})
"""Streams of versions that are never late and that tell of the switch to the real cadence."""

_AGAIN_MS = SLOW.repeated_after_ms[1] + MINUTE
LOOK_BACK_MS = {
    "device_telemetry": LONGEST_LATENESS_MS + _AGAIN_MS,
    "device_registry": _AGAIN_MS + HOUR,
    "maintenance_log": 2 * LONGEST_LATENESS_MS + _AGAIN_MS,
    "orders": LONGEST_LIFE_MS + LONGEST_LATENESS_MS + _AGAIN_MS,
    "customers": LONGEST_LATENESS_MS + _AGAIN_MS,
    "device_events": LONGEST_LATENESS_MS + _AGAIN_MS,
    "gps_positions": LONGEST_LATENESS_MS + _AGAIN_MS,
    "device_desired_state": _AGAIN_MS + HOUR,
}
"""How long after its event a row of a stream, or its repetition, may still arrive."""


def slow_rows(world: World, stream: str, start_ms: int, end_ms: int, rates: FaultRates, *, is_live: bool, is_export: bool) -> Rows:
    """Everything that is ever sent about events in [start_ms, end_ms), with the faults of sources that report every hour or so.

    Args:
        world: The world.
        stream: Name of the stream.
        start_ms: Start of the time.
        end_ms: End of the time, exclusive.
        rates: Shares of faults.
        is_live: Cadence that the registry states and that is asked for, and that telemetry and trackers keep.
        is_export: Whether entities that exist at `start_ms` are exported then.

    Raises:
        ValueError: If there is no such stream.
    """
    noise, scale = world.noise, shop_scale(world.machines)
    match stream:
        case "device_telemetry":
            rows = telemetry_rows(world, start_ms, end_ms, is_live=is_live)
        case "device_registry":
            rows = registry_rows(noise, world.devices, start_ms, end_ms, is_live=is_live, is_export=is_export)
        case "maintenance_log":
            rows = maintenance_rows(world, start_ms, end_ms)
        case "orders":
            rows = order_rows(noise, scale, start_ms, end_ms)
        case "customers":
            rows = customer_rows(noise, scale, start_ms, end_ms, is_export=is_export)
        case "device_events":
            rows = device_event_rows(world, start_ms, end_ms)
        case "gps_positions":
            rows = position_rows(noise, world.devices, start_ms, end_ms, is_live=is_live)
        case "device_desired_state":
            rows = desired_rows(noise, world.devices, start_ms, end_ms, is_live=is_live, is_export=is_export)
        case _:
            raise ValueError(f"no simulated stream {stream!r}; there are {', '.join(STREAMS)}")
    # A lost reading or fix is followed by the next; a lost order, event, log entry or version would not be, so those are sent again in good shape.
    is_followed = stream in {"device_telemetry", "gps_positions"}
    return apply_faults(noise, rows, rates, SLOW, keeps_good_row=not is_followed, may_be_late=stream not in VERSIONED)


def switch_rows(world: World, stream: str, at_ms: int) -> Rows:
    """Versions of a stream in `VERSIONED` by which every device starts to report at its real cadence at `at_ms`. They arrive just before, without faults."""
    return (live_versions if stream == "device_registry" else desired_at_switch)(world.noise, world.devices, at_ms)


def live_rows(world: World, stream: str, start_ms: int, end_ms: int, rates: FaultRates, live_since_ms: int | None) -> Rows:
    """What may arrive in [start_ms, end_ms), and some rows that arrive before or after it.

    Args:
        world: The world, drawn at least until `end_ms`.
        stream: Name of the stream.
        start_ms: Start of the interval.
        end_ms: End of the interval, exclusive.
        rates: Shares of faults.
        live_since_ms: When reporting switched from the cadence of history; None if it always was live.
    """
    earliest = start_ms - LOOK_BACK_MS[stream]
    if stream == "device_telemetry":
        return _live_telemetry(world, start_ms, end_ms, rates, live_since_ms)
    if stream in VERSIONED | {"gps_positions"} and live_since_ms is not None:
        # The version of the switch itself came with history, at the same time as one that would begin there.
        first = live_since_ms + (stream in VERSIONED)
        before = slow_rows(world, stream, earliest, live_since_ms, rates, is_live=False, is_export=False)
        after = slow_rows(world, stream, max(earliest, first), end_ms, rates, is_live=True, is_export=False)
        return join_rows(stream, [before, after])
    return slow_rows(world, stream, earliest, end_ms, rates, is_live=True, is_export=False)


def _live_telemetry(world: World, start_ms: int, end_ms: int, rates: FaultRates, live_since_ms: int | None) -> Rows:
    stream, noise = "device_telemetry", world.noise
    first = live_since_ms if live_since_ms is not None else start_ms - LONGEST_LATENESS_MS - DAY
    recent = max(start_ms - FAST.repeated_after_ms[1] - MINUTE, first)
    parts = [telemetry_rows(world, recent, end_ms, is_live=True)]
    # Sensors that were offline in the last three days and reconnect now.
    blocks: Longs = np.arange(max(recent - LONGEST_LATENESS_MS, first) // FAST.offline_ms, recent // FAST.offline_ms + 1)
    back = offline_until(noise, crc([device.device_id for device in world.devices])[:, None], (blocks * FAST.offline_ms)[None, :], rates, FAST)
    margin = FAST.repeated_after_ms[1] + 2 * MINUTE
    for position, column in np.argwhere((back >= start_ms - margin) & (back < end_ms)).tolist():
        from_ms = max(int(blocks[column]) * FAST.offline_ms, first)
        to_ms = min((int(blocks[column]) + 1) * FAST.offline_ms, recent)
        if from_ms < to_ms:
            parts.append(telemetry_rows(world, from_ms, to_ms, is_live=True, devices=[world.devices[position]]))
    rows = apply_faults(noise, join_rows(stream, parts), rates, FAST, keeps_good_row=False, may_be_late=True)
    if live_since_ms is None or start_ms >= live_since_ms + LOOK_BACK_MS[stream]:
        return rows
    # What history's sources still owe: measured before the switch, sent after it.
    owed = slow_rows(world, stream, start_ms - LOOK_BACK_MS[stream], live_since_ms, rates, is_live=False, is_export=False)
    return join_rows(stream, [rows, owed])
