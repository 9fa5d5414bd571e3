"""Export, compaction, sweep and restore killed with SIGKILL at each named step: no row is lost or doubled, and the next run goes on."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from include.lake import LakeError, export_stream, restore_month, restore_stream
from include.lake.compact import compact_stream
from include.lake.steps import LakeStep
from include.lake.store import open_lake, read_manifest
from include.lake.sweep import sweep_stream
from include.landing import check_partitions, land_pending
from include.warehouse import Role, connect
from tests.conftest import set_environment
from tests.support.killed import KILLED, killed_at
from tests.support.lake import assert_lake_is_raw, bytes_of, drop_month, lake_rows, stored_rows
from tests.support.landing import assert_balanced
from tests.support.payloads import at, order, put, telemetry

STREAM = "device_telemetry"
STEPS = {
    "export": [step for step in LakeStep if step.startswith("export")],
    "compact": [LakeStep.EXPORT_MID_WRITE, *(step for step in LakeStep if step.startswith("compact"))],
    "restore": [step for step in LakeStep if step.startswith("restore")],
}


def land(stream: str) -> None:
    land_pending(stream, arrived_from=at(-60), arrived_before=at(60))


def nothing_is_left_over(warehouse, stream: str) -> bool:
    """Whether after a sweep exactly the live files and the manifest lie there."""
    sweep_stream(stream, grace=timedelta())
    live = {address for (address,) in warehouse.rows("select address from ops.file where kind = 'lake' and state = 'live'")}
    return set(bytes_of(stream)) == live | {f"{stream}/_manifest.json"}


def test_an_export_killed_at_any_step_loses_and_doubles_nothing(warehouse):
    code = "from include.lake import export_stream; export_stream('orders')"
    for number, step in enumerate(STEPS["export"]):
        put("orders", [order(f"o{number}", "c1", at(0)), order(f"p{number}", "c1", at(number))], arrived_at=at(10, number), source="a")
        if number:  # moves to another day, so that a day has to be written anew
            put("orders", [order(f"p{number - 1}", "c2", at(9), updated_at=at(9, number))], arrived_at=at(10, number, 1), source="b")
        land("orders")
        before = stored_rows("orders")
        exported = lake_rows("orders")
        assert killed_at(step, code) == KILLED, step
        assert lake_rows("orders") == (before if step is LakeStep.EXPORT_AFTER_ENTRY else exported), step
        assert stored_rows("orders") == before
        export_stream("orders")
        assert_lake_is_raw("orders")
        assert nothing_is_left_over(warehouse, "orders"), step
    assert_balanced()


def test_a_compaction_killed_at_any_step_loses_and_doubles_nothing(warehouse):
    code = f"from include.lake.compact import compact_stream; compact_stream('{STREAM}')"
    for number, step in enumerate(STEPS["compact"]):
        for part in range(2):
            put(STREAM, [telemetry(f"m{n}", at(1, number, part), note=n) for n in range(3)], arrived_at=at(3, number, part))
            land(STREAM)
            export_stream(STREAM)
        assert killed_at(step, code) == KILLED, step
        assert_lake_is_raw(STREAM)
        compact_stream(STREAM)
        assert warehouse.value("select count(*) from ops.file where kind = 'lake' and state = 'live'") == 1
        assert_lake_is_raw(STREAM)
        assert nothing_is_left_over(warehouse, STREAM), step


def test_a_sweep_killed_between_files_is_finished_by_the_next(warehouse):
    for part in range(3):
        put(STREAM, [telemetry("m1", at(1, part))], arrived_at=at(3, part))
        land(STREAM)
        export_stream(STREAM)
    compact_stream(STREAM)
    code = f"from datetime import timedelta; from include.lake.sweep import sweep_stream; sweep_stream('{STREAM}', grace=timedelta())"
    assert killed_at(LakeStep.SWEEP_MID, code) == KILLED
    assert warehouse.rows("select state, count(*) from ops.file where kind = 'lake' group by 1 order by 1") == [("expiring", 3), ("live", 1)]
    assert len(bytes_of(STREAM)) == 4
    assert_lake_is_raw(STREAM)
    assert sweep_stream(STREAM).replaced == 3  # marked is marked, whatever the grace
    assert nothing_is_left_over(warehouse, STREAM)
    assert_lake_is_raw(STREAM)


def test_the_manifest_never_names_bytes_that_are_gone(warehouse):
    """It is all that an empty warehouse has, and a sweep may die between the bytes and its last line."""
    for part in range(2):
        put(STREAM, [telemetry("m1", at(1, part))], arrived_at=at(3, part))
        land(STREAM)
        export_stream(STREAM)
    compact = f"from include.lake.compact import compact_stream; compact_stream('{STREAM}')"
    sweep = f"from datetime import timedelta; from include.lake.sweep import sweep_stream; sweep_stream('{STREAM}', grace=timedelta())"
    assert killed_at(LakeStep.COMPACT_AFTER_ENTRY, compact) == KILLED
    assert killed_at(LakeStep.SWEEP_MID, sweep) == KILLED
    manifest = read_manifest(open_lake(), STREAM)
    assert manifest is not None
    assert [open_lake().exists(file.address) for file in manifest.files] == [True]


def test_in_s3_too_nothing_is_lost_or_doubled_by_a_kill(warehouse, s3_url, monkeypatch):
    set_environment(monkeypatch, TIDEMARK_LAKE_URL=s3_url)
    export = f"from include.lake import export_stream; export_stream('{STREAM}')"
    compact = f"from include.lake.compact import compact_stream; compact_stream('{STREAM}')"
    sweep = f"from datetime import timedelta; from include.lake.sweep import sweep_stream; sweep_stream('{STREAM}', grace=timedelta())"
    for number, (step, code) in enumerate(
        [
            (LakeStep.EXPORT_MID_WRITE, export),
            (LakeStep.EXPORT_AFTER_RENAME, export),
            (LakeStep.COMPACT_BEFORE_ENTRY, compact),
            (LakeStep.SWEEP_MID, sweep),
        ]
    ):
        put(STREAM, [telemetry("m1", at(1, number)), telemetry("m1", at(2, number))], arrived_at=at(3, number))
        land(STREAM)
        if code != export:
            export_stream(STREAM)
        if code == sweep:
            compact_stream(STREAM)
        assert killed_at(step, code) == KILLED, step
        export_stream(STREAM)
        assert_lake_is_raw(STREAM)
    assert nothing_is_left_over(warehouse, STREAM)
    rows = stored_rows(STREAM)
    drop_month(STREAM, date(2026, 3, 1))
    restore = (
        "from datetime import date; from include.lake import restore_month; from include.warehouse import Role, connect\n"
        f"with connect(Role.LOADER) as connection: restore_month(connection, '{STREAM}', date(2026, 3, 1))"
    )
    assert killed_at(LakeStep.RESTORE_MID_COPY, restore) == KILLED
    assert stored_rows(STREAM) == []
    with connect(Role.LOADER) as connection:
        restore_month(connection, STREAM, date(2026, 3, 1))
    assert stored_rows(STREAM) == rows


def test_a_restore_killed_at_any_step_brings_all_rows_or_none(warehouse):
    put(STREAM, [telemetry(f"m{n % 3}", at(day, n), note=n) for n in range(6) for day in (1, 2)], arrived_at=at(4))
    put(STREAM, [telemetry("m1", at(40))], arrived_at=at(41))
    land(STREAM)
    rows = stored_rows(STREAM)
    drop_month(STREAM, date(2026, 3, 1))
    left = stored_rows(STREAM)
    assert len(left) == 1
    code = (
        "from datetime import date; from include.lake import restore_month; from include.landing.crash import crash_point; "
        "from include.lake.steps import LakeStep; from include.warehouse import Role, connect\n"
        f"with connect(Role.LOADER) as connection: restore_month(connection, '{STREAM}', date(2026, 3, 9))\n"
        "crash_point(LakeStep.RESTORE_AFTER_COMMIT)"
    )
    for step in STEPS["restore"]:
        assert killed_at(step, code) == KILLED, step
        assert stored_rows(STREAM) == (rows if step is LakeStep.RESTORE_AFTER_COMMIT else left), step
        assert warehouse.value("select count(*) from pg_class where relname like '%_aside'") == 0
        check_partitions(STREAM, everything=True)
        assert_balanced()
    with pytest.raises(LakeError, match="what is in raw is not restored over"), connect(Role.LOADER) as connection:
        restore_month(connection, STREAM, date(2026, 3, 1))
    assert_lake_is_raw(STREAM)


def test_an_empty_warehouse_filled_from_the_lake_and_killed_on_the_way_goes_on(warehouse):
    put(STREAM, [telemetry("m1", at(1)), telemetry("m1", at(-1)), telemetry("m1", at(-40))], arrived_at=at(4))
    land(STREAM)
    rows = stored_rows(STREAM)
    export_stream(STREAM)
    warehouse.execute(f"drop table raw.{STREAM}_y2026m01, raw.{STREAM}_y2026m02, raw.{STREAM}_y2026m03")
    warehouse.execute("truncate ops.file, ops.batch, ops.movement, ops.stream_state, ops.lake_state, ops.partition_check cascade")
    code = f"from include.lake import restore_stream; restore_stream('{STREAM}')"
    for number, step in enumerate((LakeStep.RESTORE_MID_COPY, LakeStep.RESTORE_BEFORE_COMMIT, LakeStep.RESTORE_AFTER_COMMIT, LakeStep.RESTORE_AFTER_COMMIT)):
        assert killed_at(step, code) == KILLED, step
        assert len(stored_rows(STREAM)) == max(0, number - 1)
        check_partitions(STREAM, everything=True)
    assert [sum(done.partitions.values()) for done in restore_stream(STREAM)] == [1]
    assert stored_rows(STREAM) == rows
    assert restore_stream(STREAM) == []
    assert_balanced()
