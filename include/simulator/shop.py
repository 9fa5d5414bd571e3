"""The shop's orders: who buys what when, and the states an order goes through.

An order in a store is sent once, finished. Of online orders most are sent once, by an export when they are finished; the rest are sent at every change
of state, with the same `orderId` and a later `updatedAt`: landing counts each of those after the first as `corrected`.
"""

from __future__ import annotations

import numpy as np

from include.simulator.clock import DAY, HOUR, MINUTE, SECOND, iso, to_datetime
from include.simulator.customers import Customers, customer_id, customers_until
from include.simulator.noise import Longs, Noise
from include.simulator.rows import Rows, join_rows, new_rows

ORDERS_PER_DAY = 165.0
LONGEST_LIFE_MS = 14 * DAY
"""From order to its last state, at most."""
SENT_AT_EVERY_CHANGE_SHARE = 0.2

_CATEGORIES = (("home", 32.0), ("garden", 41.0), ("tools", 58.0), ("electronics", 145.0), ("toys", 24.0), ("books", 16.0), ("kitchen", 47.0), ("sports", 66.0))
_PAYMENTS = ("card", "card", "card", "paypal", "bank_transfer", "cash")
_WEEK = (0.92, 0.88, 0.9, 0.97, 1.12, 1.28, 1.05)
TAX_PCT = 8

Copy = tuple[int, str]
"""When an order's state is written, and the state."""


def shop_scale(machines: int) -> float:
    """Size of the shop beside a plant: 1 for 60 machines."""
    return machines / 60.0


def order_rows(noise: Noise, scale: float, start_ms: int, end_ms: int) -> Rows:
    """Every copy of orders placed in [start_ms, end_ms); copies are written, and arrive, up to `LONGEST_LIFE_MS` later."""
    customers = customers_until(noise, scale, end_ms)
    days = range(start_ms // DAY, (end_ms - 1) // DAY + 1)
    return join_rows("orders", (_orders_of_day(noise, scale, customers, day, start_ms, end_ms) for day in days))


def _orders_of_day(noise: Noise, scale: float, customers: Customers, day: int, start_ms: int, end_ms: int) -> Rows:
    midnight = day * DAY
    season = 1.0 + 0.18 * np.cos(2.0 * np.pi * (day - 345) / 365.25)
    expected = max(ORDERS_PER_DAY * scale, 8.0) * _WEEK[(day + 3) % 7] * season
    count = round(expected * float(np.exp(0.08 * noise.normal("orders of day", day))))
    pool = np.flatnonzero((customers.registered_ms < midnight) & (customers.leaves_ms > midnight + DAY))
    if not len(pool):
        return join_rows("orders", [])
    number = np.arange(count)
    reach = np.cumsum(customers.weights[pool])
    buyer = pool[np.searchsorted(reach, noise.uniform("buyer", day, number) * reach[-1], side="right").clip(0, len(pool) - 1)]
    hour = 14.5 + 4.0 * noise.normal("hour", day, number)
    sleepless = noise.uniform("at any hour", day, number) < 0.2
    hour = np.where(sleepless, noise.between(0.0, 24.0, "any hour", day, number), hour)
    ordered = midnight + (np.mod(hour, 24.0) * HOUR).astype(np.int64)
    ordered[ordered >= midnight + DAY] = midnight + DAY - 1

    category = noise.integers(len(_CATEGORIES), "category", day, number)
    product = noise.integers(40, "product", day, number)
    price = np.array([middle for _, middle in _CATEGORIES])[category] * np.exp(0.5 * noise.normal("price", category, product))
    quantity = 1 + np.floor(noise.exponential("quantity", day, number) * 1.1).astype(np.int64)
    basket = price * np.exp(customers.levels[buyer] + 0.55 * noise.normal("basket", day, number))
    gross = np.maximum((basket * 100.0).astype(np.int64), 99) * quantity
    discounted = noise.uniform("is discounted", day, number) < 0.33
    discount = np.where(discounted, (gross * noise.between(0.05, 0.3, "discount", day, number)).astype(np.int64), 0)
    tax = (gross - discount) * TAX_PCT // 100
    draws = noise.uniform("order", day, number[:, None], np.arange(6))

    keys: list[str] = []
    lines: list[str] = []
    times: list[tuple[int, int]] = []
    flags: list[tuple[bool, bool]] = []
    date = f"{to_datetime(midnight):%Y%m%d}"
    for i in np.flatnonzero((ordered >= start_ms) & (ordered < end_ms)).tolist():
        channel, copies = _copies(int(ordered[i]), draws[i].tolist())
        order_id = f"o{date}-{i + 1:05d}"
        name, _ = _CATEGORIES[category[i]]
        g, d, t = int(gross[i]), int(discount[i]), int(tax[i])
        stamps = iso([int(ordered[i]), *(written for written, _ in copies)])
        tail = (
            f'"currency":"USD","channel":"{channel}","category":"{name}","productId":"p-{name}-{product[i]:02d}","quantity":{quantity[i]},'
            f'"grossAmount":{_money(g)},"discountAmount":{_money(d)},"taxAmount":{_money(t)},"netAmount":{_money(g - d + t)},'
            f'"paymentMethod":"{_PAYMENTS[int(draws[i, 5] * len(_PAYMENTS))]}"}}'
        )
        for position, (written, status) in enumerate(copies):
            keys.append(order_id)
            lines.append(
                f'{{"orderId":"{order_id}","customerId":"{customer_id(int(buyer[i]))}","orderedAt":"{stamps[0]}","updatedAt":"{stamps[position + 1]}",'
                f'"status":"{status}",{tail}'
            )
            times.append((int(ordered[i]), written))
            flags.append((position == 0, len(copies) == 1))
    columns = np.array(times, dtype=np.int64).reshape(-1, 2)
    marks = np.array(flags, dtype=np.bool_).reshape(-1, 2)
    arrived = _arrivals(noise, columns)
    return new_rows("orders", keys, lines, columns[:, 0], arrived_ms=arrived, is_first=marks[:, 0], is_only=marks[:, 1])


def _arrivals(noise: Noise, columns: Longs) -> Longs:
    return columns[:, 1] + 1_000 + noise.integers(45_000, "order delay", columns[:, 0], columns[:, 1])


def _copies(ordered_ms: int, draws: list[float]) -> tuple[str, list[Copy]]:
    """Channel of an order and its states as they are sent; the first entry is the first that the shop sends."""
    kind, style, outcome, first, second, _ = draws
    at_once = ordered_ms + MINUTE + int(first * 4 * MINUTE)
    if kind < 0.6:
        copies: list[Copy] = [(at_once, "delivered")]
        if outcome < 0.02:
            copies.append((at_once + int((1.0 + 9.0 * second) * DAY), "returned"))
        return "in_store", copies
    if kind < 0.68:
        return "mixed", [(ordered_ms + SECOND, "placed"), (ordered_ms + HOUR + int(second * 47 * HOUR), "delivered")]
    paid = ordered_ms + 2 * MINUTE + int(first * 50 * MINUTE)
    shipped = paid + 3 * HOUR + int(second * 20 * HOUR)
    delivered = shipped + 14 * HOUR + int((first + second) * 15 * HOUR)
    if style < SENT_AT_EVERY_CHANGE_SHARE:
        if outcome < 0.07:
            return "online", [(ordered_ms + SECOND, "placed"), (paid, "paid"), (paid + HOUR + int(second * 9 * HOUR), "cancelled")]
        states: list[Copy] = [(ordered_ms + SECOND, "placed"), (paid, "paid"), (shipped, "shipped"), (delivered, "delivered")]
        if outcome > 0.93:
            states.append((delivered + int((1.0 + 7.0 * first) * DAY), "returned"))
        return "online", states
    return "online", [(paid + 2 * HOUR, "cancelled")] if outcome < 0.07 else [(delivered, "delivered")]


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"
