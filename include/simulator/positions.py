"""Where the trucks are: tours from the depot to customers and back, and the fixes that their trackers send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from include.simulator.clock import DAY, HOUR, MINUTE, SECOND, from_local, is_weekend, iso, local_days, to_local
from include.simulator.devices import Device
from include.simulator.noise import Floats, Longs, Noise
from include.simulator.rows import Rows, join_rows, new_rows

EARTH_RADIUS_KM = 6371.0088
LAST_DEPARTURE_MS = 17 * HOUR
"""Of the day, by the depot's clock: a truck that has not served all customers by then drives home."""
_DEGREE_KM = 2.0 * np.pi * EARTH_RADIUS_KM / 360.0
_HISTORY_MS, _LIVE_MS = (10 * MINUTE, HOUR), (60 * SECOND, 15 * MINUTE)
"""Time between two fixes on tour, and in the depot."""


@dataclass(frozen=True)
class Tour:
    """One day of a truck.

    Attributes:
        local_ms: Departure from the depot, arrival at and departure from each customer in turn, and return; by the depot's clock.
        latitude, longitude: Where the truck is at each of them, in degrees.
    """

    day: int
    local_ms: Longs
    latitude: Floats
    longitude: Floats

    @property
    def stop_count(self) -> int:
        """Customers that are served."""
        return len(self.local_ms) // 2 - 1

    @property
    def leg_km(self) -> Floats:
        """Length of each drive."""
        return great_circle_km(self.latitude[::2], self.longitude[::2], self.latitude[1::2], self.longitude[1::2])


@dataclass(frozen=True)
class Track:
    """Where a truck truly is at some times. Arrays of equal length; `heading_deg` means nothing where it stands."""

    latitude: Floats
    longitude: Floats
    speed_km_h: Floats
    heading_deg: Floats
    is_on_tour: NDArray[np.bool_]


def great_circle_km(latitude: Floats, longitude: Floats, to_latitude: Floats, to_longitude: Floats) -> Floats:
    """Distance of points given in degrees, by the haversine formula."""
    north, south = np.radians(latitude), np.radians(to_latitude)
    east = np.radians(to_longitude - longitude)
    half = np.sin((south - north) / 2.0) ** 2 + np.cos(north) * np.cos(south) * np.sin(east / 2.0) ** 2
    return 2.0 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(half))


def tour(noise: Noise, device: Device, day: int) -> Tour | None:
    """The tour of a truck on a local day; None on a day without one."""
    number = device.number
    if is_weekend(day) and noise.uniform("weekend tour", number, day) >= 0.25:
        return None
    customers = 4 + int(noise.integers(5, "customers on tour", number, day))
    away = noise.between(-1.0, 1.0, "customer place", number, day, np.arange(2 * customers))
    rests = noise.between(12.0, 40.0, "at customer", number, day, np.arange(customers)) * MINUTE
    speeds = noise.between(32.0, 68.0, "speed of leg", number, day, np.arange(customers + 1))
    now = int(noise.between(6.0, 8.5, "departure", number, day) * HOUR)
    times, places = [now], [(device.latitude, device.longitude)]

    def drive(to: tuple[float, float], speed: float) -> int:
        from_latitude, from_longitude = (np.array([degrees]) for degrees in places[-1])
        kilometres = float(great_circle_km(from_latitude, from_longitude, np.array([to[0]]), np.array([to[1]]))[0])
        return max(int(kilometres / speed * HOUR), MINUTE)

    for customer in range(customers):
        if now > LAST_DEPARTURE_MS:
            break
        place = (device.latitude + 0.2 * float(away[2 * customer]), device.longitude + 0.25 * float(away[2 * customer + 1]))
        arrives = now + drive(place, float(speeds[customer]))
        now = arrives + int(rests[customer])
        times += [arrives, now]
        places += [place, place]
    home = (device.latitude, device.longitude)
    times.append(now + drive(home, float(speeds[-1])))
    places.append(home)
    columns = np.array(places)
    return Tour(day, day * DAY + np.array(times, dtype=np.int64), columns[:, 0], columns[:, 1])


def tours(noise: Noise, device: Device, days: Sequence[int]) -> list[Tour]:
    """The tours of a truck on local days, in order."""
    return [found for found in (tour(noise, device, day) for day in days) if found is not None]


def truck_track(noise: Noise, device: Device, at_ms: Longs) -> Track:
    """Where a truck is at times."""
    if not len(at_ms):
        nothing = np.zeros(0)
        return Track(nothing, nothing, nothing, nothing, np.zeros(0, dtype=np.bool_))
    local = to_local(at_ms)
    found = tours(noise, device, range(int(local.min()) // DAY, int(local.max()) // DAY + 1))
    if not found:
        still = np.zeros(len(local))
        return Track(still + device.latitude, still + device.longitude, still, still, np.zeros(len(local), dtype=np.bool_))
    times, latitudes, longitudes = (np.concatenate([getattr(each, name) for each in found]) for name in ("local_ms", "latitude", "longitude"))
    departs, arrives = times[::2], times[1::2]
    leg = np.searchsorted(departs, local, side="right") - 1
    drives = (leg >= 0) & (local < arrives[leg])
    kilometres = np.concatenate([each.leg_km for each in found])
    speed = kilometres / (arrives - departs) * HOUR
    north = latitudes[1::2] - latitudes[::2]
    east = (longitudes[1::2] - longitudes[::2]) * np.cos(np.radians(latitudes[::2]))
    heading = np.degrees(np.arctan2(east, north)) % 360.0
    begins, ends = np.array([each.local_ms[0] for each in found]), np.array([each.local_ms[-1] for each in found])
    last = np.searchsorted(begins, local, side="right") - 1
    return Track(
        np.interp(local, times, latitudes),
        np.interp(local, times, longitudes),
        np.where(drives, speed[leg], 0.0),
        np.where(drives, heading[leg], 0.0),
        (last >= 0) & (local <= ends[last]),
    )


def position_rows(noise: Noise, devices: Sequence[Device], start_ms: int, end_ms: int, *, is_live: bool) -> Rows:
    """Fixes of trucks in [start_ms, end_ms), each arriving a few seconds after it.

    Args:
        noise: The world's noise.
        devices: All devices; only the trucks among them are followed.
        start_ms: Start of the time.
        end_ms: End of the time, exclusive.
        is_live: Real cadence instead of the cadence of history.
    """
    parts = [_fixes(noise, device, start_ms, end_ms, _LIVE_MS if is_live else _HISTORY_MS) for device in devices if device.device_type == "gps_tracker"]
    return join_rows("gps_positions", parts)


def tour_truth(noise: Noise, devices: Sequence[Device], start_ms: int, end_ms: int) -> list[dict[str, object]]:
    """The tours that end in [start_ms, end_ms): truck, local day, departure and return (milliseconds), customers and kilometres."""
    found: list[dict[str, object]] = []
    for device in devices:
        if device.device_type == "gps_tracker":
            for each in tours(noise, device, local_days(start_ms, end_ms)):
                departs, returns = from_local(each.local_ms[[0, -1]]).tolist()
                if start_ms <= returns < end_ms:
                    told = {"local_day": each.day, "departed_ms": departs, "returned_ms": returns}
                    found.append({"device_id": device.device_id, **told, "stop_count": each.stop_count, "distance_km": round(float(each.leg_km.sum()), 3)})
    return found


def _fixes(noise: Noise, device: Device, start_ms: int, end_ms: int, every_ms: tuple[int, int]) -> Rows:
    number = device.number
    phase = float(noise.uniform("fix phase", number))
    candidates = []
    for interval in every_ms:
        slot = np.arange(start_ms // interval - 1, end_ms // interval + 1, dtype=np.int64)
        candidates.append(slot * interval + int(phase * interval))
    on_tour, parked = (truck_track(noise, device, at_ms).is_on_tour for at_ms in candidates)
    at_ms = np.unique(np.concatenate([candidates[0][on_tour], candidates[1][~parked]]))
    at_ms = at_ms[(at_ms >= start_ms) & (at_ms < end_ms)]
    track = truck_track(noise, device, at_ms)
    accuracy = 2.5 + 3.0 * noise.exponential("accuracy of fix", number, at_ms)
    off_degrees = [accuracy / 3_000.0 / _DEGREE_KM * noise.normal(name, number, at_ms) for name in ("latitude of fix", "longitude of fix")]
    latitude = np.round(track.latitude + off_degrees[0], 6).tolist()
    longitude = np.round(track.longitude + off_degrees[1] / np.cos(np.radians(track.latitude)), 6).tolist()
    speed = np.round(track.speed_km_h * np.clip(1.0 + 0.08 * noise.normal("speed of fix", number, at_ms), 0.7, 1.4), 1).tolist()
    heading = (np.round(track.heading_deg + 2.0 * noise.normal("heading of fix", number, at_ms), 1) % 360.0).tolist()
    satellites = (6 + noise.integers(9, "satellites", number, at_ms)).tolist()
    stamps = iso(at_ms)
    lines = [
        f'{{"deviceId":"{device.device_id}","timestamp":"{stamp}","position":{{"lat":{a},"lon":{b}}},"speed":{v},'
        + (f'"heading":{h},' if v > 0 else "")
        + f'"accuracy":{round(m, 1)},"satellites":{s}}}'
        for stamp, a, b, v, h, m, s in zip(stamps, latitude, longitude, speed, heading, accuracy.tolist(), satellites, strict=True)
    ]
    delay = 900 + noise.integers(15_000, "fix delay", number, at_ms)
    return new_rows("gps_positions", [f"{device.device_id}|{stamp}" for stamp in stamps], lines, at_ms, arrived_ms=at_ms + delay)
