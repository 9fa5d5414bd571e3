"""Incremental equals full refresh, two layers down, whatever happened to the rows; analysts' views survive; a backfill repairs."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from psycopg import sql

from include.transform import TransformFailed, build, check_everything, fix_horizon, request_touch
from include.warehouse import Role, connect
from include.warehouse.bootstrap import connect_as_superuser
from tests.conftest import Warehouse
from tests.support.marts import EVERYTHING, MICRO_BATCH, build_marts, differences, snapshot, tables
from tests.support.payloads import at, customer, iso, maintenance, order, put, telemetry
from tests.support.removal import remove_event
from tests.support.scenario import File, files, land, land_stream


def test_incremental_equals_rebuild_after_every_kind_of_change(unfilled: Warehouse) -> None:
    early, late = files()[:8], files()[8:]
    for file in early:
        land(file)
    build_marts()
    for file in late:
        land(file)
    build_marts()
    incremental = snapshot()
    build_marts(rebuild=True)
    assert differences(incremental, snapshot()) == []


def test_a_removed_event_empties_its_hour_and_day(unfilled: Warehouse) -> None:
    land(File("device_telemetry", at(1), (telemetry("m1", at(0, 10)), telemetry("m1", at(0, 11)), telemetry("m2", at(0, 10)))))
    build_marts()
    assert unfilled.value("select count(*) from maintenance.fct_device_reading_daily where device_id = 'm2'") == 1
    remove_event("device_telemetry", "device_id = 'm2'")
    build_marts()
    assert unfilled.value("select count(*) from maintenance.fct_device_reading_hourly where device_id = 'm2'") == 0
    assert unfilled.value("select count(*) from maintenance.fct_device_reading_daily where device_id = 'm2'") == 0
    incremental = snapshot()
    build_marts(rebuild=True)
    assert differences(incremental, snapshot()) == []


def test_a_correction_rebuilds_the_buckets_of_the_old_content_and_of_the_new(unfilled: Warehouse) -> None:
    """A failure turns out to be another machine's, a day later: nothing of it is left where it stood, two layers down."""
    machines = tuple(telemetry(machine, at(day, hour)) for machine in ("m1", "m2") for day in range(2) for hour in (9, 10))
    land(File("device_telemetry", at(2), machines))
    land(File("maintenance_log", at(2), (maintenance("w1", "m1", at(0, 9, 30)),)))
    build_marts()
    land(File("maintenance_log", at(3), (maintenance("w1", "m2", at(1, 9, 30), updated_at=at(2, 12)),)))
    recorded = unfilled.rows("select old_content ->> 'device_id', new_content ->> 'device_id', old_known_from, old_known_to from ops.correction")
    assert recorded == [("m1", "m2", at(2), at(3))]
    of = fix_horizon()
    build(EVERYTHING, of, run_tests=False)
    touched = {
        (bucket["device_id"], bucket["health_date"])
        for (bucket,) in unfilled.rows(
            f"select bucket from ops.bucket_change where build_id = '{of.build_id}' and relation = 'maintenance.fct_device_health_daily'"
        )
    }
    assert {("m1", "2026-03-01"), ("m2", "2026-03-02")} <= touched
    assert unfilled.rows("select device_id, occurred_date::text from maintenance.fct_maintenance_event") == [("m2", "2026-03-02")]
    incremental = snapshot()
    build_marts(rebuild=True)
    assert differences(incremental, snapshot()) == []


def test_a_repeated_customer_is_not_read_again_and_one_known_earlier_is(unfilled: Warehouse) -> None:
    """A copy that says the same changes hands without a trace; one that arrived before what is stored dates the row anew."""
    land(File("customers", at(2), (customer("c1", at(0)),)))
    build_marts()
    land(File("customers", at(3), (customer("c1", at(0)),)))
    of = fix_horizon()
    build(EVERYTHING, of, run_tests=False)
    assert unfilled.value(f"select count(*) from ops.bucket_change where build_id = '{of.build_id}'") == 0
    land(File("customers", at(1), (customer("c1", at(0)),)))
    assert unfilled.value("select _known_at from raw.customers") == at(1)
    of = fix_horizon()
    build(EVERYTHING, of, run_tests=False)
    assert unfilled.value(f"select count(*) from ops.bucket_change where build_id = '{of.build_id}' and relation = 'core.dim_customer'") == 1
    incremental = snapshot()
    build_marts(rebuild=True)
    assert differences(incremental, snapshot()) == []


def test_a_second_build_touches_nothing(built: Warehouse) -> None:
    of = fix_horizon()
    build(EVERYTHING, of, run_tests=False)
    assert built.value(f"select count(*) from ops.bucket_change where build_id = '{of.build_id}'") == 0


def test_only_models_above_what_landed_do_work_and_all_are_as_far_as_the_build(built: Warehouse) -> None:
    land(File("unit_lives", at(6), ({"unitId": "u9", "statedAt": iso(at(5)), "remainingCycles": 3},)))
    of = fix_horizon()
    build(EVERYTHING, of, run_tests=False)
    results = built.rows(f"select split_part(unique_id, '.', 3), message from ops.dbt_run_result where build_id = '{of.build_id}'")
    still = {name for name, message in results if message == "NOTHING MOVED"}
    touched = {model.partition(".")[2] for model in tables(("incremental",))}
    assert {"fct_device_reading_hourly", "fct_order", "feat_unit_daily"} <= still
    assert touched - still == {"fct_unit_failure"}
    assert built.rows(f"select model from ops.model_state where build_id <> '{of.build_id}'") == []


def test_a_model_that_stands_still_gets_back_what_its_readers_lost(built: Warehouse) -> None:
    mart = "maintenance.fct_device_reading_hourly"
    built.execute(f"revoke select on {mart} from tidemark_analyst; grant select on {mart} to tidemark_loader")
    build_marts(MICRO_BATCH)
    readers = "select has_table_privilege('tidemark_analyst', '{0}', 'select'), has_table_privilege('tidemark_loader', '{0}', 'select')"
    assert built.rows(readers.format(mart)) == [(True, False)]


def test_a_column_that_a_table_lacks_is_added_and_filled_where_something_moved(built: Warehouse) -> None:
    built.execute("alter table customers.fct_order drop column net_usd")
    land(File("orders", at(6), (order("o-new", "c1", at(5, 8)),)))
    build_marts("fct_order")
    assert built.rows("select count(*) filter (where order_id = 'o-new'), count(*) from customers.fct_order where net_usd is not null") == [(1, 1)]


def test_a_small_batch_touches_only_its_buckets(built: Warehouse) -> None:
    land(File("device_telemetry", at(6), (telemetry("m3", at(3, 12, 30)),)))
    of = fix_horizon()
    build("tag:micro_batch", of, run_tests=False)
    touched = built.rows(f"select bucket from ops.bucket_change where build_id = '{of.build_id}' and relation = 'maintenance.fct_device_reading_hourly'")
    assert touched == [({"tenant_id": "default", "device_id": "m3", "hour_at": "2026-03-04T12:00:00+00:00"},)]


def test_an_open_batch_of_one_stream_is_not_passed_by_a_later_batch_of_another(unfilled: Warehouse) -> None:
    land(File("device_telemetry", at(1), (telemetry("m1", at(0, 10)),)))
    put("device_telemetry", [telemetry("m1", at(1, 9))], arrived_at=at(1, 10))
    with connect(Role.LOADER) as holder:
        # The loader has taken its batch id and copied its rows when it comes to the watermark, and waits there.
        holder.execute("select 1 from ops.stream_state where stream = 'device_telemetry' for update")
        loader = threading.Thread(target=land_stream, args=("device_telemetry",))
        loader.start()
        waiting = "select count(*) from pg_locks where not granted"
        deadline = time.monotonic() + 20
        while unfilled.value(waiting) == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert unfilled.value(waiting) == 1
        land(File("orders", at(1, 11), (order("o1", "c1", at(1, 8)),)))
        build_marts()
        assert unfilled.value("select count(*) from customers.fct_order") == 1
        assert unfilled.value("select count(*) from maintenance.fct_device_reading_hourly") == 1
        holder.commit()
        loader.join()
    open_batch, later_batch = (unfilled.value(f"select last_batch_id from ops.stream_state where stream = '{name}'") for name in ("device_telemetry", "orders"))
    assert open_batch < later_batch  # type: ignore[operator]
    build_marts()
    assert unfilled.value("select count(*) from maintenance.fct_device_reading_hourly") == 2


def test_analysts_views_and_grants_survive_two_builds_and_a_rebuild(built: Warehouse) -> None:
    marts = [name for name in tables() if not name.startswith(("intermediate.", "features."))]
    views = built.rows("select schemaname || '.' || viewname from pg_views where schemaname = 'platform'")
    with connect_as_superuser("tidemark_test") as connection:
        connection.execute("drop role if exists some_colleague")
        connection.execute("create role some_colleague nologin")
    with connect(Role.OWNER) as connection:
        connection.execute("create schema analysis")
        for name in [*marts, *(row[0] for row in views)]:
            connection.execute(sql.SQL("create view analysis.{} as select * from {}").format(sql.Identifier(name), sql.SQL(name)))  # type: ignore[arg-type]
            connection.execute(sql.SQL("grant select on analysis.{} to some_colleague").format(sql.Identifier(name)))
    try:
        land(File("device_telemetry", at(6), (telemetry("m3", at(3, 12, 30)),)))
        build_marts()
        build_marts(rebuild=True)
        build("config.materialized:view", fix_horizon(), run_tests=False)
        kept = built.rows("select table_name from information_schema.role_table_grants where grantee = 'some_colleague'")
        assert sorted(row[0] for row in kept) == sorted([*marts, *(row[0] for row in views)])
        for name in marts:
            assert built.value(f"select has_table_privilege('tidemark_analyst', '{name}', 'select')"), name
            assert built.value(f'select count(*) from analysis."{name}"') == built.value(f"select count(*) from {name}")
    finally:
        with connect_as_superuser("tidemark_test") as connection:
            connection.execute("drop owned by some_colleague cascade")
            connection.execute("drop role some_colleague")


def test_a_backfill_repairs_falsified_deleted_and_invented_rows(built: Warehouse) -> None:
    before = snapshot()
    for day in ("2026-03-02", "2026-03-03"):
        built.execute(f"update maintenance.fct_device_reading_hourly set reading_count = 777 where hour_at::date = '{day}' and device_id = 'm1'")
        built.execute(f"delete from maintenance.fct_device_reading_hourly where hour_at::date = '{day}' and device_id = 'm2'")
        built.execute(f"update maintenance.fct_device_reading_daily set device_id = 'ghost' where reading_date = '{day}' and device_id = 'm3'")
        built.execute(f"delete from maintenance.fct_device_reading_daily where reading_date = '{day}' and device_id = 'm1'")
        built.execute(f"update customers.fct_order set net_usd = 1 where ordered_at::date = '{day}'")
        built.execute(
            "insert into customers.fct_order select (jsonb_populate_record(o, jsonb_build_object('order_id', 'invented-' || order_id))).* "
            "from customers.fct_order o "
            f"where ordered_at::date = '{day}'"
        )
    assert len(differences(before, snapshot())) == 3
    request_touch(at(1), at(2), "test")
    request_touch(at(2), at(3), "test")
    build_marts()
    assert differences(before, snapshot()) == []


def test_a_span_without_time_zone_or_length_is_refused() -> None:
    with pytest.raises(ValueError, match="time zones"):
        request_touch(at(1).replace(tzinfo=None), at(2), "test")
    with pytest.raises(ValueError, match="empty"):
        request_touch(at(1), at(1), "test")


def test_a_failing_model_leaves_its_state_and_its_table_as_they_were(unfilled: Warehouse) -> None:
    land(File("device_telemetry", at(1), (telemetry("m1", at(0, 10)),)))
    build_marts()
    before = unfilled.rows("select model, input, position from ops.model_state where model = 'maintenance.fct_device_reading_hourly' order by 2")
    unfilled.execute("alter table maintenance.fct_device_reading_hourly add constraint never check (device_id <> 'm2')")
    land(File("device_telemetry", at(2), (telemetry("m2", at(0, 10)),)))
    with pytest.raises(TransformFailed, match="fct_device_reading_hourly"):
        build_marts()
    assert unfilled.rows("select model, input, position from ops.model_state where model = 'maintenance.fct_device_reading_hourly' order by 2") == before
    unfilled.execute("alter table maintenance.fct_device_reading_hourly drop constraint never")
    build_marts()
    assert unfilled.value("select count(*) from maintenance.fct_device_reading_hourly where device_id = 'm2'") == 1


def test_a_cleared_task_passes_its_tests_after_a_correction_that_came_meanwhile(unfilled: Warehouse) -> None:
    land(File("maintenance_log", at(1), (maintenance("w1", "m1", at(0, 1)), maintenance("w2", "m1", at(0, 2)))))
    of = fix_horizon()
    build("tag:core,tag:micro_batch", of, run_tests=False)
    build("fct_device_reading_hourly fct_device_reading_daily fct_maintenance_event", of, run_tests=False)  # the task died behind these
    land(File("maintenance_log", at(2), (maintenance("w1", "m1", at(0, 3), updated_at=at(1)),)))
    build("tag:maintenance,tag:micro_batch", of)
    assert unfilled.value("select count(*) from maintenance.fct_maintenance_event") == 2


def test_a_run_that_was_overtaken_takes_no_model_back(unfilled: Warehouse) -> None:
    state = "select model, input, position from ops.model_state order by 1, 2"
    land(File("maintenance_log", at(1), (maintenance("w1", "m1", at(0, 1)),)))
    overtaken = fix_horizon()
    land(File("maintenance_log", at(2), (maintenance("w2", "m1", at(0, 3)),)))
    build_marts()
    before = unfilled.rows(state), snapshot()
    build(EVERYTHING, overtaken, run_tests=False)
    assert unfilled.rows(state) == before[0]
    assert differences(snapshot(), before[1]) == []


def test_the_nightly_check_passes_after_a_correction_since_the_last_build(unfilled: Warehouse) -> None:
    land(File("maintenance_log", at(1), (maintenance("w1", "m1", at(0, 1)),)))
    of = fix_horizon()
    build(EVERYTHING, of, run_tests=False)
    land(File("maintenance_log", at(2), (maintenance("w1", "m1", at(0, 3), updated_at=at(1)),)))
    assert check_everything(of).tests > 0


def test_a_build_that_waits_too_long_for_a_load_says_so(unfilled: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("include.warehouse.connection.LOCK_TIMEOUT_S", 1)
    with connect(Role.LOADER) as load:
        load.execute("select ops.lock_raw_changes()")
        with pytest.raises(TransformFailed, match="a load that changes stored rows is under way"):
            build("dim_date", fix_horizon())


def test_a_load_that_changes_stored_rows_waits_for_a_running_build(unfilled: Warehouse) -> None:
    land(File("orders", at(1), (order("o1", "c1", at(0, 8)),)))
    from include.transform.build import stored_rows_hold_still

    with stored_rows_hold_still():
        land(File("orders", at(1, 1), (order("o2", "c1", at(0, 9)),)))  # a plain insert goes on
        assert unfilled.value("select count(*) from raw.orders") == 2
        put("orders", [order("o1", "c1", at(0, 8), status="delivered", updated_at=at(1))], arrived_at=at(1, 2))
        loader = threading.Thread(target=land_stream, args=("orders",))
        loader.start()
        waiting = "select count(*) from pg_locks where not granted"
        deadline = time.monotonic() + 20
        while unfilled.value(waiting) == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert unfilled.value(waiting) == 1
        assert unfilled.value("select order_status from raw.orders where order_id = 'o1'") == "paid"
    loader.join(timeout=timedelta(seconds=20).total_seconds())
    assert unfilled.value("select order_status from raw.orders where order_id = 'o1'") == "delivered"
