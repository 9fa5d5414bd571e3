"""Rows come back from the lake as they were: a month into the warehouse that dropped it, and everything into an empty one."""

from __future__ import annotations

from datetime import date

import pytest

from include.lake import LakeDamaged, LakeError, export_stream, live_files, restore_month, restore_stream
from include.lake.compact import compact_stream
from include.lake.restore import restore_table
from include.lake.store import open_lake
from include.landing import binary, check_partitions, land_everything, land_pending
from include.warehouse import Role, connect
from tests.conftest import TEMPLATE, TEST_DATABASE, Warehouse, set_environment
from tests.support.databases import clone_database, drop_database
from tests.support.lake import assert_lake_is_raw, drop_month, stored_rows
from tests.support.landing import assert_balanced
from tests.support.payloads import at, customer, maintenance, order, put, telemetry

STREAM = "device_telemetry"
MARCH = date(2026, 3, 1)


def land(stream: str) -> None:
    land_pending(stream, arrived_from=at(-60), arrived_before=at(60))


@pytest.fixture(params=["file", "s3"])
def in_store(request: pytest.FixtureRequest, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """A fresh warehouse whose lake is in a folder, and in a bucket."""
    if request.param == "s3":
        set_environment(monkeypatch, TIDEMARK_LAKE_URL=request.getfixturevalue("s3_url"))
    return warehouse


def test_a_month_comes_back_with_its_envelope_and_its_movements(in_store):
    for number in range(3):
        put(STREAM, [telemetry(f"m{n}", at(number, n), note=number) for n in range(4)], arrived_at=at(10, number), tenant="acme" if number else None)
        land(STREAM)
        export_stream(STREAM)
    put(STREAM, [telemetry("m0", at(0), temperature=1.0)], arrived_at=at(9), source="earlier")
    put(STREAM, [telemetry("m0", at(-10))], arrived_at=at(11))
    land(STREAM)
    rows = stored_rows(STREAM)
    drop_month(STREAM, MARCH)
    compact_stream(STREAM)
    in_store.execute(f"select ops.make_month_aside('{STREAM}', '2026-03-01')", Role.LOADER)  # of somebody who forgot to attach it
    with connect(Role.LOADER) as connection:
        restored = restore_month(connection, STREAM, date(2026, 3, 31))
    assert restored.partitions == {f"{STREAM}_y2026m03": 12}
    assert stored_rows(STREAM) == rows
    check_partitions(STREAM, everything=True)
    assert_balanced()
    assert_lake_is_raw(STREAM)
    assert in_store.rows(f"select kind, accepted from ops.batch where batch_id = {restored.batch_id}") == [("restore", 12)]
    original = (
        "select rows_of_batch, sum(row_count) from ops.movement where partition like '%m03' and reason <> '{}' group by 1 having sum(row_count) <> 0 order by 1"
    )
    assert in_store.rows(original.format("none")) == in_store.rows(f"select _batch_id, count(*) from raw.{STREAM}_y2026m03 group by 1 order by 1")
    assert in_store.value(f"select last_batch_id from ops.stream_state where stream = '{STREAM}'") == restored.batch_id
    # It is a partition like the others: its index tells a duplicate, a load adds to it, an export finds what is new.
    put(STREAM, [telemetry("m1", at(0, 1), note=0), telemetry("new", at(0, 1))], arrived_at=at(12), source="again")
    land(STREAM)
    assert in_store.rows("select accepted, duplicate from ops.batch order by batch_id desc limit 1") == [(1, 1)]
    assert export_stream(STREAM).rows == 1
    assert_lake_is_raw(STREAM)
    # The loader may not write the partition itself any more.
    with pytest.raises(Exception, match="permission denied"):
        in_store.execute(f"delete from raw.{STREAM}_y2026m03", Role.LOADER)


def test_what_cannot_be_restored_is_refused_and_leaves_nothing(warehouse, monkeypatch):
    put(STREAM, [telemetry("m1", at(1)), telemetry("m2", at(2))], arrived_at=at(3))
    put("orders", [order("o1", "c1", at(0))], arrived_at=at(3))
    land(STREAM)
    land("orders")
    export_stream("orders")

    def refused(error: type[Exception], match: str, stream: str = STREAM, month: date = MARCH) -> None:
        with pytest.raises(error, match=match), connect(Role.LOADER) as connection:
            restore_month(connection, stream, month)

    refused(LakeError, "no file of device_telemetry for 2026-03")
    drop_month(STREAM, MARCH)
    before = warehouse.rows("select count(*), max(batch_id) from ops.batch")
    refused(LakeError, "not partitioned by month", stream="orders")
    with pytest.raises(LakeError, match=r"raw\.orders holds rows"), connect(Role.LOADER) as connection:
        restore_table(connection, "orders")
    with connect(Role.LOADER) as connection:
        one, two = live_files(connection, STREAM)
    lake = open_lake()
    kept = lake.read(two.address)
    lake.write(two.address, kept[:-1], is_new=False)
    refused(LakeDamaged, two.address)
    lake.write(two.address, lake.read(one.address), is_new=False)
    warehouse.execute(
        "update ops.file f set content_hash = o.content_hash, size_bytes = o.size_bytes from ops.file o "
        f"where f.file_id = {two.file_id} and o.file_id = {one.file_id}"
    )
    refused(LakeDamaged, f"{two.address} holds")
    lake.write(two.address, kept, is_new=False)
    warehouse.execute(f"update ops.file set content_hash = sha256('\\x{kept.hex()}'), size_bytes = {len(kept)} where file_id = {two.file_id}")
    with monkeypatch.context() as patch:  # rows that are lost between file and table
        patch.setattr(binary, "copy_data", lambda frame, jsonb, real=binary.copy_data: real(frame.head(0), jsonb))
        refused(LakeDamaged, "what came back for 2026-03-02, 2026-03-03 is not what the lake holds")
    assert stored_rows(STREAM) == []
    assert warehouse.rows("select count(*), max(batch_id) from ops.batch") == before
    assert warehouse.value("select count(*) from pg_class where relname like 'device_telemetry_y%'") == 0


def test_an_empty_warehouse_gets_every_row_back_and_takes_the_same_files_for_duplicates(warehouse):
    streams = (STREAM, "orders", "customers", "maintenance_log")
    put("orders", [order("o1", "c1", at(0)), order("o2", "c1", at(1))], arrived_at=at(2))
    put("customers", [customer("c1", at(1))], arrived_at=at(2), tenant="acme")
    put("maintenance_log", [maintenance("l1", "m1", at(1))], arrived_at=at(2))
    put(STREAM, [telemetry("m1", at(1), extra="x"), telemetry("m1", at(-5)), '{"broken'], arrived_at=at(2))
    for stream in streams:
        land(stream)
        export_stream(stream)
    put("orders", [order("o1", "c7", at(3), updated_at=at(4))], arrived_at=at(5))
    put(STREAM, [telemetry("m2", at(4))], arrived_at=at(5))
    for stream in streams:
        land(stream)
        export_stream(stream)
        compact_stream(stream)
    rows = {stream: stored_rows(stream) for stream in streams}
    last_file, last_batch = warehouse.rows("select max(file_id), max(_batch_id) from ops.file, raw.device_telemetry")[0]

    drop_database(TEST_DATABASE)
    clone_database(TEMPLATE, TEST_DATABASE)
    warehouse.execute(f"select ops.ensure_partitions('{STREAM}', '2026-03-01', '2026-03-01')", Role.LOADER)  # as keep_house makes ahead
    for stream in streams:
        restored = restore_stream(stream)
        assert sum(done.rows for done in restored) == len(rows[stream])
        assert stored_rows(stream) == rows[stream]
        assert_lake_is_raw(stream)
        assert restore_stream(stream) == []
    check_partitions(everything=True)
    assert_balanced()
    assert warehouse.rows("select distinct state from ops.file where kind = 'arrival'") == [("restored",)]
    assert warehouse.value("select count(*) from ops.batch where batch_id <= (select max(_batch_id) from raw.device_telemetry)") == 0

    # The zone still has the files: they land again, and nothing is stored twice or changes hands.
    for stream in streams:
        result = land_everything(stream)
        # A state of an order that a later one had superseded says something else than what is stored, and still loses to it.
        assert (result.accepted, result.corrected) == (0, 1 if stream == "orders" else 0)
        assert stored_rows(stream) == rows[stream]
    assert_balanced()
    put(STREAM, [telemetry("m3", at(6))], arrived_at=at(7))
    assert land_everything(STREAM).accepted == 1
    new_file, new_batch = warehouse.rows(f"select _file_id, _batch_id from raw.{STREAM} where device_id = 'm3'")[0]
    assert new_file > last_file
    assert new_batch > last_batch
    assert export_stream(STREAM).rows == 1
    assert_lake_is_raw(STREAM)


def test_a_warehouse_that_has_landed_already_does_not_take_over_a_lake(warehouse):
    put(STREAM, [telemetry("m1", at(1))], arrived_at=at(2))
    land(STREAM)
    export_stream(STREAM)
    with pytest.raises(LakeError, match=r"no orders/_manifest\.json"):
        restore_stream("orders")
    drop_database(TEST_DATABASE)
    clone_database(TEMPLATE, TEST_DATABASE)
    put("orders", [order("o1", "c1", at(0))], arrived_at=at(2))
    land("orders")
    with pytest.raises(LakeError, match="cannot be entered under their numbers"):
        restore_stream(STREAM)
    land(STREAM)
    with pytest.raises(LakeError, match="came another way"):
        restore_stream(STREAM)
    assert warehouse.value("select count(*) from ops.file where kind = 'lake' or state = 'restored'") == 0
