"""What analysts see of the quarantine, and what a replay does to the marts."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from include.contracts import load_contract
from include.landing import land_pending
from include.landing.quarantine import Filter, discard
from include.landing.replay import replay
from include.stack.streams import stream_statuses
from include.transform import fix_horizon
from include.transform.invocation import invoke
from include.warehouse import Role
from tests.conftest import Warehouse
from tests.support.marts import build_marts, differences, snapshot
from tests.support.payloads import at, put, telemetry, zone
from tests.support.stricter import land_under, with_field

REPORT = (
    "select arrived_date::text, error_code, reason_rank, quarantined_count, open_count, replayed_count, discarded_count, all_quarantined_count, landed_count "
    "from platform.rpt_quarantine_daily where stream = 'device_telemetry' order by arrived_date, reason_rank"
)
FILES = (
    "select accepted_count, quarantined_count, replay_accepted_count, replay_quarantined_count, open_count, replayed_count, discarded_count "
    "from platform.fct_landing_file order by arrived_at"
)


def assert_platform_tests_pass() -> None:
    selection = ["test", "--select", "fct_landing_file,test_type:data rpt_quarantine_daily,test_type:data"]
    nodes = invoke([*selection, "--vars", json.dumps(fix_horizon().as_vars())], purpose="platform-tests")
    assert len(nodes) >= 7
    assert [f"{node.unique_id}: {node.message}" for node in nodes if node.status != "pass"] == []


def test_the_report_follows_rows_through_replay_and_discard(unfilled: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    land_under(monkeypatch, with_field(load_contract("device_telemetry"), "temperature_c", maximum=50.0))
    both = telemetry("m3", at(0, 1), temperature=60.0)
    both["deviceType"] = "toaster"
    put("device_telemetry", [telemetry("m1", at(0, 1), temperature=20.0), telemetry("m2", at(0, 1)), both, "{broken"], arrived_at=at(0, 2))
    lines = "\n".join([json.dumps(telemetry("m4", at(1, 1))), "{torn"])
    zone().put("device_telemetry", lines.encode(), source="plc", ext="ndjson.gz", arrived_at=at(1, 2))
    land_pending("device_telemetry", arrived_from=at(0), arrived_before=at(3))
    assert unfilled.rows(REPORT, Role.ANALYST) == [
        ("2026-03-01", "out_of_range", 1, 2, 2, 0, 0, 3, 4),
        ("2026-03-01", "malformed_json", 2, 1, 1, 0, 0, 3, 4),
        ("2026-03-01", "not_in_enum", 3, 1, 1, 0, 0, 3, 4),
        ("2026-03-02", "unreadable_file", 1, 1, 1, 0, 0, 1, 1),
    ]
    assert_platform_tests_pass()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("include.landing.source._plain", lambda source: source.stream)
        replay("device_telemetry", Filter(), by="tester")
    discard(Filter(code="malformed_json", before=None, address="*dt=2026-03-01*"), by="tester", reason="test pulse")
    assert unfilled.rows(REPORT, Role.ANALYST) == [
        ("2026-03-01", "out_of_range", 1, 2, 1, 1, 0, 3, 4),
        ("2026-03-01", "malformed_json", 2, 1, 0, 0, 1, 3, 4),
        ("2026-03-01", "not_in_enum", 3, 1, 1, 0, 0, 3, 4),
        ("2026-03-02", "malformed_json", 1, 1, 1, 0, 0, 2, 3),
        ("2026-03-02", "unreadable_file", 2, 1, 0, 1, 0, 2, 3),
    ]
    assert unfilled.rows(FILES, Role.ANALYST) == [(1, 3, 1, 0, 1, 1, 1), (0, 1, 1, 1, 1, 1, 0)]
    assert_platform_tests_pass()
    status = next(status for status in stream_statuses(at(2)) if status.stream == "device_telemetry")
    assert (status.landed, status.accepted, status.quarantined, status.replayed, status.open_quarantine) == (5, 1, 4, 2, 2)
    for query in ("select original from ops.quarantine", "select * from ops.quarantine_event"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            unfilled.rows(query, Role.ANALYST)


def test_the_report_would_notice_a_row_in_no_state(unfilled: Warehouse) -> None:
    put("device_telemetry", ["{broken"], arrived_at=at(0, 2))
    land_pending("device_telemetry", arrived_from=at(0), arrived_before=at(3))
    unfilled.execute("update ops.file set quarantined = 0, duplicate = 1")
    nodes: list[Any] = invoke(["test", "--select", "fct_landing_file,test_type:data", "--vars", json.dumps(fix_horizon().as_vars())], purpose="platform-tests")
    assert [node.status for node in nodes].count("fail") == 1


def test_replayed_rows_reach_the_marts_as_if_they_had_been_on_time(built: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    land_under(monkeypatch, with_field(load_contract("device_telemetry"), "temperature_c", maximum=50.0))
    put("device_telemetry", [telemetry("m1", at(1, 3, minute), temperature=20.0 + minute * 3) for minute in range(20)], arrived_at=at(1, 5))
    assert land_pending("device_telemetry", arrived_from=at(1, 5), arrived_before=at(1, 6)).quarantined == 9
    build_marts()
    before = snapshot()
    assert replay("device_telemetry", Filter(code="out_of_range", stream="device_telemetry", address="*dt=2026-03-02/hr=05*"), by="tester").accepted == 9
    build_marts()
    after = snapshot()
    changed = {line.split(":")[0] for line in differences(before, after)}
    assert {"maintenance.fct_device_reading_hourly", "maintenance.fct_device_reading_daily"} <= changed
    build_marts(rebuild=True)
    assert differences(after, snapshot()) == []
