"""What happens in homes: who comes and goes, who turns the thermostat, and accesses at unusual hours that are planted among it.

Homes live by their clock: all hours here are hours of local days, and may go past 24.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from include.simulator.clock import DAY, HOUR, SECOND, from_local, is_weekend
from include.simulator.devices import Device
from include.simulator.happenings import Happening, Planted
from include.simulator.noise import Noise
from include.simulator.smart_home import PROGRAM

UNUSUAL_ACCESS = "unusual_access"
UNUSUAL_SHARE = 1.0 / 30.0
"""Share of a lock's nights with an access at an unusual hour."""
NIGHT_SHIFT_HOME = "home_002"
"""Home of somebody who comes home at night, five nights a week: unusual elsewhere, usual there."""
HABITS = ("keypad", "app", "key")
MISSED_PROGRAM_SHARE = 0.02
_UNUSUAL_H = (1.5, 4.7)
_NIGHT_SHIFT_UNUSUAL_H = (3.8, 4.7)


class _Outing(NamedTuple):
    resident: int
    leaves_h: float
    returns_h: float


def residents(home: str) -> list[str]:
    """The people of a home as its lock and its thermostat know them."""
    return [f"{home}_resident_{person + 1}" for person in range(2 + int(home.rpartition("_")[2]) % 3)]


def lock_happenings(noise: Noise, device: Device, day: int) -> list[Happening]:
    """What a lock tells of a local day and of the night after it, without what is planted."""
    people = residents(device.facility)
    found: list[Happening] = []

    def add(hour: float, kind: str, code: str, actor: str | None = None) -> None:
        found.append(Happening(moment(day, hour), device, kind, code, actor=actor))

    for outing in _outings(noise, device, day, len(people)):
        draws = noise.uniform("at the door", device.number, day, outing.resident, int(outing.leaves_h * 60), np.arange(4)).tolist()
        person = people[outing.resident]
        add(outing.leaves_h, "unlock", "inside")
        if draws[0] < 0.4:
            add(outing.leaves_h + 25.0 / 3600.0, "lock", "app", person)
        else:
            add(outing.leaves_h + (40.0 + 30.0 * draws[1]) / 3600.0, "lock", "auto")
        if draws[2] < 0.04:
            add(outing.returns_h - (9.0 + 15.0 * draws[1]) / 3600.0, "access", "denied")
        found += comes_in(device, moment(day, outing.returns_h), outing.resident, int((45.0 + 45.0 * draws[3]) * SECOND))
    evening, locks = noise.uniform("locks up", device.number, day, np.arange(2)).tolist()
    if locks < 0.8:
        add(22.4 + 1.2 * evening, "lock", "app", people[0])
    return found


def comes_in(device: Device, at_ms: int, resident: int, locks_after_ms: int) -> list[Happening]:
    """A resident's code, key or phone is taken, the door is unlocked and locks itself later."""
    person = residents(device.facility)[resident]
    habit = HABITS[(device.number + resident) % len(HABITS)]
    return [
        Happening(at_ms, device, "access", "granted", actor=person),
        Happening(at_ms + 1_200, device, "unlock", habit, actor=person),
        Happening(at_ms + locks_after_ms, device, "lock", "auto"),
    ]


def _outings(noise: Noise, device: Device, day: int, people: int) -> list[_Outing]:
    free_day = bool(is_weekend(day))
    found = []
    for resident in range(people):
        draws = noise.uniform("outing", device.number, day, resident, np.arange(7)).tolist()
        if device.facility == NIGHT_SHIFT_HOME and resident == 0:
            if not free_day:  # leaves Monday to Friday, comes home Tuesday to Saturday
                found.append(_Outing(resident, 17.0 + 0.6 * draws[0], 26.1 + 0.7 * draws[1]))
            continue
        if draws[2] < (0.7 if free_day else 0.85):
            leaves = 9.0 + 4.0 * draws[0] if free_day else 6.6 + 1.9 * draws[0]
            returns = leaves + 0.8 + 5.0 * draws[1] if free_day else 15.8 + 2.9 * draws[1]
            found.append(_Outing(resident, leaves, returns))
        if draws[3] < (0.4 if free_day else 0.15):
            found.append(_Outing(resident, 19.1 + draws[4], 21.4 + 2.8 * draws[5]))
    return found


def unusual_access(noise: Noise, device: Device, day: int) -> Planted | None:
    """The access at an unusual hour that is planted in the night at the beginning of a local day, if there is one."""
    if noise.uniform("unusual access", device.number, day) >= UNUSUAL_SHARE:
        return None
    draws = noise.uniform("how unusual", device.number, day, np.arange(4)).tolist()
    low, high = _NIGHT_SHIFT_UNUSUAL_H if device.facility == NIGHT_SHIFT_HOME else _UNUSUAL_H
    at_ms = moment(day, low + (high - low) * draws[0])
    if draws[1] < 0.5:
        resident = int(draws[2] * len(residents(device.facility)))
        return Planted(UNUSUAL_ACCESS, "granted", True, tuple(comes_in(device, at_ms, resident, 70 * SECOND)))
    attempts = 2 + int(3.0 * draws[2])
    denied = tuple(Happening(at_ms + attempt * int((18.0 + 20.0 * draws[3]) * SECOND), device, "access", "denied") for attempt in range(attempts))
    return Planted(UNUSUAL_ACCESS, "denied", True, denied)


def thermostat_happenings(noise: Noise, device: Device, day: int) -> list[Happening]:
    """Set points of a local day: what the program asks for, where the thermostat obeys, and what residents turn it to."""
    found = []
    for change, (hour, setpoint) in enumerate(PROGRAM):
        missed, delay = noise.uniform("takes program", device.number, day, change, np.arange(2)).tolist()
        if missed >= MISSED_PROGRAM_SHARE:
            found.append(Happening(moment(day, hour) + int((3.0 + 37.0 * delay) * SECOND), device, "setpoint", "program", setpoint=setpoint))
    turned, hour, by, how, step = noise.uniform("turned by hand", device.number, day, np.arange(5)).tolist()
    if turned < 0.25:
        people = residents(device.facility)
        wanted = round(PROGRAM[0][1] + (-1.5, -1.0, 0.5, 1.0, 1.5)[int(step * 5)], 1)
        at_ms = moment(day, 16.5 + 5.0 * hour)
        found.append(Happening(at_ms, device, "setpoint", "manual" if how < 0.7 else "app", setpoint=wanted, actor=people[int(by * len(people))]))
    return found


def camera_happenings(noise: Noise, device: Device, day: int) -> list[Happening]:
    """What a camera sees move on a local day: most of it between six and ten."""
    slot = np.arange(48, dtype=np.int64)
    hour = (slot + noise.uniform("motion at", device.number, day, slot)) / 2.0
    seen = noise.uniform("motion", device.number, day, slot) < np.where((hour > 6.0) & (hour < 22.0), 0.3, 0.05)
    return [Happening(moment(day, at), device, "controller_event", "motion", severity="info") for at in hour[seen].tolist()]


def moment(day: int, hour: float) -> int:
    """When the clock of homes shows an hour of a local day, in milliseconds."""
    return int(from_local(day * DAY + int(hour * HOUR)))
