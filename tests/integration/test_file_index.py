"""The file index: every file is found by what is asked, leads to where its rows lie today, and a data set to the bytes it was made of."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from include.cli import app
from include.contracts import streams
from include.file_index.errors import FileIndexError
from include.file_index.find import FileFilter, find_files
from include.file_index.kinds import FileState, Kind
from include.file_index.storage import _disk, take_snapshot
from include.file_index.stores import Stores
from include.lake import export_stream
from include.lake.compact import compact_stream
from include.lake.sweep import sweep_stream
from include.landing.object_store import ObjectStore
from include.settings import get_settings
from include.warehouse import Role, connect
from ml.lifecycle.dataset import Dataset, load_dataset
from ml.lifecycle.provenance import DatasetReference, record_dataset, sources_of
from ml.lifecycle.reread import UseCaseUnknown, use_cases
from ml.usecases.device_failure import DEVICE_FAILURE
from tests.conftest import DEPLOYED_TEMPLATE, TEST_DATABASE, Cluster, Warehouse, set_environment
from tests.support.databases import clone_database, drop_database
from tests.support.marts import build_marts
from tests.support.payloads import at, maintenance, put, telemetry
from tests.support.runbooks import commands
from tests.support.scenario import land_stream

RUNNER = CliRunner()
# The use case of the house on the few days of the scenario: outcomes of one day, known at once.
OF_FEATURES = ("device_events", "device_registry", "device_telemetry", "maintenance_log", "work_order_feedback")
SPEC = replace(DEVICE_FAILURE.dataset, outcome=replace(DEVICE_FAILURE.dataset.outcome, horizon=timedelta(days=1), settling=timedelta(0)))


def run_json(*arguments: str, code: int = 0) -> Any:
    done = RUNNER.invoke(app, ["files", *arguments, "--json"])
    assert done.exit_code == code, f"{arguments}: {done.output}{done.exception!r}"
    return json.loads(done.stdout)


def run(*arguments: str, code: int = 0) -> str:
    """What a person sees, on both outputs, without folds of the table."""
    done = RUNNER.invoke(app, ["files", *arguments])
    assert done.exit_code == code, f"{arguments}: {done.output}{done.exception!r}"
    return done.output


def export_all() -> None:
    for stream in streams():
        export_stream(stream)


def read_dataset() -> tuple[Dataset, DatasetReference]:
    """Reads a data set from the marts and enters it, as training does."""
    with connect(Role.ML) as connection:
        dataset = load_dataset(connection, SPEC)
        return dataset, record_dataset(connection, "device_failure", dataset, sources_of(connection, SPEC))


def is_chosen(selection: FileFilter, line: dict[str, Any]) -> bool:
    """The plainest reading of a filter."""
    first, last = line["first_event_at"], line["last_event_at"]
    return (
        (selection.stream is None or line["stream"] == selection.stream)
        and (selection.kind is None or line["kind"] == selection.kind.value)
        and (selection.state is None or line["state"] == selection.state.value)
        and (selection.tenant is None or line["tenant_id"] in {selection.tenant, None})
        and (selection.event_from is None or (last is not None and last >= selection.event_from))
        and (selection.event_before is None or (first is not None and first < selection.event_before))
        and (selection.arrived_from is None or line["arrived_at"] >= selection.arrived_from)
        and (selection.arrived_before is None or line["arrived_at"] < selection.arrived_before)
    )


def spans(source: random.Random) -> Iterator[tuple[datetime | None, datetime | None]]:
    """Spans of the scenario's days, open ones among them; whole hours, so that files begin and end exactly at their ends too."""
    while True:
        start = at(source.randrange(-2, 7), source.randrange(24))
        yield source.choice(((None, None), (start, None), (None, start), (start, start + timedelta(hours=source.choice((1, 2, 24, 72))))))


def test_every_filter_finds_what_its_plainest_reading_does(built: Warehouse) -> None:
    export_all()
    put("orders", ["{broken"], arrived_at=at(9))
    zone_file = put("orders", [{"orderId": "x"}], arrived_at=at(10))
    built.execute(
        "insert into ops.file (stream, tenant_id, address, content_hash, version_tag, size_bytes, file_format, arrived_at, state, error) "
        f"values ('orders', 'acme', '{zone_file.address}', 'x', 't', 1, 'ndjson', '2026-03-11', 'failed', 'three times')"
    )
    columns = ("file_id", "stream", "kind", "state", "tenant_id", "first_event_at", "last_event_at", "arrived_at")
    lines = [dict(zip(columns, row, strict=True)) for row in built.rows(f"select {', '.join(columns)} from ops.file")]
    assert {line["kind"] for line in lines} == {"arrival", "lake"}
    source = random.Random(5)
    drawn, found_some = spans(source), 0
    for _ in range(300):
        (event_from, event_before), (arrived_from, arrived_before) = next(drawn), next(drawn)
        if source.random() < 0.5:
            arrived_from = arrived_before = None
        selection = FileFilter(
            stream=source.choice((None, None, *streams())),
            kind=source.choice((None, None, *Kind)),
            state=source.choice((None, None, None, FileState.LANDED, FileState.LIVE, FileState.FAILED)),
            tenant=source.choice((None, None, "default", "acme")),
            event_from=event_from,
            event_before=event_before,
            arrived_from=arrived_from,
            arrived_before=arrived_before,
        )
        expected = sorted((line for line in lines if is_chosen(selection, line)), key=lambda line: (line["arrived_at"], line["file_id"]), reverse=True)
        assert [file.file_id for file in find_files(selection, limit=1000)] == [line["file_id"] for line in expected], selection
        assert [file.file_id for file in find_files(selection, limit=2)] == [line["file_id"] for line in expected[:2]], selection
        found_some += bool(expected)
    assert found_some > 100
    with pytest.raises(FileIndexError, match="its end must be after its start"):
        FileFilter(event_from=at(1), event_before=at(1))


def test_files_are_listed_and_shown_by_command(built: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = run_json("find", "--stream", "device_telemetry", "--from", "2026-03-03", "--to", "2026-03-04", "--kind", "arrival", "--tenant", "acme")
    (line,) = listed
    assert (line["state"], line["row_count"], line["tenant_id"]) == ("landed", 8, "acme")
    assert (line["first_event_at"], line["last_event_at"]) == ("2026-03-03T00:00:00+00:00", "2026-03-03T21:00:00+00:00")
    assert "1 files" in run("find", "--stream", "device_telemetry", "--from", "2026-03-03", "--to", "2026-03-04", "--tenant", "acme")
    assert "there may be more" in run("find", "--limit", "1")
    assert run_json("find", "--arrived-to", "2026-01-01") == []
    for wrong, said in (("--stream", "no stream"), ("--from", "must be a moment"), ("--state", "Invalid value")):
        assert said in run("find", wrong, "nonsense", code=2)

    export_stream("device_telemetry")
    detail = run_json("show", line["address"])
    assert [entry["file"]["file_id"] for entry in detail] == [line["file_id"]]
    assert detail == run_json("show", str(line["file_id"]))
    (shown,) = detail
    assert shown["is_there"]
    assert shown["counts"] == {"accepted": 8, "quarantined": 0, "duplicate": 0, "corrected": 0}
    assert shown["raw"] == dict(built.rows("select partition, sum(row_count)::int from ops.movement where stream = 'device_telemetry' group by 1"))
    (lake,) = shown["lake"]
    assert (lake["kind"], lake["first_event_at"][:10]) == ("lake", "2026-03-03")
    assert "acme" in run("show", line["address"])
    (built.zone_dir / line["address"]).unlink()
    assert not run_json("show", line["address"])[0]["is_there"]
    assert "not there" in run("show", line["address"])

    put("device_telemetry", [telemetry("m8", at(2, 5))], arrived_at=at(6))
    land_stream("device_telemetry")
    export_stream("device_telemetry")
    assert run_json("show", line["address"])[0]["lake"] == [lake], "not the file of the same day that holds later batches"
    compact_stream("device_telemetry")
    (live,) = run_json("find", "--stream", "device_telemetry", "--kind", "lake", "--state", "live", "--from", "2026-03-03", "--to", "2026-03-04")
    (merged,) = run_json("show", str(live["file_id"]))
    assert len(merged["lake"]) == 2, "the two files that it was merged from"
    assert lake["file_id"] in {file["file_id"] for file in merged["lake"]}
    assert f"{live['file_id']}" in run("show", str(lake["file_id"])), "a replaced file says what took its place"
    monkeypatch.setattr("sys.argv", ["tidemark"])
    for number in ("999999", "9" * 30):
        assert isinstance(RUNNER.invoke(app, ["files", "show", number]).exception, FileIndexError)


def test_a_data_set_leads_to_where_its_rows_lie_today(built: Warehouse) -> None:
    dataset, reference = read_dataset()
    number = str(reference.dataset_id)
    assert len(dataset.frame) > 0
    found = run_json("dataset", number)
    assert found["is_complete"]
    assert found["dataset"]["content_hash"] == dataset.content_hash
    named = {held["file"]["file_id"] for held in found["files"]}
    assert {held["file"]["stream"] for held in found["files"]} == set(OF_FEATURES) == set(reference.horizon)
    assert named == {
        row[0]
        for row in built.rows(
            "select file_id from ops.file where kind = 'arrival' and first_event_at <= (select event_until from ops.dataset) "
            f"and stream in ({', '.join(repr(stream) for stream in OF_FEATURES)})"
        )
    }
    assert reference.files == len(named)
    assert [entry["dataset_id"] for entry in run_json("dataset")] == [reference.dataset_id]
    assert "all bytes are there, and they are the same" in " ".join(run("dataset", number, "--verify").split())

    # The zone lets its arrivals go: the lake has their rows.
    export_all()
    address = found["files"][0]["file"]["address"]
    for held in found["files"]:
        (built.zone_dir / held["file"]["address"]).unlink()
    assert "gone:" in run("dataset", number, code=1)
    built.execute("update ops.file set state = 'expired', expired_at = now() where kind = 'arrival'")
    moved = run_json("dataset", number, "--verify")
    assert moved["is_complete"]
    assert {held["file"]["kind"] for held in moved["files"]} == {"lake"}
    assert set().union(*(held["named"] for held in moved["files"])) == named
    assert run_json("show", address)[0]["datasets"] == {number: "device_failure"}

    # Of an arrival over two days the lake still holds one: what is left is not the whole.
    arrival = next(name for held in moved["files"] for name in held["named"] if held["file"]["stream"] == "device_telemetry")
    built.execute(f"update ops.file set last_event_at = last_event_at + interval '1 day' where file_id = {arrival}")
    days = [held["file"]["file_id"] for held in run_json("dataset", number)["files"] if arrival in held["named"]]
    assert len(days) > 1
    built.execute(f"update ops.file set state = 'expired', expired_at = now() where file_id = {days[0]}")
    partly = run_json("dataset", number, code=1)
    assert {held["file"]["file_id"] for held in partly["files"] if not held["is_there"]} == {days[0]}
    built.execute(f"update ops.file set state = 'live', expired_at = null where file_id = {days[0]}")

    # A data set that is read now names lake files; what is merged or written anew later leads to its successor, a day that was emptied to none.
    put("maintenance_log", [maintenance("w9", "m3", at(3, 6)), maintenance("w10", "m3", at(-5, 6))], arrived_at=at(6))
    land_stream("maintenance_log")
    build_marts()
    export_all()
    later, second = read_dataset()
    assert later.content_hash != dataset.content_hash
    put("maintenance_log", [maintenance("w9", "m3", at(3, 7), updated_at=at(7)), maintenance("w10", "m3", at(-4, 7), updated_at=at(7))], arrived_at=at(7))
    land_stream("maintenance_log")
    export_all()
    for stream in streams():
        compact_stream(stream)
        sweep_stream(stream, grace=timedelta(0))
    today = run_json("dataset", str(second.dataset_id), "--verify")
    assert today["is_complete"]
    assert {held["file"]["state"] for held in today["files"]} == {"live"}
    assert any(held["named"] != [held["file"]["file_id"]] for held in today["files"])
    assert today["corrected"] == {"maintenance_log": 2}
    assert "2 events of maintenance_log were corrected since" in run("dataset", str(second.dataset_id))

    # Other bytes of the same size are found by reading them, a missing file by looking for it.
    lost = next(held["file"] for held in today["files"] if held["file"]["stream"] == "device_telemetry")
    path = Path(get_settings().lake_root.removeprefix("file://")) / lost["address"]
    bytes_before = path.read_bytes()
    path.write_bytes(bytes_before[:-1] + bytes([bytes_before[-1] ^ 1]))
    assert run_json("dataset", str(second.dataset_id))["is_complete"]
    assert not run_json("dataset", str(second.dataset_id), "--verify", code=1)["is_complete"]
    path.unlink()
    assert lost["address"] in "".join(run("dataset", str(second.dataset_id), code=1).split())
    assert isinstance(RUNNER.invoke(app, ["files", "dataset", "77"]).exception, FileIndexError)
    assert RUNNER.invoke(app, ["files", "dataset", "--verify"]).exit_code == 2


def test_a_data_set_is_rebuilt_from_its_horizon_and_the_lake(built: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert use_cases()["device_failure"] is DEVICE_FAILURE, "every module is imported, so that those who build on it hold it as it is"
    dataset, reference = read_dataset()
    put("device_telemetry", [telemetry("m1", at(0, 5, 30), temperature=140.0)], arrived_at=at(8))
    put("maintenance_log", [maintenance("w8", "m2", at(2, 5))], arrived_at=at(8))
    for stream in ("device_telemetry", "maintenance_log"):
        land_stream(stream)
    export_all()
    build_marts()
    assert read_dataset()[0].content_hash != dataset.content_hash, "what landed since would be in it"
    kept = run_json("dataset", str(reference.dataset_id))
    monkeypatch.chdir(tmp_path)
    take_snapshot(date(2026, 3, 10))
    for words in commands("file-index"):  # the runbook, up to where it needs an empty warehouse
        if words[:2] != ["files", "rebuild"]:
            done = RUNNER.invoke(app, words[: words.index(">")] if ">" in words else words)
            assert done.exit_code == 0, f"{words}: {done.output}{done.exception!r}"
            if ">" in words:
                Path(words[-1]).write_text(done.stdout)

    drop_database(TEST_DATABASE)
    clone_database(DEPLOYED_TEMPLATE, TEST_DATABASE)
    monkeypatch.setattr("ml.usecases.device_failure.DEVICE_FAILURE", replace(DEVICE_FAILURE, dataset=SPEC))
    file = tmp_path / "dataset.json"
    assert json.loads(file.read_text()) == kept
    (last,) = (words for words in commands("file-index") if words[:2] == ["files", "rebuild"])
    again = run_json(*last[1:])
    assert (again["is_same"], again["content_hash"], again["rows"]) == (True, dataset.content_hash, len(dataset.frame))
    assert again["restored"] == sum(built.value(f"select count(*) from raw.{stream}") for stream in OF_FEATURES)  # type: ignore[misc]

    file.write_text(json.dumps({**kept, "dataset": {**kept["dataset"], "content_hash": "0"}}))
    assert "another data set" in run("rebuild", str(file), code=1), "running it again reads it again"
    file.write_text(json.dumps({**kept, "dataset": {**kept["dataset"], "name": "gone"}}))
    assert isinstance(RUNNER.invoke(app, ["files", "rebuild", str(file)]).exception, UseCaseUnknown)
    file.write_text("[]")
    assert "is not what" in run("rebuild", str(file), code=2)


def test_space_is_measured_where_it_is_taken(built: Warehouse, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    export_all()
    day = date(2026, 3, 10)
    take_snapshot(day)
    report = "select * from platform.rpt_storage_daily where stream = 'orders'"
    first = dict(zip((row[0] for row in built.rows(_COLUMNS)), built.rows(report)[0], strict=True))
    files = list((built.zone_dir / "orders").rglob("*.ndjson"))
    assert (first["zone_bytes"], first["zone_file_count"]) == (sum(path.stat().st_size for path in files), len(files))
    lake = list((built.zone_dir.parent / "lake" / "orders").rglob("*.parquet"))
    assert (first["lake_bytes"], first["lake_file_count"]) == (sum(path.stat().st_size for path in lake), len(lake))
    assert first["raw_row_count"] == first["lake_row_count"] == built.value("select count(*) from raw.orders")
    assert first["raw_bytes"] == built.value("select sum(pg_total_relation_size(relid)) from pg_partition_tree('raw.orders')")
    assert first["mart_bytes"] > 0
    assert first["disk_bytes"] is None, "the server is named by its address, so its disk is not seen"
    assert first["database_bytes"] > first["raw_bytes"]

    # An arrival that was written anew under its name takes the place of the former bytes; one that expired takes none. The same day again is the same day.
    built.execute("update ops.file set state = 'expired', expired_at = now() where kind = 'arrival' and stream = 'orders'")
    before = built.value("select count(*) from ops.storage_snapshot")
    take_snapshot(day)
    assert built.value("select count(*) from ops.storage_snapshot") == before
    assert built.rows("select zone_bytes, zone_row_count, zone_file_count from platform.rpt_storage_daily where stream = 'orders'", Role.ANALYST) == [(0, 0, 0)]
    take_snapshot(day + timedelta(days=2))
    assert built.value("select growth_bytes_per_day from platform.rpt_storage_daily where stream = 'orders' order by snapshot_date desc limit 1") == 0

    set_environment(monkeypatch, TIDEMARK_WAREHOUSE_URL="")
    seen = _disk()
    assert seen is not None
    assert seen[0] > seen[1] > 0


_COLUMNS = "select attname from pg_attribute where attrelid = 'platform.rpt_storage_daily'::regclass and attnum > 0 and not attisdropped order by attnum"


def test_bytes_that_were_overwritten_are_counted_once(warehouse: Warehouse) -> None:
    from tests.support.payloads import order, zone

    for number in (1, 2):
        line = json.dumps(order(f"o{number}", "c1", at(0))).encode() + b"\n" * number
        zone().put("orders", line, name="till.ndjson", arrived_at=at(1))
        land_stream("orders")
    assert warehouse.value("select count(*) from ops.file") == 2
    take_snapshot(datetime(2026, 3, 10, tzinfo=UTC).date())
    (size,) = (path.stat().st_size for path in warehouse.zone_dir.rglob("till.ndjson"))
    assert warehouse.rows("select size_bytes, file_count from ops.storage_snapshot where store = 'zone' and name = 'orders'") == [(size, 1)]


def test_bytes_are_looked_for_in_a_bucket_as_in_a_folder(warehouse: Warehouse, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, TIDEMARK_LANDING_URL=s3_url, TIDEMARK_LAKE_URL=f"{s3_url}-lake")
    for hour in range(1, 4):
        put("device_telemetry", [telemetry("m1", at(hour - 1, 1))], arrived_at=at(hour))
    land_stream("device_telemetry")
    export_stream("device_telemetry")
    files = {(file.kind, file.arrived_at): file for file in find_files(FileFilter(stream="device_telemetry"))}
    assert len(files) == 6
    stores = Stores()
    for by_content in (False, True):
        assert stores.missing(files.values(), by_content=by_content) == set()
    gone = [next(file for file in files.values() if file.kind == kind) for kind in Kind]
    for file, store in zip(gone, (ObjectStore(s3_url, ""), ObjectStore(f"{s3_url}-lake", "")), strict=True):
        assert store.remove(file.address)
    assert stores.missing(files.values()) == {file.file_id for file in gone}
    other = next(file for file in files.values() if file.kind == Kind.ARRIVAL and file not in gone)
    ObjectStore(s3_url, "").write(other.address, b"x" * other.size_bytes, is_new=False)
    assert stores.missing(files.values()) == {other.file_id, *(file.file_id for file in gone)}
