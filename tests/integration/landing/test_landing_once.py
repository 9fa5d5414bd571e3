"""Every row counted exactly once, whatever arrives, in whatever order, in whatever format, and however often it is landed."""

from __future__ import annotations

import gzip
import io
import json
import random
from datetime import timedelta

import polars as pl
import psycopg
import pytest
from fsspec.implementations.local import LocalFileOpener

from include.contracts import load_contract
from include.landing import LandingBusy, LandingError, ZoneError, land_everything, land_pending, load
from include.landing import store as landing_store
from include.landing.quarantine import Filter, list_quarantined, reasons, show_quarantined
from include.warehouse import Role, connect
from tests.support.landing import VOLATILE, assert_balanced, raw_rows
from tests.support.payloads import at, customer, order, put, telemetry, zone

NOW = at(3)


def land(stream="device_telemetry"):
    result = land_pending(stream, arrived_from=at(-1), arrived_before=NOW)
    assert_balanced()
    return result


def test_a_row_arrives_with_its_envelope_and_exact_values(warehouse):
    file = put("device_telemetry", [telemetry("m1", at(0, 1), temperature=0.1 + 0.2, unknown={"b": 1, "a": None})], arrived_at=at(0, 2), tenant="acme")
    assert land().counts() == {"files": 1, "batches": 1, "landed": 1, "accepted": 1, "quarantined": 0, "duplicate": 0, "corrected": 0, "failed_files": 0}
    (row,) = raw_rows("device_telemetry")
    assert (row["tenant_id"], row["event_at"], row["_arrived_at"], row["_known_at"], row["_row_number"]) == ("acme", at(0, 1), at(0, 2), at(0, 2), 1)
    assert row["temperature_c"] == 0.1 + 0.2
    assert row["_extra"] == {"unknown": {"a": None, "b": 1}}
    assert row["file"] == file.address
    state = warehouse.rows("select last_batch_id, last_event_at, last_arrived_at from ops.stream_state where stream = 'device_telemetry'")
    assert state == [(row["_batch_id"], at(0, 1), at(0, 2))]


def test_the_same_file_is_landed_once_and_the_same_bytes_elsewhere_are_duplicates(warehouse):
    payloads = [telemetry(f"m{n}", at(0, 1)) for n in range(5)]
    put("device_telemetry", payloads, arrived_at=at(0, 2))
    first, second = land(), land()
    assert (first.files, second.files, second.batches) == (1, 0, 0)
    before = raw_rows("device_telemetry")
    put("device_telemetry", payloads, arrived_at=at(0, 3), source="again")
    again = land()
    assert (again.landed, again.duplicate, again.accepted) == (5, 5, 0)
    assert raw_rows("device_telemetry") == before
    assert warehouse.value("select count(*) from ops.row_change") == 0


def test_new_bytes_under_an_old_address_are_a_new_arrival_and_a_touched_file_is_not(warehouse):
    def write(payload):
        return zone().put("device_telemetry", json.dumps(payload).encode(), name="020000000000-plc-0.ndjson", arrived_at=at(0, 2))

    write(telemetry("m1", at(0, 1)))
    assert land().accepted == 1
    write(telemetry("m1", at(0, 1)))
    assert land().files == 0
    write(telemetry("m2", at(0, 1)))
    assert land().accepted == 1
    assert warehouse.rows("select count(*), count(distinct address), count(distinct content_hash) from ops.file") == [(2, 1, 2)]
    assert [row["device_id"] for row in raw_rows("device_telemetry")] == ["m1", "m2"]


def test_files_in_any_order_make_the_same_table(warehouse):
    chooser = random.Random(11)
    for number in range(8):
        rows = [telemetry(f"m{chooser.randrange(4)}", at(0, chooser.randrange(6)), temperature=float(chooser.randrange(3))) for _ in range(12)]
        put("device_telemetry", rows, arrived_at=at(0, 7, number), source=f"s{number}")
        states = [
            order(f"o{chooser.randrange(4)}", "c1", at(chooser.randrange(2)), gross=float(chooser.randrange(20, 23)), updated_at=at(2, chooser.randrange(3)))
            for _ in range(6)
        ]
        put("orders", states, arrived_at=at(2, 4, number), source=f"s{number}")
    tables = []
    for _ in range(4):
        files = [(stream, minute) for stream in ("device_telemetry", "orders") for minute in range(8)]
        chooser.shuffle(files)
        for stream, minute in files:
            start = at(0, 7, minute) if stream == "device_telemetry" else at(2, 4, minute)
            land_pending(stream, arrived_from=start, arrived_before=start + timedelta(minutes=1))
            assert_balanced()
        tables.append((raw_rows("device_telemetry", without=VOLATILE), raw_rows("orders", without=VOLATILE)))
        warehouse.execute("truncate raw.device_telemetry, raw.orders, ops.file, ops.batch, ops.quarantine, ops.row_change, ops.stream_state cascade")
    assert tables[0][0]
    assert all(table == tables[0] for table in tables)


def test_a_correction_moves_an_event_to_another_day_and_its_old_place_is_logged(warehouse):
    put("orders", [order("o1", "c1", at(0, 5), updated_at=at(0, 6)), order("o2", "c1", at(0, 5), updated_at=at(0, 6))], arrived_at=at(0, 7))
    land("orders")
    put(
        "orders",
        [order("o1", "c2", at(1, 5), gross=50.0, updated_at=at(1, 6)), order("o2", "c9", at(0, 5), gross=1.0 + 9.0, updated_at=at(0, 1))],
        arrived_at=at(1, 7),
    )
    result = land("orders")
    assert (result.corrected, result.accepted) == (2, 0)
    first, second = raw_rows("orders")
    assert (first["order_id"], first["event_at"], first["gross_usd"], second["customer_id"]) == ("o1", at(1, 5), 50.0, "c1")
    assert first["_batch_id"] > second["_batch_id"]
    position = {"tenant_id": "default", "event_at": "2026-03-01T05:00:00+00:00", "order_id": "o1", "customer_id": "c1"}
    assert warehouse.rows("select batch_id, tenant_id, position from ops.row_change") == [(first["_batch_id"], "default", position)]


def test_copies_within_one_file_and_across_chunks_count_as_they_would_across_files(warehouse, monkeypatch):
    states = [order("o1", "c1", at(0), gross=float(gross), updated_at=at(0, version)) for gross, version in ((20, 1), (20, 1), (30, 2), (30, 2), (20, 1))]
    put("orders", states, arrived_at=at(1))
    monkeypatch.setattr("include.landing.batch.read_chunks", lambda sources, contract: load_chunks(sources, contract, 2))
    from include.landing.readers import read_chunks as load_chunks

    result = land("orders")
    assert (result.accepted, result.duplicate, result.corrected) == (1, 2, 2)
    assert [row["gross_usd"] for row in raw_rows("orders")] == [30.0]
    assert warehouse.value("select count(*) from ops.row_change") == 0


def test_two_tenants_may_use_the_same_device_ids(warehouse):
    put(
        "device_telemetry",
        [telemetry("m1", at(0, 1)), telemetry("m1", at(0, 1), tenantId="beta"), telemetry("m1", at(0, 1), tenantId="acme")],
        arrived_at=at(0, 2),
        tenant="acme",
    )
    result = land()
    assert (result.accepted, result.duplicate) == (2, 1)
    assert sorted(row["tenant_id"] for row in raw_rows("device_telemetry")) == ["acme", "beta"]


def test_rejected_rows_keep_their_text_and_all_their_reasons(warehouse):
    broken = telemetry("m1", at(0, 1), temperature=5000.0)
    broken["deviceType"], broken["metadata"]["battery_level"] = "toaster", "full"
    lines = [json.dumps(telemetry("m1", at(0, 1))), json.dumps(broken), json.dumps(broken), '{"deviceId": "\\ud800"}', '{"deviceId": "a\\u0000"}', "{no json"]
    put("device_telemetry", lines, arrived_at=at(0, 2))
    result = land()
    assert (result.landed, result.accepted, result.quarantined, result.duplicate) == (6, 1, 5, 0)
    rows = {row.row_number: row for row in list_quarantined(Filter("device_telemetry"))}
    assert rows[2].original == lines[1].encode()
    assert [(error["code"], error["field"], error["value"]) for error in rows[2].errors] == [
        ("not_in_enum", "device_type", "toaster"),
        ("out_of_range", "temperature_c", "5000.0"),
        ("wrong_type", "battery_pct", "full"),
    ]
    assert "lone_surrogate" in rows[4].codes
    assert "nul_character" in rows[5].codes
    assert rows[6].codes == ["malformed_json"]
    assert show_quarantined(rows[6].quarantine_id).text == "{no json"
    assert [row.row_number for row in list_quarantined(Filter(code="malformed_json"))] == [6]
    assert ("device_telemetry", "out_of_range", 2) in reasons("device_telemetry")
    with pytest.raises(LandingError, match="quarantine list"):
        show_quarantined(10**9)


def test_personal_data_has_pseudonyms_beside_it(warehouse):
    put("customers", [customer("c1", at(0)), customer("c2", at(0), email=" C1@example.invalid", birthYear=1980)], arrived_at=at(0, 1))
    land("customers")
    first, second = raw_rows("customers")
    assert first["email_pseudonym"] == second["email_pseudonym"]
    assert (first["birth_year_pseudonym"], len(second["birth_year_pseudonym"])) == (None, 32)


@pytest.mark.parametrize("form", ["ndjson", "ndjson.gz", "csv", "csv.gz", "parquet"])
def test_every_format_makes_the_same_rows(warehouse, form):
    payloads = [telemetry(f"m{n}", at(0, n), temperature=20.0 + n / 3) for n in range(4)]
    put("device_telemetry", payloads, arrived_at=at(0, 10), source="reference")
    assert land().accepted == 4
    flat = pl.json_normalize(payloads, separator=".")
    target = io.BytesIO()
    if form.startswith("csv"):
        flat.write_csv(target)
    elif form == "parquet":
        flat.write_parquet(target)
    else:
        target.write(b"\n".join(json.dumps(payload).encode() for payload in payloads))
    data = gzip.compress(target.getvalue()) if form.endswith(".gz") else target.getvalue()
    zone().put("device_telemetry", data, source="other", ext=form, arrived_at=at(0, 11))
    result = land()
    assert (result.landed, result.duplicate, result.quarantined) == (4, 4, 0)


def test_an_unreadable_file_is_quarantined_whole_and_its_batch_lands(warehouse):
    good = gzip.compress("\n".join(json.dumps(telemetry(f"m{n}", at(0, 1))) for n in range(50)).encode())
    zone().put("device_telemetry", good[: len(good) // 2], source="a", ext="ndjson.gz", arrived_at=at(0, 2))
    zone().put("device_telemetry", b"x", source="b", ext="xlsx", arrived_at=at(0, 2, 1))
    zone().put("device_telemetry", b"a,b\n", source="c", ext="csv", arrived_at=at(0, 2, 2), mapping="no_such_mapping")
    put("device_telemetry", [telemetry("m1", at(0, 1))], arrived_at=at(0, 2, 3))
    result = land()
    assert (result.files, result.batches, result.accepted, result.quarantined) == (4, 1, 1, 3)
    assert warehouse.rows("select state, count(*) from ops.file group by state order by state") == [("landed", 1), ("quarantined", 3)]
    rows = list_quarantined(Filter(code="unreadable_file"))
    assert [row.row_number for row in rows] == [None] * 3
    assert good.startswith(rows[-1].original)
    assert land().files == 0


def test_what_the_server_refuses_after_all_is_found_by_halving(warehouse, owner):
    owner.execute("alter table raw.device_telemetry add constraint odd check (device_id not in ('bad1', 'bad2'))")
    names = ["m1", "bad1", "m2", "m3", "m4", "bad2", "m5"]
    put("device_telemetry", [telemetry(name, at(0, 1)) for name in names], arrived_at=at(0, 2))
    result = land()
    assert (result.accepted, result.quarantined) == (5, 2)
    assert [(row.row_number, row.codes) for row in list_quarantined(Filter())] == [(6, ["copy_refused"]), (2, ["copy_refused"])]
    assert [row["device_id"] for row in raw_rows("device_telemetry")] == ["m1", "m2", "m3", "m4", "m5"]


def test_a_refused_correction_leaves_the_stored_row_alone(warehouse, owner):
    put("orders", [order("o1", "c1", at(0), updated_at=at(0, 1))], arrived_at=at(0, 2))
    land("orders")
    owner.execute("alter table raw.orders add constraint odd check (customer_id <> 'bad') not valid")
    put("orders", [order("o1", "bad", at(0), updated_at=at(0, 5)), order("o1", "c2", at(0), updated_at=at(0, 4))], arrived_at=at(0, 6))
    result = land("orders")
    assert (result.corrected, result.quarantined) == (1, 1)
    assert [row["customer_id"] for row in raw_rows("orders")] == ["c2"]


def test_a_store_that_breaks_off_fails_the_run_and_blames_no_file(warehouse, monkeypatch):
    monkeypatch.setattr(load, "BATCH_BYTES", 10)  # so that the file is read from the zone while it is landed
    put("device_telemetry", [telemetry("m1", at(0, 1))], arrived_at=at(0, 2))
    real = load.land_batch

    def break_off(*_):
        raise ConnectionResetError("connection reset by peer")

    def land_batch(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LocalFileOpener, "read", break_off, raising=False)
            return real(*arguments)

    monkeypatch.setattr(load, "land_batch", land_batch)
    for _ in range(3):
        with pytest.raises(ZoneError, match="connection reset by peer; run it again once the store answers"):
            land()
    assert warehouse.rows("select state, attempts from ops.file") == []
    monkeypatch.setattr(load, "land_batch", real)
    assert land().accepted == 1


def test_a_file_that_fails_three_times_is_set_aside_and_the_stream_goes_on(warehouse, monkeypatch):
    put("device_telemetry", [telemetry("m1", at(0, 1))], arrived_at=at(0, 2), source="good")
    poison = put("device_telemetry", [telemetry("m2", at(0, 1))], arrived_at=at(0, 2, 1), source="poison")
    original = landing_store.stored_copies

    def fail(connection, contract, frame):
        if "m2" in frame["device_id"].to_list():
            raise RuntimeError("no idea")
        return original(connection, contract, frame)

    monkeypatch.setattr("include.landing.store.stored_copies", fail)
    first = land()
    assert (first.accepted, first.failed_files) == (1, (poison.address,))
    assert warehouse.rows("select state, attempts, error from ops.file where state <> 'landed'") == [("pending", 1, "RuntimeError: no idea")]
    assert [land().failed_files for _ in range(3)] == [(poison.address,), (poison.address,), ()]
    assert warehouse.rows("select state, attempts from ops.file where state <> 'landed'") == [("failed", 3)]
    monkeypatch.undo()
    from tests.conftest import set_environment

    set_environment(monkeypatch, TIDEMARK_WAREHOUSE_URL=warehouse.url, TIDEMARK_LANDING_URL=warehouse.zone_dir.as_uri())
    assert load.retry_failed("device_telemetry") == 1
    assert land().accepted == 1


def test_a_held_stream_waits(warehouse):
    put("device_telemetry", [telemetry("m1", at(0, 1))], arrived_at=at(0, 2))
    load.hold("device_telemetry", "sensor recall")
    held = land()
    assert (held.files, held.is_held) == (0, True)
    load.release("device_telemetry")
    assert land().accepted == 1


def test_a_lock_that_is_not_free_gives_one_clear_line(warehouse, monkeypatch):
    put("device_telemetry", [telemetry("m1", at(0, 1))], arrived_at=at(0, 2))
    monkeypatch.setattr("include.warehouse.connection.LOCK_TIMEOUT_S", 1)
    with connect(Role.LOADER) as other:
        other.execute("select ops.lock_stream('device_telemetry')")
        with pytest.raises(LandingBusy, match="Nothing of the batch was kept"):
            land_pending("device_telemetry", arrived_from=at(-1), arrived_before=NOW)
    assert warehouse.value("select count(*) from ops.file") == 0
    assert land().accepted == 1


def test_a_plain_insert_does_not_wait_for_a_build_and_a_correction_does(warehouse, monkeypatch):
    put("orders", [order("o1", "c1", at(0), updated_at=at(0, 1))], arrived_at=at(0, 2))
    monkeypatch.setattr("include.warehouse.connection.LOCK_TIMEOUT_S", 1)
    with connect(Role.TRANSFORMER) as build:
        build.execute("select pg_advisory_xact_lock_shared(ops.raw_changes_key())")
        assert land("orders").accepted == 1
        put("orders", [order("o1", "c1", at(0), gross=40.0, updated_at=at(0, 3))], arrived_at=at(0, 4))
        with pytest.raises(LandingBusy, match="running build"):
            land("orders")
    assert land("orders").corrected == 1


def test_the_audit_lands_what_the_window_left_out(warehouse):
    put("device_telemetry", [telemetry("m1", at(0, 1))], arrived_at=at(0, 2))
    put("device_telemetry", [telemetry("m1", at(5, 1))], arrived_at=at(5, 2))
    assert land_pending("device_telemetry", arrived_before=at(5, 3)).landed == 1
    assert land_everything("device_telemetry", arrived_before=at(5, 3)).landed == 1
    assert land_everything("device_telemetry").files == 0


def test_stored_copies_are_found_by_index_in_the_partitions_of_the_batch_only(warehouse):
    for month in range(4):
        put("device_telemetry", [telemetry(f"m{n}", at(-31 * month, 1)) for n in range(200)], arrived_at=at(0, 2, month))
    land()
    contract = load_contract("device_telemetry")
    with connect(Role.LOADER) as connection:
        landing_store.prefer_index_probes(connection)
        query = landing_store.stored_query(contract, (at(0).replace(tzinfo=None), at(1).replace(tzinfo=None)))
        ids = pl.Series([n.to_bytes(16) for n in range(500)])
        ats = pl.Series([at(0, 1).replace(tzinfo=None)] * 500, dtype=pl.Datetime("us"))
        parameters = landing_store.key_parameters(contract, ids, ats)
        plan = "\n".join(row[0] for row in connection.execute(psycopg.sql.SQL("explain ") + query, parameters, prepare=False))
    assert "Index Scan using device_telemetry_y2026m03" in plan
    assert "y2026m02" not in plan
    assert "Seq Scan" not in plan


def test_stored_copies_are_found_one_by_one_before_the_table_was_ever_analyzed(warehouse):
    for month in range(24):
        put(
            "device_telemetry",
            [{**telemetry(f"m{n}", at(-30.5 * month, 1)), "measurements": {"temperature": 60.0}} for n in range(40)],
            arrived_at=at(0, 2, month),
        )
    assert land().accepted == 24 * 40
    moments = pl.Series([at(0, 0, minute).replace(tzinfo=None) for minute in range(1000)], dtype=pl.Datetime("us"))
    ids = pl.Series([minute.to_bytes(16) for minute in range(1000)], dtype=pl.Binary)
    with connect(Role.LOADER) as connection:
        landing_store.prefer_index_probes(connection)
        contract = load_contract("device_telemetry")
        query = landing_store.stored_query(contract, (at(-800).replace(tzinfo=None), at(1).replace(tzinfo=None)))
        parameters = landing_store.key_parameters(contract, ids, moments)
        plan = [row[0].strip() for row in connection.execute(psycopg.sql.SQL("explain ") + query, parameters, prepare=False)]
    assert "Function Scan on k" in plan[2], plan[:4]
    probes = [line for line in plan if "Index Cond" in line and "event_at >=" in line]
    assert len(probes) == warehouse.value("select count(*) from pg_inherits where inhparent = 'raw.device_telemetry'::regclass") > 20
    assert all("event_id = k.event_id" in line and "event_at = k.event_at" in line for line in probes)


def test_no_file_is_set_aside_for_a_full_disk(warehouse):
    put("orders", [order("o1", "c1", at(0))], arrived_at=at(0, 1))
    put("orders", [order("o2", "c1", at(0))], arrived_at=at(0, 2))
    warehouse.execute(
        "create function raw.no_room() returns trigger language plpgsql as $$ begin raise exception 'no room' using errcode = 'disk_full'; end $$"
    )
    warehouse.execute("create trigger no_room before insert on raw.orders for each row execute function raw.no_room()")
    for _ in range(4):
        with pytest.raises(psycopg.errors.DiskFull):
            land("orders")
    assert warehouse.value("select count(*) from ops.file") == 0
    warehouse.execute("drop trigger no_room on raw.orders")
    assert land("orders").accepted == 2


def test_files_that_are_settled_are_told_by_day_and_others_by_their_address(warehouse, monkeypatch):
    """However many files lie in the window: those that landed are neither described nor looked up one by one."""
    for day in range(2):
        put("device_telemetry", [telemetry(f"m{day}", at(day, 1))], arrived_at=at(day, 2))
    late = zone().put("device_telemetry", json.dumps(telemetry("m8", at(0, 1))).encode(), name="020000000000-plc-0.ndjson", arrived_at=at(0, 2))
    assert land().files == 3
    looked_up = []
    real = load.ledger.known_files
    monkeypatch.setattr(load.ledger, "known_files", lambda connection, addresses: looked_up.extend(addresses) or real(connection, addresses))
    assert land().files == 0
    assert looked_up == []
    zone().put("device_telemetry", json.dumps(telemetry("m9", at(0, 1))).encode(), name="020000000000-plc-0.ndjson", arrived_at=at(0, 2))
    assert land().accepted == 1  # and its arrival is the time at which it was written, on another day
    looked_up.clear()
    assert land().files == 0
    assert looked_up == [late.address]
