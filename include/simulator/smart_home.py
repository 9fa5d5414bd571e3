"""What smart-home devices measure: the JSON inside `measurements` for each report."""

from __future__ import annotations

import numpy as np

from include.simulator.clock import DAY, HOUR, to_local
from include.simulator.noise import Floats, Longs, Noise
from include.simulator.plant import ambient_temperature, wander


def _numbers(values: Floats, digits: int) -> list[float]:
    return np.round(values, digits).tolist()


PROGRAM = ((6, 21.2), (22, 18.4))
"""Hour of the home's clock from which a thermostat is meant to hold a temperature, and the temperature in °C."""


def program_setpoint(at_ms: Longs) -> Floats:
    """Temperature in °C that the program of thermostats asks for at times."""
    hour = (to_local(at_ms) % DAY) / HOUR
    (day_begins, warm), (night_begins, cool) = PROGRAM
    return np.where((hour >= day_begins) & (hour < night_begins), warm, cool)


def household_activity(noise: Noise, number: int, at_ms: Longs) -> Floats:
    """Share of a home's appliances in use, in [0, 1]: mornings and evenings."""
    hour = (to_local(at_ms) % DAY) / HOUR
    peaks = 0.45 * np.exp(-(((hour - 7.5) / 1.6) ** 2)) + 0.7 * np.exp(-(((hour - 19.5) / 2.4) ** 2))
    return np.clip(0.12 + peaks + 0.06 * wander(noise, "activity", number, at_ms, HOUR), 0.02, 1.0)


def thermostat_measurements(noise: Noise, number: int, rated_kw: float, interval_s: int, at_ms: Longs) -> list[str]:
    """Room climate and the heating or cooling energy of the interval."""
    outside = ambient_temperature(noise, 3 + number, at_ms)
    target = program_setpoint(at_ms)
    room = target + 0.06 * (outside - 15.0) + 0.3 * noise.normal("room", number, at_ms)
    humidity = np.clip(47.0 + 7.0 * wander(noise, "humidity", number, at_ms, DAY), 15.0, 90.0)
    heating = np.clip(np.abs(target - outside - 4.0) / 22.0, 0.0, 1.0) * rated_kw * interval_s / 3600.0
    return [f'"temperature":{t},"humidity":{h},"energy":{e}' for t, h, e in zip(_numbers(room, 1), _numbers(humidity, 1), _numbers(heating, 4), strict=True)]


def meter_measurements(noise: Noise, number: int, rated_kw: float, interval_s: int, at_ms: Longs) -> list[str]:
    """Energy of the interval and load of the connection."""
    use = household_activity(noise, number, at_ms) * np.exp(0.12 * noise.normal("use", number, at_ms))
    energy = _numbers(use * rated_kw * 0.35 * interval_s / 3600.0, 4)
    return [f'"energy":{e},"load":{w}' for e, w in zip(energy, _numbers(np.clip(use * 35.0, 0.0, 100.0), 1), strict=True)]


def lock_measurements(noise: Noise, number: int, _rated_kw: float, _interval_s: int, at_ms: Longs) -> list[str]:
    """A lock only knows how warm its housing is; that it reports at all is the news."""
    return [f'"temperature":{value}' for value in _numbers(ambient_temperature(noise, 3 + number, at_ms) + 3.0, 1)]


def camera_measurements(noise: Noise, number: int, _rated_kw: float, _interval_s: int, at_ms: Longs) -> list[str]:
    """Housing temperature at the time of a sighting."""
    return [f'"temperature":{value}' for value in _numbers(ambient_temperature(noise, 3 + number, at_ms) + 9.0, 1)]
