"""The shop's customers: who registers when, how long they stay, what they are worth, and the versions of their profiles."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from include.simulator.clock import DAY, EPOCH_MS, iso
from include.simulator.noise import Floats, Longs, Noise
from include.simulator.rows import Rows, new_rows

REGISTRATIONS_PER_DAY = 9.0
PROFILE_CHANGE_MS = 160 * DAY
_FIRST = ("Ada", "Ben", "Chloé", "Dmitri", "Elif", "Farid", "Grace", "Hana", "Ivan", "Jules", "Kofi", "Lena", "María", "Noor", "Otto", "Priya")
_LAST = ("Abbott", "Brandt", "Castillo", "Dubois", "Eriksen", "Fischer", "García", "Haddad", "Ito", "Jensen", "Kowalski", "Lindqvist", "Moreau", "Novak")
_CITIES = (("US", "Portland"), ("US", "San Diego"), ("US", "Oakland"), ("CA", "Toronto"), ("GB", "Leeds"), ("DE", "Bremen"), ("FR", "Nantes"), ("ES", "Bilbao"))


@dataclass(frozen=True)
class Customers:
    """Customers as columns; the position is the customer's number.

    Attributes:
        registered_ms: When each registered, ascending.
        leaves_ms: When each buys for the last time.
        weights: How often each orders, relative to others: heavy-tailed.
        levels: Natural logarithm of each one's usual basket relative to the median.
    """

    registered_ms: Longs
    leaves_ms: Longs
    weights: Floats
    levels: Floats


def customers_until(noise: Noise, scale: float, until_ms: int) -> Customers:
    """All customers who register before a time. A later time only adds customers.

    Args:
        noise: The world's noise.
        scale: Size of the shop; 1 is the shop beside a plant of 60 machines.
        until_ms: The time.
    """
    spacing = DAY / max(REGISTRATIONS_PER_DAY * scale, 1.5)
    number = np.arange(int((until_ms - EPOCH_MS) / spacing) + 1)
    registered = EPOCH_MS + ((number + noise.uniform("registration", number)) * spacing).astype(np.int64)
    number, registered = number[registered < until_ms], registered[registered < until_ms]
    stays = (10.0 + 320.0 * noise.exponential("customer stays", number)) * DAY
    levels = 0.45 * noise.normal("basket level", number)
    return Customers(registered, registered + stays.astype(np.int64), np.exp(1.25 * noise.normal("order rate", number) + 0.3 * levels), levels)


def customer_id(number: int) -> str:
    """Identifier of a customer."""
    return f"c{number + 1:07d}"


def customer_rows(noise: Noise, scale: float, start_ms: int, end_ms: int, *, is_export: bool = False) -> Rows:
    """Versions of profiles that begin in [start_ms, end_ms).

    Args:
        noise: The world's noise.
        scale: Size of the shop.
        start_ms: Start of the time.
        end_ms: End of the time, exclusive.
        is_export: Also the version that holds at `start_ms` of each customer who still buys then, as a first full export does; it arrives at `start_ms`.
    """
    customers = customers_until(noise, scale, end_ms)
    count = len(customers.registered_ms)
    found: list[tuple[int, int, int]] = []  # (event, customer, version)
    current = np.full(count, -1, dtype=np.int64)
    current_ms = np.zeros(count, dtype=np.int64)
    numbers = np.arange(count)
    version = 0
    while True:
        changed = customers.registered_ms.copy()
        if version:
            changed += ((version - 0.9 + 0.8 * noise.uniform("profile change", numbers, version)) * PROFILE_CHANGE_MS).astype(np.int64)
        exists = (changed < customers.leaves_ms) & (changed < end_ms)
        if not exists.any():
            break
        before = exists & (changed < start_ms)
        current[before], current_ms[before] = version, changed[before]
        found += [(int(changed[i]), int(i), version) for i in np.flatnonzero(exists & (changed >= start_ms))]
        version += 1
    if is_export:
        kept = np.flatnonzero((current >= 0) & (customers.leaves_ms >= start_ms))
        found += [(int(current_ms[i]), int(i), int(current[i])) for i in kept]
    found.sort()
    times = np.array([event for event, _, _ in found], dtype=np.int64)
    numbers = np.array([number for _, number, _ in found], dtype=np.int64)
    changed_texts = iso(times)
    registered_texts = iso(customers.registered_ms[numbers])
    lines = [
        _profile(noise, number, version, changed, registered)
        for (_, number, version), changed, registered in zip(found, changed_texts, registered_texts, strict=True)
    ]
    keys = [f"{customer_id(number)}|{changed}" for (_, number, _), changed in zip(found, changed_texts, strict=True)]
    delay = 5_000 + noise.integers(300_000, "profile delay", numbers, times)
    return new_rows("customers", keys, lines, times, arrived_ms=np.where(times < start_ms, start_ms, times) + delay)


def _profile(noise: Noise, number: int, version: int, updated: str, registered: str) -> str:
    stable = noise.uniform("person", number, np.arange(8)).tolist()
    changing = noise.uniform("profile", number, version, np.arange(4)).tolist()
    first, last = _FIRST[int(stable[0] * len(_FIRST))], _LAST[int(stable[1] * len(_LAST))]
    country, city = _CITIES[int((stable[2] if changing[0] < 0.7 else changing[1]) * len(_CITIES))]
    payload: dict[str, object] = {
        "customerId": customer_id(number),
        "updatedAt": updated,
        "registeredAt": registered,
        "fullName": f"{first} {last}",
        "email": f"{first}.{last}.{number + 1}@example.com".lower(),
        "country": country,
        "city": city,
        "incomeLevel": ("low", "middle", "high")[int(min(stable[3] * 3 + (changing[3] > 0.95), 2))],
        "loyaltyMember": bool(version > 0 and stable[4] < 0.5),
        "marketingConsent": bool(changing[2] < 0.6),
    }
    if stable[5] < 0.8:
        payload["phone"] = f"+1-555-{int(stable[5] * 1e6) % 1000:03d}-{number % 10000:04d}"
    if stable[6] < 0.85:
        payload["birthYear"] = 1945 + int(stable[6] * 71)
    if stable[7] < 0.9:
        payload["gender"] = ("female", "male", "other")[int(min(stable[7] * 2.25, 2))]
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False)
