"""Months leave raw and come back, and no mart notices: late events, restores, rebuilds, a warehouse lost, processes killed on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from include.cli import app
from include.contracts import streams
from include.lake import export_stream
from include.lake.errors import LakeError
from include.lake.expire import MonthHeldBack, expire_month
from include.lake.rebuild import EVERYTHING, rebuild, rebuild_from_lake
from include.lake.recall import recall
from include.lake.retention import expire_raw, plan, run
from include.lake.steps import LakeStep
from include.landing import check_partitions, land_everything
from include.landing.quarantine import Filter, list_quarantined
from include.transform import TransformFailed, check_everything, fix_horizon, request_touch
from include.transform.expiring import WITHIN_A_MONTH, check_expiring, consumers, unsafe_models
from include.transform.invocation import DbtError, manifest_json
from include.transform.trace import trace
from include.warehouse import Role, connect
from tests.conftest import DEPLOYED_TEMPLATE, TEST_DATABASE, Cluster, Warehouse, fresh_copy, make_template
from tests.support.aged import FEBRUARY, JANUARY, LATER, MARCH, STREAM, land_history, readings, rows_in_raw, states
from tests.support.databases import clone_database, drop_database
from tests.support.killed import KILLED, TRANSFORM, killed_at
from tests.support.landing import assert_balanced
from tests.support.marts import build_marts, differences, snapshot
from tests.support.payloads import at, telemetry
from tests.support.runbooks import commands
from tests.support.scenario import File, land

HOURLY = "maintenance.fct_device_reading_hourly"


AGED_TEMPLATE = "tidemark_aged"


@pytest.fixture(scope="module")
def aged_zone(cluster: Cluster, deployed_template: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zone of the three months; they are landed and built in a database of which each test has a copy."""

    def fill() -> None:
        land_history()
        build_marts()

    zone = tmp_path_factory.mktemp("aged") / "zone"
    make_template(cluster, AGED_TEMPLATE, zone, fill)
    return zone


@pytest.fixture
def aged(cluster: Cluster, aged_zone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    """Like `deployed`, with three months landed and every mart built."""
    yield from fresh_copy(cluster, AGED_TEMPLATE, aged_zone, tmp_path, monkeypatch)


def leave_raw() -> None:
    """Drops what is due at LATER and makes sure that something was."""
    assert [(item.month, item.waits_for) for item in expire_raw(LATER)] == [(JANUARY, None), (FEBRUARY, None)]


def test_marts_do_not_notice_that_months_leave_and_come_back(aged: Warehouse) -> None:
    before = snapshot()
    march = rows_in_raw(MARCH)
    leave_raw()
    assert (rows_in_raw(), states()) == (march, {JANUARY: "expired", FEBRUARY: "expired"})
    assert plan(LATER) == []
    assert check_partitions(everything=True) >= 3
    assert_balanced()

    # A backfill over what has left must not empty it; every data test over whole tables passes without it.
    request_touch(at(-60), at(10), "test")
    assert check_everything(fix_horizon()).tests > 0
    assert differences(before, snapshot()) == []
    with pytest.raises(TransformFailed, match=r"2 months of device_telemetry \(2026-01 to 2026-02\) have left the raw table: run `tidemark rebuild --select"):
        build_marts("fct_device_reading_hourly", rebuild=True)
    assert differences(before, snapshot()) == []
    gone = trace(HOURLY, ["m1", "2026-02-10 06:00+00"])
    assert (gone.raw, [remark for remark in gone.remarks if "tidemark lake restore device_telemetry 2026-02-01" in remark]) == ([], gone.remarks)

    # Late events of both months, a copy of one that has left, and one for March.
    late, copy, other, fresh = telemetry("m1", at(-19, 1)), readings("m1", -20, 1)[0], telemetry("m1", at(-40, 1)), telemetry("m1", at(2, 1))
    land(File(STREAM, at(6), (late, copy, other, fresh)))
    assert [row.codes for row in list_quarantined(Filter(STREAM))] == [["partition_expired"]] * 3
    assert rows_in_raw() == march + 1
    build_marts()
    assert [line.split(":")[0] for line in differences(before, snapshot())] != []
    without_late = snapshot()

    back = recall(STREAM, date(2026, 2, 14), keep_until=LATER + timedelta(days=7), by="test")
    assert (back.rows, back.replayed.accepted, back.replayed.duplicate, back.replayed.quarantined) == (96, 1, 1, 0)
    assert states() == {JANUARY: "expired", FEBRUARY: "restored"}
    assert [row.errors[0]["value"][:7] for row in list_quarantined(Filter(STREAM))] == ["2026-01"]
    assert recall(STREAM, FEBRUARY, keep_until=LATER, by="test").rows == 0  # nothing is left to do, and the time is not shortened
    assert "has read up to batch" in str(plan(LATER + timedelta(days=8))[0].waits_for)
    build_marts(run_tests=True)
    assert aged.value(f"select reading_count from {HOURLY} where device_id = 'm1' and hour_at = '2026-02-10 01:00+00'") == 1
    recall(STREAM, JANUARY, keep_until=LATER, by="test")
    build_marts()
    complete = snapshot()
    assert differences(without_late, complete) != []
    build_marts(rebuild=True)  # allowed: everything is in raw
    assert differences(complete, snapshot()) == []
    assert [(item.month, item.waits_for) for item in expire_raw(LATER + timedelta(days=1))] == [(JANUARY, None)]
    assert [(item.month, item.waits_for) for item in expire_raw(LATER + timedelta(days=8))] == [(FEBRUARY, None)]
    check_everything(fix_horizon())
    assert differences(complete, snapshot()) == []
    check_partitions(everything=True)
    assert_balanced()


REBUILD = "from include.lake.rebuild import EVERYTHING, rebuild; from tests.support.aged import LATER; rebuild(EVERYTHING, LATER)"
FROM_LAKE = "from include.lake.rebuild import rebuild_from_lake; from tests.support.aged import LATER; rebuild_from_lake(LATER)"


def test_a_rebuild_reads_raw_and_lake_and_goes_on_after_a_kill(aged: Warehouse) -> None:
    truth = snapshot()
    leave_raw()
    for moment in ("2026-01-20 06:00+00", "2026-02-10 06:00+00", "2026-03-02 06:00+00"):
        aged.execute(f"update {HOURLY} set reading_count = 777 where device_id = 'm1' and hour_at = '{moment}'")
    assert killed_at(LakeStep.REBUILD_AFTER_RESTORE, REBUILD, imports=TRANSFORM) == KILLED
    assert states() == {JANUARY: "restored", FEBRUARY: "expired"}
    assert [item.waits_for for item in expire_raw(LATER)] == [
        'rebuild 1 is not finished: run `tidemark rebuild --select "tag:micro_batch tag:hourly tag:priorities"` again'
    ]
    assert killed_at(LakeStep.REBUILD_BETWEEN_MONTHS, REBUILD, imports=TRANSFORM) == KILLED
    assert aged.rows("select month from ops.rebuild_month") == [(JANUARY,)]
    result = rebuild(EVERYTHING, LATER)
    assert (result.months, result.kept, result.in_raw) == ((JANUARY, FEBRUARY), (), ())
    assert differences(truth, snapshot()) == []
    assert [(item.month, item.waits_for) for item in expire_raw(LATER)] == [(JANUARY, None)]  # restored by the run that died before it was dropped again
    assert (rows_in_raw(JANUARY), rows_in_raw(FEBRUARY), states()) == (0, 0, {JANUARY: "expired", FEBRUARY: "expired"})


def test_an_empty_warehouse_gets_the_same_marts_from_the_lake(aged: Warehouse) -> None:
    land(File(STREAM, at(6), (readings("m1", -20, 1)[0], "{broken")))  # a copy and a row for the quarantine
    build_marts()
    leave_raw()
    for stream in streams():
        export_stream(stream)
    truth = snapshot()
    march = rows_in_raw(MARCH)
    drop_database(TEST_DATABASE)
    clone_database(DEPLOYED_TEMPLATE, TEST_DATABASE)
    assert killed_at(LakeStep.REBUILD_AFTER_RESTORE, FROM_LAKE, imports=TRANSFORM) == KILLED
    assert killed_at(LakeStep.REBUILD_BETWEEN_MONTHS, FROM_LAKE, imports=TRANSFORM) == KILLED
    result = rebuild_from_lake(LATER)
    assert result.months == (JANUARY, FEBRUARY, MARCH)
    assert differences(truth, snapshot()) == []
    expire_raw(LATER)  # January: its drop died
    assert (rows_in_raw(), states()) == (march, {JANUARY: "expired", FEBRUARY: "expired", MARCH: "restored"})
    check_partitions(everything=True)
    with pytest.raises(LakeError, match="fills an empty"):
        rebuild_from_lake(LATER)
    # What is still in the zone lands again: March as copies, the rest waits for its months.
    again = land_everything(STREAM)
    assert (again.accepted, again.duplicate, again.quarantined) == (0, march, 1 + 1 + 2 * 16 * 4)


def test_a_month_waits_for_models_and_for_backfills(deployed: Warehouse) -> None:
    land_history()
    assert [item.waits_for for item in plan(LATER)] == ["; ".join(f"{model} was never built" for model in consumers(STREAM))] * 2
    build_marts()
    assert [item.waits_for for item in plan(LATER)] == [None, None]
    request_touch(at(-45), at(-35), "test")
    land(File(STREAM, at(6), (telemetry("m1", at(-19, 1)),)))
    january, february = (item.waits_for or "" for item in plan(LATER))
    assert january == "; ".join(f"{model} has still to recompute the span of touch request 1" for model in consumers(STREAM))
    assert february.count("has read up to batch") == len(consumers(STREAM)) == 5
    assert [item.waits_for is None for item in expire_raw(LATER)] == [False, False]
    with connect(Role.LOADER, autocommit=True) as connection, pytest.raises(MonthHeldBack, match="stays in raw"):
        expire_month(connection, STREAM, JANUARY, consumers(STREAM))
    assert states() == {}
    build_marts()
    leave_raw()


def test_models_that_would_lose_rows_are_refused(deployed: Warehouse) -> None:
    manifest = manifest_json()
    check_expiring(manifest)
    below = tuple(f"intermediate.int_maintenance__{name}" for name in ("device_firmware_hourly", "machine_feature_daily", "reading_known_daily"))
    windows = "maintenance.fct_device_window_1min"
    assert consumers(STREAM, manifest) == (*below, HOURLY, windows)
    # What the macros date_of, hour_of and window_of write where models use them.
    mappings = [(node["config"].get("inputs") or {}).get(f"stg_{STREAM}", {}) for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    assert {expression for mapping in mappings for column, expression in mapping.items() if column != "select"} == set(WITHIN_A_MONTH)

    def broken(**config: Any) -> str:
        changed = json.loads(json.dumps(manifest))
        changed["nodes"]["model.tidemark.fct_device_reading_hourly"]["config"].update(config)
        return "\n".join(unsafe_models(changed, [STREAM]))

    assert broken() == ""
    assert "in buckets that no column keeps within a month" in broken(inputs={"stg_device_telemetry": {"week_at": "date_trunc('week', event_at)"}})
    assert "in buckets that no column keeps within a month" in broken(inputs={"stg_device_telemetry": {"select": "select 1 from {changes}"}})
    assert "reads all of stg_device_telemetry" in broken(incremental_strategy=None, materialized="view")
    assert broken(incremental_strategy=None, materialized="view", meta={"reads_what_raw_holds": True}) == ""
    manifest["nodes"]["model.tidemark.dim_date"]["depends_on"]["nodes"].append("source.tidemark.raw.device_telemetry")
    with pytest.raises(DbtError, match=r"dim_date reads raw\.device_telemetry"):
        check_expiring(manifest)


def test_the_lake_forgets_whole_months_and_marts_keep_theirs(aged: Warehouse) -> None:
    before = snapshot()
    leave_raw()
    year_later = LATER + timedelta(days=365 - 100)
    assert [(item.place, item.month, item.waits_for) for item in plan(year_later)][:1] == [("raw", MARCH, None)]
    run(year_later, [STREAM])
    assert states() == {JANUARY: "deleted", FEBRUARY: "expired", MARCH: "expired"}
    assert aged.rows("select distinct state from ops.file where kind = 'lake' and event_date < '2026-02-01'") == [("expired",)]
    assert not list((aged.zone_dir.parent / "lake" / STREAM).glob("event_date=2026-01-*/*.parquet"))
    with pytest.raises(LakeError, match="was deleted from the lake too"):
        recall(STREAM, JANUARY, keep_until=LATER, by="test")
    land(File(STREAM, at(6), (telemetry("m1", at(-40, 1)),)))
    assert [row.codes for row in list_quarantined(Filter(STREAM))] == [["partition_expired"]]
    result = rebuild("fct_device_reading_hourly+", year_later)
    assert (result.months, result.kept) == ((FEBRUARY, MARCH), (JANUARY,))
    assert differences(before, snapshot()) == []


def test_the_runbooks_commands_do_what_they_say(aged: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `tidemark` line of both pages, in order, with the clock at LATER and a month of 2026 where the page has its example."""
    runner = CliRunner()
    monkeypatch.setattr("include.commands.retention._now", lambda at=None: LATER)
    said: dict[str, str] = {}

    def follow(words: list[str]) -> None:
        done = runner.invoke(app, words)
        assert done.exit_code == 0, (words, done.output, done.exception)
        said[" ".join(words)] = done.output

    for words in commands("retention"):
        follow(words)
    assert states() == {JANUARY: "expired", FEBRUARY: "expired"}
    assert "2026-01" in said["retention plan"]
    land(File(STREAM, at(6), (telemetry("m1", at(-40, 1)),)))
    page = commands("restore-from-lake")
    last = page.index(["rebuild", "--from-lake"])
    for words in page[:last]:
        follow(words)
    assert "partition_expired" in said["quarantine list --code partition_expired"]
    assert "1 accepted" in said["lake restore device_telemetry 2026-01-31"]
    for stream in streams():
        export_stream(stream)
    truth = snapshot()
    drop_database(TEST_DATABASE)
    clone_database(DEPLOYED_TEMPLATE, TEST_DATABASE)
    for words in page[last:]:
        follow(words)
    assert differences(truth, snapshot()) == []
