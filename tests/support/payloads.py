"""Small payloads of each stream, valid unless a test changes them, and a way to put them into the zone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from include.landing.zone import Zone, ZoneFile
from include.settings import get_settings

Payload = dict[str, Any]
DAY_0 = datetime(2026, 3, 1, tzinfo=UTC)


def at(day: float = 0, hour: float = 0, minute: float = 0) -> datetime:
    """A time relative to 2026-03-01 00:00 UTC."""
    return DAY_0 + timedelta(days=day, hours=hour, minutes=minute)


def iso(moment: datetime) -> str:
    """The form in which devices send time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def telemetry(device: str, when: datetime, *, temperature: float = 60.0, vibration: float = 2.0, **more: Any) -> Payload:
    """A reading of a machine."""
    return {
        "deviceId": device,
        "deviceType": "machine_controller",
        "timestamp": iso(when),
        "location": {"facility": "factory_01", "line": "line_a", "station": "station_01"},
        "measurements": {
            "temperature": temperature,
            "vibration": {"x": vibration, "y": vibration, "z": vibration},
            "energy": 1.25,
            "load": 55.0,
            "runtimeHours": 1000.0 + (when - DAY_0).total_seconds() / 3600,
            "machineStatus": "running",
        },
        "metadata": {"firmware_version": "1.2.3", "battery_level": 85, "signal_strength": -45},
        "quality": {"accuracy": 99.5, "status": "operational"},
        **more,
    }


def registry(
    device: str, valid_from: datetime, *, facility: str = "factory_01", interval_s: int = 1800, updated_at: datetime | None = None, **more: Any
) -> Payload:
    """A version of a device's registry entry."""
    return {
        "deviceId": device,
        "validFrom": iso(valid_from),
        "updatedAt": iso(updated_at or valid_from),
        "deviceType": "machine_controller",
        "facility": facility,
        "line": "line_a",
        "station": "station_01",
        "model": "press_100",
        "manufacturer": "Acme",
        "installedAt": iso(DAY_0 - timedelta(days=400)),
        "reportingIntervalSeconds": interval_s,
        "maintenanceIntervalDays": 30,
        "ratedPowerKw": 12.5,
        "status": "active",
        **more,
    }


def maintenance(log: str, device: str, when: datetime, *, kind: str = "failure", updated_at: datetime | None = None, **more: Any) -> Payload:
    """An entry of the maintenance log."""
    return {
        "logId": log,
        "deviceId": device,
        "occurredAt": iso(when),
        "updatedAt": iso(updated_at or when),
        "type": kind,
        "component": "bearing",
        "downtimeMinutes": 90,
        "costUsd": 450.0,
        **more,
    }


def feedback(order_id: str, device: str, when: datetime, *, verdict: str = "done", updated_at: datetime | None = None, **more: Any) -> Payload:
    """What the crew answered to a work order."""
    return {
        "workOrderId": order_id,
        "deviceId": device,
        "occurredAt": iso(when),
        "updatedAt": iso(updated_at or when),
        "verdict": verdict,
        "component": "bearing",
        **more,
    }


def unit_reading(unit: str, cycle: int, when: datetime, **values: Any) -> Payload:
    """A row of a table that somebody brought; `values` are the table's own columns."""
    return {"unitId": unit, "cycle": cycle, "readAt": iso(when), **values}


def device_event(device: str, when: datetime, kind: str, code: str, **more: Any) -> Payload:
    """Something that happened to a machine."""
    return {"deviceId": device, "timestamp": iso(when), "eventType": kind, "code": code, "deviceType": "machine_controller", **more}


def position(device: str, when: datetime, latitude: float, longitude: float, **more: Any) -> Payload:
    """A fix of a tracker."""
    return {"deviceId": device, "timestamp": iso(when), "position": {"lat": latitude, "lon": longitude}, **more}


def desired_state(device: str, since: datetime, *, updated_at: datetime | None = None, **targets: Any) -> Payload:
    """A version of what a device is meant to be; `targets` are the contract's firmwareVersion, reportingIntervalSeconds and setPoint."""
    return {"deviceId": device, "desiredSince": iso(since), "updatedAt": iso(updated_at or since), **targets}


def order(
    number: str, customer: str, when: datetime, *, gross: float = 100.0, status: str = "paid", updated_at: datetime | None = None, **more: Any
) -> Payload:
    """A state of an order."""
    return {
        "orderId": number,
        "customerId": customer,
        "orderedAt": iso(when),
        "updatedAt": iso(updated_at or when),
        "status": status,
        "currency": "USD",
        "channel": "online",
        "category": "tools",
        "productId": "p1",
        "quantity": 1,
        "grossAmount": gross,
        "discountAmount": 10.0,
        "taxAmount": 5.0,
        "netAmount": gross - 10.0 + 5.0,
        "paymentMethod": "card",
        **more,
    }


def customer(number: str, updated_at: datetime, *, country: str = "DE", **more: Any) -> Payload:
    """A version of a customer."""
    return {
        "customerId": number,
        "updatedAt": iso(updated_at),
        "registeredAt": iso(DAY_0 - timedelta(days=100)),
        "fullName": f"Name of {number}",
        "email": f"{number}@example.invalid",
        "country": country,
        "city": "Hamburg",
        "loyaltyMember": True,
        "marketingConsent": False,
        **more,
    }


def zone() -> Zone:
    """The test's landing zone."""
    return Zone(get_settings().zone_url)


def put(stream: str, payloads: Iterable[Mapping[str, Any] | str], *, arrived_at: datetime, source: str = "test", tenant: str | None = None) -> ZoneFile:
    """Writes one NDJSON file into the zone; a payload given as text is written as it is."""
    lines = [payload if isinstance(payload, str) else json.dumps(payload) for payload in payloads]
    return zone().put(stream, ("\n".join(lines) + "\n").encode(), source=source, arrived_at=arrived_at, ext="ndjson", tenant=tenant)
