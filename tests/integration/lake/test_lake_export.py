"""The lake holds exactly the rows of raw: after exports, corrections, compaction and sweeps, in a folder and in S3."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from include.contracts import load_contract
from include.lake import LakeBusy, LakeDamaged, LakeError, compact, digest, export_days, export_stream, live_files, parquet, verify
from include.lake.compact import compact_stream
from include.lake.files import holding_lake, lock_lake
from include.lake.store import MANIFEST, open_lake, read_manifest
from include.lake.sweep import sweep_stream
from include.landing import land_pending
from include.landing.object_store import ObjectStore
from include.stack.housekeeping import prune_ops_history
from include.warehouse import Role, connect
from tests.conftest import Warehouse, set_environment
from tests.support.lake import age_files, assert_lake_is_raw, bytes_of, keys_of, lake_rows, stored_rows
from tests.support.landing import assert_balanced
from tests.support.payloads import at, customer, order, put, telemetry

STREAM = "device_telemetry"
LINES = "select state, event_date::text, first_batch_id, last_batch_id, row_count from ops.file where kind = 'lake' order by file_id"


def land(stream: str = STREAM) -> None:
    land_pending(stream, arrived_from=at(-60), arrived_before=at(60))


def last_batch(warehouse: Warehouse, stream: str = STREAM) -> int:
    return int(str(warehouse.value(f"select last_batch_id from ops.stream_state where stream = '{stream}'")))


def test_every_value_comes_through_bit_for_bit_in_files_of_a_day(warehouse, monkeypatch):
    odd = {"note": 'a,b\n"q" ü\\ ', "empty": "", "deep": {"x": [1, None]}}
    rows = [
        telemetry("m1", at(0, 23, 59), temperature=0.1 + 0.2, **odd),
        telemetry("m1", at(1), temperature=-1e-7),
        telemetry("m2", at(1, 12), temperature=25.0),
        telemetry("m1", at(-1, 23, 59.999), temperature=1 / 3),
    ]
    put(STREAM, rows, arrived_at=at(2), tenant="acme")
    put(STREAM, [telemetry("m1", at(1), temperature=7.0), {**telemetry("m9", at(1)), "measurements": {}}], arrived_at=at(2, 1))
    land()
    put("customers", [customer("c1", at(1)), customer("c2", at(1))], arrived_at=at(2))
    land("customers")
    warehouse.execute("update raw.customers set city_name = '', full_name = E'x,\"y\"\\n\\n' where customer_id = 'c1'")
    warehouse.execute("update raw.customers set city_name = null where customer_id = 'c2'")
    upto = last_batch(warehouse)
    done = export_stream(STREAM)
    assert (done.upto, done.files, done.rows, done.rewritten) == (upto, 3, 6, ())
    assert_lake_is_raw(STREAM)
    assert sorted(bytes_of(STREAM)) == [
        f"{STREAM}/{MANIFEST}",
        *(f"{STREAM}/event_date={day}/b{1:012d}-{upto:012d}.parquet" for day in ("2026-02-28", "2026-03-01", "2026-03-02")),
    ]
    assert export_stream("customers").rows == 2
    assert_lake_is_raw("customers")
    cities = {row["customer_id"]: row["city_name"] for row in lake_rows("customers")}
    assert cities == {"c1": "", "c2": None}
    # A row longer than a block of COPY, and more row groups than one.
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 2)
    monkeypatch.setattr(parquet, "_BLOCK_BYTES", 1000)
    put(STREAM, [telemetry(f"m{n}", at(5, n), note="x" * (100_000 if n == 3 else 1)) for n in range(7)], arrived_at=at(6))
    land()
    assert export_stream(STREAM).rows == 7
    assert_lake_is_raw(STREAM)
    (file,) = open_lake().files_below(STREAM, "event_date=2026-03-06")
    assert pq.read_metadata(file).num_row_groups == 4


def test_a_file_says_what_it_is_and_what_its_rows_came_from(warehouse):
    first = put(STREAM, [telemetry("m2", at(1)), telemetry("m1", at(1, 1))], arrived_at=at(2), tenant="acme")
    put(STREAM, [telemetry("m1", at(3))], arrived_at=at(4))
    land()
    export_stream(STREAM)
    (path,) = open_lake().files_below(STREAM, "event_date=2026-03-02")
    metadata = pq.read_metadata(path).metadata
    assert (metadata[b"tidemark.stream"], metadata[b"tidemark.contract_version"]) == (STREAM.encode(), load_contract(STREAM).version.encode())
    (source,) = json.loads(metadata[b"tidemark.files"])
    line = warehouse.rows(
        "select file_id, tenant_id, address, encode(content_hash, 'hex'), version_tag, size_bytes, file_format, mapping, contract_version from ops.file "
        f"where address = '{first.address}'"
    )
    assert list(source.values())[:9] == list(line[0])
    assert (source["arrived_at"], source["published_at"]) == ("2026-03-03T00:00:00+00:00", None)
    assert pq.read_table(path)["device_id"].to_pylist() == ["m1", "m2"]  # in order of device
    with connect(Role.ANALYST) as connection:
        (file,) = live_files(connection, STREAM, date(2026, 3, 2), date(2026, 3, 2))
    assert (file.first_event_at, file.last_event_at, file.row_count) == (at(1), at(1, 1), 2)
    manifest = read_manifest(open_lake(), STREAM)
    assert manifest is not None
    assert [found.address for found in manifest.files] == [f"{STREAM}/event_date=2026-03-0{day}/b000000000001-000000000001.parquet" for day in (2, 4)]


def test_an_export_writes_what_came_since_and_days_of_changed_rows_anew(warehouse):
    put("orders", [order("o1", "c1", at(0, 1)), order("o2", "c1", at(0, 2)), order("o3", "c2", at(1, 1)), order("o4", "c2", at(2, 1))], arrived_at=at(3))
    land("orders")
    export_stream("orders")
    one = last_batch(warehouse, "orders")
    again = export_stream("orders")
    assert (again.upto, again.files) == (one, 0)
    # o1 is corrected within its day, o3 moves to another day and leaves its own empty, o5 is new on a day that has a file.
    put(
        "orders",
        [
            order("o1", "c9", at(0, 1), updated_at=at(3)),
            order("o3", "c2", at(5, 1), updated_at=at(5, 2)),
            order("o5", "c3", at(2, 5)),
        ],
        arrived_at=at(6),
    )
    land("orders")
    two = last_batch(warehouse, "orders")
    # The log is kept until the lake has read it, however far the models are.
    warehouse.execute("insert into ops.model_state values ('m', 'stg_orders', 999, '', '')")
    assert prune_ops_history(keep=timedelta())["row_change"] == 0
    done = export_stream("orders")
    assert (done.rows, done.rewritten) == (2 + 1 + 1, (date(2026, 3, 1), date(2026, 3, 2)))
    assert_lake_is_raw("orders")
    assert prune_ops_history(keep=timedelta())["row_change"] == 2
    assert warehouse.rows(LINES) == [
        ("replaced", "2026-03-01", 1, one, 2),
        ("replaced", "2026-03-02", 1, one, 1),
        ("live", "2026-03-03", 1, one, 1),
        ("live", "2026-03-03", one + 1, two, 1),
        ("live", "2026-03-06", one + 1, two, 1),
        ("live", "2026-03-01", 1, two, 2),
    ]
    # What replaced a file is known; a day that has no rows any more has no successor.
    successors = warehouse.rows(
        "select f.event_date::text, r.last_batch_id from ops.file f left join ops.file r on r.file_id = f.replaced_by where f.state = 'replaced'"
    )
    assert sorted(successors) == [("2026-03-01", two), ("2026-03-02", None)]
    assert export_stream("orders").files == 0


def test_a_day_whose_envelopes_were_restated_is_told_by_its_digest_and_written_anew(warehouse):
    put(STREAM, [telemetry("m1", at(1)), telemetry("m2", at(1))], arrived_at=at(3))
    land()
    put(STREAM, [telemetry("m3", at(1))], arrived_at=at(3, 1))
    land()
    export_stream(STREAM)
    # The first copy in the zone arrives last: that changes since when it was known, so its day is written anew by itself.
    earlier = put(STREAM, [telemetry("m1", at(1))], arrived_at=at(2))
    land()
    assert export_stream(STREAM).rewritten == (date(2026, 3, 2),)
    assert_lake_is_raw(STREAM)
    # A row that only changes hands is logged nowhere, because no model has to read it again.
    warehouse.execute(f"update raw.{STREAM} set _row_number = 17 where device_id = 'm2'")
    assert export_stream(STREAM).files == 0
    with connect(Role.LOADER) as connection:
        assert verify(connection, STREAM) != digest.of_raw(connection, STREAM, date(2026, 3, 2), date(2026, 3, 2))
    for edition in (1, 2):
        done = export_days(STREAM, [date(2026, 3, 2), date(2026, 3, 9)])
        assert (done.files, done.rows) == (1, 3)
        assert_lake_is_raw(STREAM)
        with connect(Role.ANALYST) as connection:
            (file,) = live_files(connection, STREAM)
        assert file.address.endswith(f".{edition}.parquet")  # a name is given once
    assert any(source["address"] == earlier.address for source in _sources(file.address))


def _sources(address: str) -> list[dict[str, str]]:
    metadata = pq.read_metadata(open_lake().full(address)).metadata
    found: list[dict[str, str]] = json.loads(metadata[b"tidemark.files"])
    return found


def test_the_digest_of_rows_is_the_same_in_sql_and_in_files_and_sees_every_part(warehouse):
    put(STREAM, [telemetry(f"m{n}", at(1, n / 7)) for n in range(40)], arrived_at=at(3))
    land()
    day = date(2026, 3, 2)
    with connect(Role.LOADER) as connection:
        stored = digest.of_raw(connection, STREAM, day, day)[day]
    rows = stored_rows(STREAM)
    assert digest.of_rows(keys_of(rows)) == digest.of_rows(keys_of(rows[::-1])) == stored
    for name, other in (("_batch_id", 9), ("_file_id", 9), ("_row_number", 99), ("_known_at", at(9)), ("_content_hash", bytes(16)), ("event_id", bytes(16))):
        assert digest.of_rows(keys_of([{**rows[0], name: other}, *rows[1:]])) != stored, name
    assert digest.of_rows(keys_of(rows[1:])) != stored
    assert digest.of_rows(keys_of([*rows, rows[0]])) != stored


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The lake of a fresh warehouse, in both stores."""
    if request.param == "s3":
        set_environment(monkeypatch, TIDEMARK_LAKE_URL=request.getfixturevalue("s3_url"))
    return open_lake()


def test_many_files_become_one_from_the_lakes_own_bytes_and_what_they_were_goes_after_the_grace(store, warehouse, monkeypatch):
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 8)
    for number in range(4):
        put(STREAM, [telemetry(f"m{n % 5}", at(1, n + number / 10), note=n) for n in range(6)], arrived_at=at(3, number))
        land()
        export_stream(STREAM)
    rows = stored_rows(STREAM)
    warehouse.execute(f"delete from raw.{STREAM}")  # raw may have forgotten them
    done = compact_stream(STREAM)
    assert (done.days, done.files) == (1, 4)
    assert lake_rows(STREAM) == rows
    with connect(Role.LOADER) as connection:
        (file,) = live_files(connection, STREAM)
        assert verify(connection, STREAM) == {date(2026, 3, 2): digest.of_rows(keys_of(rows))}
    assert (file.first_batch_id, file.last_batch_id, file.row_count) == (1, last_batch(warehouse), 24)
    with store.open(file.address) as stored:
        table = pq.read_table(stored)
    assert table["device_id"].to_pylist() == sorted(table["device_id"].to_pylist())
    assert compact_stream(STREAM).files == 0
    # A reader that listed the small files before may finish.
    assert sweep_stream(STREAM).replaced == 0
    assert len(bytes_of(STREAM)) == 6
    swept = sweep_stream(STREAM, grace=timedelta())
    assert (swept.replaced, swept.strangers, swept.size_bytes) == (4, 0, done.bytes_before)
    assert sorted(bytes_of(STREAM)) == sorted([f"{STREAM}/{MANIFEST}", file.address])
    assert warehouse.rows("select state, count(*), count(expired_at) from ops.file where kind = 'lake' group by 1 order by 1") == [
        ("expired", 4, 4),
        ("live", 1, 0),
    ]
    assert lake_rows(STREAM) == rows


def test_a_compaction_that_loses_rows_is_not_entered(warehouse, monkeypatch):
    for number in range(2):
        put(STREAM, [telemetry("m1", at(1, number)), telemetry("m1", at(1, number, 5))], arrived_at=at(3, number))
        land()
        export_stream(STREAM)
    whole = compact.merged
    monkeypatch.setattr(compact, "merged", lambda *given: (table.slice(1) for table in whole(*given)))
    with pytest.raises(LakeDamaged, match="does not hold the rows of the 2 files"):
        compact_stream(STREAM)
    assert_lake_is_raw(STREAM)


def test_files_of_an_older_contract_have_no_values_in_a_newer_column_and_none_may_lose_one(warehouse, monkeypatch):
    for number in range(2):
        put(STREAM, [telemetry("m1", at(1, number))], arrived_at=at(3, number))
        land()
        export_stream(STREAM)
    contract = load_contract(STREAM)
    newer = replace(contract, version="1.1.0", fields=(*contract.fields, replace(contract.by_name["humidity_pct"], name="torque_nm", path=("torque",))))
    fewer = replace(contract, fields=tuple(field for field in contract.fields if field.name != "humidity_pct"))
    monkeypatch.setattr(compact, "load_contract", lambda _stream: fewer)
    with pytest.raises(LakeError, match="humidity_pct"):
        compact_stream(STREAM)
    assert_lake_is_raw(STREAM)
    monkeypatch.setattr(compact, "load_contract", lambda _stream: newer)
    assert compact_stream(STREAM).files == 2
    rows = lake_rows(STREAM)
    assert [row.pop("torque_nm") for row in rows] == [None, None]
    assert rows == stored_rows(STREAM)
    with connect(Role.ANALYST) as connection:
        assert [file.contract_version for file in live_files(connection, STREAM)] == ["1.1.0"]


def test_files_that_nobody_entered_are_no_rows_and_go_after_the_grace(store, warehouse):
    put(STREAM, [telemetry("m1", at(1))], arrived_at=at(3))
    land()
    export_stream(STREAM)
    here = sorted(bytes_of(STREAM))
    store.write(f"{STREAM}/event_date=2026-03-02/b000000000007-000000000009.parquet", b"of an export that died", is_new=True)
    if store.is_local:
        Path(store.full(f"{STREAM}/event_date=2026-03-02/.b1.parquet.0123")).write_bytes(b"half")
    assert_lake_is_raw(STREAM)
    assert sweep_stream(STREAM).strangers == 0
    if store.is_local:
        age_files(STREAM, hours=25)
        assert sweep_stream(STREAM).strangers == 2
    else:
        assert sweep_stream(STREAM, grace=timedelta()).strangers == 1
    assert sorted(bytes_of(STREAM)) == here
    assert_lake_is_raw(STREAM)


def test_a_sweep_leaves_alone_what_is_not_named_by_the_lake(warehouse, monkeypatch):
    """Zone and lake may have one root by mistake: the zone's files have no line of the lake."""
    set_environment(monkeypatch, TIDEMARK_LAKE_URL=warehouse.zone_dir.as_uri())
    arrival = put(STREAM, [telemetry("m1", at(1))], arrived_at=at(3))
    land()
    export_stream(STREAM)
    scratch = warehouse.zone_dir / STREAM / f".{MANIFEST}.0123"
    scratch.write_bytes(b"half")
    age_files(STREAM, hours=25)
    assert sweep_stream(STREAM).strangers == 1
    assert (warehouse.zone_dir / arrival.address).exists()
    assert not scratch.exists()
    assert_lake_is_raw(STREAM)


def test_damage_is_named_and_never_compacted(store, warehouse):
    for device in ("m1", "m2"):
        put(STREAM, [telemetry(device, at(1)), telemetry(device, at(2))], arrived_at=at(3), source=device)
        land()
        export_stream(STREAM)
    with connect(Role.LOADER) as connection:
        one, two, three, four = live_files(connection, STREAM)
        data = bytearray(store.read(one.address))
        data[len(data) // 2] ^= 1
        store.write(one.address, bytes(data), is_new=False)
        store.remove(three.address)
        with pytest.raises(LakeDamaged, match=f"{one.address}.*other bytes.*{three.address} is gone"):
            verify(connection, STREAM)
        assert len(verify(connection, STREAM, date(2026, 3, 4))) == 0
        # Bytes as entered that hold other rows than the line says.
        store.write(one.address, store.read(four.address), is_new=False)
        warehouse.execute(
            "update ops.file f set content_hash = o.content_hash, size_bytes = o.size_bytes from ops.file o "
            f"where f.file_id = {one.file_id} and o.file_id = {four.file_id}"
        )
        with pytest.raises(LakeDamaged, match=f"{one.address} holds"):
            verify(connection, STREAM, date(2026, 3, 2), date(2026, 3, 2))
    with pytest.raises(LakeDamaged, match=one.address):
        compact_stream(STREAM)
    assert warehouse.value("select count(*) from ops.file where kind = 'lake' and state = 'live'") == 4
    assert two.row_count == 1
    # Where raw has the day, it is written anew from there.
    export_days(STREAM, [one.event_date, three.event_date])
    assert_lake_is_raw(STREAM)


def test_a_lake_of_another_warehouse_is_neither_swept_nor_written_over(store, warehouse):
    put(STREAM, [telemetry("m1", at(1))], arrived_at=at(3))
    land()
    export_stream(STREAM)
    here = sorted(bytes_of(STREAM))
    warehouse.execute("truncate ops.lake_state; delete from ops.file where kind = 'lake'")  # as an empty warehouse sees it
    for work in (export_stream, compact_stream, sweep_stream):
        with pytest.raises(LakeError, match=r"never wrote.*rebuild --from-lake"):
            work(STREAM)
    assert sorted(bytes_of(STREAM)) == here
    store.remove(f"{STREAM}/{MANIFEST}")  # given up, as the message says
    export_stream(STREAM)
    assert_lake_is_raw(STREAM)


def test_one_at_a_time_writes_the_lake_of_a_stream(warehouse, monkeypatch):
    monkeypatch.setattr("include.warehouse.connection.LOCK_TIMEOUT_S", 0.1)
    with connect(Role.LOADER, autocommit=True) as other, holding_lake(other, STREAM):
        with pytest.raises(LakeBusy, match=STREAM):
            export_stream(STREAM)
        with connect(Role.LOADER) as third, pytest.raises(LakeBusy, match=STREAM):
            lock_lake(third, STREAM)
        assert export_stream("orders").upto == 0
        assert bytes_of("orders") == {}
    assert export_stream(STREAM).upto == 0


def test_a_day_that_raw_has_dropped_is_not_written_as_if_it_were_empty(warehouse):
    put(STREAM, [telemetry("m1", at(1))], arrived_at=at(3))
    land()
    export_stream(STREAM)
    rows = stored_rows(STREAM)
    warehouse.execute(f"drop table raw.{STREAM}_y2026m03")
    with pytest.raises(LakeError, match=r"2026-03-02 cannot be written anew.*tidemark lake restore"):
        export_days(STREAM, [date(2026, 3, 2)])
    assert lake_rows(STREAM) == rows


def test_the_books_refuse_lines_that_make_no_sense(warehouse):
    put(STREAM, [telemetry("m1", at(1))], arrived_at=at(3))
    land()
    export_stream(STREAM)
    assert_balanced()  # lines of the lake are not counted as arrivals
    for change in (
        "state = 'landed' where kind = 'lake'",
        "row_count = null where kind = 'lake'",
        "batch_id = 1 where kind = 'lake'",
        "replaced_at = now() where kind = 'lake'",
        "state = 'replaced' where kind = 'lake'",
        "state = 'expired' where kind = 'lake'",
        "state = 'live' where kind = 'arrival'",
        "event_date = '2026-03-02' where kind = 'arrival'",
        "tenant_id = null where kind = 'arrival'",
        "state = 'expired', expired_at = now(), batch_id = null where kind = 'arrival'",
    ):
        with pytest.raises(psycopg.errors.CheckViolation):
            warehouse.execute(f"update ops.file set {change}", Role.LOADER)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        warehouse.execute("delete from ops.file", Role.LOADER)
