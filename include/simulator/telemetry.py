"""Device telemetry as devices send it: when each device reports, and the JSON of each report."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from include.simulator.clock import DAY, EPOCH_MS, HOUR, iso, to_local
from include.simulator.devices import EVENT_DRIVEN, Device, Period, firmware_version, periods
from include.simulator.noise import Floats, Longs, Noise
from include.simulator.plant import FAULT, RUNNING, STATUSES, WARNING, ambient_temperature, error_codes, machine_state, wander
from include.simulator.positions import truck_track
from include.simulator.rows import Rows, join_rows, new_rows
from include.simulator.smart_home import camera_measurements, lock_measurements, meter_measurements, thermostat_measurements
from include.simulator.world import World

Fragments = list[str]

_EVENTS_PER_DAY = {"quality_camera": 14.0, "smart_lock": 9.0, "security_camera": 12.0}


def telemetry_rows(world: World, start_ms: int, end_ms: int, *, is_live: bool, devices: Iterable[Device] | None = None) -> Rows:
    """Reports with event time in [start_ms, end_ms), each arriving a few seconds after its event.

    Args:
        world: The world that is measured.
        start_ms: Start of the time.
        end_ms: End of the time, exclusive.
        is_live: Real cadence instead of the cadence of history.
        devices: Only these; all when None.
    """
    parts = []
    for device in world.devices if devices is None else devices:
        for period in periods(world.noise, device, start_ms, end_ms, is_live=is_live):
            at_ms = report_times(world.noise, device, period.interval_s, max(start_ms, period.start_ms), min(end_ms, period.end_ms))
            if len(at_ms):
                parts.append(_reports(world, device, period, at_ms))
    return join_rows("device_telemetry", parts)


def report_times(noise: Noise, device: Device, interval_s: int, start_ms: int, end_ms: int) -> Longs:
    """When a device reports: once in every interval, at a phase of its own with some jitter; event-driven types only in some intervals."""
    interval = interval_s * 1000
    slot = np.arange(start_ms // interval, (end_ms - 1) // interval + 1, dtype=np.int64)
    phase = float(noise.uniform("phase", device.number)) * 0.9
    at_ms = slot * interval + ((phase + 0.09 * noise.uniform("jitter", device.number, slot)) * interval).astype(np.int64)
    keep = (at_ms >= start_ms) & (at_ms < end_ms)
    hour = (to_local(at_ms) % DAY) / HOUR
    if device.device_type in EVENT_DRIVEN:
        busy = np.where((hour > 6) & (hour < 22), 1.35, 0.3)
        keep &= noise.uniform("something happens", device.number, slot) < _EVENTS_PER_DAY[device.device_type] * interval / DAY * busy
    elif device.device_type == "gps_tracker":
        keep &= (hour >= 5) & (hour < 20)
    return at_ms[keep]


def _reports(world: World, device: Device, period: Period, at_ms: Longs) -> Rows:
    stamps = iso(at_ms)
    measurements, status, coordinates = _MEASURE[device.device_type](world, device, period, at_ms)
    line = f',"line":"{device.line}"' if device.line else ""
    head = f'{{"deviceId":"{device.device_id}","deviceType":"{device.device_type}","timestamp":"'
    place = f'","location":{{"facility":"{device.facility}"{line},"station":"{period.station}"'
    metadata = _metadata(world, device, at_ms)
    calibrated = iso([EPOCH_MS + (period.start_ms - EPOCH_MS) // (180 * DAY) * 180 * DAY])[0]
    accuracy = np.round(99.6 - 0.4 * world.noise.uniform("accuracy", device.number, at_ms) - 3.0 * (status > 0), 1).tolist()
    names = ("operational", "degraded", "faulty")
    lines = [
        f'{head}{stamp}{place}{where}}},"measurements":{{{measured}}},"metadata":{{{meta}}},'
        f'"quality":{{"accuracy":{good},"calibration_date":"{calibrated}","status":"{names[state]}"}}}}'
        for stamp, where, measured, meta, good, state in zip(stamps, coordinates, measurements, metadata, accuracy, status.tolist(), strict=True)
    ]
    delay = 800 + world.noise.integers(19_000, "network delay", device.number, at_ms)
    return new_rows("device_telemetry", [f"{device.device_id}|{stamp}" for stamp in stamps], lines, at_ms, arrived_ms=at_ms + delay)


def _metadata(world: World, device: Device, at_ms: Longs) -> Fragments:
    noise, number = world.noise, device.number
    firmware = [f'"firmware_version":"{firmware_version(device, at)}"' for at in at_ms.tolist()]
    if device.device_type == "machine_controller" and device.machine is not None:
        done = [entry.finished_ms for entry in world.lives[device.machine].log if entry.kind in {"service", "repair"}]
        texts = iso([device.installed_ms, *sorted(done)])
        last = np.searchsorted(np.sort(np.array(done, dtype=np.int64)), at_ms, side="right").tolist()
        return [f'{version},"last_maintenance":"{texts[i]}"' for version, i in zip(firmware, last, strict=True)]
    age_days = (at_ms - EPOCH_MS) / DAY + 97.0 * float(noise.uniform("battery age", number))
    battery = np.round(100.0 - 0.42 * (age_days % 210.0)).astype(np.int64).tolist()
    signal = np.round(-58.0 - 14.0 * noise.uniform("distance", number) + 4.0 * noise.normal("signal", number, at_ms)).astype(np.int64).tolist()
    return [f'{version},"battery_level":{b},"signal_strength":{s}' for version, b, s in zip(firmware, battery, signal, strict=True)]


def _nowhere(device: Device, count: int) -> Fragments:
    """Devices that stay where they are send the place they were given."""
    return [f',"coordinates":{{"lat":{device.latitude},"lon":{device.longitude}}}'] * count


def _numbers(values: Floats, digits: int) -> list[float]:
    return np.round(values, digits).tolist()


Measured = tuple[Fragments, Longs, Fragments]
"""JSON inside `measurements`, position of quality status (0 operational, 1 degraded, 2 faulty), JSON after the station."""


def _controller(world: World, device: Device, period: Period, at_ms: Longs) -> Measured:
    noise, number, machine = world.noise, device.number, device.machine or 0
    state = machine_state(world, machine, at_ms)
    codes = error_codes(world, machine, at_ms, state)
    rms = state.vibration_mm_s * np.exp(0.14 * noise.normal("vibration", number, at_ms))
    x, y, z = (_numbers(rms * share * np.exp(0.06 * noise.normal(axis, number, at_ms)), 3) for axis, share in (("x", 0.62), ("y", 0.55), ("z", 0.56)))
    temperature = _numbers(state.temperature_c + 1.6 * noise.normal("temperature", number, at_ms), 2)
    pressure = _numbers(state.pressure_hpa + 9.0 * noise.normal("pressure", number, at_ms), 1)
    hours = period.interval_s / 3600.0
    power = (device.rated_power_kw or 0.0) * (0.06 + np.where(state.status == RUNNING, 0.2 + 0.7 * state.load_pct / 100.0, 0.0))
    energy = _numbers(power * hours * (1.0 + 0.16 * state.symptoms[:, 1]) * np.exp(0.05 * noise.normal("energy", number, at_ms)), 3)
    runtime = _numbers((at_ms - device.installed_ms) / HOUR * (0.55 + 0.3 * float(noise.uniform("use", number))), 1)
    seen = np.max(state.symptoms, axis=1)
    warns = (state.status == RUNNING) & (seen + 0.22 * noise.normal("warning", number, at_ms) > 0.8)
    status = np.where(warns, WARNING, state.status).tolist()
    quality = np.where(state.status == FAULT, 2, np.where(noise.uniform("degraded", number, at_ms) < 0.01 + 0.05 * np.clip(seen, 0.0, 1.0), 1, 0))
    load = _numbers(state.load_pct, 1)
    fragments = [
        f'"temperature":{t},"pressure":{p},"vibration":{{"x":{a},"y":{b},"z":{c}}},"energy":{e},"load":{w},"runtimeHours":{r},'
        + (f'"errorCode":"{code}",' if code else "")
        + f'"machineStatus":"{STATUSES[s]}"'
        for t, p, a, b, c, e, w, r, code, s in zip(temperature, pressure, x, y, z, energy, load, runtime, codes, status, strict=True)
    ]
    return fragments, quality, [""] * len(at_ms)


def _vibration(world: World, device: Device, _period: Period, at_ms: Longs) -> Measured:
    noise, number = world.noise, device.number
    rms = machine_state(world, device.machine or 0, at_ms).vibration_mm_s * np.exp(0.08 * noise.normal("vibration", number, at_ms))
    x, y, z = (_numbers(rms * share * np.exp(0.05 * noise.normal(axis, number, at_ms)), 3) for axis, share in (("x", 0.66), ("y", 0.5), ("z", 0.56)))
    fragments = [f'"vibration":{{"x":{a},"y":{b},"z":{c}}}' for a, b, c in zip(x, y, z, strict=True)]
    return fragments, _degraded(noise, number, at_ms), _nowhere(device, len(at_ms))


def _temperature(world: World, device: Device, _period: Period, at_ms: Longs) -> Measured:
    noise, number = world.noise, device.number
    state = machine_state(world, device.machine or 0, at_ms)
    celsius = 0.8 * state.temperature_c + 5.0 + 0.9 * noise.normal("temperature", number, at_ms)
    humidity = np.clip(46.0 - 0.35 * (celsius - 40.0) + 6.0 * wander(noise, "humidity", number, at_ms, DAY), 8.0, 95.0)
    temperature = np.round(celsius, 2)
    dew = np.minimum(np.round(dew_point(celsius, humidity), 2), temperature)
    fragments = [f'"temperature":{t},"humidity":{h},"dewPoint":{d}' for t, h, d in zip(temperature.tolist(), _numbers(humidity, 1), dew.tolist(), strict=True)]
    return fragments, _degraded(noise, number, at_ms), _nowhere(device, len(at_ms))


def dew_point(temperature_c: Floats, humidity_pct: Floats) -> Floats:
    """Dew point in °C by Magnus' formula with the coefficients of Sonntag (1990)."""
    gamma = np.log(humidity_pct / 100.0) + 17.62 * temperature_c / (243.12 + temperature_c)
    return 243.12 * gamma / (17.62 - gamma)


def _pressure(world: World, device: Device, _period: Period, at_ms: Longs) -> Measured:
    noise, number = world.noise, device.number
    state = machine_state(world, device.machine or 0, at_ms)
    values = _numbers(state.pressure_hpa + 4.0 * noise.normal("pressure", number, at_ms), 1)
    return [f'"pressure":{value}' for value in values], _degraded(noise, number, at_ms), _nowhere(device, len(at_ms))


def _quality_camera(world: World, device: Device, _period: Period, at_ms: Longs) -> Measured:
    noise, number = world.noise, device.number
    celsius = _numbers(31.0 + 2.0 * noise.normal("temperature", number, at_ms), 1)
    return [f'"temperature":{value}' for value in celsius], _degraded(noise, number, at_ms), _nowhere(device, len(at_ms))


def _truck(world: World, device: Device, _period: Period, at_ms: Longs) -> Measured:
    noise, number = world.noise, device.number
    track = truck_track(noise, device, at_ms)
    latitude, longitude = np.round(track.latitude, 5).tolist(), np.round(track.longitude, 5).tolist()
    cargo = _numbers(5.0 + 0.25 * ambient_temperature(noise, number % 3, at_ms) + 0.5 * noise.normal("cargo", number, at_ms), 1)
    where = [f',"coordinates":{{"lat":{a},"lon":{b}}}' for a, b in zip(latitude, longitude, strict=True)]
    return [f'"temperature":{value}' for value in cargo], _degraded(noise, number, at_ms), where


def _at_home(measure: Callable[[Noise, int, float, int, Longs], Fragments]) -> Callable[[World, Device, Period, Longs], Measured]:
    def measured(world: World, device: Device, period: Period, at_ms: Longs) -> Measured:
        fragments = measure(world.noise, device.number, device.rated_power_kw or 0.0, period.interval_s, at_ms)
        return fragments, _degraded(world.noise, device.number, at_ms), [""] * len(at_ms)

    return measured


def _degraded(noise: Noise, number: int, at_ms: Longs) -> Longs:
    return (noise.uniform("degraded", number, at_ms) < 0.006).astype(np.int64)


_MEASURE: dict[str, Callable[[World, Device, Period, Longs], Measured]] = {
    "machine_controller": _controller,
    "temperature_sensor": _temperature,
    "vibration_sensor": _vibration,
    "pressure_sensor": _pressure,
    "quality_camera": _quality_camera,
    "gps_tracker": _truck,
    "thermostat": _at_home(thermostat_measurements),
    "energy_meter": _at_home(meter_measurements),
    "smart_lock": _at_home(lock_measurements),
    "security_camera": _at_home(camera_measurements),
}
