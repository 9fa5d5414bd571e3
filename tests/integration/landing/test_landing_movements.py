"""The rows of every raw partition are the sum of their movements, and a difference says where it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from include.landing import RowsUnaccounted, check_landing, check_partitions, land_pending
from include.warehouse import Role, connect
from tests.support.payloads import at, order, put, telemetry

NOW = at(40)


def land(stream: str) -> None:
    assert not land_pending(stream, arrived_from=at(-100), arrived_before=NOW).failed_files


def test_loads_and_corrections_are_entered_by_partition(warehouse):
    put("device_telemetry", [telemetry("m1", at(day, 1)) for day in (-20, 0, 1)], arrived_at=at(2))
    land("device_telemetry")
    put("orders", [order(f"o{n}", "c1", at(0)) for n in range(40)], arrived_at=at(1))
    land("orders")
    put("orders", [order("o1", "c1", at(0), gross=40.0, updated_at=at(0, 3)), order("new", "c1", at(0))], arrived_at=at(2))
    land("orders")
    telemetry_book = warehouse.rows(
        "select partition, reason, row_count, batch_id = rows_of_batch from ops.movement where stream = 'device_telemetry' order by 1"
    )
    assert telemetry_book == [("device_telemetry_y2026m02", "load", 1, True), ("device_telemetry_y2026m03", "load", 2, True)]
    orders = warehouse.rows("select reason, sum(row_count), count(distinct partition) > 1 from ops.movement where stream = 'orders' group by 1 order by 1")
    assert orders == [("correction", 0, False), ("load", 41, True)]
    corrected = "select row_count, batch_id = rows_of_batch from ops.movement where reason = 'correction' order by 1"
    assert warehouse.rows(corrected) == [(-1, False), (1, True)]
    stored = "select (select tableoid::regclass::text), count(*) from raw.orders group by 1 order by 1"
    booked = "select 'raw.' || partition, sum(row_count) from ops.movement where stream = 'orders' group by 1 order by 1"
    assert warehouse.rows(stored) == warehouse.rows(booked)
    assert check_partitions() == len(warehouse.rows(booked)) + 2
    assert check_partitions() == 0, "what has not moved is not counted again"
    assert check_partitions(everything=True) >= 10


def test_a_batch_that_replaces_its_own_row_moves_one_row(warehouse):
    rows = [order("o1", "c1", at(0), updated_at=at(0, 1)), order("o1", "c1", at(0), gross=99.0, updated_at=at(0, 2))]
    for number, row in enumerate(rows):
        put("orders", [row], arrived_at=at(1, 0, number))
    land("orders")
    assert warehouse.rows("select reason, row_count from ops.movement") == [("load", 1)]


@pytest.mark.parametrize(
    ("falsify", "there"),
    [
        ("delete from raw.orders where order_id = 'o1'", 1),
        ("insert into raw.orders select (jsonb_populate_record(o, '{\"event_id\": \"\\\\x00\"}')).* from raw.orders o where order_id = 'o1'", 3),
    ],
)
def test_lost_and_doubled_rows_make_the_check_red_and_are_located(warehouse, falsify, there):
    put("orders", [order("o1", "c1", at(0))], arrived_at=at(1))
    land("orders")
    check_landing("orders", now=at(1))
    put("orders", [order("o2", "c1", at(0))], arrived_at=at(2))
    land("orders")
    check_landing("orders", now=at(2))
    warehouse.execute(falsify)
    with pytest.raises(RowsUnaccounted, match=r"orders: raw\.orders_h\d holds .* rows, its movements say .*batch \d+: "):
        check_partitions(everything=True)
    assert warehouse.value("select count(*) from raw.orders") == there


def test_a_falsified_partition_is_red_with_the_next_load_that_moves_it(warehouse):
    put("device_telemetry", [telemetry("m1", at(0, 1)), telemetry("m2", at(0, 1))], arrived_at=at(0, 2))
    land("device_telemetry")
    check_landing("device_telemetry", now=at(0, 2))
    warehouse.execute("delete from raw.device_telemetry where device_id = 'm1'")
    check_landing("device_telemetry", now=at(0, 2))
    put("device_telemetry", [telemetry("m3", at(0, 1))], arrived_at=at(0, 3))
    land("device_telemetry")
    for _ in range(2):  # it stays red until somebody has looked
        with pytest.raises(RowsUnaccounted, match=r"device_telemetry_y2026m03 holds 2 rows, its movements say 3 \(batch 1: 1 rows instead of 2\)"):
            check_landing("device_telemetry", now=at(0, 3))


def test_two_checks_of_a_partition_at_once_do_not_fail_each_other(warehouse, owner):
    put("device_telemetry", [telemetry("m1", at(0, 1))], arrived_at=at(0, 2))
    land("device_telemetry")
    assert check_partitions("device_telemetry") == 1
    with ThreadPoolExecutor(1) as pool, connect(Role.LOADER) as other:
        other.execute("update ops.partition_check set checked_at = clock_timestamp()")
        check = pool.submit(check_partitions, "device_telemetry", everything=True)
        while not owner.execute("select count(*) from pg_locks, pg_sleep(0.05) where not granted").fetchone()[0]:
            assert not check.done(), check.result()
        other.commit()
        assert check.result() == 1


def test_the_book_cannot_be_rewritten_by_the_loader(warehouse):
    put("orders", [order("o1", "c1", at(0))], arrived_at=at(1))
    land("orders")
    for statement in ("update ops.movement set row_count = 5", "delete from ops.movement"):
        with pytest.raises(Exception, match="permission denied"):
            warehouse.execute(statement, role=Role.LOADER)
