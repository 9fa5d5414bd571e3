"""Which devices exist, where they stand and how often they report: the catalogue, and the registry's versions of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from include.simulator.clock import DAY, EPOCH_MS, HOUR, MINUTE, TIME_ZONE, iso
from include.simulator.noise import Noise
from include.simulator.rows import Rows, new_rows
from include.simulator.wear import SERVICE_INTERVAL_DAYS

PERIOD_MS = 30 * DAY
"""Every device is confirmed or changed in the registry once in this time, each on its own day."""

LIVE_INTERVAL_S = {
    "temperature_sensor": 30,
    "vibration_sensor": 10,
    "pressure_sensor": 5,
    "machine_controller": 15,  # event-driven; at least a heartbeat this often
    "gps_tracker": 60,
    "quality_camera": 300,  # on demand
    "thermostat": 60,
    "smart_lock": 900,  # event-driven
    "security_camera": 300,  # event-driven
    "energy_meter": 30,
}
EVENT_DRIVEN = frozenset({"quality_camera", "smart_lock", "security_camera"})
"""Types that report when something happens; the interval is the shortest time between two reports."""

FACILITIES = (("plant_north", 37.7749, -122.4194, 4), ("plant_south", 32.7157, -117.1611, 3), ("plant_west", 45.5152, -122.6784, 3))
"""Name, latitude, longitude and number of lines."""
FIRMWARE_MS = 75 * DAY
"""A new release of firmware comes out, and is asked for, once in this time."""

_SHAPES = {
    "machine_controller": (("CX-400", "Kestrel Controls"), ("CX-550", "Kestrel Controls"), ("M9", "Brunel Automation")),
    "temperature_sensor": (("T-2", "Fathom Instruments"),),
    "vibration_sensor": (("V-12", "Fathom Instruments"), ("VibraOne", "Anvil Sensors")),
    "pressure_sensor": (("P-7", "Fathom Instruments"),),
    "gps_tracker": (("Roam 3", "Wayfare"),),
    "quality_camera": (("Iris 8K", "Optica"),),
    "thermostat": (("Hearth 2", "Homely"),),
    "smart_lock": (("Bolt", "Homely"),),
    "security_camera": (("Watch 4", "Homely"),),
    "energy_meter": (("Meter S", "Amperage"),),
}
_RATED_KW = {"machine_controller": 30.0, "energy_meter": 11.0, "thermostat": 3.0}


_WATCHERS = (("temperature_sensor", "temp", 6), ("vibration_sensor", "vib", 7), ("pressure_sensor", "pres", 10), ("quality_camera", "qcam", 20))
"""Type, prefix of the name, and one in how many machines has one."""


@dataclass(frozen=True)
class Device:
    """One device.

    Attributes:
        number: Counter of its noise, unique in the world.
        machine: Machine that it is or watches; None for what stands alone.
        firmware_lag_ms: How long after a release of firmware came out the device takes it.
    """

    number: int
    device_id: str
    device_type: str
    facility: str
    line: str | None
    station: str
    latitude: float
    longitude: float
    model: str
    manufacturer: str
    installed_ms: int
    maintenance_interval_days: int
    rated_power_kw: float | None
    machine: int | None
    firmware_lag_ms: int


@dataclass(frozen=True)
class Period:
    """A time in which a device's registry entry stays the same."""

    start_ms: int
    end_ms: int
    interval_s: int
    station: str


def catalogue(noise: Noise, machines: int) -> list[Device]:
    """All devices of a plant with `machines` machines and the smart homes that go with it.

    The counts of everything but the machines grow with the plant, so a small plant stays small.
    """
    found: list[Device] = []

    def add(device_type: str, device_id: str, place: tuple[str, str | None, str, float, float], machine: int | None, service_days: int) -> None:
        number = len(found)
        model, manufacturer = _SHAPES[device_type][int(noise.integers(len(_SHAPES[device_type]), "model", number))]
        rated = _RATED_KW.get(device_type)
        if rated is not None:
            rated = round(rated * float(noise.between(0.5, 1.8, "rated power", number)), 1)
        installed = EPOCH_MS - int(noise.between(30.0, 1500.0, "installed", number)) * DAY
        lag = firmware_lag_ms(noise, number)
        found.append(Device(number, device_id, device_type, *place, model, manufacturer, installed, service_days, rated, machine, lag))

    for machine in range(machines):
        add("machine_controller", f"machine_{machine + 1:03d}", _machine_place(noise, machine), machine, service_interval(machine))
    for device_type, prefix, share in _WATCHERS:
        for index in range(max(1, machines // share)):
            machine = index * share % machines
            add(device_type, f"{prefix}_{index + 1:03d}", _machine_place(noise, machine), machine, 365)
    homes = max(1, machines // 10)
    for index in range(max(1, machines // 20)):
        name, latitude, longitude, _ = FACILITIES[index % len(FACILITIES)]
        add("gps_tracker", f"truck_{index + 1:03d}", (name, None, f"bay_{index + 1:02d}", latitude, longitude), None, 180)
    for device_type, prefix, every in (("thermostat", "thermostat", 1), ("energy_meter", "meter", 1), ("smart_lock", "lock", 2), ("security_camera", "cam", 2)):
        for index in range(max(1, homes // every)):
            latitude, longitude = (round(float(noise.between(low, high, device_type, index)), 4) for low, high in ((36.0, 46.0), (-122.5, -117.5)))
            add(device_type, f"{prefix}_{index + 1:03d}", (f"home_{index + 1:03d}", None, "hall", latitude, longitude), None, 730)
    return found


def service_interval(machine: int) -> int:
    """Days between two planned services of a machine."""
    return SERVICE_INTERVAL_DAYS[machine % len(SERVICE_INTERVAL_DAYS)]


def _machine_place(noise: Noise, machine: int) -> tuple[str, str | None, str, float, float]:
    name, latitude, longitude, lines = FACILITIES[machine % len(FACILITIES)]
    line = "ABCD"[machine // len(FACILITIES) % lines]
    near = noise.between(-0.002, 0.002, "place", machine, np.arange(2)).tolist()
    return name, f"line_{line}", f"station_{machine // (len(FACILITIES) * lines) + 1:02d}", round(latitude + near[0], 4), round(longitude + near[1], 4)


def history_interval_s(noise: Noise, device: Device, period: int) -> int:
    """Seconds between two reports of a device in history: mostly an hour, in some periods down to 15 minutes."""
    if device.device_type in EVENT_DRIVEN:
        return LIVE_INTERVAL_S[device.device_type]
    if device.device_type == "gps_tracker":
        return 1800
    draw = float(noise.uniform("reporting interval", device.number, period))
    if device.device_type == "machine_controller":
        return 3600 if draw < 0.78 else 2700 if draw < 0.97 else 1800
    return 3600 if draw < 0.88 else 1800 if draw < 0.98 else 900


def periods(noise: Noise, device: Device, start_ms: int, end_ms: int, *, is_live: bool) -> Iterator[Period]:
    """The registry periods of a device that overlap [start_ms, end_ms), in order and whole: the first may begin before `start_ms`."""
    offset = EPOCH_MS - int(noise.uniform("registry day", device.number) * PERIOD_MS) // HOUR * HOUR
    for number in range((start_ms - offset) // PERIOD_MS, (end_ms - 1 - offset) // PERIOD_MS + 1):
        begins = offset + number * PERIOD_MS
        interval = LIVE_INTERVAL_S[device.device_type] if is_live else history_interval_s(noise, device, number)
        # Sensors are hung elsewhere now and then; machines and what is built into a home stay.
        moved = device.device_type in {"temperature_sensor", "vibration_sensor", "pressure_sensor"} and noise.uniform("moved", device.number, number) < 0.2
        yield Period(begins, begins + PERIOD_MS, interval, f"{device.station}b" if moved else device.station)


def firmware_lag_ms(noise: Noise, number: int) -> int:
    """How long a device leaves a release of firmware waiting: mostly hours, some weeks, and some of them until after the next one came out."""
    kind, share = noise.uniform("firmware lag", number, np.arange(2)).tolist()
    if kind < 0.85:
        return int(20 * MINUTE + share * 30 * HOUR)
    return int((5.0 + 65.0 * share) * DAY) if kind < 0.95 else FIRMWARE_MS + 5 * DAY


def firmware_version(device: Device, at_ms: int) -> str:
    """Firmware that a device runs at a time."""
    return target_firmware_version(device, at_ms - device.firmware_lag_ms)


def target_firmware_version(device: Device, at_ms: int) -> str:
    """Firmware that a device is meant to run at a time."""
    return f"{2 + device.number % 3}.{(at_ms - EPOCH_MS) // FIRMWARE_MS}.{device.number % 7}"


def registry_rows(noise: Noise, devices: Sequence[Device], start_ms: int, end_ms: int, *, is_live: bool, is_export: bool = False) -> Rows:
    """Registry versions that begin in [start_ms, end_ms).

    Args:
        noise: The world's noise.
        devices: Devices to tell about.
        start_ms: Start of the time.
        end_ms: End of the time, exclusive.
        is_live: Whether the reporting interval is the real cadence or that of history.
        is_export: Also the version that holds at `start_ms`, as a first full export does; it arrives at `start_ms`.
    """
    keys, lines, times, numbers = [], [], [], []
    for device in devices:
        for period in periods(noise, device, start_ms, end_ms, is_live=is_live):
            if is_export or period.start_ms >= start_ms:
                key, line = registry_version(device, period, period.start_ms)
                keys.append(key)
                lines.append(line)
                times.append(period.start_ms)
                numbers.append(device.number)
    valid_from = np.array(times, dtype=np.int64)
    delay = 20_000 + noise.integers(300_000, "registry delay", np.array(numbers, dtype=np.int64), valid_from)
    return new_rows("device_registry", keys, lines, valid_from, arrived_ms=np.where(valid_from < start_ms, start_ms, valid_from) + delay)


def live_versions(noise: Noise, devices: Sequence[Device], at_ms: int) -> Rows:
    """One version a device that begins at `at_ms`, when reporting switches from the cadence of history to the real one."""
    found = [registry_version(device, next(periods(noise, device, at_ms, at_ms + 1, is_live=True)), at_ms) for device in devices]
    times = np.full(len(devices), at_ms, dtype=np.int64)
    return new_rows("device_registry", [key for key, _ in found], [line for _, line in found], times, arrived_ms=times - 1)


def registry_version(device: Device, period: Period, valid_from_ms: int) -> tuple[str, str]:
    """Key and JSON line of a version."""
    valid_from, installed = iso([valid_from_ms, device.installed_ms])
    payload: dict[str, object] = {
        "deviceId": device.device_id,
        "validFrom": valid_from,
        "updatedAt": valid_from,
        "deviceType": device.device_type,
        "facility": device.facility,
        "line": device.line,
        "station": period.station,
        "model": device.model,
        "manufacturer": device.manufacturer,
        "installedAt": installed,
        "reportingIntervalSeconds": period.interval_s,
        "maintenanceIntervalDays": device.maintenance_interval_days,
        "ratedPowerKw": device.rated_power_kw,
        "location": {"lat": device.latitude, "lon": device.longitude},
        "firmwareVersion": firmware_version(device, valid_from_ms),
        "timeZone": TIME_ZONE,
        "status": "active",
    }
    present = {name: value for name, value in payload.items() if value is not None}
    return f"{device.device_id}|{valid_from}", json.dumps(present, separators=(",", ":"))
