"""Expiry, restore, and deletion in lake and zone, killed with SIGKILL at each named step: rows are in raw or in the lake, once, and a re-run ends it."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from include.lake import LakeDamaged, export_stream, live_files, verify
from include.lake.digest import of_raw
from include.lake.recall import recall
from include.lake.retention import RetentionError, expire_lake, expire_raw, expire_zone_files, plan
from include.lake.steps import LakeStep
from include.landing import check_partitions, land_everything, land_pending
from include.landing.quarantine import Filter, discard, list_quarantined
from include.landing.replay import replay
from include.warehouse import Role, connect
from tests.conftest import set_environment
from tests.support.aged import FEBRUARY, JANUARY, LATER, MARCH, STREAM, leave, readings, rows_in_raw, states
from tests.support.killed import KILLED, killed_at
from tests.support.landing import assert_balanced, raw_rows
from tests.support.payloads import at, order, put, telemetry
from tests.support.scenario import File, land

EXPIRE = (
    "from include.lake.expire import expire_month; from include.warehouse import Role, connect; from tests.support.aged import *\n"
    "with connect(Role.LOADER, autocommit=True) as connection: expire_month(connection, STREAM, FEBRUARY, ())"
)
RECALL = "from include.lake.recall import recall; from tests.support.aged import *; recall(STREAM, FEBRUARY, keep_until=LATER, by='killed')"
FORGET = "from include.lake.retention import expire_lake; from tests.support.aged import *; from datetime import timedelta; expire_lake(LATER + timedelta(365))"
CLEAN = (
    "from include.lake.zone_retention import expire_zone; from datetime import datetime, UTC; expire_zone('device_telemetry', datetime(2200, 1, 1, tzinfo=UTC))"
)
NEVER_MIND = at(365 * 100)


def land_three_months() -> None:
    land(File(STREAM, at(5), (*readings("m1", -40, 2), *readings("m1", -20, 3))))
    land(File(STREAM, at(5, 1), (*readings("m2", -20, 3), *readings("m2", 1, 2))))


def complete() -> None:
    """Every reading of February is in raw, or in the lake alone, and the books say which."""
    assert_balanced()
    check_partitions(everything=True)
    with connect(Role.LOADER) as connection:
        days = verify(connection, STREAM, FEBRUARY)
        if states().get(FEBRUARY) == "expired":
            assert rows_in_raw(FEBRUARY) == 0
            assert sum(days[day].rows for day in days if day < MARCH) == 24
        else:
            assert rows_in_raw(FEBRUARY) == 24


def test_a_month_killed_on_its_way_out_and_in_is_lost_and_doubled_nowhere(warehouse):
    land_three_months()
    everything = raw_rows(STREAM)
    for step in (LakeStep.EXPIRE_AFTER_VERIFY, LakeStep.EXPIRE_BEFORE_COMMIT, LakeStep.EXPIRE_AFTER_COMMIT):
        assert killed_at(step, EXPIRE) == KILLED, step
        complete()
        assert states() == ({FEBRUARY: "expired"} if step is LakeStep.EXPIRE_AFTER_COMMIT else {})
    waiting = telemetry("m1", at(-19, 1))
    land(File(STREAM, at(6), (waiting, readings("m1", -20, 1)[0])))
    for step in (LakeStep.RESTORE_MID_COPY, LakeStep.RESTORE_BEFORE_COMMIT, LakeStep.RESTORE_AFTER_COMMIT):
        assert killed_at(step, RECALL) == KILLED, step
        complete()
        assert states() == {FEBRUARY: "restored" if step is LakeStep.RESTORE_AFTER_COMMIT else "expired"}
    assert raw_rows(STREAM) == everything
    again = recall(STREAM, FEBRUARY, keep_until=LATER, by="after")
    assert (again.rows, again.replayed.accepted, again.replayed.duplicate) == (0, 1, 1)
    assert recall(STREAM, FEBRUARY, keep_until=LATER, by="after").replayed.landed == 0
    assert len(raw_rows(STREAM)) == len(everything) + 1
    leave(FEBRUARY)
    with connect(Role.LOADER) as connection:
        assert sum(day.rows for day in verify(connection, STREAM, FEBRUARY).values()) == 25 + rows_in_raw(MARCH)


def test_what_is_deleted_in_lake_and_zone_is_finished_after_a_kill(warehouse):
    land_three_months()
    export_stream(STREAM)
    files = (
        "select count(*) filter (where state = 'landed'), count(*) filter (where state = 'expiring'), count(*) filter (where state = 'expired') from ops.file "
    )
    files += "where kind = 'arrival'"
    assert killed_at(LakeStep.ZONE_AFTER_MARK, CLEAN) == KILLED
    assert (warehouse.rows(files), len(list(warehouse.zone_dir.rglob("*.ndjson")))) == ([(0, 2, 0)], 2)
    assert killed_at(LakeStep.ZONE_MID_DELETE, CLEAN) == KILLED
    assert (warehouse.rows(files), len(list(warehouse.zone_dir.rglob("*.ndjson")))) == ([(0, 2, 0)], 1)
    assert [(item.files, item.stream) for item in expire_zone_files(NEVER_MIND)] == [(2, STREAM)]
    assert (warehouse.rows(files), list(warehouse.zone_dir.rglob("*.ndjson"))) == ([(0, 0, 2)], [])
    put(STREAM, (*readings("m1", -40, 2), *readings("m1", -20, 3)), arrived_at=at(5))  # a sender repeats a file that is long gone
    assert land_pending(STREAM, arrived_from=at(0), arrived_before=at(6)).files == 0
    assert_balanced()

    leave(JANUARY, FEBRUARY)
    assert killed_at(LakeStep.LAKE_AFTER_MARK, FORGET) == KILLED
    assert states() == {JANUARY: "deleted", FEBRUARY: "expired"}
    lake = warehouse.zone_dir.parent / "lake" / STREAM
    assert list(lake.glob("event_date=2026-01-*/*.parquet"))
    expire_lake(LATER + timedelta(days=365))
    assert states() == {JANUARY: "deleted", FEBRUARY: "deleted"}
    assert [path.parent.name for path in lake.rglob("*.parquet")] == ["event_date=2026-03-02", "event_date=2026-03-03"]
    with connect(Role.LOADER) as connection:
        assert {file.event_date.month for file in live_files(connection, STREAM)} == {3}


def test_a_damaged_lake_keeps_the_month_in_raw(warehouse, monkeypatch):
    monkeypatch.setattr("include.lake.retention.consumers", lambda stream: ())
    land_three_months()
    export_stream(STREAM)
    victim = sorted((warehouse.zone_dir.parent / "lake" / STREAM).glob("event_date=2026-02-*/*.parquet"))[0]
    good = victim.read_bytes()
    victim.write_bytes(good[:-1] + b"?")
    with pytest.raises(RetentionError, match="other bytes than were entered"):
        expire_raw(LATER)
    assert states() == {JANUARY: "expired"}  # the other month is not held up
    victim.unlink()
    with pytest.raises(RetentionError, match="is gone from"):
        expire_raw(LATER)
    victim.write_bytes(good)
    assert [item.month for item in expire_raw(LATER)] == [FEBRUARY]
    victim.unlink()
    with pytest.raises(LakeDamaged):
        recall(STREAM, FEBRUARY, keep_until=LATER, by="test")
    assert (states()[FEBRUARY], rows_in_raw(FEBRUARY)) == ("expired", 0)


def test_a_day_whose_envelope_changed_is_exported_anew_before_it_leaves(warehouse):
    """A copy that arrived earlier gives a stored row its file and line: nothing is left to export, and yet the lake holds another row."""
    land_three_months()
    export_stream(STREAM)
    land(File(STREAM, at(4), (readings("m1", -20, 1)[0],)))
    with connect(Role.LOADER) as connection:
        before, stored = verify(connection, STREAM, FEBRUARY, FEBRUARY.replace(day=28)), of_raw(connection, STREAM, FEBRUARY, FEBRUARY.replace(day=28))
    assert [day for day in before if before[day] != stored[day]] == [FEBRUARY.replace(day=9)]
    rows = raw_rows(STREAM)
    leave(FEBRUARY)
    recall(STREAM, FEBRUARY, keep_until=LATER, by="test")
    assert raw_rows(STREAM) == rows


def test_no_partition_is_dropped_without_its_books(warehouse):
    """The function itself refuses, whoever calls it."""
    land_three_months()
    with connect(Role.LOADER) as connection, pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="its state says nothing"):
        connection.execute("select ops.drop_expired_partition('device_telemetry', '2026-02-01')")
    with connect(Role.LOADER) as connection:
        connection.execute("insert into ops.partition_state values ('device_telemetry', '2026-02-01', 'expired', 24, '')")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="the lake 0, and its movements leave 24"):
            connection.execute("select ops.drop_expired_partition('device_telemetry', '2026-02-01')")
        connection.rollback()
    for role, name, month in ((Role.LOADER, "orders", "2026-02-01"), (Role.LOADER, STREAM, "2031-01-01"), (Role.LOADER, "no_such", "2026-02-01")):
        with connect(role) as connection, pytest.raises(psycopg.errors.InvalidParameterValue):
            connection.execute("select ops.drop_expired_partition(%s, %s)", (name, month))
    for role in (Role.TRANSFORMER, Role.ANALYST, Role.ML):
        with connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select ops.drop_expired_partition('device_telemetry', '2026-02-01')")
    leave(FEBRUARY)
    with connect(Role.LOADER) as connection, pytest.raises(psycopg.errors.InvalidParameterValue, match="month 2026-02 of stream device_telemetry has left"):
        connection.execute("select ops.ensure_partitions('device_telemetry', '2026-02-03', '2026-02-03')")


def test_the_zone_keeps_what_somebody_still_needs(warehouse):
    """Not exported, waiting, open whole, open rows of formats that are replayed from their file; and new bytes under an old address."""
    header = "orderId,customerId,orderedAt,updatedAt,status,currency,channel,quantity,grossAmount,netAmount"
    good, bad = "c1,2026-03-01T00:00:00Z,2026-03-01T00:00:00Z,paid,USD,online,1,5,5", "c1,never,2026-03-01T00:00:00Z,paid,USD,online,1,5,5"
    from tests.support.payloads import zone

    table = zone().put("orders", f"{header}\nx1,{good}\nx2,{bad}\n".encode(), source="till", ext="csv", arrived_at=at(0, 1))
    lines = put("orders", [order("o1", "c1", at(0)), "{broken"], arrived_at=at(0, 2))
    whole = zone().put("orders", b"\x1f\x8bnonsense", source="till", ext="ndjson.gz", arrived_at=at(0, 3))
    rewritten = put("orders", [order("o2", "c1", at(0))], arrived_at=at(0, 4))
    land_pending("orders", arrived_from=at(0), arrived_before=at(1))
    assert plan(NEVER_MIND, ["orders"]) == []  # the lake has nothing yet
    export_stream("orders")
    zone().put("orders", b'{"another": "file"}\n', arrived_at=rewritten.arrived_at, name=rewritten.address.rsplit("/", 1)[1])
    assert [item.files for item in plan(NEVER_MIND, ["orders"])] == [2]
    assert expire_zone_files(at(-1)) == []  # nothing landed so long ago
    assert [item.files for item in expire_zone_files(NEVER_MIND)] == [2]
    left = {path.relative_to(warehouse.zone_dir).as_posix() for path in warehouse.zone_dir.rglob("*.*")} & {
        file.address for file in (table, lines, whole, rewritten)
    }
    assert left == {table.address, whole.address, rewritten.address}
    assert (warehouse.zone_dir / rewritten.address).read_bytes() == b'{"another": "file"}\n'
    assert replay("orders", Filter("orders", code="malformed_json"), by="test").quarantined == 1  # the line is in the quarantine whole
    discard(Filter("orders"), by="test", reason="test")
    export_stream("orders")
    assert [item.files for item in expire_zone_files(NEVER_MIND)] == [2]
    assert [row.state for row in list_quarantined(Filter("orders", state=None))] == ["discarded"] * 3
    assert_balanced()


def test_a_month_leaves_and_comes_back_where_zone_and_lake_are_in_s3(warehouse, s3_url, monkeypatch):
    set_environment(monkeypatch, TIDEMARK_LANDING_URL=s3_url, TIDEMARK_LAKE_URL=s3_url.replace("/landing", "/lake"))
    land_three_months()
    everything = raw_rows(STREAM)
    leave(JANUARY, FEBRUARY)
    assert [(item.stream, item.files) for item in expire_zone_files(NEVER_MIND)] == [(STREAM, 2)]
    assert land_everything(STREAM).files == 0
    expire_lake(LATER + timedelta(days=250))
    assert states() == {JANUARY: "deleted", FEBRUARY: "expired"}
    assert recall(STREAM, FEBRUARY, keep_until=LATER, by="test").rows == 24
    assert raw_rows(STREAM) == [row for row in everything if row["event_at"] >= at(-28)]
