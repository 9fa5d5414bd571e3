"""How devices are meant to be: versions of firmware, reporting interval and set point, and where devices differ from them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from include.simulator.clock import DAY, EPOCH_MS, HOUR, MINUTE, from_local, iso, local_days
from include.simulator.devices import FIRMWARE_MS, Device, Period, firmware_version, periods, target_firmware_version
from include.simulator.home_events import thermostat_happenings
from include.simulator.noise import Noise
from include.simulator.rows import Rows, new_rows
from include.simulator.smart_home import PROGRAM, program_setpoint

WRITTEN_AGAIN_SHARE = 0.05
DISOBEYED_SHARE = 0.06
"""Share of registry periods in which a device does not report as often as it is meant to."""


def target_interval_s(noise: Noise, device: Device, period: Period) -> int:
    """Seconds between two reports as they are asked for in a registry period; half of what the device does where it does not obey."""
    disobeys = noise.uniform("disobeys", device.number, period.start_ms) < DISOBEYED_SHARE
    return max(period.interval_s // 2, 1) if disobeys else period.interval_s


def desired_rows(noise: Noise, devices: Sequence[Device], start_ms: int, end_ms: int, *, is_live: bool, is_export: bool = False) -> Rows:
    """Every copy of versions that begin to hold in [start_ms, end_ms).

    Args:
        noise: The world's noise.
        devices: Devices to tell about.
        start_ms: Start of the time.
        end_ms: End of the time, exclusive.
        is_live: Whether the real cadence is asked for, or that of history.
        is_export: Also the version that holds at `start_ms`, as a first full export does; it arrives at `start_ms`.
    """
    copies: list[tuple[Device, int, int, bool, bool]] = []  # (device, holds from, written, is first, is only)
    for device in devices:
        for since in _beginnings(noise, device, start_ms, end_ms, is_live=is_live, is_export=is_export):
            again = _is_written_again(noise, device, since)
            copies.append((device, since, since, True, not again))
            if again:
                later = 4 * MINUTE + int(noise.integers(20 * MINUTE, "written again after", device.number, since))
                copies.append((device, since, since + later, False, False))
    times = np.array([(since, written, device.number) for device, since, written, _, _ in copies], dtype=np.int64).reshape(-1, 3)
    delay = 5_000 + noise.integers(80_000, "desired delay", times[:, 2], times[:, 1])
    arrived = np.maximum(times[:, 0], start_ms) + times[:, 1] - times[:, 0] + delay
    lines = [_line(noise, device, since, written, is_live=is_live, is_wrong=is_first and not is_only) for device, since, written, is_first, is_only in copies]
    keys = [f"{device.device_id}|{since}" for device, since, *_ in copies]
    marks = np.array([(is_first, is_only) for *_, is_first, is_only in copies], dtype=np.bool_).reshape(-1, 2)
    return new_rows("device_desired_state", keys, lines, times[:, 0], arrived_ms=arrived, is_first=marks[:, 0], is_only=marks[:, 1])


def desired_at_switch(noise: Noise, devices: Sequence[Device], at_ms: int) -> Rows:
    """One version a device that begins at `at_ms`, when reporting switches from the cadence of history to the real one. They arrive just before it."""
    times = np.full(len(devices), at_ms, dtype=np.int64)
    lines = [_line(noise, device, at_ms, at_ms, is_live=True, is_wrong=False) for device in devices]
    return new_rows("device_desired_state", [f"{device.device_id}|{at_ms}" for device in devices], lines, times, arrived_ms=times - 1)


def twin_truth(noise: Noise, devices: Sequence[Device], at_ms: int) -> list[dict[str, object]]:
    """Both halves of every twin just before a time at which reporting has the cadence of history.

    Firmware and its target, since when they differ (milliseconds), reporting interval and its target (s), for thermostats the set point and its target (°C).
    """
    found: list[dict[str, object]] = []
    last = at_ms - 1
    for device in devices:
        period = next(periods(noise, device, last, at_ms, is_live=False))
        runs, wanted = firmware_version(device, last), target_firmware_version(device, last)
        # What a device runs was right until the release after it came out.
        behind = EPOCH_MS + ((last - device.firmware_lag_ms - EPOCH_MS) // FIRMWARE_MS + 1) * FIRMWARE_MS
        told: dict[str, object] = {"device_id": device.device_id, "firmware_version": runs, "target_firmware_version": wanted}
        told |= {"firmware_drift_since_ms": None if runs == wanted else behind}
        told |= {"reporting_interval_s": period.interval_s, "target_reporting_interval_s": target_interval_s(noise, device, period)}
        is_thermostat = device.device_type == "thermostat"
        told |= {"setpoint_c": _setpoint(noise, device, at_ms) if is_thermostat else None}
        told |= {"target_setpoint_c": float(program_setpoint(np.array([last]))[0]) if is_thermostat else None}
        found.append(told)
    return found


def _setpoint(noise: Noise, device: Device, at_ms: int) -> float | None:
    """Last set point that a thermostat told of in the two days before a time; None where it told of none."""
    told = [each for day in local_days(at_ms - 2 * DAY, at_ms) for each in thermostat_happenings(noise, device, day) if each.at_ms < at_ms]
    return max(told, key=lambda each: each.at_ms).setpoint if told else None


def _beginnings(noise: Noise, device: Device, start_ms: int, end_ms: int, *, is_live: bool, is_export: bool) -> list[int]:
    """When versions of a device begin: with its registry periods, with releases of firmware, and with the program of a thermostat."""
    found = {period.start_ms for period in periods(noise, device, start_ms, end_ms, is_live=is_live)}
    found |= {EPOCH_MS + release * FIRMWARE_MS for release in range((start_ms - EPOCH_MS) // FIRMWARE_MS, (end_ms - EPOCH_MS) // FIRMWARE_MS + 1)}
    if device.device_type == "thermostat":
        found |= {int(from_local(day * DAY + hour * HOUR)) for day in local_days(start_ms - DAY, end_ms) for hour, _ in PROGRAM}
    before = [since for since in found if since < start_ms]
    exported = {max(before)} if is_export and before else set()
    return sorted({since for since in found if start_ms <= since < end_ms} | exported)


def _is_written_again(noise: Noise, device: Device, since_ms: int) -> bool:
    return device.device_type == "thermostat" and bool(noise.uniform("written again", device.number, since_ms) < WRITTEN_AGAIN_SHARE)


def _line(noise: Noise, device: Device, since_ms: int, written_ms: int, *, is_live: bool, is_wrong: bool) -> str:
    period = next(periods(noise, device, since_ms, since_ms + 1, is_live=is_live))
    since, written = iso([since_ms, written_ms])
    payload: dict[str, object] = {"deviceId": device.device_id, "desiredSince": since, "updatedAt": written}
    payload |= {"firmwareVersion": target_firmware_version(device, since_ms), "reportingIntervalSeconds": target_interval_s(noise, device, period)}
    if device.device_type == "thermostat":
        payload["setPoint"] = round(float(program_setpoint(np.array([since_ms]))[0]) + (1.5 if is_wrong else 0.0), 1)
    return json.dumps(payload, separators=(",", ":"))
