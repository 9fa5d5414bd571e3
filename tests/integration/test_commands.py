"""The `tidemark` command as people and scripts use it, on a built warehouse. Commands that start Airflow are in tests/e2e."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from include.cli import app, main
from include.stack.housekeeping import VACUUMED_AS, make_partitions, prune_ops_history, remove_logs, vacuum
from include.transform import check_everything, fix_horizon
from tests.conftest import Cluster, Warehouse
from tests.support.payloads import at, order, put, telemetry

RUNNER = CliRunner()


def run(*arguments: str, code: int = 0) -> str:
    """Runs a command and returns what it printed."""
    done = RUNNER.invoke(app, arguments)
    assert done.exit_code == code, f"{arguments}: {done.output}{done.exception!r}"
    return done.stdout


def run_json(*arguments: str, code: int = 0) -> object:
    return json.loads(run(*arguments, "--json", code=code))


def error_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `tidemark` says when it refuses: one line on standard error, exit code 1."""
    monkeypatch.setattr("sys.argv", ["tidemark", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1, said
    return said


def test_sql_runs_as_the_analyst_and_may_not_write(built: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_json("sql", "select order_id from customers.fct_order order by 1 limit 2") == [{"order_id": "o1"}, {"order_id": "o2"}]
    assert "o1" in run("sql", "select order_id, net_usd from customers.fct_order")
    assert "only the first 1 rows" in run("sql", "--limit", "1", "select order_id from customers.fct_order")
    assert "read-only" in error_of(monkeypatch, capsys, "sql", "delete from customers.fct_order")
    assert "permission denied" in error_of(monkeypatch, capsys, "sql", "select * from raw.customers")
    assert "permission denied" in error_of(monkeypatch, capsys, "sql", "select * from staging.stg_customers")
    assert "permission denied" in error_of(monkeypatch, capsys, "sql", "select * from ops.quarantine")


def test_quarantine_is_listed_and_shown_with_its_bytes(built: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    listed = run_json("quarantine", "list", "--stream", "device_telemetry", "--code", "out_of_range")
    assert isinstance(listed, list)
    assert len(listed) == 1
    number = str(listed[0]["quarantine_id"])
    assert "out_of_range" in run("quarantine", "show", number)
    shown = run_json("quarantine", "show", number)
    assert isinstance(shown, dict)
    assert shown["errors"][0]["field"] == "temperature_c"
    assert "device_telemetry" in run("quarantine", "list")
    assert "999999" in error_of(monkeypatch, capsys, "quarantine", "show", "999999")


def test_corrections_are_listed_with_what_changed(built: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    listed = run_json("corrections", "list", "--stream", "maintenance_log", "--key", "log_id=w1")
    assert isinstance(listed, list)
    (row,) = listed
    assert (row["key"], row["is_applied"]) == ({"log_id": "w1"}, True)
    assert (row["old_content"]["event_at"], row["new_content"]["event_at"]) == ("2026-03-02T02:00:00+00:00", "2026-03-01T22:00:00+00:00")
    assert (row["old_known_from"], row["old_known_to"]) == ("2026-03-02T03:00:00+00:00", "2026-03-05T02:00:00+00:00")
    assert run_json("corrections", "list", "--event", row["event_id"], "--batch", str(row["batch_id"])) == listed
    assert run_json("corrections", "list", "--since", "2100-01-01") == []
    assert run_json("corrections", "list", "--key", "log_id=w1", "--key", "device_id=m1") == []
    shown = run("corrections", "list", "--stream", "device_telemetry")
    assert "too late" in shown
    assert "→ 99" in shown
    assert "no pair" in error_of(monkeypatch, capsys, "corrections", "list", "--key", "w1")
    assert "no event_id" in error_of(monkeypatch, capsys, "corrections", "list", "--event", "xyz")
    assert "no stream" in error_of(monkeypatch, capsys, "corrections", "list", "--stream", "nothing")


def test_trace_follows_a_number(built: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json("trace", "customers.fct_order", "o2")
    assert isinstance(found, dict)
    assert found["table"] == "customers.fct_order"
    assert json.loads(found["raw"][0]["original"])["orderId"] == "o2"
    assert "o2" in run("trace", "customers.fct_order", "o2")
    assert "no row of customers.fct_order" in error_of(monkeypatch, capsys, "trace", "customers.fct_order", "nobody")


def test_land_hold_release_and_build(built: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    put("orders", [order("o9", "c1", datetime.now(UTC) - timedelta(hours=2))], arrived_at=datetime.now(UTC) - timedelta(hours=1))
    assert "leave out streams" in error_of(monkeypatch, capsys, "land", "orders", "--hold", "orders")
    assert "is held" in run("land", "--hold", "orders", "--reason", "new tills")
    run("land", "orders")
    assert built.value("select count(*) from raw.orders where order_id = 'o9'") == 0
    run("land", "--release", "orders")
    run("land", "orders", "--retry")
    assert built.value("select count(*) from raw.orders where order_id = 'o9'") == 1
    assert "models built" in run("build", "fct_order")
    assert built.value("select count(*) from customers.fct_order where order_id = 'o9'") == 1
    assert "there is no stream" in error_of(monkeypatch, capsys, "land", "nothing")


def test_an_imported_file_lands_through_its_mapping(
    built: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    header = "timestamp,machine_id,temperature,vibration,humidity,pressure,energy_consumption,machine_status,anomaly_flag"
    header += ",predicted_remaining_life,failure_type,downtime_risk,maintenance_required"
    file = tmp_path / "machines.csv"
    file.write_text(f"{header}\n2025-01-05 10:00:00,901,70.5,40.1,50.2,2.1,3.3,1,0,300,Normal,0.0,0\n")
    assert "stored as device_telemetry/" in run("import", str(file), "--mapping", "smart_manufacturing")
    assert built.value("select count(*) from raw.device_telemetry where device_id like '%901'") == 1
    nameless = tmp_path / "machines.dat"
    nameless.write_text("x")
    assert "no ending that says its format" in error_of(monkeypatch, capsys, "import", str(nameless), "--mapping", "smart_manufacturing")
    posts = tmp_path / "120000000000-gateway-0a1b2c3d.posts"
    posts.write_bytes(b"")
    assert "receipts hold for its own address only" in error_of(monkeypatch, capsys, "import", str(posts), "--stream", "orders")
    assert "no_such_mapping" in error_of(monkeypatch, capsys, "import", str(file), "--mapping", "no_such_mapping")


def test_status_tells_streams_and_processes(built: Warehouse) -> None:
    status = run_json("status", code=1)  # no Airflow runs here
    assert isinstance(status, dict)
    assert status["warehouse"]["is_healthy"]
    streams = {stream["stream"]: stream for stream in status["streams"]}
    assert streams["device_telemetry"]["quarantined"] == 2
    assert not status["is_healthy"]
    assert "device_telemetry" in run("status", code=1)
    assert (streams["ticket_counts"]["last_batch_id"], streams["ticket_counts"]["problems"]) == (None, [])  # no source sends it: nothing is wrong
    assert "nothing landed" in run("status", code=1)


def test_an_unreachable_warehouse_is_one_line(built: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.conftest import free_port, set_environment

    set_environment(monkeypatch, TIDEMARK_WAREHOUSE_URL=f"postgresql://127.0.0.1:{free_port()}/tidemark")
    assert "cannot reach the warehouse" in error_of(monkeypatch, capsys, "sql", "select 1")
    status = run_json("status", code=1)
    assert isinstance(status, dict)
    assert "cannot reach the warehouse" in status["warehouse"]["error"]


def test_a_wrong_setting_is_one_line(built: Warehouse, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.conftest import set_environment

    set_environment(monkeypatch, TIDEMARK_AIRFLOW_PORT="80")
    assert "TIDEMARK_AIRFLOW_PORT" in error_of(monkeypatch, capsys, "status")


def test_doctor_names_what_it_checked(built: Warehouse) -> None:
    done = RUNNER.invoke(app, ["doctor", "--json"])
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert len(findings) >= 6
    assert done.exit_code == (0 if all(finding["is_good"] for finding in findings.values()) else 1)
    assert all(finding["is_good"] or finding["advice"] for finding in findings.values())


@pytest.mark.parametrize("command", [["--help"], ["up", "--help"], ["demo", "--help"], ["backfill", "--help"], ["simulate", "--help"], ["contracts", "--help"]])
def test_every_command_explains_itself(command: list[str]) -> None:
    assert "Usage" in run(*command)


def test_house_keeping_prepares_prunes_and_keeps_the_books(built: Warehouse) -> None:
    before = built.rows("select count(*) from ops.file union all select count(*) from ops.quarantine union all select count(*) from raw.device_telemetry")
    assert make_partitions(datetime(2031, 1, 28, tzinfo=UTC), ahead=timedelta(days=7)) == 6, "two months of each stream that has months"
    assert make_partitions(datetime(2031, 1, 28, tzinfo=UTC), ahead=timedelta(days=7)) == 0
    built.execute("update ops.dbt_run_result set completed_at = completed_at - interval '100 days'")
    built.execute(
        "insert into ops.dbt_run_result (unique_id, resource_type, status, execution_s, completed_at) values ('x', 'model', 'success', 1, '2020-01-01')"
    )
    assert prune_ops_history(keep=timedelta(days=30))["dbt_run_result"] >= 1
    assert vacuum() > 20
    assert set(VACUUMED_AS) == {role for role in VACUUMED_AS if role.value != "tidemark_owner"}
    assert remove_logs(datetime.now(UTC), keep=timedelta(days=1)) == 0
    assert before == built.rows(
        "select count(*) from ops.file union all select count(*) from ops.quarantine union all select count(*) from raw.device_telemetry"
    )


def test_house_keeping_passes_over_a_dbt_call_that_ends_meanwhile(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    call = cluster.home / "dbt" / "runs" / "ending"
    call.mkdir(parents=True)
    monkeypatch.setattr(Path, "rglob", lambda self, _: [self / "removed-by-now"])
    assert remove_logs(datetime.now(UTC), keep=timedelta(days=1)) == 0
    call.rmdir()


def test_house_keeping_removes_what_killed_dbt_calls_have_left(cluster: Cluster) -> None:
    runs = cluster.home / "dbt" / "runs"
    for name in ("killed", "running"):
        (runs / name / "logs").mkdir(parents=True)
    for folder in (runs / "killed" / "logs", runs / "killed"):
        os.utime(folder, (0, 0))
    assert remove_logs(datetime.now(UTC), keep=timedelta(days=1)) == 1
    assert not (runs / "killed").exists()
    assert (runs / "running").exists()
    shutil.rmtree(runs / "running")


def test_pruning_never_takes_what_a_model_has_not_read(built: Warehouse) -> None:
    """The log of a model that failed for weeks is kept until it has caught up."""
    put("device_telemetry", [telemetry("m1", at(2, 5, 30))], arrived_at=at(6))
    run("land", "device_telemetry", "--everything")
    run("build", "fct_device_reading_hourly", "--no-tests")
    built.execute("update ops.bucket_change set changed_at = changed_at - interval '400 days'")
    unread = "select count(*) from ops.bucket_change c join ops.model_state s on s.input = split_part(c.relation, '.', 2) where c.change_id > s.position"
    waiting = built.value(unread)
    assert waiting
    prune_ops_history(keep=timedelta(days=30))
    assert built.value(unread) == waiting
    run("build", "--no-tests")
    assert (
        built.value(
            "select reading_count from maintenance.fct_device_reading_daily where tenant_id = 'default' and device_id = 'm1' and reading_date = '2026-03-03'"
        )
        == 13  # twelve and the late one
    )


def test_all_data_tests_pass_over_whole_tables(built: Warehouse) -> None:
    result = check_everything(fix_horizon())
    assert result.tests > 40
