"""`ops.correction`: what was said before, written with the load, the same whatever was loaded first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from typing import Any

import psycopg
import pytest

from include.contracts import load_contract
from include.contracts.model import OnConflict
from include.landing import LandingResult, land_pending
from include.landing.corrections import RecordedCorrection, list_corrections
from include.landing.movements import check_partitions
from include.warehouse import Role, connect
from tests.conftest import Warehouse
from tests.support.landing import VOLATILE, assert_balanced, raw_rows
from tests.support.payloads import Payload, at, customer, maintenance, order, put, telemetry

EMPTIED = (
    "raw.orders, raw.customers, raw.device_telemetry, ops.file, ops.batch, ops.quarantine, ops.row_change, ops.stream_state, ops.correction, "
    "ops.movement, ops.partition_check"
)
ROWS = """
select c.tenant_id, c.step, c.key, c.is_applied, c.old_content, c.new_content, c.old_known_from, c.old_known_to, c.new_known_from,
    o.address, c.old_row_number, n.address, c.new_row_number
from ops.correction c left join ops.file o on o.file_id = c.old_file_id left join ops.file n on n.file_id = c.new_file_id order by c.event_id, c.step
"""


def land(stream: str, minute: int | None = None) -> LandingResult:
    """Lands what arrived, or what arrived in one minute."""
    window = (at(-1), at(9)) if minute is None else (at(5, 0, minute), at(5, 0, minute + 1))
    result = land_pending(stream, arrived_from=window[0], arrived_before=window[1])
    assert_balanced()
    check_partitions(stream, everything=True)
    return result


def in_every_order(warehouse: Warehouse, stream: str, payloads: Sequence[Payload]) -> list[Any]:
    """Corrections and table after loading one file a payload in every order, and after loading all of them at once."""
    seen = []
    for number, payload in enumerate(payloads):
        put(stream, [payload], arrived_at=at(5, 0, number), source=f"s{number}")
    for minutes in (*permutations(range(len(payloads))), (None,)):
        for minute in minutes:
            land(stream, minute)
        seen.append((warehouse.rows(ROWS), raw_rows(stream, without=VOLATILE)))
        warehouse.execute(f"truncate {EMPTIED} cascade")
    return seen


def test_three_states_of_an_order_are_the_same_chain_in_any_order(warehouse: Warehouse) -> None:
    states = [order("o1", "c1", at(0, number), gross=20.0 + number / 3, updated_at=at(1, number), note={"n": number}) for number in range(3)]
    seen = in_every_order(warehouse, "orders", states)
    assert len(seen) == 7
    assert all(each == seen[0] for each in seen)
    first, second = seen[0][0]
    assert first[:4] == ("default", 1, {"order_id": "o1"}, True)
    assert (first[4]["gross_usd"], first[5]["gross_usd"], second[4]["gross_usd"], second[5]["gross_usd"]) == (20.0, 20 + 1 / 3, 20 + 1 / 3, 20 + 2 / 3)
    assert (first[4]["event_at"], first[4]["_extra"], first[4]["channel_code"]) == ("2026-03-01T00:00:00+00:00", {"note": {"n": 0}}, "online")
    assert set(first[4]) == {field.name for field in load_contract("orders").fields} | {"_extra"}
    assert (first[6], first[7], second[6], second[7]) == (at(5), at(5, 0, 1), at(5, 0, 1), at(5, 0, 2))
    assert ("s0" in first[9], "s1" in first[11], first[10], first[12]) == (True, True, 1, 1)


def test_three_versions_of_a_customer_are_ordered_by_arrival(warehouse: Warehouse) -> None:
    seen = in_every_order(warehouse, "customers", [customer("c1", at(0), city=city) for city in ("Hamburg", "Kiel", "Bremen")])
    assert all(each == seen[0] for each in seen)
    assert cities(seen[0][0]) == [("Hamburg", "Kiel", at(5), at(5, 0, 1)), ("Kiel", "Bremen", at(5, 0, 1), at(5, 0, 2))]
    assert [(row["city_name"], row["_known_at"]) for row in seen[0][1]] == [("Bremen", at(5, 0, 2))]


def test_a_customer_who_moves_and_moves_back_has_three_statements_in_any_order(warehouse: Warehouse) -> None:
    seen = in_every_order(warehouse, "customers", [customer("c1", at(0), city=city) for city in ("Hamburg", "Kiel", "Hamburg")])
    for rows, table in seen:
        assert cities(rows) == [("Hamburg", "Kiel", at(5), at(5, 0, 1)), ("Kiel", "Hamburg", at(5, 0, 1), at(5, 0, 2))]
        assert table == seen[0][1]
    assert [(row["city_name"], row["_known_at"]) for row in seen[0][1]] == [("Hamburg", at(5, 0, 2))]
    # Where both statements of Hamburg came before Kiel, they had been counted as one and its duplicate: nobody knows any more which file said the first.
    assert {rows[0][9] is None for rows, _ in seen} == {True, False}


def cities(rows: list[Any]) -> list[tuple[Any, ...]]:
    return [(row[4]["city_name"], row[5]["city_name"], row[6], row[7]) for row in rows]


def test_a_reading_that_came_too_late_is_recorded_and_not_applied(warehouse: Warehouse) -> None:
    seen = in_every_order(warehouse, "device_telemetry", [telemetry("m1", at(0), temperature=temperature) for temperature in (50.0, 60.0, 0.1 + 0.2)])
    assert all(each == seen[0] for each in seen)
    rows = seen[0][0]
    assert sorted((row[3], row[4]["temperature_c"], row[5]["temperature_c"], row[7]) for row in rows) == [
        (False, 50.0, 0.1 + 0.2, None),
        (False, 50.0, 60.0, None),
    ]
    assert {row[2]["event_at"] for row in rows} == {"2026-03-01T00:00:00+00:00"}
    assert [row["temperature_c"] for row in seen[0][1]] == [50.0]


def test_a_copy_that_says_the_same_and_was_known_earlier_dates_the_knowledge(warehouse: Warehouse) -> None:
    """keep_latest, the later of two equal copies loaded first: the row is known since the earlier one, in either order."""
    seen = in_every_order(warehouse, "customers", [customer("c1", at(0)), customer("c1", at(0))])
    assert all(each == seen[0] for each in seen)
    assert seen[0][0] == []
    assert [(row["_known_at"], row["_arrived_at"]) for row in seen[0][1]] == [(at(5), at(5, 0, 1))]


def test_a_repeated_row_only_changes_hands(warehouse: Warehouse) -> None:
    put("customers", [customer("c1", at(0)), customer("c2", at(0))], arrived_at=at(1))
    land("customers")
    before = {row["customer_id"]: row for row in raw_rows("customers")}
    second = put("customers", [customer("c1", at(0))], arrived_at=at(2))
    with connect(Role.TRANSFORMER) as build:
        build.execute("select pg_advisory_xact_lock_shared(ops.raw_changes_key())")
        assert land("customers").duplicate == 1  # and waits for no build
    after = {row["customer_id"]: row for row in raw_rows("customers")}
    assert after["c2"] == before["c2"]
    assert after["c1"] == before["c1"] | {"_arrived_at": at(2), "_file_id": after["c1"]["_file_id"], "file": second.address}
    assert warehouse.value("select count(*) from ops.row_change") == 0


def test_a_correction_of_a_row_that_the_same_batch_dated_anew_still_logs_where_the_row_stood(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    from include.landing.readers import read_chunks

    monkeypatch.setattr("include.landing.batch.read_chunks", lambda sources, contract: read_chunks(sources, contract, 1))
    contract = replace(load_contract("orders"), version_field=None, on_conflict=OnConflict.KEEP_LATEST)
    monkeypatch.setattr("include.landing.load.load_contract", lambda stream: contract)
    put("orders", [order("o1", "c1", at(0))], arrived_at=at(2))
    land("orders")
    put("orders", [order("o1", "c1", at(0))], arrived_at=at(1))  # says the same, known earlier
    put("orders", [order("o1", "c2", at(1))], arrived_at=at(3))
    land("orders")
    logged = warehouse.rows("select position ->> 'customer_id', position ->> 'event_at' from ops.row_change")
    assert ("c1", "2026-03-01T00:00:00+00:00") in logged
    assert [(row.old_content["customer_id"], row.old_known_from) for row in list_corrections("orders")] == [("c1", at(1))]


def test_rows_that_one_batch_wrote_and_replaced_are_recorded_too(warehouse: Warehouse) -> None:
    put("orders", [order("o1", "c1", at(0), gross=float(20 + n), updated_at=at(0, n)) for n in range(3)], arrived_at=at(1))
    assert land("orders").corrected == 2
    assert [(row.old_content["gross_usd"], row.new_content["gross_usd"]) for row in reversed(list_corrections())] == [(20, 21), (21, 22)]
    assert warehouse.value("select count(*) from ops.row_change") == 0


def test_a_batch_without_corrections_asks_nothing_more_of_the_server(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nothing to record")

    put("orders", [order("o1", "c1", at(0)), order("o2", "c1", at(0)), order("o1", "c1", at(0))], arrived_at=at(1))
    put("orders", [order("o1", "c1", at(0)), order("o3", "c1", at(0))], arrived_at=at(2))
    monkeypatch.setattr("include.landing.corrections.record", refuse)
    land("orders", None)
    monkeypatch.setattr("include.landing.store.restate", refuse)
    put("orders", [order("o1", "c1", at(0)), order("o4", "c1", at(0))], arrived_at=at(3))
    assert (land("orders").duplicate, warehouse.value("select count(*) from raw.orders")) == (1, 4)


def test_corrections_come_and_go_with_their_load(warehouse: Warehouse, owner: psycopg.Connection) -> None:
    put("orders", [order("o1", "c1", at(0))], arrived_at=at(1))
    land("orders")
    owner.execute("alter table raw.orders add constraint odd check (customer_id <> 'bad') not valid")
    put("orders", [order("o1", "bad", at(0), updated_at=at(0, 5))], arrived_at=at(2))
    assert land("orders").quarantined == 1
    assert list_corrections() == []


def test_tenants_have_corrections_of_their_own(warehouse: Warehouse) -> None:
    for minute, gross in enumerate((20.0, 30.0)):
        payload = order("o1", "c1", at(0), gross=gross, updated_at=at(1, minute))
        put("orders", [payload, payload | {"tenantId": "acme", "grossAmount": 40.0, "netAmount": 35.0}], arrived_at=at(2, 0, minute))
    land("orders")
    assert sorted((row.tenant_id, row.old_content["gross_usd"]) for row in list_corrections()) == [("acme", 40), ("default", 20)]


def test_only_the_loader_reads_and_writes_and_nobody_deletes(warehouse: Warehouse) -> None:
    put("customers", [customer("c1", at(0), email="a@example.invalid")], arrived_at=at(1))
    put("customers", [customer("c1", at(0), email="b@example.invalid")], arrived_at=at(2))
    land("customers")
    (row,) = list_corrections()
    assert (row.old_content["email"], row.new_content["email"]) == ("a@example.invalid", "b@example.invalid")
    assert not any(name.endswith("_pseudonym") for name in row.old_content)
    for role in (Role.ANALYST, Role.API, Role.ML, Role.TRANSFORMER):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            warehouse.rows("select * from ops.correction", role)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        warehouse.execute("delete from ops.correction", Role.LOADER)


def test_corrections_are_listed_by_stream_key_event_time_and_batch(warehouse: Warehouse) -> None:
    put(
        "orders",
        [order("o1", "c1", at(0)), order("o1", "c2", at(0), updated_at=at(0, 1)), order("o2", "c1", at(0)), order("o2", "c2", at(0), updated_at=at(1))],
        arrived_at=at(2),
    )
    put("maintenance_log", [maintenance("w1", "m1", at(0)), maintenance("w1", "m2", at(0), updated_at=at(1))], arrived_at=at(2))
    land("orders")
    land("maintenance_log")
    (log,) = list_corrections("maintenance_log")
    assert list(log.changes) == [("device_id", "m1", "m2"), ("updated_at", "2026-03-01T00:00:00+00:00", "2026-03-02T00:00:00+00:00")]
    assert [row.stream for row in list_corrections()] == ["maintenance_log", "orders", "orders"]

    def found(**filters: Any) -> list[RecordedCorrection]:
        return list_corrections("orders", **filters)

    (one,) = found(key={"order_id": "o1"})
    assert found(event_id=bytes.fromhex(one.event_id)) == [one]
    assert found(key={"order_id": "o3"}) == []
    assert found(key={"customer_id": "c1"}) == []
    assert len(found(batch_id=one.batch_id)) == 2
    assert found(batch_id=log.batch_id) == []
    assert len(found(since=one.recorded_at)) == 2
    assert found(since=one.recorded_at + timedelta(days=1)) == []
    assert len(found(limit=1)) == 1


def test_an_edition_without_a_time_is_quarantined_whole_and_a_late_one_loses(warehouse: Warehouse) -> None:
    """Editions of ferry counts: the one with the newest slot counts; a slot after the arrival cannot date an edition."""
    from tests.support.payloads import zone

    def edition(minute: int, *rows: str) -> None:
        data = "\n".join(["_id,Timestamp,Redemption Count,Sales Count", *rows]).encode()
        zone().put("ticket_counts", data, arrived_at=at(5, 0, minute), source="import", ext="csv", mapping="toronto_ferry")

    edition(0, "1,2026-03-04T10:00:00,1,1", "2,2026-03-01T10:00:00,7,7")
    edition(1, "1,2026-03-02T10:00:00,1,1", "2,2026-03-01T10:00:00,5,5", "3,2099-01-01T00:00:00,1,1")
    edition(2, "1,no time,1,1")
    edition(3)
    result = land("ticket_counts")
    assert (result.accepted, result.corrected, result.quarantined) == (3, 1, 2)
    assert sorted(row["sold_count"] for row in raw_rows("ticket_counts")) == [1, 1, 7]
    (row,) = list_corrections("ticket_counts")
    assert (row.old_content["sold_count"], row.new_content["sold_count"], row.old_known_from) == (5, 7, at(1, 15))
    dated = warehouse.rows("select state, published_at from ops.file order by arrived_at")
    assert dated == [("landed", at(3, 15)), ("landed", at(1, 15)), ("quarantined", None), ("landed", None)]
    assert warehouse.value("select errors -> 0 ->> 'message' from ops.quarantine where row_number is null") == (
        "mapping toronto_ferry dates a publication by its newest Timestamp, and no row has a time there"
    )


def test_an_edition_that_could_not_be_read_is_dated_at_its_replay(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    from include.landing.errors import UnreadableFile
    from include.landing.quarantine import Filter
    from include.landing.replay import replay
    from tests.support.payloads import zone

    def edition(minute: int, *rows: str) -> None:
        data = "\n".join(["_id,Timestamp,Redemption Count,Sales Count", *rows]).encode()
        zone().put("ticket_counts", data, arrived_at=at(5, 0, minute), source="import", ext="csv", mapping="toronto_ferry")

    def fail(source: Any, *_: object) -> None:
        raise UnreadableFile(source.position, "no idea")

    with monkeypatch.context() as patch:
        patch.setattr("include.landing.batch.published_at", fail)
        edition(0, "1,2026-03-04T10:00:00,1,1", "2,2026-03-01T10:00:00,7,7")
        assert land("ticket_counts").quarantined == 1
    edition(1, "1,2026-03-02T10:00:00,1,1", "2,2026-03-01T10:00:00,5,5")
    land("ticket_counts")
    result = replay("ticket_counts", Filter(), by="ann")
    assert_balanced()
    assert (result.accepted, result.corrected) == (1, 1)
    assert warehouse.rows("select published_at from ops.file order by arrived_at") == [(at(3, 15),), (at(1, 15),)]
    assert sorted(row["sold_count"] for row in raw_rows("ticket_counts")) == [1, 1, 7]
    # An edition that is landed after the replay is compared with the publication, not with the arrival.
    edition(2, "1,2026-03-03T10:00:00,1,1", "2,2026-03-01T10:00:00,6,6")
    land("ticket_counts")
    assert sorted(row["sold_count"] for row in raw_rows("ticket_counts")) == [1, 1, 1, 7]
    chain = sorted(list_corrections(), key=lambda row: row.old_known_from)
    assert [(row.old_content["sold_count"], row.new_content["sold_count"]) for row in chain] == [(5, 6), (6, 7)]
