"""Waiting against acting: what is proposed, in which order, within what the crew can do, and what its answers change."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import psycopg
import pytest

from include.commands import summary
from include.transform import build, fix_horizon
from include.transform.trace import trace
from include.warehouse import Role, connect
from ml.decisions import work_orders
from ml.decisions.work_orders import Answered, Costs, CostsInvalid, Machine, State, decide, propose, read_costs
from ml.usecases.device_failure import FAILURE
from tests.conftest import Warehouse
from tests.support.marts import failing_data_tests
from tests.support.payloads import at, feedback, put
from tests.support.scenario import land_stream

AS_OF = date(2026, 3, 1)
OF_MACHINE = {
    "planned_work_usd": 100,
    "planned_downtime_min": 60,
    "unplanned_work_usd": 600,
    "unplanned_downtime_min": 120,
    "downtime_usd_per_h": 200,
    "prevented_share": 0.6,
}
COSTS = Costs.model_validate(
    {
        "reviewed_on": "2026-01-01",
        "capacity_per_day": 2,
        "quiet_days_after_false_alarm": 3,
        "device_types": {"machine": OF_MACHINE, "robot": {**OF_MACHINE, "unplanned_work_usd": 6000}},
    }
)


def machine(device: str, probability: float, *, device_type: str = "machine", tenant: str = "default") -> Machine:
    return Machine(tenant, device, device_type, "plant", AS_OF, AS_OF, probability, "device_failure", 1)


def states(*machines: Machine) -> dict[str, State]:
    return {order.machine.device_id: order.state for order in decide(machines, COSTS)}


def test_an_order_is_worth_it_where_waiting_costs_more() -> None:
    # A failure costs 600 + 2 h x 200 = 1000, an order 100 + 1 h x 200 = 300; it prevents 0.6 of failures: worth it above 300 / 600 = 0.5.
    (order,) = decide([machine("m", 0.7)], COSTS)
    assert (order.waiting_usd, order.acting_usd, order.benefit_usd) == (700.0, 580.0, 120.0)
    assert (order.state, order.benefit_rank) == (State.PROPOSED, 1)
    assert states(machine("below", 0.499), machine("at", 0.5), machine("above", 0.501)) == {
        "below": State.NOT_WORTH_IT,
        "at": State.NOT_WORTH_IT,
        "above": State.PROPOSED,
    }


def test_the_greatest_benefit_goes_first_within_what_the_crew_can_do() -> None:
    orders = decide([machine("c", 0.9), machine("b", 0.9), machine("robot", 0.4, device_type="robot"), machine("other", 0.6, tenant="acme")], COSTS)
    assert [(order.machine.tenant_id, order.machine.device_id, order.state, order.benefit_rank) for order in orders] == [
        ("acme", "other", State.PROPOSED, 1),
        ("default", "robot", State.PROPOSED, 1),
        ("default", "b", State.PROPOSED, 2),
        ("default", "c", State.OVER_CAPACITY, 3),
    ]
    assert any("2 machines a day" in reason for reason in orders[-1].reasons)


def test_the_crews_answers_are_heeded() -> None:
    looked = replace(machine("looked", 0.9), false_alarm_date=date(2026, 2, 27))
    long_ago = replace(machine("long_ago", 0.9), false_alarm_date=date(2026, 2, 26))
    mended = replace(machine("mended", 0.9), done_date=date(2026, 3, 2))
    assert states(looked, long_ago, mended) == {"looked": State.QUIET, "long_ago": State.PROPOSED, "mended": State.DONE_ALREADY}
    answered, first, second = machine("answered", 0.9), machine("first", 0.8), machine("second", 0.7)
    of_day = [Answered("default", answered.work_order_id, 3), Answered("acme", "wo-2026-03-02-other", 9)]
    expected = [("first", State.PROPOSED, 4), ("second", State.OVER_CAPACITY, 5)]
    for machines in ([answered, first, second], [first, second]):  # the machine may be gone from the list by now: its order was answered all the same
        orders = decide(machines, COSTS, of_day)
        assert [(order.machine.device_id, order.state, order.benefit_rank) for order in orders] == expected, (
            "an answered order is not decided again, has taken a place of the day, and keeps its rank"
        )


def test_reasons_are_words() -> None:
    told = replace(
        machine("m", 0.7), features=(("vibration_rms_1d_mm_s", 7.25, 1.1), ("last_error_code", None, -0.2)), component_code="bearing", life_d=(1, 4, 19)
    )
    (order,) = decide([told], COSTS)
    assert order.reasons == (
        "70% risk of a failure in the window of the prediction of 2026-03-01",
        "waiting costs 700 USD in expectation, acting 580 USD",
        "component most at risk: bearing",
        "4 days left, 1 to 19 in nine of ten cases",
        "vibration_rms_1d_mm_s = 7.25 raises the risk",
        "last_error_code = not known lowers the risk",
    )


def test_the_reviewed_file_is_read_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    costs = read_costs()
    assert costs.capacity_per_day > 0
    assert "machine_controller" in costs.device_types
    wrong = tmp_path / "costs.yaml"
    wrong.write_text(work_orders.COSTS_FILE.read_text(encoding="utf-8").replace("prevented_share: 0.7", "prevented_share: 70"), encoding="utf-8")
    with pytest.raises(CostsInvalid, match="prevented_share"):
        read_costs(wrong)


@pytest.fixture
def plant(built: Warehouse) -> Warehouse:
    """The built scenario with predictions of a champion for its machines on the newest day, and none of its shadow."""
    built.execute(
        "insert into ops.model_version (use_case, model_version, snapshot, card, model_file, has_passed, gate_reason) "
        "select name, 1, 's', '{}', 'f', true, 'better' from unnest(array['device_failure', 'component_failure', 'remaining_life']) as name"
    )
    built.execute(
        "insert into ops.model_history (use_case, model_version, champion_from, decided_by, reason) "
        "select use_case, 1, clock_timestamp(), 'gate', 'better' from ops.model_version"
    )
    common = "tenant_id, device_id, feature_date, model_name, model_version, feature_snapshot, known_at, outcome_from, outcome_to"
    window = "health.as_of, '{name}', {version}, 's', health.as_of + 1, health.as_of + 1, health.as_of + 8"
    newest = "max(max(health_date)) over (partition by tenant_id) as as_of"
    source = f"(select tenant_id, device_id, {newest} from maintenance.fct_device_health_daily group by 1, 2) as health"
    probability = "case tenant_id || device_id when 'defaultm1' then 0.9 when 'defaultm2' then 0.8 when 'defaultm3' then 0.05 else 0.0 end"
    for version, value in ((1, probability), (2, "1.0")):
        built.execute(
            f"insert into predictions.device_failure ({common}, failure_probability, reasons) "
            f"select tenant_id, device_id, {window.format(name='device_failure', version=version)}, {value}, "
            """'[{"feature": "error_count_7d", "value": 3, "contribution": 0.5}]' """
            f"from {source}"
        )
    built.execute(
        f"insert into predictions.component_failure (component_code, {common}, failure_probability) "
        f"select part.code, tenant_id, device_id, {window.format(name='component_failure', version=1)}, part.p "
        f"from {source}, (values ('motor', 0.2), ('bearing', 0.4)) as part (code, p)"
    )
    built.execute(
        f"insert into predictions.remaining_life ({common}, remaining_life_p05_d, remaining_life_p50_d, remaining_life_p95_d) "
        f"select tenant_id, device_id, {window.format(name='remaining_life', version=1)}, 1, 3, 6.5 from {source}"
    )
    build("rpt_maintenance_priority", fix_horizon(), run_tests=False)
    return built


# The scenario's m2 was a false alarm three days before the planned day.
OF_CONTROLLERS = COSTS.model_copy(update={"device_types": {"machine_controller": COSTS.device_types["machine"]}, "quiet_days_after_false_alarm": 2})


def test_proposals_follow_the_champion_and_change_only_with_it(plant: Warehouse) -> None:
    first = propose(OF_CONTROLLERS)
    assert first.by_state[State.PROPOSED] == 2
    rows = plant.rows(
        "select device_id, state, benefit_rank, failure_probability, component_code, remaining_life_p50_d, benefit_usd, work_order_id, reasons "
        "from decisions.work_order where tenant_id = 'default' and benefit_rank is not null order by benefit_rank"
    )
    assert [row[:7] for row in rows] == [
        ("m1", "proposed", 1, 0.9, "bearing", 3.0, 240.0),
        ("m2", "proposed", 2, 0.8, "bearing", 3.0, 180.0),
    ]
    assert "error_count_7d = 3 raises the risk" in rows[0][8]
    assert plant.value("select count(*) from decisions.work_order where failure_probability = 1") == 0, "the shadow's predictions are not acted upon"
    assert plant.rows("select device_type, failure_usd, work_usd from decisions.maintenance_cost") == [("machine_controller", 1000.0, 300.0)]
    assert propose(OF_CONTROLLERS).changed == 0
    assert propose(COSTS).without_costs == ("machine_controller",)
    assert plant.value("select count(*) from decisions.work_order") == 0, "nothing is proposed without costs"


def test_an_answer_stays_and_goes_into_outcomes_schedule_and_costs(plant: Warehouse, capsys: pytest.CaptureFixture[str]) -> None:
    with connect(Role.ANALYST) as connection:
        assert "no machine has a prediction of a champion yet" in summary.without_orders(connection)
    propose(OF_CONTROLLERS)
    build("rpt_maintenance_schedule rpt_maintenance_cost", fix_horizon())
    with connect(Role.ANALYST) as connection:
        assert [row[2] for row in connection.execute(summary.SCHEDULE)] == ["m1", "m2"]
    (order, planned) = plant.rows("select work_order_id, planned_date from maintenance.rpt_maintenance_schedule where device_id = 'm1'")[0]
    assert order == f"wo-{planned}-m1"
    assert {raw.stream for raw in trace("maintenance.rpt_maintenance_schedule", ["tenant_id=default", f"work_order_id={order}"]).raw} >= {"device_telemetry"}
    (other,) = plant.rows("select work_order_id from maintenance.rpt_maintenance_schedule where device_id = 'm2'")[0]
    before = plant.value("select sum(avoided_usd) from maintenance.rpt_maintenance_cost")

    put("work_order_feedback", [feedback(order, "m1", at(6, 8)), feedback(other, "m2", at(6, 9), verdict="false_alarm", why="dry run")], arrived_at=at(6, 12))
    land_stream("work_order_feedback")
    build("fct_maintenance_event", fix_horizon())
    answers = plant.rows(
        "select device_id, maintenance_type, is_failure, is_maintenance from maintenance.fct_maintenance_event where occurred_at >= '2026-03-07' order by 1"
    )
    assert answers == [("m1", "prevented_failure", False, True), ("m2", "inspection", False, False)]
    assert set(FAILURE["maintenance_type"]) == {"failure", "prevented_failure"}, "the next training takes a fault that was mended for a failure"

    plant.execute("update predictions.device_failure set failure_probability = 0.99 where tenant_id = 'default' and device_id = 'm1' and model_version = 1")
    build("rpt_maintenance_priority", fix_horizon(), run_tests=False)
    assert propose(OF_CONTROLLERS).changed == 0, "an answered order stays as it was when it was answered"
    build("rpt_maintenance_schedule rpt_maintenance_cost", fix_horizon())
    with connect(Role.ANALYST) as connection:
        assert connection.execute(summary.SCHEDULE).fetchall() == [], "what is answered is not to be done tomorrow"
        assert summary.without_orders(connection).startswith("nothing to do on 2026-03-06; of ")
        assert "2 answered by the crew already, " in summary.without_orders(connection)
        capsys.readouterr()
        summary._show(connection, "Tomorrow", summary.SCHEDULE, when_empty=summary.without_orders)
        assert "Tomorrow: nothing to do on 2026-03-06; of " in capsys.readouterr().out, "a day without orders is said in words"
    assert plant.rows("select device_id, verdict from maintenance.rpt_maintenance_schedule order by benefit_rank") == [("m1", "done"), ("m2", "false_alarm")]
    found = plant.rows(
        "select sum(avoided_usd), sum(max_avoided_usd), sum(order_usd), sum(false_alarm_count) from maintenance.rpt_maintenance_cost "
        "where cost_date >= '2026-03-07'"
    )
    assert found == [(pytest.approx((0.9 + 0.8) * 0.6 * 1000), 1000.0, 600.0, 1)], "expected of both orders, whatever was found"
    assert before == 0


def test_an_answered_order_stays_when_its_machine_goes(plant: Warehouse) -> None:
    """Scrapped, or without a prediction of the champion: the order, its place of the day and its cost are as they were."""
    propose(OF_CONTROLLERS)
    order = "select work_order_id, state, benefit_rank, failure_probability from decisions.work_order where tenant_id = 'default' and device_id = '{}'"
    (before,) = plant.rows(order.format("m1"))
    put("work_order_feedback", [feedback(str(before[0]), "m1", at(6, 8))], arrived_at=at(6, 12))
    land_stream("work_order_feedback")
    build("fct_maintenance_event", fix_horizon(), run_tests=False)
    plant.execute("delete from predictions.device_failure where tenant_id = 'default' and device_id = 'm1'")
    build("rpt_maintenance_priority", fix_horizon(), run_tests=False)
    one_place = OF_CONTROLLERS.model_copy(update={"capacity_per_day": 1})
    propose(one_place)
    assert plant.rows(order.format("m1")) == [before]
    assert plant.rows(order.format("m2"))[0][1:3] == ("over_capacity", 2)
    plant.execute("delete from predictions.device_failure where tenant_id = 'default' and device_id = 'm2'")
    build("rpt_maintenance_priority", fix_horizon(), run_tests=False)
    propose(one_place)
    assert plant.rows(order.format("m1")) == [before]
    assert plant.rows(order.format("m2")) == [], "nobody has answered it"


def test_work_that_is_told_the_next_morning_keeps_its_machine_out_of_the_plan(plant: Warehouse) -> None:
    """The prediction of the day knows nothing of it; of work that was told the same day it does."""
    prediction = plant.value("select max(feature_date)::text from predictions.device_failure where tenant_id = 'default'")
    assert prediction == "2026-03-05"
    told_at_once, told_later = at(4, 20), at(5, 7)
    put("work_order_feedback", [feedback(f"wo-{prediction}-m2", "m2", at(4, 14))], arrived_at=told_at_once)
    put("work_order_feedback", [feedback(f"wo-{prediction}-m1", "m1", at(4, 15))], arrived_at=told_later)
    land_stream("work_order_feedback")
    build("fct_maintenance_event", fix_horizon(), run_tests=False)
    propose(OF_CONTROLLERS)
    found = plant.rows("select device_id, state from decisions.work_order where tenant_id = 'default' and device_id in ('m1', 'm2') order by 1")
    assert found == [("m1", "done_already"), ("m2", "proposed")]
    (reasons,) = plant.rows("select reasons from decisions.work_order where tenant_id = 'default' and device_id = 'm1'")[0]
    assert "the crew worked on it on 2026-03-05, which the prediction does not know yet" in reasons  # type: ignore[operator]


def test_a_proposal_that_saves_less_than_one_put_off_would_be_seen(plant: Warehouse) -> None:
    propose(OF_CONTROLLERS.model_copy(update={"capacity_per_day": 1}))
    of = fix_horizon()
    build("rpt_maintenance_schedule", of)
    assert sorted(plant.rows("select state, device_id from maintenance.rpt_maintenance_schedule")) == [("over_capacity", "m2"), ("proposed", "m1")]
    plant.execute("update maintenance.rpt_maintenance_schedule set benefit_usd = benefit_usd - 100 where state = 'proposed'")
    assert failing_data_tests("rpt_maintenance_schedule", of) == ["first_by"]


def test_analysts_and_transformations_read_what_was_decided_and_change_nothing(plant: Warehouse) -> None:
    for role in (Role.ANALYST, Role.TRANSFORMER):
        with connect(role) as connection:
            assert connection.execute("select count(*) from decisions.work_order").fetchone() is not None
        with connect(role) as connection:
            connection.execute("set transaction read write")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("delete from decisions.work_order")
