"""Which machines to work on tomorrow: what waiting and acting cost in expectation, ranked under what the crew can do in a day.

Waiting until the prediction's window is over costs the probability of a failure times what a failure costs. Acting costs the order, and those failures that
it does not prevent. An order is worth it where waiting costs more, which is where the probability exceeds work / (failure x prevented share); the probability
is the champion's, and calibrated, or this would mean nothing. What is worth it is ranked by what it saves. Life that acting early throws away is not counted:
an order here is an hour of work, not an overhaul.

Source: expected cost of alternatives, Elkan (2001), The foundations of cost-sensitive learning, IJCAI 17; delay of maintenance as a decision under uncertainty,
Christer and Waller (1984), Journal of the Operational Research Society 35.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from operator import itemgetter
from pathlib import Path
from typing import Any

import psycopg
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.warehouse import Role, connect

COSTS_FILE = Path(__file__).with_name("work_order_costs.yaml")
CENTS = 2
MINUTES = 60


class CostsInvalid(ValueError):
    """The file of costs says something that cannot be; the message names field and file."""


class State(StrEnum):
    """What is decided of a machine."""

    PROPOSED = "proposed"
    OVER_CAPACITY = "over_capacity"
    NOT_WORTH_IT = "not_worth_it"
    QUIET = "quiet"
    DONE_ALREADY = "done_already"


class TypeCosts(BaseModel):
    """What work and failures of a device type cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    planned_work_usd: float = Field(ge=0)
    planned_downtime_min: float = Field(ge=0)
    unplanned_work_usd: float = Field(ge=0)
    unplanned_downtime_min: float = Field(ge=0)
    downtime_usd_per_h: float = Field(ge=0)
    prevented_share: float = Field(gt=0, le=1)

    @property
    def work_usd(self) -> float:
        """A planned order with its downtime."""
        return self.planned_work_usd + self.planned_downtime_min / MINUTES * self.downtime_usd_per_h

    @property
    def failure_usd(self) -> float:
        """A failure with its downtime."""
        return self.unplanned_work_usd + self.unplanned_downtime_min / MINUTES * self.downtime_usd_per_h


class Costs(BaseModel):
    """The reviewed file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reviewed_on: date
    capacity_per_day: int = Field(ge=0)
    quiet_days_after_false_alarm: int = Field(ge=0)
    device_types: Mapping[str, TypeCosts]


@dataclass(frozen=True)
class Machine:
    """A machine with a prediction of the champion whose window is still open.

    Attributes:
        as_of_date: Newest day of the tenant's data; the plan is for the day after it.
        prediction_date: Day whose features were scored.
        features: What moved the prediction most, as stored with it: feature, value, contribution.
        component_code: Its component with the greatest probability of failing, by that champion; None without one.
        life_d: Days left: lower end, median, upper end, by that champion; None without one.
        false_alarm_date: Day on which the crew last found nothing; None if never.
        done_date: Day on which the crew last followed an order and mended something that the prediction does not know of yet; None if there is none.
    """

    tenant_id: str
    device_id: str
    device_type: str
    facility_id: str | None
    as_of_date: date
    prediction_date: date
    failure_probability: float
    model_name: str
    model_version: int
    features: tuple[tuple[str, Any, float], ...] = ()
    component_code: str | None = None
    life_d: tuple[float, float, float] | None = None
    false_alarm_date: date | None = None
    done_date: date | None = None

    @property
    def planned_date(self) -> date:
        """The day that is planned."""
        return date.fromordinal(self.as_of_date.toordinal() + 1)

    @property
    def work_order_id(self) -> str:
        """Names the order in the plan and in the crew's answer."""
        return f"wo-{self.planned_date}-{self.device_id}"


@dataclass(frozen=True)
class Answered:
    """An order of a planned day that the crew has answered. It has taken a place of the day, whatever is known of its machine by now.

    Attributes:
        benefit_rank: Its place when it was answered; None where it had none.
    """

    tenant_id: str
    work_order_id: str
    benefit_rank: int | None = None


@dataclass(frozen=True)
class WorkOrder:
    """What is decided of a machine, and why; money in USD."""

    machine: Machine
    state: State
    benefit_rank: int | None
    waiting_usd: float
    acting_usd: float
    benefit_usd: float
    costs: TypeCosts
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Proposed:
    """What a run decided.

    Attributes:
        by_state: Machines by what was decided.
        changed: Rows that were written, changed or removed.
        without_costs: Device types that have predictions and no costs: nothing is proposed for them.
    """

    by_state: Mapping[State, int]
    changed: int
    without_costs: tuple[str, ...]


def read_costs(path: Path = COSTS_FILE) -> Costs:
    """The reviewed costs.

    Raises:
        CostsInvalid: If the file is not what it should be.
    """
    try:
        return Costs.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise CostsInvalid(f"{path}: {error}. Correct the file; it says what each figure is") from error


def decide(machines: Iterable[Machine], costs: Costs, answered: Iterable[Answered] = ()) -> list[WorkOrder]:
    """Decide for each machine whether to work on it on the day after the newest data of its tenant.

    Args:
        machines: Of any tenants; device types without costs must have been left out.
        costs: What acting and waiting cost, and how much the crew of a tenant can do a day.
        answered: Orders of the planned days that have been answered.

    Returns:
        By tenant: what is worth it in the order of its benefit, then the others by device. Orders that the crew has answered are not decided again; each has
        taken a place of its day, and ranks go on after theirs.
    """
    by_tenant: dict[str, list[Machine]] = defaultdict(list)
    for machine in machines:
        by_tenant[machine.tenant_id].append(machine)
    taken: dict[str, dict[str, int]] = defaultdict(dict)
    for order in answered:
        taken[order.tenant_id][order.work_order_id] = order.benefit_rank or 0
    orders: list[WorkOrder] = []
    for tenant in sorted(by_tenant):
        ranks = taken[tenant]
        free, last_rank = costs.capacity_per_day - len(ranks), max(ranks.values(), default=0)
        worth: list[tuple[float, str, Machine, float, float]] = []
        rest: list[tuple[str, Machine, State, float, float]] = []
        for machine in by_tenant[tenant]:
            if machine.work_order_id in ranks:
                continue
            waiting, acting = _expected(machine, costs.device_types[machine.device_type])
            kept_back = _kept_back(machine, costs)
            if kept_back is None and waiting > acting:
                worth.append((acting - waiting, machine.device_id, machine, waiting, acting))
            else:
                rest.append((machine.device_id, machine, kept_back or State.NOT_WORTH_IT, waiting, acting))
        for place, (_, _, machine, waiting, acting) in enumerate(sorted(worth, key=itemgetter(0, 1)), start=1):
            state = State.PROPOSED if place <= free else State.OVER_CAPACITY
            orders.append(_order(machine, state, last_rank + place, waiting, acting, costs))
        orders += [_order(machine, state, None, waiting, acting, costs) for _, machine, state, waiting, acting in sorted(rest, key=itemgetter(0))]
    return orders


def propose(costs: Costs | None = None) -> Proposed:
    """Decide for every machine of the priority list that has a prediction, and make `decisions.work_order` say so.

    Running it again over the same predictions changes nothing. An order that the crew has answered stays as it was when it was answered.

    Args:
        costs: The reviewed file if None.
    """
    costs = costs or read_costs()
    with connect(Role.ML) as connection, connection.transaction():
        # One writer: two runs that overlap would each see the other's rows as missing.
        connection.execute("select pg_advisory_xact_lock(hashtextextended('tidemark.decisions.work_order', 0))")
        machines = _machines(connection)
        known = [machine for machine in machines if machine.device_type in costs.device_types]
        days = sorted({(machine.tenant_id, machine.planned_date) for machine in machines})
        answered = _answered(connection, days)
        orders = decide(known, costs, answered)
        changed = _write(connection, orders, days, answered)
        _write_costs(connection, costs)
    counts = {state: sum(order.state is state for order in orders) for state in State}
    return Proposed(counts, changed, tuple(sorted({machine.device_type for machine in machines} - set(costs.device_types))))


def _kept_back(machine: Machine, costs: Costs) -> State | None:
    """Why a machine is left alone whatever its probability; None where it is not."""
    if machine.done_date is not None:
        return State.DONE_ALREADY
    if machine.false_alarm_date is not None and (machine.planned_date - machine.false_alarm_date).days <= costs.quiet_days_after_false_alarm:
        return State.QUIET
    return None


def _expected(machine: Machine, costs: TypeCosts) -> tuple[float, float]:
    """Expected cost of waiting and of acting."""
    waiting = machine.failure_probability * costs.failure_usd
    acting = costs.work_usd + (1 - costs.prevented_share) * waiting
    return round(waiting, CENTS), round(acting, CENTS)


def _order(machine: Machine, state: State, rank: int | None, waiting: float, acting: float, costs: Costs) -> WorkOrder:
    of_type = costs.device_types[machine.device_type]
    reasons = [
        f"{machine.failure_probability:.0%} risk of a failure in the window of the prediction of {machine.prediction_date}",
        f"waiting costs {waiting:.0f} USD in expectation, acting {acting:.0f} USD",
    ]
    told = {
        State.OVER_CAPACITY: f"the crew can work on {costs.capacity_per_day} machines a day, and others save more",
        State.QUIET: f"the crew found nothing on {machine.false_alarm_date}",
        State.DONE_ALREADY: f"the crew worked on it on {machine.done_date}, which the prediction does not know yet",
    }
    reasons += [told[state]] if state in told else []
    if machine.component_code is not None:
        reasons.append(f"component most at risk: {machine.component_code}")
    if machine.life_d is not None:
        low, median, high = machine.life_d
        reasons.append(f"{median:.0f} days left, {low:.0f} to {high:.0f} in nine of ten cases")
    reasons += [f"{name} = {_shown(value)} {'raises' if added > 0 else 'lowers'} the risk" for name, value, added in machine.features]
    return WorkOrder(machine, state, rank, waiting, acting, round(waiting - acting, CENTS), of_type, tuple(reasons))


def _shown(value: object) -> str:
    return "not known" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


# The champions' predictions for the days that the priority list looks at. An answer of the crew (stream work_order_feedback) is a maintenance event. Work of
# a day that the crew tells the next morning is not among what the prediction of that day knew: its probability is that of the machine before it was mended.
_MACHINES = """
with champion as (select use_case, model_version from ops.model_history where champion_until is null)
select
    p.tenant_id, p.device_id, p.device_type, p.facility_id, p.as_of_date, p.prediction_date, p.failure_probability, p.prediction_model_name,
    p.prediction_model_version, failure.reasons, component.component_code, life.remaining_life_p05_d, life.remaining_life_p50_d, life.remaining_life_p95_d,
    answer.false_alarm_date, answer.done_date
from maintenance.rpt_maintenance_priority as p
join predictions.device_failure as failure
    on failure.tenant_id = p.tenant_id and failure.device_id = p.device_id and failure.feature_date = p.prediction_date
    and failure.model_name = p.prediction_model_name and failure.model_version = p.prediction_model_version
left join lateral (
    select c.component_code
    from predictions.component_failure as c join champion on champion.use_case = c.model_name and champion.model_version = c.model_version
    where c.tenant_id = p.tenant_id and c.device_id = p.device_id and c.feature_date = p.prediction_date
    order by c.failure_probability desc, c.component_code limit 1
) as component on true
left join lateral (
    select r.* from predictions.remaining_life as r join champion on champion.use_case = r.model_name and champion.model_version = r.model_version
    where r.tenant_id = p.tenant_id and r.device_id = p.device_id and r.feature_date = p.prediction_date limit 1
) as life on true
left join lateral (
    select
        max(e.occurred_date) filter (where e.maintenance_type = 'inspection') as false_alarm_date,
        max(e.occurred_date) filter (
            where e.maintenance_type = 'prevented_failure'
            and (e.occurred_date > p.prediction_date or e.known_at >= (p.prediction_date + 1)::timestamp at time zone 'UTC')
        ) as done_date
    from maintenance.fct_maintenance_event as e
    where e.tenant_id = p.tenant_id and e.device_id = p.device_id and e.entry_source = 'work_order_feedback'
) as answer on true
where p.failure_probability is not null
order by p.tenant_id, p.device_id
"""


def _machines(connection: psycopg.Connection[Any]) -> list[Machine]:
    found = []
    for row in connection.execute(_MACHINES):
        *head, reasons, component, low, median, high, false_alarm, done = row
        features = tuple((reason["feature"], reason["value"], reason["contribution"]) for reason in reasons or [])
        life = None if median is None else (low, median, high)
        fields = (*head, features, component, life, false_alarm, done)
        found.append(Machine(*fields))
    return found


_ANSWERED = """
select day.tenant_id, substr(e.log_id, length('work_order_feedback:') + 1) as work_order_id, w.benefit_rank
from unnest(%s::text[], %s::date[]) as day (tenant_id, planned_date)
join maintenance.fct_maintenance_event as e
    on e.tenant_id = day.tenant_id and e.entry_source = 'work_order_feedback'
    and starts_with(e.log_id, 'work_order_feedback:wo-' || day.planned_date::text || '-')
left join decisions.work_order as w
    on w.tenant_id = day.tenant_id and w.work_order_id = substr(e.log_id, length('work_order_feedback:') + 1)
order by 1, 2
"""


def _answered(connection: psycopg.Connection[Any], days: Sequence[tuple[str, date]]) -> list[Answered]:
    """Orders of the planned days that the crew has answered."""
    return [Answered(*row) for row in connection.execute(_ANSWERED, ([tenant for tenant, _ in days], [day for _, day in days]))]


_COLUMNS = (
    *("tenant_id", "work_order_id", "device_id", "device_type", "facility_id", "planned_date", "state", "benefit_rank", "failure_probability"),
    *("prediction_date", "model_name", "model_version", "component_code", "remaining_life_p05_d", "remaining_life_p50_d", "remaining_life_p95_d"),
    *("waiting_usd", "acting_usd", "benefit_usd", "work_usd", "failure_usd", "prevented_share", "reasons"),
)


def _write(connection: psycopg.Connection[Any], orders: Sequence[WorkOrder], days: Sequence[tuple[str, date]], answered: Sequence[Answered]) -> int:
    """Makes the orders of the planned days equal to these, answered ones untouched; returns how many rows that changed."""
    rows = [_row(order) for order in orders]
    kept = [(row[0], row[1]) for row in rows] + [(order.tenant_id, order.work_order_id) for order in answered]
    with connection.cursor() as cursor:
        removed = cursor.execute(
            "delete from decisions.work_order as w using unnest(%s::text[], %s::date[]) as day (tenant_id, planned_date) "
            "where w.tenant_id = day.tenant_id and w.planned_date = day.planned_date and (w.tenant_id, w.work_order_id) not in "
            "(select * from unnest(%s::text[], %s::text[]))",
            [[day[0] for day in days], [day[1] for day in days], [key[0] for key in kept], [key[1] for key in kept]],
        ).rowcount
        names, values = ", ".join(_COLUMNS), ", ".join(["%s"] * len(_COLUMNS))
        own = ", ".join(f"w.{name}" for name in _COLUMNS[2:])
        fresh = ", ".join(f"excluded.{name}" for name in _COLUMNS[2:])
        sets = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[2:])
        cursor.executemany(
            f"insert into decisions.work_order as w ({names}) values ({values}) on conflict (tenant_id, work_order_id) "  # noqa: S608  names of this module
            f"do update set {sets}, _decided_at = clock_timestamp() where ({own}) is distinct from ({fresh})",
            rows,
        )
        written = cursor.rowcount if rows else 0
    return removed + written


def _row(order: WorkOrder) -> tuple[Any, ...]:
    machine, costs = order.machine, order.costs
    return (
        *(machine.tenant_id, machine.work_order_id, machine.device_id, machine.device_type, machine.facility_id, machine.planned_date, order.state.value),
        *(order.benefit_rank, machine.failure_probability, machine.prediction_date, machine.model_name, machine.model_version, machine.component_code),
        *(machine.life_d or (None, None, None)),
        *(order.waiting_usd, order.acting_usd, order.benefit_usd, costs.work_usd, costs.failure_usd, costs.prevented_share, json.dumps(order.reasons)),
    )


def _write_costs(connection: psycopg.Connection[Any], costs: Costs) -> None:
    connection.execute("delete from decisions.maintenance_cost where device_type <> all(%s)", (list(costs.device_types),))
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into decisions.maintenance_cost values (%s, %s, %s, %s, %s, %s) on conflict (device_type) do update set "
            "reviewed_on = excluded.reviewed_on, work_usd = excluded.work_usd, failure_usd = excluded.failure_usd, "
            "downtime_usd_per_h = excluded.downtime_usd_per_h, prevented_share = excluded.prevented_share",
            [
                (name, costs.reviewed_on, own.work_usd, own.failure_usd, own.downtime_usd_per_h, own.prevented_share)
                for name, own in sorted(costs.device_types.items())
            ],
        )
