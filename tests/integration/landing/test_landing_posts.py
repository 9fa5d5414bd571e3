"""Files of the gateway land like any other, for one tenant only, and every post has its result."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace

import pytest

from include.contracts import load_contract
from include.contracts.model import OnConflict
from include.lake import zone_retention
from include.landing import land_pending, read_original
from include.landing.errors import LandingUnbalanced
from include.landing.export import export
from include.landing.post_results import PostCounts
from include.landing.quarantine import Filter, list_quarantined
from include.landing.replay import replay
from include.landing.winner import Verdict
from tests.support.landing import VOLATILE, assert_balanced, raw_rows
from tests.support.payloads import at, order, put, telemetry, zone
from tests.support.posts import Sent, array, frames, ndjson, put_posts, single
from tests.support.stricter import land_under, with_field

TELEMETRY = load_contract("device_telemetry")
RESULTS = (
    "select p.first_rows, p.accepted, p.quarantined, p.duplicate, p.corrected from ops.post_result p join ops.file f using (file_id) order by f.arrived_at"
)
UNEQUAL = """
select f.address from ops.file f left join ops.file_replay r on r.file_id = f.file_id and r.is_whole left join ops.post_result p on p.file_id = f.file_id
where f.file_format = 'posts' and (f.state = 'landed' or r.file_id is not null) and
    (coalesce(r.accepted, f.accepted), coalesce(r.quarantined, f.quarantined), coalesce(r.duplicate, f.duplicate), coalesce(r.corrected, f.corrected))
    is distinct from (select (coalesce(sum(a), 0), coalesce(sum(q), 0), coalesce(sum(d), 0), coalesce(sum(c), 0))
        from unnest(p.accepted, p.quarantined, p.duplicate, p.corrected) as t (a, q, d, c))
"""


def land(warehouse, stream="device_telemetry"):
    result = land_pending(stream, arrived_from=at(-1), arrived_before=at(30))
    check(warehouse)
    return result


def check(warehouse):
    assert_balanced()
    assert warehouse.rows(UNEQUAL) == []


def again(warehouse, stream="device_telemetry"):
    result = replay(stream, Filter(), by="tester")
    check(warehouse)
    return result


def test_posts_of_every_kind_make_the_same_rows_as_a_file(warehouse):
    payloads = [telemetry(f"m{n}", at(0, n), temperature=20.0 + n / 3, unknown={"a": n}) for n in range(8)]
    put("device_telemetry", payloads, arrived_at=at(0, 12), tenant="acme")
    assert land(warehouse).accepted == 8
    expected = raw_rows("device_telemetry", without=(*VOLATILE, "file", "_row_number"))
    warehouse.execute("truncate raw.device_telemetry, ops.file, ops.batch, ops.quarantine, ops.stream_state cascade")
    for path in warehouse.zone_dir.rglob("*.ndjson"):
        path.unlink()
    posts = [
        ndjson(*payloads[:2]),
        ndjson(payloads[2], encoding="gzip"),
        array(*payloads[3:5], indent=2),
        array(payloads[5], encoding="zstd"),
        single(payloads[6]),
        single(payloads[7], indent=1),
    ]
    put_posts("device_telemetry", posts, arrived_at=at(0, 12))
    assert land(warehouse).counts() == {
        "files": 1,
        "batches": 1,
        "landed": 8,
        "accepted": 8,
        "quarantined": 0,
        "duplicate": 0,
        "corrected": 0,
        "failed_files": 0,
    }
    assert raw_rows("device_telemetry", without=(*VOLATILE, "file", "_row_number")) == expected
    assert warehouse.rows("select file_format, tenant_id from ops.file") == [("posts", "acme")]
    assert warehouse.rows(RESULTS) == [([1, 3, 4, 6, 7, 8], [2, 1, 2, 1, 1, 1], [0] * 6, [0] * 6, [0] * 6)]
    put_posts("device_telemetry", posts, arrived_at=at(0, 13))
    assert land(warehouse).duplicate == 8
    assert warehouse.rows(RESULTS)[1] == ([1, 3, 4, 6, 7, 8], [0] * 6, [0] * 6, [2, 1, 2, 1, 1, 1], [0] * 6)


def test_a_row_of_another_tenant_lands_for_nobody_and_stays_with_the_sender(warehouse):
    rows = [telemetry("m1", at(0, 1)), telemetry("m2", at(0, 1), tenantId="acme"), telemetry("m3", at(0, 1), tenantId="beta", odd=1)]
    bad = telemetry("m4", at(0, 1), tenantId="beta", temperature=5000.0)
    put_posts("device_telemetry", [ndjson(*rows, bad), ndjson("{", telemetry("m5", at(0, 1)))], arrived_at=at(0, 2))
    result = land(warehouse)
    assert (result.accepted, result.quarantined) == (3, 3)
    assert {(row["tenant_id"], row["device_id"]) for row in raw_rows("device_telemetry")} == {("acme", "m1"), ("acme", "m2"), ("acme", "m5")}
    found = {row.row_number: row for row in list_quarantined(Filter(code="foreign_tenant"))}
    assert {number: (row.tenant_id, set(row.codes)) for number, row in found.items()} == {
        3: ("acme", {"foreign_tenant"}),
        4: ("acme", {"foreign_tenant", "out_of_range"}),
    }
    error = found[3].errors[0]
    assert (error["field"], error["value"]) == ("tenant_id", "beta")
    assert "key of tenant acme" in error["message"]
    assert warehouse.rows("select tenant_id, field from ops.schema_drift") == [("acme", "odd")]
    assert again(warehouse).quarantined == 3  # neither does a replay let it through
    assert warehouse.rows(RESULTS) == [([1, 5], [2, 1], [2, 1], [0, 0], [0, 0])]


def test_quarantined_rows_of_posts_go_the_ways_of_other_rows(warehouse, monkeypatch, tmp_path):
    pretty = single(telemetry("m3", at(0, 1), temperature=60.0), indent=2)
    broken = Sent(gzip.compress(b"{}")[:-4], encoding="gzip")
    land_under(monkeypatch, with_field(TELEMETRY, "temperature_c", maximum=50.0))
    posts = [ndjson("", telemetry("m1", at(0, 1)), telemetry("m2", at(0, 1), temperature=20.0)), broken, pretty, array(telemetry("m4", at(0, 1)))]
    put_posts("device_telemetry", posts, arrived_at=at(0, 2))
    assert land(warehouse).quarantined == 4
    rows = {row.row_number: row for row in list_quarantined(Filter())}
    assert [rows[number].original for number in (2, 4, 5)] == [json.dumps(telemetry("m1", at(0, 1))).encode(), broken.stored, pretty.stored]
    assert {number: read_original(row.address, number) for number, row in rows.items()} == {number: row.original for number, row in rows.items()}
    written = export(Filter(code="out_of_range"), tmp_path / "out")
    assert [(file.path.name, file.tenant, file.rows) for file in written.files] == [("device_telemetry.acme-1.ndjson", "acme", 3)]
    assert [json.loads(line)["deviceId"] for line in written.files[0].path.read_text().splitlines()] == ["m1", "m3", "m4"]
    for path in warehouse.zone_dir.rglob("*.posts"):
        path.unlink()
    result = again(warehouse)
    assert (result.accepted, result.quarantined) == (3, 1)
    assert warehouse.rows(RESULTS) == [([1, 4, 5, 6], [1, 0, 0, 0], [1, 1, 1, 1], [0] * 4, [0] * 4)]  # as the file landed


def test_a_damaged_file_is_quarantined_whole_and_a_replay_gives_every_post_its_result(warehouse):
    receipts = put_posts("device_telemetry", [ndjson(telemetry("m1", at(0, 1)), "{"), ndjson(telemetry("m2", at(0, 1)))], arrived_at=at(0, 2))
    (path,) = warehouse.zone_dir.rglob("*.posts")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"m2"', b'"m8"'))
    assert (len(receipts), land(warehouse).quarantined) == (2, 1)
    (row,) = list_quarantined(Filter())
    assert (row.row_number, row.codes) == (None, ["unreadable_file"])
    assert "frame 2: its bytes are not those that were received" in row.errors[0]["message"]
    assert warehouse.rows(RESULTS) == []
    warehouse.execute(f"update ops.file set content_hash = sha256('\\x{whole.hex()}')")  # as if the disk had only misread it
    path.write_bytes(whole)
    result = again(warehouse)
    assert (result.accepted, result.quarantined) == (2, 1)
    assert warehouse.rows(RESULTS) == [([1, 3], [1, 1], [1, 0], [0, 0], [0, 0])]


def test_a_file_under_another_tenants_address_is_unreadable(warehouse):
    from include.landing.posts import new_group

    group = new_group("device_telemetry", at(0, 2))
    data = frames(group, "beta", [ndjson(telemetry("m1", at(0, 1)))])
    zone().put("device_telemetry", data, arrived_at=at(0, 2), name=group.file_name, tenant="acme")
    zone().put("device_telemetry", data, arrived_at=at(0, 2), name=group.file_name)
    assert land(warehouse).quarantined == 2
    assert raw_rows("device_telemetry") == []


def test_originals_in_the_zone_may_expire_like_those_of_lines(warehouse):
    """Rows of posts are in the quarantine whole, so that nothing open keeps their file."""
    put_posts("orders", [ndjson("{")], arrived_at=at(0, 2))
    land(warehouse, "orders")
    warehouse.execute("insert into ops.lake_state (stream, exported_batch_id) values ('orders', 1000)")
    with store_connection() as connection:
        assert zone_retention.due_in_zone(connection, load_contract("orders"), at(10_000)).files == 1


def store_connection():
    from include.warehouse import Role, connect

    return connect(Role.LOADER)


@pytest.mark.parametrize("seed", range(3))
def test_results_follow_rows_that_lose_their_place(warehouse, monkeypatch, seed):
    """`onConflict: quarantine`, in any order of landing: earlier batches, this batch, and replays are counted anew by post."""
    contract = replace(load_contract("orders"), version_field=None, on_conflict=OnConflict.QUARANTINE)
    for module in ("load", "replay"):
        monkeypatch.setattr(f"include.landing.{module}.load_contract", lambda stream: contract)
    chooser = random.Random(seed)
    for minute in range(6):
        posts = [ndjson(*(order(f"o{chooser.randrange(4)}", f"c{chooser.randrange(3)}", at(1)) for _ in range(chooser.randrange(1, 4)))) for _ in range(3)]
        put_posts("orders", posts, arrived_at=at(5, 0, minute), tenant="acme")
    tables = []
    for _ in range(3):
        minutes = list(range(6))
        chooser.shuffle(minutes)
        for minute in minutes:
            land_pending("orders", arrived_from=at(5, 0, minute), arrived_before=at(5, 0, minute + 1))
            check(warehouse)
        tables.append(warehouse.rows(RESULTS))
        warehouse.execute("truncate raw.orders, ops.file, ops.batch, ops.quarantine, ops.row_change, ops.stream_state, ops.movement cascade")
    assert tables[0] == tables[1] == tables[2]
    assert sum(sum(result[2]) for result in tables[0]) > 0


def test_a_row_that_lost_its_place_within_its_batch_is_counted_with_its_post(warehouse, monkeypatch):
    contract = replace(load_contract("orders"), version_field=None, on_conflict=OnConflict.QUARANTINE)
    monkeypatch.setattr("include.landing.load.load_contract", lambda stream: contract)
    # A row with an unknown field is decoded after the others, so the later copy is stored first.
    put_posts("orders", [ndjson(order("o2", "c1", at(1))), ndjson(order("o1", "c1", at(1), odd=1), order("o3", "c1", at(1)))], arrived_at=at(5))
    put_posts("orders", [ndjson(order("o4", "c1", at(1)), order("o1", "c2", at(1)))], arrived_at=at(5, 0, 1))
    assert land(warehouse, "orders").counts()["batches"] == 1
    assert [row["customer_id"] for row in raw_rows("orders") if row["order_id"] == "o1"] == ["c1"]
    assert warehouse.rows(RESULTS) == [([1, 2], [1, 2], [0, 0], [0, 0], [0, 0]), ([1], [1], [1], [0], [0])]


def test_rows_recounted_after_a_replay_of_the_whole_file_change_its_results(warehouse, monkeypatch):
    contract = replace(load_contract("orders"), version_field=None, on_conflict=OnConflict.QUARANTINE)
    for module in ("load", "replay"):
        monkeypatch.setattr(f"include.landing.{module}.load_contract", lambda stream: contract)
    put_posts("orders", [ndjson(order("o2", "c1", at(1))), ndjson(order("o1", "c2", at(1)))], arrived_at=at(5, 0, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("include.landing.post_rows.read_frames", _damaged)
        land(warehouse, "orders")
    assert again(warehouse, "orders").accepted == 2
    put("orders", [order("o1", "c1", at(1))], arrived_at=at(5), tenant="acme")
    assert land(warehouse, "orders").accepted == 1
    assert warehouse.rows(RESULTS) == [([1, 2], [1, 0], [0, 1], [0, 0], [0, 0])]


def test_rows_recounted_after_a_replay_of_themselves_change_nothing_that_their_post_counts(warehouse, monkeypatch):
    contract = replace(load_contract("orders"), version_field=None, on_conflict=OnConflict.QUARANTINE)
    monkeypatch.setattr("include.landing.replay.load_contract", lambda stream: contract)
    land_under(monkeypatch, with_field(contract, "channel_code", enum=("in_store",)))
    put_posts("orders", [ndjson("{"), ndjson(order("o1", "c2", at(1)))], arrived_at=at(5, 0, 1))
    land(warehouse, "orders")
    assert again(warehouse, "orders").accepted == 1
    before = warehouse.rows(RESULTS)
    monkeypatch.setattr("include.landing.load.load_contract", lambda stream: contract)
    put("orders", [order("o1", "c1", at(1))], arrived_at=at(5), tenant="acme")
    assert land(warehouse, "orders").accepted == 1
    assert len(list_quarantined(Filter(code="conflict"))) == 1
    assert warehouse.rows(RESULTS) == before == [([1, 2], [0, 0], [1, 1], [0, 0], [0, 0])]


def _damaged(_):
    from include.landing.posts import BrokenFrames

    raise BrokenFrames("frame 1: misread")


def test_posts_that_do_not_add_up_to_their_file_keep_the_batch_from_landing(warehouse, monkeypatch):
    put_posts("device_telemetry", [ndjson(telemetry("m1", at(0, 1)))], arrived_at=at(0, 2))
    real = PostCounts.count
    monkeypatch.setattr(PostCounts, "count", lambda self, verdict, *places, by=1: None if verdict is Verdict.ACCEPTED else real(self, verdict, *places, by=by))
    with pytest.raises(LandingUnbalanced, match="the posts of file"):
        land_pending("device_telemetry", arrived_from=at(-1), arrived_before=at(30))
    assert warehouse.rows("select * from ops.file") == []


def test_rows_the_server_refuses_are_counted_with_their_post(warehouse, owner):
    owner.execute("alter table raw.device_telemetry add constraint odd check (device_id <> 'bad')")
    put_posts("device_telemetry", [ndjson(telemetry("m1", at(0, 1))), ndjson(telemetry("bad", at(0, 1)), telemetry("m2", at(0, 1)))], arrived_at=at(0, 2))
    land(warehouse)
    assert warehouse.rows(RESULTS) == [([1, 2], [1, 1], [0, 1], [0, 0], [0, 0])]
