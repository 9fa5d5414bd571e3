"""Replays killed with SIGKILL at each step, and two at the same time: every row lands once, and the books balance at once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from include.contracts import load_contract
from include.landing import land_pending
from include.landing.crash import ReplayStep, Step
from include.landing.quarantine import Filter, count_quarantined
from include.landing.replay import replay
from include.settings import REPOSITORY
from include.warehouse import Role, connect
from tests.support.killed import KILLED, killed_at
from tests.support.landing import VOLATILE, assert_balanced, raw_rows
from tests.support.payloads import at, order, put, zone
from tests.support.stricter import land_under, with_field

REPLAYER = (
    "from include.landing.quarantine import Filter; from include.landing.replay import replay; import sys; "
    "result = replay('orders', Filter(), by='killed'); print(result.accepted, result.duplicate, result.corrected, result.quarantined)"
)
STEPS = [*[step for step in Step if step not in {Step.AFTER_LISTING, Step.AFTER_READ}], *ReplayStep]
STATE = (
    "select (select count(*) from raw.orders), (select count(*) from ops.batch), (select count(*) from ops.quarantine_event), "
    "(select count(*) from ops.quarantine where state = 'open'), (select last_batch_id from ops.stream_state where stream = 'orders')"
)


def start_replay() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", REPLAYER],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def picky(monkeypatch):
    land_under(monkeypatch, with_field(load_contract("orders"), "channel_code", enum=("in_store",)))


def put_orders(number):
    """New events, copies that say the same and something else, of one stored row a correction, and two rows that never pass; and a file of another format."""
    states = [order(f"o{number}", "c1", at(0), updated_at=at(0, 1)), order(f"o{number}", "c2", at(0, 1), updated_at=at(0, 2)), order(f"p{number}", "c1", at(0))]
    put(
        "orders",
        [*states, states[2], order("o0", f"c{number}", at(0), updated_at=at(0, 3, number)), "{broken", order("q", "c1", at(0), gross=-1.0)],
        arrived_at=at(0, 4, number),
    )
    header = "orderId,customerId,orderedAt,updatedAt,status,currency,channel,quantity,grossAmount,netAmount"
    cells = f"{header}\nr{number},c1,2026-03-01T00:00:00Z,2026-03-01T00:00:00Z,paid,USD,online,1,5,5\n"
    zone().put("orders", cells.encode(), source="cells", ext="csv", arrived_at=at(0, 4, number))
    land_pending("orders", arrived_from=at(0), arrived_before=at(1))


def test_a_replay_killed_at_any_step_loses_and_doubles_nothing(warehouse, picky):
    for number, step in enumerate(STEPS):
        put_orders(number)
        before = warehouse.rows(STATE)
        assert killed_at(step, REPLAYER) == KILLED, step
        assert_balanced()
        assert (warehouse.rows(STATE) == before) == (step is not Step.AFTER_COMMIT), step
        result = replay("orders", Filter(), by="after")
        assert_balanced()
        assert result.accepted == (0 if step is Step.AFTER_COMMIT else 3), step
        assert count_quarantined(Filter()) == 2 * (number + 1)
    rows = raw_rows("orders", without=(*VOLATILE, "_known_at"))
    assert len(rows) == 3 * len(STEPS)
    warehouse.execute("truncate raw.orders, ops.file, ops.batch, ops.quarantine, ops.row_change, ops.stream_state cascade")
    for number in range(len(STEPS)):
        put_orders(number)
    replay("orders", Filter(), by="undisturbed")
    assert raw_rows("orders", without=(*VOLATILE, "_known_at")) == rows


def test_two_replays_at_once_land_every_row_once(warehouse, picky):
    """Both have seen the open rows and wait for the stream's lock when it is released."""
    for number in range(5):
        put_orders(number)
    with connect(Role.LOADER) as holder, connect(Role.OWNER, autocommit=True) as observer:
        holder.execute("select ops.lock_stream('orders')")
        processes = [start_replay() for _ in range(2)]
        waiting = 0
        while waiting < 2:
            assert all(process.poll() is None for process in processes), [process.communicate() for process in processes]
            row = observer.execute("select count(*) from pg_locks, pg_sleep(0.05) where locktype = 'advisory' and not granted").fetchone()
            assert row is not None
            waiting = row[0]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert_balanced()
    figures = sorted(tuple(map(int, output.split())) for output, _ in said)
    # The second finds open what failed in the first, and nothing else.
    assert figures == [(0, 0, 0, 10), (15, 5, 10, 10)]
    assert warehouse.value("select count(*) from raw.orders") == 15
