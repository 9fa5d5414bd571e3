"""What happens to machines: states, failures and their errors, restarts, and the patterns that are planted among them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from include.simulator.clock import DAY, EPOCH_MS, HOUR, MINUTE, SECOND
from include.simulator.devices import FIRMWARE_MS, Device
from include.simulator.happenings import Happening, Planted
from include.simulator.noise import Floats, Longs
from include.simulator.plant import FAULT, IDLE, MAINTENANCE, RUNNING, STATUSES, machine_state
from include.simulator.wear import COMPONENTS
from include.simulator.world import World

ERROR_RESTART_ERROR, OVERHEATING_LOAD_DROP = "error_restart_error", "overheating_load_drop"
PATTERN_MS = 10 * MINUTE
"""From the first to the last event of error → restart → error, at most."""
DROP_WITHIN_MS, NO_DROP_WITHIN_MS = 12 * MINUTE, 40 * MINUTE
"""From overheating to the drop of load: at most where it was planted, at least where it only looks alike."""
QUIET_MS = 30 * MINUTE
"""Before and after what was planted, and after updates: no other error of the machine."""

_CHANCES = (
    ("back at once", 0.048),
    ("back late", 0.02),
    ("does not come back", 0.02),
    ("drops soon", 0.048),
    ("drops late", 0.012),
    ("cools down", 0.016),
    ("drops without cause", 0.016),
    ("power cycle", 0.02),
)
"""What may be planted on a day of a machine, and how likely each is."""


def update_times(device: Device, start_ms: int, end_ms: int) -> list[int]:
    """When a device takes a release of firmware, in [start_ms, end_ms)."""
    first = EPOCH_MS + device.firmware_lag_ms
    return [first + release * FIRMWARE_MS for release in range(-((first - start_ms) // FIRMWARE_MS), -((first - end_ms) // FIRMWARE_MS))]


def machine_happenings(world: World, device: Device, start_ms: int, end_ms: int) -> list[Happening]:
    """Everything that happens to one machine in [start_ms, end_ms), without order."""
    planted = planted_at_machine(world, device, start_ms - DAY, end_ms + DAY)
    quiet = [(each.started_ms - QUIET_MS, each.ended_ms + QUIET_MS) for each in planted]
    quiet += [(at - QUIET_MS, at + QUIET_MS) for at in update_times(device, start_ms - DAY, end_ms + DAY)]
    found = [happening for each in planted for happening in each.happenings]
    found += _states_and_stops(world, device, start_ms, end_ms)
    found += _errors(world, device, start_ms, end_ms, quiet)
    found += _tool_changes(world, device, start_ms, end_ms)
    return [each for each in found if start_ms <= each.at_ms < end_ms]


def planted_at_machine(world: World, device: Device, start_ms: int, end_ms: int) -> list[Planted]:
    """What is planted at a machine on the UTC days that have a part in [start_ms, end_ms), in order: at most one thing a day."""
    noise, number = world.noise, device.number
    days = np.arange(start_ms // DAY, (end_ms - 1) // DAY + 1, dtype=np.int64)
    draw = noise.uniform("planted", number, days)
    begins = days * DAY + noise.between(float(HOUR), 22.0 * HOUR, "planted at", number, days).astype(np.int64)
    kind = np.searchsorted(np.cumsum([chance for _, chance in _CHANCES]), draw, side="right")
    chosen = np.flatnonzero(kind < len(_CHANCES))
    chosen = chosen[_is_at_work(world, device, begins[chosen])]
    found = []
    for day, at_ms, which in zip(days[chosen].tolist(), begins[chosen].tolist(), kind[chosen].tolist(), strict=True):
        if not update_times(device, at_ms - 2 * HOUR, at_ms + 2 * HOUR):
            variant = _CHANCES[which][0]
            found.append(_PLANT[variant](device, at_ms, variant, noise.uniform("how planted", number, day, np.arange(5)).tolist()))
    return found


def _is_at_work(world: World, device: Device, at_ms: Longs) -> NDArray[np.bool_]:
    """Whether a machine is switched on and in order from an hour before each time until two hours after it."""
    machine = device.machine or 0
    stops = world.lives[machine].stops
    free = ~np.any((stops[:, 0] < at_ms[:, None] + 2 * HOUR) & (stops[:, 1] > at_ms[:, None] - HOUR), axis=1)
    around = machine_state(world, machine, (at_ms[:, None] + np.array([-HOUR, 0, 2 * HOUR])).ravel()).status.reshape(-1, 3)
    return free & np.all((around == RUNNING) | (around == IDLE), axis=1)


def _error(device: Device, at_ms: int, draws: list[float]) -> Happening:
    codes = [code for component in COMPONENTS for code in component.error_codes]
    return Happening(at_ms, device, "error", codes[int(draws[0] * len(codes))], severity="warning", load=round(30.0 + 50.0 * draws[1], 1))


def _restart(device: Device, at_ms: int, code: str) -> Happening:
    return Happening(at_ms, device, "restart", code, severity="info")


def _comes_back(device: Device, at_ms: int, variant: str, draws: list[float]) -> Planted:
    again = at_ms + int({"back at once": 3.0 + 6.0 * draws[2], "back late": 13.0 + 12.0 * draws[2], "does not come back": 0.0}[variant] * MINUTE)
    happenings = [_error(device, at_ms, draws), _restart(device, at_ms + MINUTE + int(draws[3] * 90 * SECOND), "watchdog")]
    if again > at_ms:
        happenings.append(_error(device, again, draws))
    return Planted(ERROR_RESTART_ERROR, variant, variant == "back at once", tuple(happenings))


def _overheats(device: Device, at_ms: int, variant: str, draws: list[float]) -> Planted:
    hot, loaded = round(93.0 + 12.0 * draws[0], 1), round(84.0 + 25.0 * draws[1], 1)
    happenings = [Happening(at_ms, device, "controller_event", "overheating", severity="warning", temperature=hot, load=loaded)]
    drops_at = at_ms + int((2.0 + 10.0 * draws[2] if variant == "drops soon" else 41.0 + 20.0 * draws[2]) * MINUTE)
    low = round(12.0 + 20.0 * draws[3], 1)

    def noticed(moment_ms: int, code: str, severity: str, temperature: float, load: float | None = None) -> Happening:
        return Happening(moment_ms, device, "controller_event", code, severity=severity, temperature=round(temperature, 1), load=load)

    match variant:
        case "drops without cause":
            happenings = [noticed(at_ms, "load_drop", "info", 56.0, low)]
        case "cools down":
            happenings.append(noticed(at_ms + int((4.0 + 8.0 * draws[4]) * MINUTE), "cooled_down", "info", hot - 21.0))
        case _:
            happenings.append(noticed(drops_at, "load_drop", "warning", hot - 6.0, low))
    return Planted(OVERHEATING_LOAD_DROP, variant, variant == "drops soon", tuple(happenings))


def _power_cycle(device: Device, at_ms: int, variant: str, _draws: list[float]) -> Planted:
    return Planted(ERROR_RESTART_ERROR, variant, False, (_restart(device, at_ms, "power_cycle"),))


_PLANT: dict[str, Callable[[Device, int, str, list[float]], Planted]] = {
    "back at once": _comes_back,
    "back late": _comes_back,
    "does not come back": _comes_back,
    "drops soon": _overheats,
    "drops late": _overheats,
    "cools down": _overheats,
    "drops without cause": _overheats,
    "power cycle": _power_cycle,
}


def _states_and_stops(world: World, device: Device, start_ms: int, end_ms: int) -> list[Happening]:
    """Changes of state: stops and their ends at once, the rest looked at once an hour. With them the error before a failure and the restart after a stop."""
    machine = device.machine or 0
    life = world.lives[machine]
    grid = np.arange(start_ms // HOUR * HOUR - HOUR, end_ms, HOUR, dtype=np.int64)
    bounds = np.ceil(life.stops[:, :2]).astype(np.int64)
    inside = (bounds >= grid[0]) & (bounds < end_ms)
    points = np.unique(np.concatenate([grid, bounds[inside]]))
    state = machine_state(world, machine, points)
    found = [
        Happening(int(points[i]), device, "state_change", STATUSES[state.status[i]], previous_state=STATUSES[state.status[i - 1]])
        for i in (np.flatnonzero(state.status[1:] != state.status[:-1]) + 1).tolist()
    ]
    served = {entry.at_ms for entry in life.log if entry.kind == "service"}
    status = dict(zip(points.tolist(), state.status.tolist(), strict=True))
    for (began, _, _), ends in zip(life.stops[inside[:, 1]], bounds[inside[:, 1], 1].tolist(), strict=True):
        if status[ends] not in {FAULT, MAINTENANCE}:
            found.append(_restart(device, ends - 5 * SECOND, "after_service" if int(began) in served else "after_repair"))
    for entry in life.log:
        if entry.kind == "failure" and start_ms <= entry.at_ms - 2 * SECOND < end_ms and entry.error_code is not None:
            found.append(_with_readings(world, device, Happening(entry.at_ms - 2 * SECOND, device, "error", entry.error_code, severity="critical")))
    return found


def _with_readings(world: World, device: Device, happening: Happening) -> Happening:
    state = machine_state(world, device.machine or 0, np.array([happening.at_ms], dtype=np.int64))
    temperature, load = (round(float(values[0]), 1) for values in (state.temperature_c, state.load_pct))
    return Happening(happening.at_ms, device, happening.kind, happening.code, severity=happening.severity, temperature=temperature, load=load)


def _errors(world: World, device: Device, start_ms: int, end_ms: int, quiet: list[tuple[int, int]]) -> list[Happening]:
    """Errors of a machine that works: the stronger the symptoms of wear the more, and some that mean nothing."""
    noise, number, machine = world.noise, device.number, device.machine or 0
    slot: Longs = np.arange(start_ms // HOUR, (end_ms - 1) // HOUR + 1, dtype=np.int64)
    at_ms = slot * HOUR + noise.integers(HOUR, "error at", number, slot)
    draw = noise.uniform("error event", number, slot)
    possible = draw < 0.14  # no symptom makes errors likelier than that
    at_ms, slot, draw = at_ms[possible], slot[possible], draw[possible]
    if not len(at_ms):
        return []
    state = machine_state(world, machine, at_ms)
    worst, share = np.argmax(state.symptoms, axis=1), _share_of_hours_with_errors(np.max(state.symptoms, axis=1))
    works = (state.status == RUNNING) | (state.status == IDLE)
    for begins, ends in quiet:
        works &= (at_ms < begins) | (at_ms >= ends)
    found = []
    for i in np.flatnonzero(works & (draw < share + 0.003)).tolist():
        component = COMPONENTS[int(worst[i])] if draw[i] < share[i] else COMPONENTS[int(noise.integers(4, "stray error", number, slot[i]))]
        code = component.error_codes[int(noise.integers(len(component.error_codes), "code of error", number, slot[i]))]
        temperature, load = (round(float(values[i]), 1) for values in (state.temperature_c, state.load_pct))
        found.append(Happening(int(at_ms[i]), device, "error", code, severity="warning", temperature=temperature, load=load))
    return found


def _share_of_hours_with_errors(symptom: Floats) -> Floats:
    return 0.10 * np.clip(symptom, 0.0, 1.2) ** 1.5


def _tool_changes(world: World, device: Device, start_ms: int, end_ms: int) -> list[Happening]:
    noise, number = world.noise, device.number
    days = np.arange(start_ms // DAY, (end_ms - 1) // DAY + 1, dtype=np.int64)
    at_ms = days * DAY + noise.integers(DAY, "tool change", number, days)
    at_ms = at_ms[noise.uniform("changes tool", number, days) < 0.7]
    running = machine_state(world, device.machine or 0, at_ms).status == RUNNING
    return [Happening(at, device, "controller_event", "tool_change", severity="info") for at in at_ms[running].tolist()]
