"""What the plant's machines and sensors measure: load, weather and wear in, readings out.

Symptoms of wear are deliberately mixed with what looks like them: load (which follows shifts and orders), ambient temperature (season and day) and a slow
wander of every machine's own. A model has to look at several days and several measurements to tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from include.simulator.clock import DAY, EPOCH_MS, HOUR
from include.simulator.noise import Floats, Longs, Noise
from include.simulator.wear import BEARING, COMPONENTS, HYDRAULICS, MOTOR
from include.simulator.world import World

STATUSES = ("idle", "running", "warning", "fault", "maintenance", "off")
IDLE, RUNNING, WARNING, FAULT, MAINTENANCE, OFF = range(len(STATUSES))


@dataclass(frozen=True)
class MachineState:
    """True state of a machine at some times, before any instrument's noise. Arrays of equal length; `symptoms` has a column a wearing component."""

    ambient_c: Floats
    load_pct: Floats
    status: NDArray[np.int64]
    symptoms: Floats
    vibration_mm_s: Floats
    temperature_c: Floats
    pressure_hpa: Floats


def wander(noise: Noise, name: str, number: int, at_ms: Longs, step_ms: int) -> Floats:
    """A smooth random curve with about unit variance: independent normals every `step_ms`, joined by straight lines."""
    position = (at_ms - EPOCH_MS) / step_ms
    before = np.floor(position).astype(np.int64)
    share = position - before
    value = noise.normal(name, number, before) * (1.0 - share) + noise.normal(name, number, before + 1) * share
    return value / np.sqrt(share**2 + (1.0 - share) ** 2)


def ambient_temperature(noise: Noise, place: int, at_ms: Longs) -> Floats:
    """Outdoor temperature in °C: season, time of day and weather."""
    days = at_ms / DAY
    season = -np.cos(2.0 * np.pi * (days - 20.0) / 365.25)
    daily = -np.cos(2.0 * np.pi * (days - 0.12))
    return 13.0 + 9.0 * season + 4.0 * daily + 3.0 * wander(noise, "weather", place, at_ms, 2 * DAY)


def machine_state(world: World, machine: int, at_ms: Longs) -> MachineState:
    """State of a machine at times."""
    noise, life = world.noise, world.lives[machine]
    ambient = ambient_temperature(noise, machine % 3, at_ms)
    hour = (at_ms % DAY) / HOUR
    weekend = (at_ms // DAY + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    order_book = 62.0 + 16.0 * wander(noise, "order book", machine, at_ms, 7 * DAY)
    shift = np.where((hour >= 13) & (hour < 22), 1.0, np.where((hour >= 22) | (hour < 5), 0.72, 0.9))
    load = order_book * shift * np.where(weekend, 0.45, 1.0) + 5.0 * noise.normal("load", machine, at_ms)
    load = np.clip(load, 0.0, 118.0)

    broken, served = life.stopped(at_ms)
    closed = weekend & (noise.uniform("closed on weekend", machine, at_ms // DAY) < 0.3)
    status = np.where(load < 12.0, IDLE, RUNNING)
    status = np.where(closed, OFF, status)
    status = np.where(served, MAINTENANCE, status)
    status = np.where(broken, FAULT, status)
    works = status == RUNNING
    load = np.where(works, load, np.where(status == IDLE, load * 0.2, 0.0))

    symptoms = np.column_stack([life.symptom(component, at_ms) for component in (BEARING, MOTOR, HYDRAULICS)])
    own = noise.normal("own level", machine, np.arange(3))
    drift = [wander(noise, f"drift {name}", machine, at_ms, 3 * DAY) for name in ("vibration", "temperature", "pressure")]
    part = load / 100.0
    vibration = 1.9 * np.exp(0.2 * own[0] + 0.13 * drift[0]) * (0.45 + 0.75 * part) * (1.0 + 1.8 * symptoms[:, 0] + 0.25 * symptoms[:, 1])
    temperature = 33.0 + 3.0 * own[1] + 0.45 * ambient + 24.0 * part**1.2 + 2.2 * drift[1] + 17.0 * symptoms[:, 1] + 4.0 * symptoms[:, 0]
    pressure = 1180.0 + 12.0 * own[2] + 130.0 * part + 10.0 * drift[2] - 140.0 * symptoms[:, 2] * (0.4 + part)
    still = (status == OFF) | (status == FAULT) | (status == MAINTENANCE)
    return MachineState(
        ambient,
        load,
        status,
        symptoms,
        np.where(still, 0.06, np.where(status == IDLE, vibration * 0.4, vibration)),
        np.where(still, ambient * 0.5 + 16.0, temperature),
        np.where(still, 1013.0, pressure),
    )


def error_codes(world: World, machine: int, at_ms: Longs, state: MachineState) -> list[str | None]:
    """Error code that the controller shows at each time; None most of the time.

    Codes come more often the stronger the symptoms are, but every machine also shows codes that mean nothing.
    """
    noise, life = world.noise, world.lives[machine]
    draw = noise.uniform("error code", machine, at_ms)
    worst = np.argmax(state.symptoms, axis=1)
    share = 0.10 * np.clip(np.max(state.symptoms, axis=1), 0.0, 1.2) ** 1.5
    works = (state.status == RUNNING) | (state.status == IDLE)
    codes: list[str | None] = [None] * len(at_ms)
    for i in np.flatnonzero(works & (draw < share + 0.006)).tolist():
        component = COMPONENTS[int(worst[i])] if draw[i] < share[i] else COMPONENTS[int(noise.integers(4, "stray component", machine, at_ms[i]))]
        codes[i] = component.error_codes[int(noise.integers(len(component.error_codes), "which code", machine, at_ms[i]))]
    failures = [(entry.at_ms, entry.error_code) for entry in life.log if entry.kind == "failure"]
    if failures:
        times = np.array([at for at, _ in failures])
        for i in np.flatnonzero(state.status == FAULT).tolist():
            codes[i] = failures[max(int(np.searchsorted(times, at_ms[i], side="right")) - 1, 0)][1]
    return codes
