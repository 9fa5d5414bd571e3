"""The loader killed with SIGKILL at each named step: the books balance at once, and a re-run makes the tables of an undisturbed load."""

from __future__ import annotations

from include.landing import land_pending
from include.landing.crash import Step
from tests.support.killed import KILLED, killed_at
from tests.support.landing import VOLATILE, assert_balanced, raw_rows
from tests.support.payloads import at, order, put

LOADER = "from include.landing import land_pending; from tests.support.payloads import at; land_pending('orders', arrived_from=at(0), arrived_before=at(1))"
COUNTS = "select address, state, landed, accepted, quarantined, duplicate, corrected from ops.file order by address"

RECORDED = "select key, step, old_content, new_content, old_known_from, old_known_to from ops.correction order by event_id, step"


def test_a_loader_killed_at_any_step_loses_and_doubles_nothing(warehouse):
    for number, step in enumerate(Step):
        new, corrected = order(f"o{number}", "c1", at(0), updated_at=at(0, 1)), order(f"o{number - 1}", "c2", at(0, 2), updated_at=at(0, 3))
        put("orders", [new, new, corrected, "{broken", order(f"p{number}", "c1", at(0), gross=-1.0)], arrived_at=at(0, 4 + number), source="a")
        put("orders", [new, order(f"q{number}", "c1", at(0))], arrived_at=at(0, 4 + number, 1), source="b")
        assert killed_at(step, LOADER) == KILLED, step
        assert_balanced()
        result = land_pending("orders", arrived_from=at(0), arrived_before=at(1))
        assert result.files == (0 if step is Step.AFTER_COMMIT else 2), step
        assert_balanced()
    after_kills = raw_rows("orders", without=VOLATILE), warehouse.rows(COUNTS), warehouse.value("select count(*) from ops.row_change"), warehouse.rows(RECORDED)
    assert (len(after_kills[0]), len(after_kills[3])) == (21, 9)
    warehouse.execute("truncate raw.orders, ops.file, ops.batch, ops.quarantine, ops.row_change, ops.stream_state, ops.correction cascade")
    for number in range(len(Step)):
        land_pending("orders", arrived_from=at(0), arrived_before=at(0, 5 + number))
    undisturbed = raw_rows("orders", without=VOLATILE), warehouse.rows(COUNTS), warehouse.value("select count(*) from ops.row_change"), warehouse.rows(RECORDED)
    assert undisturbed == after_kills
