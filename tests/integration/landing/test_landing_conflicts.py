"""`onConflict: quarantine`: the earliest arrival counts, whatever says something else is in quarantine, and the books balance in any order of loading."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations
from typing import Any

import polars as pl
import pytest

from include.contracts import load_contract
from include.contracts.model import Contract, OnConflict
from include.landing import LandingBusy, LandingResult, land_pending
from include.landing.corrections import list_corrections
from include.landing.errors import UnreadableFile
from include.landing.movements import check_partitions
from include.landing.quarantine import Filter, State, list_quarantined
from include.landing.replay import replay
from include.warehouse import Role, connect
from tests.conftest import Warehouse
from tests.support.landing import VOLATILE, assert_balanced, raw_rows
from tests.support.payloads import at, order, put, zone
from tests.support.stricter import with_rule

LEDGER = "select address, state, landed, accepted, quarantined, duplicate, corrected from ops.file order by address"
CONFLICTS = """
select f.address, q.row_number, q.tenant_id, q.codes, q.errors, q.original, q.arrived_at from ops.quarantine q join ops.file f using (file_id) order by 1, 2
"""
EMPTIED = (
    "raw.orders, ops.file, ops.batch, ops.quarantine, ops.row_change, ops.stream_state, ops.correction, ops.quarantine_event, ops.file_replay, "
    "ops.movement, ops.partition_check"
)


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> Contract:
    """Orders as a stream that quarantines conflicts."""
    contract = replace(load_contract("orders"), version_field=None, on_conflict=OnConflict.QUARANTINE)
    monkeypatch.setattr("include.landing.load.load_contract", lambda stream: contract)
    return contract


def land(minute: int | None = None) -> LandingResult:
    """Lands what arrived, or what arrived in one minute."""
    window = (at(-1), at(9)) if minute is None else (at(5, 0, minute), at(5, 0, minute + 1))
    result = land_pending("orders", arrived_from=window[0], arrived_before=window[1])
    assert_books()
    return result


def assert_books() -> None:
    """Ledger, quarantine and book of movements add up, also for batches whose rows lost their place later."""
    assert_balanced()
    check_partitions("orders", everything=True)
    with connect(Role.OWNER) as connection:
        unequal = connection.execute(
            "select b.batch_id from ops.batch as b left join ops.movement as m using (batch_id) "
            "group by b.batch_id having coalesce(sum(m.row_count), 0) <> b.accepted"
        ).fetchall()
    assert unequal == []


@pytest.mark.parametrize("said", ["aba", "abb", "abca"])
def test_any_order_of_loading_ends_with_the_same_rows_books_and_quarantine(warehouse: Warehouse, said: str) -> None:
    """A file a minute, each with a statement about o1 and an event of its own: equal letters say the same."""
    for minute, customer in enumerate(said):
        put("orders", [order(f"own{minute}", "c1", at(0)), order("o1", customer, at(1))], arrived_at=at(5, 0, minute), source=f"s{minute}")
    seen: list[Any] = []
    for minutes in (*permutations(range(len(said))), (None,)):
        for minute in minutes:
            land(minute)
        seen.append((raw_rows("orders", without=VOLATILE), warehouse.rows(LEDGER), warehouse.rows(CONFLICTS)))
        warehouse.execute(f"truncate {EMPTIED} cascade")
    assert all(each == seen[0] for each in seen)
    table, books, conflicts = seen[0]
    first = {customer: said.index(customer) for customer in said}
    assert [(row["customer_id"], row["_arrived_at"]) for row in table if row["order_id"] == "o1"] == [(said[0], at(5))]
    refused = [minute for customer, minute in sorted(first.items(), key=lambda one: one[1])[1:]]
    assert [(row[1], row[3], json.loads(row[5])["customerId"], row[6]) for row in conflicts] == [
        (2, ["conflict"], said[minute], at(5, 0, minute)) for minute in refused
    ]
    expected = [(2, 1, 1, 0, 0) if minute in refused else (2, 1, 0, 1, 0) if first[said[minute]] != minute else (2, 2, 0, 0, 0) for minute in range(len(said))]
    assert [tuple(line[2:]) for line in books] == expected


def test_a_displaced_row_is_logged_where_it_stood_and_waits_for_builds(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    put("orders", [order("o1", "c2", at(2))], arrived_at=at(5, 0, 1))
    land()
    put("orders", [order("o1", "c1", at(1))], arrived_at=at(5))
    monkeypatch.setattr("include.warehouse.connection.LOCK_TIMEOUT_S", 1)
    with connect(Role.TRANSFORMER) as build:
        build.execute("select pg_advisory_xact_lock_shared(ops.raw_changes_key())")
        with pytest.raises(LandingBusy, match="running build"):
            land()
    assert list_quarantined(Filter()) == []
    assert (land().accepted, len(list_quarantined(Filter(code="conflict")))) == (1, 1)
    assert warehouse.rows("select position ->> 'customer_id', position ->> 'event_at' from ops.row_change") == [("c2", "2026-03-03T00:00:00+00:00")]
    assert list_corrections() == []
    batches = "select landed, accepted, quarantined, duplicate from ops.batch order by batch_id"
    assert warehouse.rows(batches) == [(1, 0, 1, 0), (1, 1, 0, 0)]


def test_the_error_names_the_event_whose_row_counts(warehouse: Warehouse) -> None:
    put("orders", [order("o1", "c1", at(1)), order("o1", "c2", at(1))], arrived_at=at(5))
    land()
    (row,) = list_quarantined(Filter())
    (error,) = row.errors
    assert (row.row_number, error["code"]) == (2, "conflict")
    assert warehouse.value(f"select customer_id from raw.orders where event_id = '{error['value']}'") == "c1"


def test_copies_in_several_chunks_of_one_batch_are_told_apart_too(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    from include.landing.readers import read_chunks

    monkeypatch.setattr("include.landing.batch.read_chunks", lambda sources, contract: read_chunks(sources, contract, 1))
    later = put("orders", [order("o1", "c2", at(1)), order("o1", "c1", at(1))], arrived_at=at(5, 0, 1))
    land()
    put("orders", [order("o2", "c1", at(1)), order("o1", "c3", at(1)), order("o1", "c1", at(1))], arrived_at=at(5))
    assert land().counts()["accepted"] == 2
    assert {row["order_id"]: row["customer_id"] for row in raw_rows("orders")} == {"o1": "c3", "o2": "c1"}
    # c1 was said first by the file that was landed second: its line takes the place of the other's.
    assert [(row.address == later.address, row.row_number) for row in reversed(list_quarantined(Filter()))] == [(False, 3), (True, 1)]


def test_originals_come_from_csv_and_parquet_and_are_rebuilt_where_the_zone_lost_them(warehouse: Warehouse, strict: Contract) -> None:
    flat = pl.DataFrame([order(f"o{n}", "late", at(1), note="x") for n in range(4)])
    csv = zone().put("orders", flat[:1].write_csv().encode(), arrived_at=at(5, 1), source="a", ext="csv")
    target = warehouse.zone_dir / "orders.parquet"
    flat[1:2].write_parquet(target)
    parquet = zone().put("orders", target.read_bytes(), arrived_at=at(5, 1), source="b", ext="parquet")
    target.unlink()
    gone = put("orders", [order("o2", "late", at(1), note="x")], arrived_at=at(5, 1), source="c")
    other = put("orders", [order("o3", "late", at(1), note="x")], arrived_at=at(5, 1), source="d")
    land()
    (warehouse.zone_dir / gone.address).unlink()
    (warehouse.zone_dir / other.address).write_text(json.dumps(order("o9", "another", at(1))))
    put("orders", [order(f"o{n}", "early", at(1), note="x") for n in range(4)], arrived_at=at(5))
    land_pending("orders", arrived_from=at(5), arrived_before=at(5, 1))
    assert_books()
    assert {row["customer_id"] for row in raw_rows("orders")} == {"early"}
    found = {row.address: row for row in list_quarantined(Filter(code="conflict"))}
    assert found[csv.address].original == flat[:1].write_csv(include_header=False).encode().strip()
    assert json.loads(found[parquet.address].original)["orderId"] == "o1"
    for address, number in ((gone.address, "o2"), (other.address, "o3")):
        row = found[address]
        assert any("rebuilt" in error["message"] for error in row.errors)
        payload = json.loads(row.original)
        assert (payload["orderId"], payload["note"], payload["tenantId"], payload["grossAmount"]) == (number, "x", "default", 100)
    # What was rebuilt is the row again: it lands as a duplicate of what the row said.
    warehouse.execute(f"truncate {EMPTIED} cascade")
    put("orders", [order("o2", "late", at(1), note="x")], arrived_at=at(6))
    put("orders", [found[gone.address].text], arrived_at=at(6, 1))
    assert land_pending("orders", arrived_from=at(6), arrived_before=at(7)).counts()["duplicate"] == 1


def test_what_people_have_settled_is_not_touched_again(warehouse: Warehouse) -> None:
    """A discarded conflict keeps its line, also when an earlier copy says the same; that copy is a duplicate of what was discarded."""
    put("orders", [order("o1", "a", at(1))], arrived_at=at(5))
    put("orders", [order("o1", "b", at(1))], arrived_at=at(5, 0, 2))
    land()
    warehouse.execute("update ops.quarantine set state = 'discarded'")
    before = warehouse.rows(CONFLICTS)
    put("orders", [order("o1", "b", at(1))], arrived_at=at(5, 0, 1))
    assert land().duplicate == 1
    assert warehouse.rows(CONFLICTS) == before


def replay_strictly(monkeypatch: pytest.MonkeyPatch, contract: Contract) -> LandingResult:
    """Replays every open row as a stream that quarantines conflicts, by the contract of today."""
    monkeypatch.setattr("include.landing.replay.load_contract", lambda stream: contract)
    result = replay("orders", Filter(state=State.OPEN), by="ann")
    assert_books()
    return result


def land_under(monkeypatch: pytest.MonkeyPatch, contract: Contract) -> None:
    monkeypatch.setattr("include.landing.load.load_contract", lambda stream: contract)


def test_a_replayed_conflict_is_still_one_and_is_left_alone_from_then_on(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, strict: Contract) -> None:
    put("orders", [order("o1", "a", at(1))], arrived_at=at(5))
    put("orders", [order("o1", "b", at(1))], arrived_at=at(5, 0, 2))
    land()
    (before,) = list_quarantined(Filter())
    result = replay_strictly(monkeypatch, strict)
    assert (result.landed, result.quarantined) == (1, 1)
    assert [row.quarantine_id for row in list_quarantined(Filter())] == [before.quarantine_id]
    assert warehouse.rows("select outcome, codes from ops.quarantine_event") == [("failed", ["conflict"])]
    put("orders", [order("o1", "b", at(1))], arrived_at=at(5, 0, 1))  # somebody has dealt with the entry: it stays what it is
    assert land().duplicate == 1
    assert [row.address for row in list_quarantined(Filter())] == [before.address]


def test_a_row_that_passes_at_its_replay_and_arrived_first_takes_the_place_of_the_stored_one(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, strict: Contract
) -> None:
    land_under(monkeypatch, with_rule(strict, "no_a", "customer_id <> 'a'"))
    put("orders", [order("o1", "a", at(1)), order("o2", "a", at(1))], arrived_at=at(5))
    later = put("orders", [order("o1", "b", at(1)), order("o2", "b", at(1))], arrived_at=at(5, 0, 1))
    assert land().counts()["accepted"] == 2
    result = replay_strictly(monkeypatch, strict)
    assert (result.accepted, result.quarantined) == (2, 0)
    assert {row["customer_id"] for row in raw_rows("orders")} == {"a"}
    assert {(row.address, row.row_number, tuple(row.codes)) for row in list_quarantined(Filter())} == {
        (later.address, number, ("conflict",)) for number in (1, 2)
    }


@pytest.mark.parametrize(("said", "state", "outcome"), [("c", "open", None), ("b", "replayed", "duplicate")])
def test_a_row_that_came_through_a_replay_loses_its_place_too(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, strict: Contract, said: str, state: str, outcome: str | None
) -> None:
    land_under(monkeypatch, with_rule(strict, "no_b", "customer_id <> 'b'"))
    put("orders", [order("o1", "b", at(1))], arrived_at=at(5, 0, 1))
    land()
    assert replay_strictly(monkeypatch, strict).accepted == 1
    land_under(monkeypatch, strict)
    put("orders", [order("o1", said, at(1))], arrived_at=at(5))
    assert land().accepted == 1
    assert [row["customer_id"] for row in raw_rows("orders")] == [said]
    assert warehouse.rows("select state, outcome from ops.quarantine") == [(state, outcome)]
    told = warehouse.rows("select outcome, done_by from ops.quarantine_event order by event_id")
    assert told == [("accepted", "ann"), ("failed" if state == "open" else "duplicate", "landing")]
    if state == "open":
        assert replay_strictly(monkeypatch, strict).quarantined == 1


def test_a_conflict_that_repeats_a_row_before_a_replayed_one_does_not_stop_the_stream(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, strict: Contract
) -> None:
    """The replayed row goes back to its own line, so nobody needs the line of the conflict, which now says the same as the row that counts."""
    land_under(monkeypatch, with_rule(strict, "no_a", "customer_id <> 'a'"))
    put("orders", [order("o1", "a", at(1))], arrived_at=at(5, 0, 1))
    land()
    assert replay_strictly(monkeypatch, strict).accepted == 1
    land_under(monkeypatch, strict)
    put("orders", [order("o1", "b", at(1))], arrived_at=at(5, 0, 2))
    assert land().quarantined == 1
    put("orders", [order("o1", "b", at(1))], arrived_at=at(5))
    assert land().accepted == 1
    assert [row["customer_id"] for row in raw_rows("orders")] == ["b"]
    assert [(json.loads(row.original)["customerId"], row.state) for row in list_quarantined(Filter(state=None))] == [("b", "open"), ("a", "open")]
    result = replay_strictly(monkeypatch, strict)
    assert (result.duplicate, result.quarantined) == (1, 1)
    assert [json.loads(row.original)["customerId"] for row in list_quarantined(Filter())] == ["a"]


def test_rows_of_a_file_that_was_quarantined_whole_are_told_apart_at_its_replay(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, strict: Contract
) -> None:
    """The file could be read only later; then its rows are new in the quarantine, and one that arrived first takes its place."""
    monkeypatch.setattr("include.landing.batch.read_chunks", lambda sources, contract: iter(unreadable(sources)))
    put("orders", [order("o1", "a", at(1)), order("o1", "c", at(1)), order("o2", "c", at(1))], arrived_at=at(5))
    land(0)
    monkeypatch.undo()
    from tests.conftest import set_environment

    set_environment(monkeypatch, TIDEMARK_WAREHOUSE_URL=warehouse.url, TIDEMARK_LANDING_URL=warehouse.zone_dir.as_uri())
    land_under(monkeypatch, strict)
    put("orders", [order("o1", "b", at(1))], arrived_at=at(5, 0, 1))
    land(1)
    result = replay_strictly(monkeypatch, strict)
    assert (result.accepted, result.quarantined) == (2, 1)
    assert {row["order_id"]: row["customer_id"] for row in raw_rows("orders")} == {"o1": "a", "o2": "c"}
    assert sorted((row.row_number, json.loads(row.original)["customerId"]) for row in list_quarantined(Filter(code="conflict"))) == [(1, "b"), (2, "c")]
    put("orders", [order("o2", "early", at(1))], arrived_at=at(4))
    assert land().accepted == 1


def unreadable(sources: Any) -> Any:
    for source in sources:
        raise UnreadableFile(source.position, "no idea")
    yield from ()
