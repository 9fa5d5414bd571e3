"""Everything that happens to the devices of a world, and what is planted in it."""

from __future__ import annotations

from collections.abc import Callable

from include.simulator.clock import DAY, local_days
from include.simulator.devices import Device
from include.simulator.happenings import Happening, Planted, happening_rows
from include.simulator.home_events import camera_happenings, lock_happenings, thermostat_happenings, unusual_access
from include.simulator.machine_events import machine_happenings, planted_at_machine, update_times
from include.simulator.noise import Noise
from include.simulator.rows import Rows
from include.simulator.world import World

_AT_HOME: dict[str, Callable[[Noise, Device, int], list[Happening]]] = {
    "smart_lock": lock_happenings,
    "thermostat": thermostat_happenings,
    "security_camera": camera_happenings,
}


def device_event_rows(world: World, start_ms: int, end_ms: int) -> Rows:
    """Events of all devices in [start_ms, end_ms), each arriving a few seconds after it happened."""
    found: list[Happening] = []
    for device in world.devices:
        found += [Happening(at, device, "restart", "update", severity="info") for at in update_times(device, start_ms, end_ms)]
        if device.device_type == "machine_controller":
            found += machine_happenings(world, device, start_ms, end_ms)
        elif device.device_type in _AT_HOME:
            days = local_days(start_ms - DAY, end_ms)  # a night belongs to the day before it
            found += [each for day in days for each in _AT_HOME[device.device_type](world.noise, device, day)]
            found += [each for planted in _planted_at_lock(world, device, start_ms, end_ms) for each in planted.happenings]
    return happening_rows(world.noise, (each for each in found if start_ms <= each.at_ms < end_ms))


def planted(world: World, start_ms: int, end_ms: int) -> list[Planted]:
    """What is planted and ends in [start_ms, end_ms), in order of time."""
    found: list[Planted] = []
    for device in world.devices:
        if device.device_type == "machine_controller":
            found += planted_at_machine(world, device, start_ms - DAY, end_ms)
        found += _planted_at_lock(world, device, start_ms, end_ms)
    return sorted((each for each in found if start_ms <= each.ended_ms < end_ms), key=lambda each: (each.started_ms, each.device_id))


def _planted_at_lock(world: World, device: Device, start_ms: int, end_ms: int) -> list[Planted]:
    if device.device_type != "smart_lock":
        return []
    return [each for day in local_days(start_ms - DAY, end_ms) if (each := unusual_access(world.noise, device, day)) is not None]
