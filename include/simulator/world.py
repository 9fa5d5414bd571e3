"""The simulated world: what exists and how it lives, drawn once for a seed and a size."""

from __future__ import annotations

from dataclasses import dataclass

from include.simulator.clock import EPOCH, EPOCH_MS, to_datetime
from include.simulator.devices import Device, catalogue, service_interval
from include.simulator.noise import Noise
from include.simulator.wear import MachineLife, live_machine

DEFAULT_SEED = 20_240_115
DEFAULT_MACHINES = 60


@dataclass(frozen=True)
class World:
    """Everything that sources tell about.

    Attributes:
        noise: Every draw of this world.
        machines: Number of machines; the rest of the world grows with it.
        devices: Machines' controllers first, then sensors, trucks and homes.
        lives: Life of each machine, at least up to `until_ms`.
        until_ms: Last time that may be asked for.
    """

    noise: Noise
    machines: int
    devices: tuple[Device, ...]
    lives: tuple[MachineLife, ...]
    until_ms: int


def make_world(seed: int, machines: int, until_ms: int, *, from_ms: int = EPOCH_MS) -> World:
    """Draws a world.

    Args:
        seed: Same seed, same world.
        machines: Number of machines, at least 1.
        until_ms: Last time that will be asked for. A later one only adds to the world.
        from_ms: First time that will be asked for.

    Raises:
        ValueError: If there is no machine, or the time lies before the world begins.
    """
    if machines < 1:
        raise ValueError(f"a plant needs at least 1 machine, got {machines}")
    if from_ms < EPOCH_MS:
        raise ValueError(f"the simulated world begins at {EPOCH.isoformat()}; {to_datetime(from_ms).isoformat()} is before it")
    noise = Noise(seed)
    lives = tuple(live_machine(noise, machine, service_interval(machine), until_ms) for machine in range(machines))
    return World(noise, machines, tuple(catalogue(noise, machines)), lives, until_ms)
