"""How machines age: the life of each component from the beginning of the world, with failures, services, inspections and false alarms.

A component's life is drawn from a Weibull distribution (shape 2: the hazard rises with age), shortened by the machine's frailty. Most lives show
symptoms for some days before the end (the P-F interval of reliability-centred maintenance, Moubray 1997); some end without warning. A service renews
components that show nothing yet; an inspection finds some symptoms and has the component repaired before it fails, so symptoms do not always end in a
failure; episodes of imbalance or clogging look like symptoms and pass by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from include.simulator.clock import DAY, EPOCH_MS, HOUR, MINUTE
from include.simulator.noise import Floats, Longs, Noise


@dataclass(frozen=True)
class Component:
    """A part that wears.

    Attributes:
        code: Name in the maintenance log.
        scale_days: Weibull scale of its life at average frailty.
        shape: Weibull shape; 1 means that age does not matter.
        sudden_share: Share of lives that end without symptoms.
        error_codes: Codes that the controller shows when it suffers.
        repair_usd: Median cost of a repair.
    """

    code: str
    scale_days: float
    shape: float
    sudden_share: float
    error_codes: tuple[str, ...]
    repair_usd: float


COMPONENTS = (
    Component("bearing", 66.0, 2.0, 0.15, ("E110", "E111"), 1_400.0),
    Component("motor", 82.0, 2.0, 0.20, ("E210", "E214"), 2_600.0),
    Component("hydraulics", 75.0, 2.0, 0.20, ("E310", "E312"), 1_900.0),
    Component("controller", 270.0, 1.0, 1.0, ("E901",), 800.0),
)
BEARING, MOTOR, HYDRAULICS, CONTROLLER = range(len(COMPONENTS))

SERVICE_INTERVAL_DAYS = (60, 75, 90, 120)
INSPECTION_EVERY_DAYS = 28.0
FALSE_ALARM_EVERY_DAYS = 60.0
HORIZON_DAYS = 90
"""How far lives are drawn ahead: a stop may put off a failure whose symptoms already show, and symptoms show for less than this."""


@dataclass(frozen=True)
class LogEntry:
    """What the crew writes down. `finished_ms` is when the downtime is over."""

    kind: str
    at_ms: int
    finished_ms: int
    component: int | None
    error_code: str | None
    cost_usd: float
    notes: str


@dataclass
class _Life:
    start_ms: float
    onset_ms: float
    fails_ms: float
    ends_ms: float = 0.0
    severity: float = 1.0


@dataclass(frozen=True)
class MachineLife:
    """Everything that happens to one machine up to some time.

    Attributes:
        starts_ms, onsets_ms, fails_ms, ends_ms, severities: Per component, arrays over its lives in order; a life ends by failure or renewal.
        alarms: Per component, rows (start, end, amplitude) of false alarms.
        stops: Rows (start, end, 1 when broken down else 0) of time out of service.
        log: Entries in order of `at_ms`.
    """

    starts_ms: tuple[Floats, ...]
    onsets_ms: tuple[Floats, ...]
    fails_ms: tuple[Floats, ...]
    ends_ms: tuple[Floats, ...]
    severities: tuple[Floats, ...]
    alarms: tuple[Floats, ...]
    stops: Floats
    log: tuple[LogEntry, ...]

    def _life_at(self, component: int, at_ms: Longs) -> Longs:
        return np.minimum(np.searchsorted(self.ends_ms[component], at_ms, side="right"), len(self.ends_ms[component]) - 1)

    def damage(self, component: int, at_ms: Longs) -> Floats:
        """True state in [0, 1]: 0 until the first symptom, 1 at the failure that would come without repair. Lives without symptoms stay at 0."""
        life = self._life_at(component, at_ms)
        onset, fails = self.onsets_ms[component][life], self.fails_ms[component][life]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(fails > onset, (at_ms - onset) / (fails - onset), 0.0)
        return np.clip(share, 0.0, 1.0) ** 1.4

    def symptom(self, component: int, at_ms: Longs) -> Floats:
        """What instruments could see without noise: damage times the severity of this life, plus false alarms."""
        seen = self.damage(component, at_ms) * self.severities[component][self._life_at(component, at_ms)]
        alarms = self.alarms[component]
        if len(alarms):
            last = np.searchsorted(alarms[:, 0], at_ms, side="right") - 1
            start, end, amplitude = alarms[np.maximum(last, 0)].T
            phase = (at_ms - start) / (end - start)
            seen = seen + np.where((last >= 0) & (phase < 1.0), amplitude * np.sin(np.pi * np.clip(phase, 0.0, 1.0)), 0.0)
        return seen

    def age_days(self, component: int, at_ms: Longs) -> Floats:
        """Days since the component was new."""
        return np.maximum((at_ms - self.starts_ms[component][self._life_at(component, at_ms)]) / DAY, 0.0)

    def remaining_days(self, component: int, at_ms: Longs) -> Floats:
        """Days until the component would fail if nobody touched it."""
        return np.maximum((self.fails_ms[component][self._life_at(component, at_ms)] - at_ms) / DAY, 0.0)

    def stopped(self, at_ms: Longs) -> tuple[np.ndarray, np.ndarray]:
        """Whether the machine is broken down, and whether it is in planned maintenance, at each time."""
        if not len(self.stops):
            nothing = np.zeros(len(at_ms), dtype=np.bool_)
            return nothing, nothing
        last = np.maximum(np.searchsorted(self.stops[:, 0], at_ms, side="right") - 1, 0)
        inside = (at_ms >= self.stops[last, 0]) & (at_ms < self.stops[last, 1])
        broken = self.stops[last, 2] > 0
        return inside & broken, inside & ~broken


@dataclass
class _Machine:
    """The life of a machine while it is being drawn."""

    rng: np.random.Generator
    frailty: float
    service_every_days: int
    current: list[_Life] = field(default_factory=list)
    lives: list[list[_Life]] = field(default_factory=list)
    alarms: list[list[tuple[float, float, float]]] = field(default_factory=list)
    stops: list[tuple[float, float, float]] = field(default_factory=list)
    log: list[LogEntry] = field(default_factory=list)

    def new_life(self, component: int, start_ms: float) -> _Life:
        part = COMPONENTS[component]
        days = max(part.scale_days * float(self.rng.weibull(part.shape)) / self.frailty, 4.0)
        warning_days = 0.0 if self.rng.random() < part.sudden_share else min(2.5 + float(self.rng.gamma(2.2, 5.0)), 0.7 * days, 60.0)
        fails = start_ms + days * DAY
        return _Life(start_ms, fails - warning_days * DAY, fails, severity=float(self.rng.uniform(0.55, 1.25)))

    def renew(self, component: int, at_ms: float, start_ms: float) -> None:
        self.current[component].ends_ms = at_ms
        self.lives[component].append(self.current[component])
        self.current[component] = self.new_life(component, start_ms)

    def write(self, kind: str, at_ms: float, minutes: float, component: int | None, code: str | None, cost: float, notes: str) -> None:
        finished = at_ms + minutes * MINUTE
        self.log.append(LogEntry(kind, int(at_ms), int(finished), component, code, round(cost, 2), notes))

    def fail(self, component: int, at_ms: float) -> None:
        part = COMPONENTS[component]
        minutes = float(np.clip(self.rng.lognormal(np.log(330.0), 0.7), 45.0, 4_000.0))
        cost = part.repair_usd * float(self.rng.lognormal(0.0, 0.5))
        code = part.error_codes[int(self.rng.integers(len(part.error_codes)))]
        self.write("failure", at_ms, minutes, component, code, 0.0, f"stopped by {part.code}")
        self.write("repair", at_ms + minutes * MINUTE, 0.0, component, code, cost, f"{part.code} replaced")
        self.stops.append((at_ms, at_ms + minutes * MINUTE, 1.0))
        self.renew(component, at_ms, at_ms + minutes * MINUTE)
        for other in self.current:  # what would have failed while the machine stood still fails soon after it runs again
            if other.fails_ms <= at_ms + minutes * MINUTE + HOUR:
                other.fails_ms = at_ms + minutes * MINUTE + HOUR * (2.0 + float(self.rng.exponential(24.0)))
                other.onset_ms = min(other.onset_ms, other.fails_ms)

    def serve(self, at_ms: float) -> None:
        minutes = float(self.rng.uniform(90.0, 300.0))
        self.write("service", at_ms, minutes, None, None, float(self.rng.uniform(150.0, 600.0)), "planned service")
        self.stops.append((at_ms, at_ms + minutes * MINUTE, 0.0))
        for component in (BEARING, MOTOR, HYDRAULICS):
            life = self.current[component]
            clean = life.onset_ms > at_ms and self.rng.random() < 0.55
            if (clean or (life.onset_ms <= at_ms and self.rng.random() < 0.25)) and life.fails_ms > at_ms + minutes * MINUTE:
                self.renew(component, at_ms, at_ms + minutes * MINUTE)

    def inspect(self, at_ms: float) -> None:
        seen = [number for number, life in enumerate(self.current) if at_ms - life.onset_ms > max(0.0, 0.3 * (life.fails_ms - life.onset_ms))]
        if seen and self.rng.random() < 0.5:
            component = seen[0]
            part = COMPONENTS[component]
            minutes = float(self.rng.uniform(60.0, 240.0))
            self.write("inspection", at_ms, 20.0, component, None, 60.0, f"{part.code} shows wear")
            start = at_ms + HOUR
            if start + minutes * MINUTE < min(life.fails_ms for life in self.current):
                self.write("repair", start, minutes, component, None, part.repair_usd * 0.4, f"{part.code} replaced before failure")
                self.stops.append((start, start + minutes * MINUTE, 0.0))
                self.renew(component, start, start + minutes * MINUTE)
            return
        self.write("inspection", at_ms, 20.0, None, None, 60.0, "no finding")


def live_machine(noise: Noise, index: int, service_every_days: int, until_ms: int) -> MachineLife:
    """Draws the life of machine `index` from the beginning of the world until after `until_ms`.

    The sequence is drawn in order of time, so a later `until_ms` only adds to it: what was before stays the same.
    """
    rng = noise.generator("machine life", index)
    machine = _Machine(rng, frailty=float(np.clip(rng.lognormal(0.0, 0.3), 0.5, 2.2)), service_every_days=service_every_days)
    for component in range(len(COMPONENTS)):
        machine.current.append(machine.new_life(component, EPOCH_MS - float(rng.uniform(0.0, 3.0)) * DAY))
        machine.lives.append([])
        machine.alarms.append([])
    next_service = EPOCH_MS + float(rng.uniform(0.3, 1.0)) * service_every_days * DAY
    next_inspection = EPOCH_MS + float(rng.uniform(1.0, INSPECTION_EVERY_DAYS)) * DAY
    next_alarm = EPOCH_MS + float(rng.exponential(FALSE_ALARM_EVERY_DAYS)) * DAY
    while True:
        component = min(range(len(COMPONENTS)), key=lambda c: machine.current[c].fails_ms)
        fails = machine.current[component].fails_ms
        now = min(fails, next_service, next_inspection, next_alarm)
        if now > until_ms + HORIZON_DAYS * DAY:
            break
        free = machine.stops[-1][1] + HOUR if machine.stops else now
        if now == fails:
            machine.fail(component, now)
        elif now == next_service:
            if now < free:
                next_service = free
                continue
            machine.serve(now)
            next_service = now + float(rng.uniform(0.85, 1.45)) * service_every_days * DAY
        elif now == next_inspection:
            if now < free:
                next_inspection = free
                continue
            machine.inspect(now)
            next_inspection = now + float(rng.uniform(0.6, 1.4)) * INSPECTION_EVERY_DAYS * DAY
        else:
            days = float(rng.uniform(2.0, 9.0))
            machine.alarms[int(rng.integers(3))].append((now, now + days * DAY, float(rng.uniform(0.3, 0.95))))
            next_alarm = now + (days + float(rng.exponential(FALSE_ALARM_EVERY_DAYS))) * DAY
    for component, life in enumerate(machine.current):
        life.ends_ms = np.inf
        machine.lives[component].append(life)
    return _freeze(machine)


def _freeze(machine: _Machine) -> MachineLife:
    def column(name: str) -> tuple[Floats, ...]:
        return tuple(np.array([getattr(life, name) for life in lives]) for lives in machine.lives)

    return MachineLife(
        starts_ms=column("start_ms"),
        onsets_ms=column("onset_ms"),
        fails_ms=column("fails_ms"),
        ends_ms=column("ends_ms"),
        severities=column("severity"),
        alarms=tuple(np.array(sorted(alarms)).reshape(-1, 3) for alarms in machine.alarms),
        stops=np.array(sorted(machine.stops)).reshape(-1, 3),
        log=tuple(sorted(machine.log, key=lambda entry: (entry.at_ms, entry.kind))),
    )
