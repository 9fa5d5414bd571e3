"""Quarantined rows tried again: what passes lands exactly once, what fails stays with its history, and the books add up all the way."""

from __future__ import annotations

import gzip
import io
import json
import random

import polars as pl
import psycopg
import pytest

from include.contracts import load_contract
from include.landing import LandingBusy, LandingError, check_landing, hold, land_pending, release
from include.landing import replay as replay_module
from include.landing.errors import LandingCheckFailed
from include.landing.quarantine import Filter, State, count_quarantined, discard, history, list_quarantined, reasons, reopen, require, show_quarantined
from include.landing.replay import replay
from include.warehouse import Role, connect
from tests.support.landing import VOLATILE, assert_balanced, raw_rows
from tests.support.payloads import at, order, put, telemetry, zone
from tests.support.stricter import land_under, replay_under, with_field, with_rule

NOW = at(3)
TELEMETRY = load_contract("device_telemetry")
ORDERS = load_contract("orders")


def land(stream="device_telemetry"):
    result = land_pending(stream, arrived_from=at(-1), arrived_before=NOW)
    assert_balanced()
    return result


OPEN = Filter()


def again(stream="device_telemetry", selection=OPEN, **options):
    result = replay(stream, selection, by="tester", **options)
    assert_balanced()
    return result


def counted(result):
    return {name: value for name, value in result.counts().items() if value and name not in {"files", "batches", "failed_files"}}


@pytest.fixture
def cool(monkeypatch):
    """Yesterday's contract: no more than 50 °C."""
    land_under(monkeypatch, with_field(TELEMETRY, "temperature_c", maximum=50.0))


def test_a_row_that_passes_now_lands_with_its_own_arrival_and_is_known_at_the_replay(warehouse, cool):
    hot = json.dumps(telemetry("m2", at(0, 1), temperature=60.0, unknown=1))
    file = put("device_telemetry", [telemetry("m1", at(0, 1), temperature=20.0), hot], arrived_at=at(0, 2), tenant="acme")
    assert land().quarantined == 1
    before = warehouse.value("select clock_timestamp()")
    assert counted(again()) == {"landed": 1, "accepted": 1}
    row = next(row for row in raw_rows("device_telemetry") if row["device_id"] == "m2")
    batch, started_at = warehouse.rows("select batch_id, started_at from ops.batch where kind = 'replay'")[0]
    assert (row["tenant_id"], row["_arrived_at"], row["file"], row["_row_number"], row["temperature_c"]) == ("acme", at(0, 2), file.address, 2, 60.0)
    assert (row["_known_at"], row["_landed_at"], row["_batch_id"], row["_extra"]) == (started_at, started_at, batch, {"unknown": 1})
    assert started_at > before
    assert warehouse.value("select last_batch_id from ops.stream_state where stream = 'device_telemetry'") == batch
    (shown,) = list_quarantined(Filter(state=None))
    assert (shown.state, shown.replay_batch_id, shown.outcome, shown.original) == ("replayed", batch, "accepted", hot.encode())
    events = history(shown.quarantine_id)
    assert [(event.action, event.outcome, event.done_by, event.contract_version) for event in events] == [
        ("land", "quarantined", None, "0.9.0"),
        ("replay", "accepted", "tester", TELEMETRY.version),
    ]
    assert events[0].codes == ["out_of_range"]
    assert again().landed == 0
    assert warehouse.value("select count(*) from ops.batch where kind = 'replay'") == 1


def test_the_line_of_the_ledger_stays_as_it_was_when_the_file_landed(warehouse, cool):
    put("device_telemetry", [telemetry("m1", at(0, 1), temperature=60.0), "{broken"], arrived_at=at(0, 2))
    land()
    line = warehouse.rows("select * from ops.file")
    again()
    assert warehouse.rows("select * from ops.file") == line
    assert warehouse.rows("select is_whole, landed, accepted, quarantined, contract_version from ops.file_replay") == [(False, 2, 1, 1, TELEMETRY.version)]


def test_a_row_that_fails_again_stays_open_with_every_verdict(warehouse, monkeypatch, cool):
    put("device_telemetry", [telemetry("m1", at(0, 1), temperature=60.0)], arrived_at=at(0, 2))
    land()
    replay_under(monkeypatch, with_field(TELEMETRY, "device_type", enum=("toaster",)), "0.9.1")
    assert counted(again()) == {"landed": 1, "quarantined": 1}
    assert warehouse.value("select count(*) from raw.device_telemetry") == 0
    (row,) = list_quarantined(Filter(code="not_in_enum"))
    assert (row.codes, row.errors[0]["value"], row.state) == (["not_in_enum"], "machine_controller", "open")
    assert count_quarantined(Filter(code="out_of_range")) == 0
    assert reasons() == [("device_telemetry", "not_in_enum", 1)]
    replay_under(monkeypatch, TELEMETRY, "1.2.3")
    assert counted(again(selection=Filter(code="not_in_enum"))) == {"landed": 1, "accepted": 1}
    events = history(row.quarantine_id)
    assert [(event.outcome, event.contract_version, event.codes) for event in events] == [
        ("quarantined", "0.9.0", ["out_of_range"]),
        ("failed", "0.9.1", ["not_in_enum"]),
        ("accepted", "1.2.3", None),
    ]
    assert [event.happened_at for event in events] == sorted(event.happened_at for event in events)


def test_a_replayed_row_counts_as_it_would_have_had_it_landed(warehouse, monkeypatch):
    land_under(monkeypatch, with_field(ORDERS, "channel_code", enum=("in_store",)))
    first, later = order("o1", "c1", at(0), updated_at=at(0, 1)), order("o1", "c2", at(0), updated_at=at(0, 5))
    put("orders", [first, later, order("o2", "c1", at(0)), order("o2", "c1", at(0)), order("o3", "c3", at(0), updated_at=at(0, 2))], arrived_at=at(0, 6))
    assert land("orders").quarantined == 5
    monkeypatch.setattr("include.landing.load.load_contract", load_contract)
    put("orders", [order("o3", "c4", at(1), updated_at=at(0, 4)), order("o1", "c9", at(2), updated_at=at(0, 3))], arrived_at=at(2, 7))
    assert land("orders").accepted == 2
    assert counted(again("orders")) == {"landed": 5, "accepted": 1, "duplicate": 1, "corrected": 3}
    assert [(row["order_id"], row["customer_id"]) for row in raw_rows("orders")] == [("o1", "c2"), ("o2", "c1"), ("o3", "c4")]
    outcomes = warehouse.rows("select row_number, outcome from ops.quarantine order by row_number")
    assert outcomes == [(1, "corrected"), (2, "corrected"), (3, "accepted"), (4, "duplicate"), (5, "corrected")]
    position = {"tenant_id": "default", "event_at": "2026-03-03T00:00:00+00:00", "order_id": "o1", "customer_id": "c9"}
    assert warehouse.rows("select position from ops.row_change") == [(position,)]


@pytest.mark.parametrize("form", ["ndjson", "ndjson.gz", "csv", "csv.gz", "parquet"])
def test_replayed_rows_of_every_format_equal_rows_that_landed_at_once(warehouse, monkeypatch, form):
    payloads = [telemetry(f"m{n}", at(0, n), temperature=20.0 + n * 100 / 3) for n in range(6)]
    flat = pl.json_normalize(payloads, separator=".").with_columns(pl.col("timestamp").str.to_datetime(time_zone="UTC") if form == "parquet" else "timestamp")
    target = io.BytesIO()
    if form.startswith("csv"):
        flat.write_csv(target)
    elif form == "parquet":
        flat.write_parquet(target)
    else:
        target.write(b"\n".join(json.dumps(payload).encode() for payload in payloads))
    data = gzip.compress(target.getvalue()) if form.endswith(".gz") else target.getvalue()
    zone().put("device_telemetry", data, source="plc", ext=form, arrived_at=at(0, 11))
    assert land().accepted == 6
    volatile = (*VOLATILE, "_known_at")
    at_once = raw_rows("device_telemetry", without=volatile)
    warehouse.execute("truncate raw.device_telemetry, ops.file, ops.batch, ops.quarantine, ops.stream_state cascade")
    land_under(monkeypatch, with_field(TELEMETRY, "temperature_c", maximum=50.0))
    assert land().quarantined == 5
    assert counted(again()) == {"landed": 5, "accepted": 5}
    assert raw_rows("device_telemetry", without=volatile) == at_once
    assert raw_rows("device_telemetry", without=VOLATILE)[-1]["_known_at"] > at(0, 11)


def test_rows_of_a_mapped_file_go_through_todays_mapping(warehouse, monkeypatch):
    header = "timestamp,machine_id,temperature,vibration,humidity,pressure,energy_consumption,machine_status,anomaly_flag"
    header += ",predicted_remaining_life,failure_type,downtime_risk,maintenance_required"
    rows = [f"2025-01-05 10:0{n}:00,{n},70.5,40.1,50.2,{pressure},3.3,1,0,300,Normal,0.0,0" for n, pressure in enumerate(("2.1", "? bar", "2.2"))]
    data = "\n".join([header, *rows]).encode()
    zone().put("device_telemetry", data, source="plc", ext="csv", arrived_at=at(0, 2), mapping="smart_manufacturing")
    land_under(monkeypatch, with_field(TELEMETRY, "pressure_hpa", maximum=2150.0))
    assert (land().accepted, {code for _, code, _ in reasons()}) == (1, {"unparsable", "out_of_range"})
    assert counted(again()) == {"landed": 2, "accepted": 1, "quarantined": 1}
    replayed = next(row for row in raw_rows("device_telemetry") if row["pressure_hpa"] == 2200.0)
    assert replayed["_known_at"] == replayed["_landed_at"]  # not the event time with the mapping's delay, as for a row that came through
    assert [row.codes for row in list_quarantined(Filter())] == [["unparsable"]]


def test_a_file_quarantined_whole_is_read_again_from_the_zone(warehouse):
    rows = [telemetry(f"m{n}", at(0, 1)) for n in range(5)]
    text = "\n".join([*(json.dumps(row) for row in rows), "{broken"])
    file = zone().put("device_telemetry", text.encode(), source="a", ext="ndjson.gz", arrived_at=at(0, 2))
    assert land().quarantined == 1
    assert counted(again()) == {"landed": 1, "quarantined": 1}
    (whole,) = list_quarantined(Filter(code="unreadable_file"))
    assert [(event.action, event.outcome) for event in history(whole.quarantine_id)] == [("land", "quarantined"), ("replay", "failed")]
    # A reader that takes the file after all: here one that learned that not everything named .gz is compressed.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("include.landing.source._plain", lambda source: source.stream)
        assert counted(again()) == {"landed": 6, "accepted": 5, "quarantined": 1}
    assert [row["file"] for row in raw_rows("device_telemetry")] == [file.address] * 5
    (broken,) = list_quarantined(Filter())
    assert (broken.row_number, broken.codes) == (6, ["malformed_json"])
    assert [(event.action, event.outcome, event.contract_version) for event in history(broken.quarantine_id)] == [("replay", "quarantined", TELEMETRY.version)]
    assert show_quarantined(whole.quarantine_id).outcome == "read"
    assert counted(again()) == {"landed": 1, "quarantined": 1}
    assert warehouse.value("select state from ops.file") == "quarantined"


def test_lines_outlive_their_file_and_cells_do_not(warehouse, cool):
    lines = put("device_telemetry", [telemetry("m1", at(0, 1))], arrived_at=at(0, 2), source="lines")
    flat = pl.json_normalize([telemetry("m2", at(0, 1)), telemetry("m3", at(0, 1))], separator=".").write_csv().encode()
    cells = zone().put("device_telemetry", flat, source="cells", ext="csv", arrived_at=at(0, 3))
    rewritten = zone().put("device_telemetry", flat, name="040000000000-cells-0.csv", arrived_at=at(0, 4))
    assert land().quarantined == 5
    for file in (lines, cells):
        (warehouse.zone_dir / file.address).unlink()
    (warehouse.zone_dir / rewritten.address).write_bytes(flat.replace(b"m2", b"m8"))
    assert counted(again()) == {"landed": 5, "accepted": 1, "quarantined": 4}
    assert {row.errors[0]["message"] for row in list_quarantined(Filter())} == {replay_module._GONE}
    (warehouse.zone_dir / rewritten.address).write_bytes(flat)  # the bytes are back, under another modification time
    assert counted(again()) == {"landed": 4, "accepted": 2, "quarantined": 2}


def test_a_row_that_todays_reader_does_not_find_is_not_lost(warehouse, cool):
    flat = pl.json_normalize([telemetry("m1", at(0, 1))], separator=".").write_csv().encode()
    zone().put("device_telemetry", flat, source="cells", ext="csv", arrived_at=at(0, 3))
    land()
    warehouse.execute("update ops.quarantine set row_number = 77")
    assert counted(again()) == {"landed": 1, "quarantined": 1}
    assert [row.codes for row in list_quarantined(Filter())] == [["row_not_found"]]


def test_what_the_server_refuses_fails_again_and_the_rest_lands(warehouse, owner, cool):
    put("device_telemetry", [telemetry(name, at(0, 1)) for name in ("m1", "bad", "m2")], arrived_at=at(0, 2))
    land()
    owner.execute("alter table raw.device_telemetry add constraint odd check (device_id <> 'bad')")
    assert counted(again()) == {"landed": 3, "accepted": 2, "quarantined": 1}
    assert [row.codes for row in list_quarantined(Filter())] == [["copy_refused"]]


def test_filters_choose_the_rows(warehouse, cool):
    put("device_telemetry", [telemetry(f"m{n}", at(0, 1), **({"tenantId": "beta"} if n == 2 else {})) for n in range(3)], arrived_at=at(0, 2), source="a_b")
    put("device_telemetry", [telemetry(f"n{n}", at(0, 1)) for n in range(2)] + ["{broken"], arrived_at=at(0, 3), source="axb")
    land()
    warehouse.execute("update ops.quarantine set quarantined_at = timestamptz '2026-03-01' + row_number * interval '1 hour'")
    ids = [row.quarantine_id for row in list_quarantined(Filter())]
    chosen = {
        Filter(stream="orders"): 0,
        Filter(code="malformed_json"): 1,
        Filter(address="device_telemetry/dt=2026-03-01/hr=02/*"): 3,
        Filter(address="*a_b*"): 3,
        Filter(address="a_b"): 0,
        Filter(since=at(0, 3)): 2,
        Filter(before=at(0, 3)): 4,
        Filter(since=at(0, 2), before=at(0, 3), stream="device_telemetry"): 2,
        Filter(tenant="beta"): 1,
        Filter(ids=tuple(ids[:4]), tenant="default"): 3,
        Filter(state=State.DISCARDED): 0,
        Filter(state=None): 6,
    }
    assert {selection: count_quarantined(selection) for selection in chosen} == chosen
    assert counted(again(selection=Filter(tenant="beta"))) == {"landed": 1, "accepted": 1}
    assert counted(again(selection=Filter(address="*hr=03*"))) == {"landed": 3, "accepted": 2, "quarantined": 1}
    assert counted(again("orders")) == {}


def test_a_dry_run_says_what_would_happen_and_keeps_nothing(warehouse, cool):
    put("device_telemetry", [telemetry("m1", at(0, 1)), telemetry("m1", at(0, 1)), "{broken"], arrived_at=at(0, 2))
    land()
    tables = "select (select count(*) from ops.batch), (select count(*) from ops.quarantine_event), (select count(*) from raw.device_telemetry)"
    before = warehouse.rows(tables)
    assert counted(again(dry_run=True)) == {"landed": 3, "accepted": 1, "duplicate": 1, "quarantined": 1}
    assert warehouse.rows(tables) == before
    assert count_quarantined(Filter()) == 3


def test_many_rows_go_in_batches_of_whole_files_and_chunks(warehouse, monkeypatch, cool):
    chooser = random.Random(5)
    for number in range(6):
        rows = [telemetry(f"m{chooser.randrange(30)}", at(0, chooser.randrange(3)), temperature=float(chooser.randrange(40, 60))) for _ in range(25)]
        put("device_telemetry", rows, arrived_at=at(0, 4, number), source=f"s{number}")
    quarantined = land().quarantined
    monkeypatch.setattr(replay_module, "REPLAY_ROWS", 20)
    monkeypatch.setattr(replay_module, "CHUNK_ROWS", 7)
    progress = []
    result = again(progress=progress.append)
    assert (result.landed, result.batches, count_quarantined(Filter())) == (quarantined, len(progress), 0)
    assert result.batches > 2
    after, volatile = raw_rows("device_telemetry", without=(*VOLATILE, "_known_at")), (*VOLATILE, "_known_at")
    warehouse.execute("truncate raw.device_telemetry, ops.file, ops.batch, ops.quarantine, ops.stream_state, ops.row_change cascade")
    monkeypatch.setattr("include.landing.load.load_contract", load_contract)
    land()
    assert raw_rows("device_telemetry", without=volatile) == after


def test_rows_that_come_meanwhile_are_not_tried(warehouse, monkeypatch, cool):
    put("device_telemetry", [telemetry("m1", at(0, 1))], arrived_at=at(0, 2))
    land()
    ask = replay_module._candidates

    def land_more(*arguments):
        put("device_telemetry", [telemetry("m2", at(0, 1))], arrived_at=at(0, 3))
        land()
        return ask(*arguments)

    monkeypatch.setattr(replay_module, "_candidates", land_more)
    assert counted(again()) == {"landed": 1, "accepted": 1}
    assert count_quarantined(Filter()) == 1


def test_a_held_stream_waits_and_a_busy_one_says_so(warehouse, monkeypatch, cool):
    put("device_telemetry", [telemetry("m1", at(0, 1))], arrived_at=at(0, 2))
    land()
    hold("device_telemetry", "sensor recall")
    held = again()
    assert (held.landed, held.is_held) == (0, True)
    release("device_telemetry")
    monkeypatch.setattr("include.warehouse.connection.LOCK_TIMEOUT_S", 1)
    with connect(Role.LOADER) as other:
        other.execute("select ops.lock_stream('device_telemetry')")
        with pytest.raises(LandingBusy, match="run it again"):
            again()
        with pytest.raises(LandingBusy, match="0 rows are done"):
            discard(Filter(stream="device_telemetry"), by="tester", reason="x")
    assert counted(again()) == {"landed": 1, "accepted": 1}


def test_one_file_at_fault_does_not_hold_up_the_others(warehouse, monkeypatch, cool):
    files = [put("device_telemetry", [telemetry(name, at(0, 1))], arrived_at=at(0, 2, n), source=name) for n, name in enumerate(("m1", "poison", "m2"))]
    land()
    copies = replay_module.store.stored_copies

    def fail(connection, contract, frame):
        if "poison" in frame["device_id"].to_list():
            raise RuntimeError("no idea")
        return copies(connection, contract, frame)

    monkeypatch.setattr("include.landing.store.stored_copies", fail)
    result = again()
    assert (counted(result), result.failed_files) == ({"landed": 2, "accepted": 2}, (files[1].address,))
    assert [row.address for row in list_quarantined(Filter())] == [files[1].address]


def test_discarding_is_a_mark_that_can_be_taken_back(warehouse, cool):
    put("device_telemetry", [telemetry("m1", at(0, 1)), "{broken"], arrived_at=at(0, 2))
    land()
    assert discard(Filter(code="malformed_json"), by="anna", reason="test pulse of the new PLC") == 1
    assert discard(Filter(code="malformed_json"), by="anna", reason="again") == 0
    (row,) = list_quarantined(Filter(state=State.DISCARDED))
    assert row.original == b"{broken"
    assert counted(again()) == {"landed": 1, "accepted": 1}
    assert reopen(Filter(state=State.DISCARDED, stream="device_telemetry"), by="ben", reason="was no test") == 1
    assert counted(again()) == {"landed": 1, "quarantined": 1}
    assert [(event.action, event.done_by, event.reason) for event in history(row.quarantine_id)] == [
        ("land", None, None),
        ("discard", "anna", "test pulse of the new PLC"),
        ("reopen", "ben", "was no test"),
        ("replay", "tester", None),
    ]
    assert reopen(Filter(stream="device_telemetry"), by="ben", reason="replayed rows stay replayed") == 0
    with pytest.raises(LandingError, match="discard the whole quarantine"):
        require(Filter(), everything=False, action="discard")
    with pytest.raises(LandingError, match="discard the whole quarantine"):
        require(Filter(code="", tenant=""), everything=False, action="discard")  # which choose nothing either
    require(Filter(), everything=True, action="discard")
    require(Filter(tenant="a"), everything=False, action="discard")


def test_a_stream_is_green_again_when_its_rows_are_settled(warehouse, monkeypatch):
    land_under(monkeypatch, with_rule(TELEMETRY, "cool", "temperature_c < 50"))
    put("device_telemetry", [telemetry(f"m{n}", at(0, 1), temperature=60.0 if n < 30 else 20.0) for n in range(100)] + ["{broken"] * 2, arrived_at=at(0, 2))
    land()
    with pytest.raises(LandingCheckFailed, match="rule:cool 30"):
        check_landing("device_telemetry", now=at(0, 3))
    again(selection=Filter(code="rule:cool"))
    check_landing("device_telemetry", now=at(0, 3))


def test_only_the_loader_reads_originals_and_errors(warehouse, cool):
    put("device_telemetry", [telemetry("m1", at(0, 1))], arrived_at=at(0, 2))
    land()
    assert warehouse.rows("select state, codes from ops.quarantine", Role.TRANSFORMER) == [("open", ["out_of_range"])]
    for role in (Role.TRANSFORMER, Role.ANALYST, Role.API, Role.ML):
        for query in ("select original from ops.quarantine", "select errors from ops.quarantine", "select errors from ops.quarantine_event"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                warehouse.rows(query, role)
    for statement in ("delete from ops.quarantine", "delete from ops.quarantine_event", "update ops.quarantine_event set reason = 'x'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            warehouse.execute(statement, Role.LOADER)
