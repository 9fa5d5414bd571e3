"""Landing from S3 as from a folder: the whole way, killed at each step, and files that change or go while they are read."""

from __future__ import annotations

import gzip
import json

import pytest

from include.landing import ZoneError, land_everything, land_pending, load, read_original
from include.landing.crash import Step
from include.landing.object_store import open_store
from include.landing.quarantine import Filter, list_quarantined
from tests.conftest import Warehouse, set_environment
from tests.support.killed import KILLED, killed_at
from tests.support.landing import VOLATILE, assert_balanced, raw_rows
from tests.support.payloads import at, order, put, telemetry, zone

LOADER = "from include.landing import land_pending; from tests.support.payloads import at; land_pending('orders', arrived_from=at(0), arrived_before=at(1))"

KILLED_AT = (Step.AFTER_READ, Step.MID_COPY, Step.BEFORE_COMMIT, Step.AFTER_COMMIT)  # all steps: test_landing_killed.py, from a folder


@pytest.fixture
def in_s3(warehouse: Warehouse, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """A fresh warehouse whose zone is a bucket."""
    set_environment(monkeypatch, TIDEMARK_LANDING_URL=s3_url)
    return warehouse


def test_files_of_a_bucket_land_once_with_their_originals(in_s3):
    rows = [telemetry(f"m{n}", at(0, 1), temperature=20.0 + n) for n in range(4)]
    file = put("device_telemetry", [*rows, "{broken"], arrived_at=at(0, 2), tenant="acme")
    zone().put("device_telemetry", b"[" + ",\n".join(map(json.dumps, rows)).encode() + b"]", source="again", ext="json", arrived_at=at(0, 3), tenant="acme")
    zone().put("device_telemetry", gzip.compress(b"x" * 99)[:-4], source="cut", ext="ndjson.gz", arrived_at=at(0, 4))
    for window in (at(-1), at(-1)):
        result = land_pending("device_telemetry", arrived_from=window, arrived_before=at(1))
        assert_balanced()
    assert result.files == 0
    assert in_s3.rows("select landed, accepted, quarantined, duplicate from ops.file order by arrived_at") == [(5, 4, 1, 0), (4, 0, 0, 4), (1, 0, 1, 0)]
    assert [(row["tenant_id"], row["temperature_c"], row["file"]) for row in raw_rows("device_telemetry")] == [
        ("acme", 20.0 + n, file.address) for n in range(4)
    ]
    assert json.loads(read_original(file.address, 3)) == rows[2]
    assert {code for row in list_quarantined(Filter()) for code in row.codes} == {"malformed_json", "unreadable_file"}
    put("device_telemetry", rows, arrived_at=at(40), tenant="acme")
    assert land_everything("device_telemetry").duplicate == 4


def test_new_bytes_in_an_object_are_a_new_arrival_and_the_same_bytes_are_not(in_s3):
    def write(payload):
        return zone().put("device_telemetry", json.dumps(payload).encode(), name="020000000000-plc-0.ndjson", arrived_at=at(0, 2))

    accepted = []
    for device in ("m1", "m1", "m2"):
        write(telemetry(device, at(0, 1)))
        accepted.append(land_pending("device_telemetry", arrived_from=at(0), arrived_before=at(1)).accepted)
    assert accepted == [1, 0, 1]
    assert_balanced()


def test_a_loader_killed_while_it_reads_or_writes_loses_and_doubles_nothing(in_s3):
    for number, step in enumerate(KILLED_AT):
        new, corrected = order(f"o{number}", "c1", at(0), updated_at=at(0, 1)), order(f"o{number - 1}", "c2", at(0, 2), updated_at=at(0, 3))
        put("orders", [new, new, corrected, "{broken"], arrived_at=at(0, 4 + number), source="a")
        assert killed_at(step, LOADER) == KILLED, step
        assert_balanced()
        assert land_pending("orders", arrived_from=at(0), arrived_before=at(1)).files == (0 if step is Step.AFTER_COMMIT else 1), step
        assert_balanced()
    after_kills = raw_rows("orders", without=VOLATILE)
    assert len(after_kills) == len(KILLED_AT) + 1
    in_s3.execute("truncate raw.orders, ops.file, ops.batch, ops.quarantine, ops.row_change, ops.stream_state cascade")
    for number in range(len(KILLED_AT)):
        land_pending("orders", arrived_from=at(0), arrived_before=at(0, 5 + number))
    assert raw_rows("orders", without=VOLATILE) == after_kills


@pytest.mark.parametrize("store", ["file", "s3"])
def test_a_large_file_written_anew_between_its_hash_and_its_rows_is_not_landed_under_the_wrong_hash(store, warehouse, request, monkeypatch):
    if store == "s3":
        set_environment(monkeypatch, TIDEMARK_LANDING_URL=request.getfixturevalue("s3_url"))
    monkeypatch.setattr(load, "BATCH_BYTES", 10)
    one, two = (json.dumps(telemetry(device, at(0, 1))).encode() for device in ("m1", "m2"))
    file = zone().put("device_telemetry", one, name="020000000000-a-0.ndjson", arrived_at=at(0, 2))
    real = load.land_batch

    def land_batch(*arguments):
        zone().put("device_telemetry", two, name="020000000000-a-0.ndjson", arrived_at=at(0, 2))
        return real(*arguments)

    monkeypatch.setattr(load, "land_batch", land_batch)
    assert land_pending("device_telemetry", arrived_from=at(0), arrived_before=at(1)).failed_files == (file.address,)
    assert warehouse.value("select count(*) from raw.device_telemetry") == 0
    assert "written anew while it was read" in str(warehouse.value("select error from ops.file"))
    monkeypatch.setattr(load, "land_batch", real)
    assert land_pending("device_telemetry", arrived_from=at(0), arrived_before=at(1)).accepted == 1
    assert [row["device_id"] for row in raw_rows("device_telemetry")] == ["m2"]


def test_a_file_that_vanishes_before_it_is_read_leaves_the_others(in_s3, monkeypatch):
    gone = put("device_telemetry", [telemetry("m1", at(0, 1))], arrived_at=at(0, 2))
    put("device_telemetry", [telemetry("m2", at(0, 1))], arrived_at=at(0, 3))
    real = load._pending

    def pending(*asked):
        listed = real(*asked)
        store, root = open_store(zone().url)
        store.rm_file(f"{root}/{gone.address}")
        return listed

    monkeypatch.setattr(load, "_pending", pending)
    assert land_pending("device_telemetry", arrived_from=at(0), arrived_before=at(1)).accepted == 1


def test_a_zone_that_cannot_be_reached_is_one_clear_line(in_s3, monkeypatch):
    set_environment(monkeypatch, TIDEMARK_LANDING_URL="s3://nobody-made-this-bucket/zone")
    with pytest.raises(ZoneError, match="the bucket of s3://nobody-made-this-bucket/zone does not exist"):
        land_pending("orders", arrived_from=at(0), arrived_before=at(1))
