"""Events of devices, fixes of trucks and desired state, as simulated sources send them: landed once, in their month, without clear names above raw."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from include.landing import land_everything
from include.simulator import Expected, write_history
from include.transform.invocation import load_manifest
from tests.conftest import Warehouse
from tests.support.landing import assert_balanced, raw_rows
from tests.support.payloads import at, iso, put, zone
from tests.support.scenario import land_stream

STREAMS = ("device_events", "gps_positions", "device_desired_state")
UNTIL = datetime(2026, 3, 4, 18, tzinfo=UTC)


def event(device: str, when: datetime, kind: str, code: str, **more: object) -> dict[str, object]:
    return {"deviceId": device, "deviceType": "smart_lock", "timestamp": iso(when), "eventType": kind, "code": code, **more}


def test_what_is_simulated_lands_as_the_truth_says_and_shows_in_staging(deployed: Warehouse, tmp_path: Path) -> None:
    summary = write_history(zone(), until=UNTIL, days=12, machines=6, truth_dir=tmp_path / "truth")
    for stream in STREAMS:
        result = land_everything(stream)
        assert Expected(result.landed, result.accepted, result.quarantined, result.duplicate, result.corrected) == summary.expected[stream]
        assert summary.expected[stream].accepted > 30
        ((shown,),) = deployed.rows(f"select count(*) from staging.stg_{stream}")
        assert shown == summary.expected[stream].accepted
        land_everything(stream)
    assert_balanced()
    assert {stream: len(raw_rows(stream)) for stream in STREAMS} == {stream: summary.expected[stream].accepted for stream in STREAMS}
    months = deployed.rows("select distinct tableoid::regclass::text from raw.device_events order by 1")
    assert months == [("raw.device_events_y2026m02",), ("raw.device_events_y2026m03",)]
    tours = pl.read_parquet(tmp_path / "truth" / "tours.parquet")
    told = tours.filter((pl.col("departed_at") >= UNTIL - timedelta(days=12)) & (pl.col("returned_at") < UNTIL - timedelta(days=4)))  # and all of it arrived
    slots = seen = 0.0
    for tour in told.iter_rows(named=True):
        ((fixes, driving),) = deployed.rows(
            "select count(*), count(heading_deg) from staging.stg_gps_positions "
            f"where device_id = '{tour['device_id']}' and event_at between '{tour['departed_at']}' and '{tour['returned_at']}'"
        )
        assert 0 < driving < fixes
        slots, seen = slots + (tour["returned_at"] - tour["departed_at"]) / timedelta(minutes=10), seen + fixes
    assert 0.95 * slots < seen < 1.02 * slots, "one fix in ten minutes, but for the few that were lost"


def test_who_did_it_is_a_pseudonym_in_staging(deployed: Warehouse) -> None:
    who = "home_001_resident_1"
    events = [event("lock", at(0, hour), "access", "granted", actor=who, debug=who) for hour in (1, 2)]
    put("device_events", [*events, event("lock", at(0, 3), "access", "denied")], arrived_at=at(0, 4))
    land_stream("device_events")
    ((known, same), (unknown, _)) = deployed.rows("select actor_id_pseudonym, count(*) from staging.stg_device_events group by 1 order by 1 nulls last")
    assert (len(str(known)), same, unknown) == (32, 2, None)
    columns = {column for (column,) in deployed.rows("select column_name from information_schema.columns where table_name = 'stg_device_events'")}
    assert "actor_id_pseudonym" in columns
    assert not {"actor_id", "_extra", "_content_hash"} & columns
    assert who not in json.dumps(deployed.rows("select s::text from staging.stg_device_events s"))
    model = next(node for node in load_manifest().nodes.values() if node.name == "stg_device_events")
    assert set(model.columns) == columns


def test_the_same_moment_may_hold_events_of_several_kinds_and_the_first_copy_counts(deployed: Warehouse) -> None:
    first = event("lock", at(0, 1), "lock", "auto", severity="info")
    put("device_events", [first, event("lock", at(0, 1), "access", "denied"), event("lock", at(0, 1), "access", "granted", actor="a")], arrived_at=at(0, 2))
    put("device_events", [{**first, "severity": "warning"}, {**first, "code": "app"}], arrived_at=at(0, 3))
    land_stream("device_events")
    found = deployed.rows("select event_type, event_code, severity_code from staging.stg_device_events order by 1, 2")
    assert found == [("access", "denied", None), ("access", "granted", None), ("lock", "app", "info"), ("lock", "auto", "info")]


def test_of_a_desired_state_the_copy_written_last_counts(deployed: Warehouse) -> None:
    def version(setpoint: float, written: datetime) -> dict[str, object]:
        return {"deviceId": "t1", "desiredSince": iso(at(1)), "updatedAt": iso(written), "firmwareVersion": "2.1.0", "setPoint": setpoint}

    put("device_desired_state", [version(21.2, at(1, 0, 20))], arrived_at=at(1, 1))
    put("device_desired_state", [version(22.7, at(1))], arrived_at=at(1, 2))
    land_stream("device_desired_state")
    columns = "target_firmware_version, target_setpoint_c, target_reporting_interval_s"
    assert deployed.rows(f"select {columns} from staging.stg_device_desired_state") == [("2.1.0", 21.2, None)]


@pytest.mark.parametrize(
    ("stream", "payload", "field"),
    [
        ("gps_positions", {"deviceId": "truck", "timestamp": iso(at(0)), "position": {"lat": 91.0, "lon": 0.0}}, "latitude_deg"),
        ("gps_positions", {"deviceId": "truck", "timestamp": iso(at(0)), "position": {"lat": 9.0}}, "longitude_deg"),
        ("device_events", event("lock", at(0), "teleported", "x"), "event_type"),
        ("device_desired_state", {"deviceId": "t1", "desiredSince": iso(at(2)), "updatedAt": iso(at(0))}, "event_at"),
    ],
)
def test_what_cannot_be_is_quarantined_with_its_field(deployed: Warehouse, stream: str, payload: dict[str, object], field: str) -> None:
    put(stream, [payload], arrived_at=at(0, 1))
    land_stream(stream)
    assert deployed.rows("select stream, errors -> 0 ->> 'field' from ops.quarantine") == [(stream, field)]
