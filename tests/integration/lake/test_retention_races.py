"""What was found to be due, and is not any more when its turn comes: somebody restored, dropped or asked for the month meanwhile."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.lake import LakeBusy, LakeDamaged, export_stream, live_files, recall, retention, verify
from include.lake.months import months
from include.lake.restore import adopt
from include.landing import check_partitions, land_everything
from include.warehouse import Role, connect
from tests.conftest import Warehouse
from tests.support.aged import FEBRUARY, JANUARY, LATER, STREAM, leave, readings, rows_in_raw, states
from tests.support.landing import assert_balanced
from tests.support.payloads import at
from tests.support.scenario import File, land


@pytest.fixture
def aged(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """Readings of two months that are old at `LATER`; no model has to read them."""
    monkeypatch.setattr(retention, "consumers", lambda stream: ())
    land(File(STREAM, at(5), (*readings("m1", -40, 2), *readings("m1", -20, 3))))
    return warehouse


def test_a_month_that_is_dropped_while_it_is_asked_for_comes_back_with_its_rows(aged, monkeypatch):
    """A line that says restored without a partition would let late events found an empty one, and the lake's day be written anew with them alone."""
    leave(FEBRUARY)
    recall.recall(STREAM, FEBRUARY, keep_until=LATER, by="test")
    with connect(Role.LOADER) as connection:
        seen = [months(connection, STREAM)]
    leave(FEBRUARY)
    monkeypatch.setattr(recall, "months", lambda connection, stream: seen.pop() if seen else months(connection, stream))
    assert recall.recall(STREAM, FEBRUARY, keep_until=LATER, by="test").rows == 12
    assert (states(), rows_in_raw(FEBRUARY)) == ({FEBRUARY: "restored"}, 12)
    check_partitions(STREAM, everything=True)
    assert_balanced()


def test_a_month_that_is_asked_for_again_when_it_was_due_stays(aged, monkeypatch):
    leave(FEBRUARY)
    recall.recall(STREAM, FEBRUARY, keep_until=LATER + timedelta(days=7), by="test")
    monkeypatch.setattr(retention, "_due_in_raw", lambda *_: [(FEBRUARY, 12)])
    (item,) = retention.expire_raw(LATER, [STREAM])
    assert item.waits_for == "2026-02 of device_telemetry was restored and stays in raw until 2026-06-12 00:00 UTC"
    assert rows_in_raw(FEBRUARY) == 12
    assert [item.waits_for for item in retention.expire_raw(LATER + timedelta(days=7), [STREAM])] == [None]


def test_a_month_that_is_restored_when_the_lake_was_to_forget_it_keeps_its_files(aged, monkeypatch):
    leave(JANUARY, FEBRUARY)
    due = retention._due_in_lake

    def restored_meanwhile(*given):
        found = list(due(*given))
        recall.recall(STREAM, JANUARY, keep_until=LATER, by="test")
        return found

    monkeypatch.setattr(retention, "_due_in_lake", restored_meanwhile)
    assert [item.month for item in retention.expire_lake(LATER + timedelta(days=365), [STREAM])] == [FEBRUARY]
    assert states() == {JANUARY: "restored", FEBRUARY: "deleted"}
    with connect(Role.LOADER) as connection:
        assert {file.event_date.month for file in live_files(connection, STREAM)} == {1}
        assert sum(day.rows for day in verify(connection, STREAM).values()) == rows_in_raw(JANUARY) == 8
    assert land_everything(STREAM).files == 0


@pytest.mark.parametrize("is_exported", [True, False])
def test_the_lake_does_not_follow_a_raw_table_that_lost_rows(aged, is_exported):
    """The lake may be all that is left of them: it is not written anew from what does not add up. Nor does such a month leave where the lake never had them."""
    if is_exported:
        export_stream(STREAM)
    aged.execute(f"delete from raw.{STREAM} where event_at = '2026-02-09'")
    with pytest.raises(retention.RetentionError, match=r"raw\.device_telemetry_y2026m02 holds 11 rows, its movements say 12"):
        retention.expire_raw(LATER, [STREAM])
    with connect(Role.LOADER) as connection:
        assert sum(file.row_count for file in live_files(connection, STREAM, FEBRUARY)) == (12 if is_exported else 11)
    assert (states(), rows_in_raw(FEBRUARY)) == ({JANUARY: "expired"}, 11)


def test_what_waits_for_a_load_says_so(aged, monkeypatch):
    """A load that is under way may be the first of a stream whose lake is taken over, or need the file that is to leave the zone."""
    export_stream(STREAM)
    monkeypatch.setattr("include.warehouse.connection.LOCK_TIMEOUT_S", 0.1)
    with connect(Role.LOADER) as load:
        load.execute("select ops.lock_stream(%s)", (STREAM,))
        with pytest.raises(LakeBusy, match="is being loaded"):
            retention.expire_zone_files(LATER + timedelta(days=365 * 100), [STREAM])
        with pytest.raises(LakeBusy, match="is being loaded"), connect(Role.LOADER) as connection:
            adopt(connection, STREAM)


def test_a_month_comes_back_only_as_it_left(aged):
    leave(FEBRUARY)
    aged.execute("update ops.partition_state set content_digest = sha256('other rows, as many')")
    with pytest.raises(LakeDamaged, match="holds 12 rows of 2026-02 of device_telemetry that are not the 12 that left raw"):
        recall.recall(STREAM, FEBRUARY, keep_until=LATER, by="test")
    assert (states(), rows_in_raw(FEBRUARY)) == ({FEBRUARY: "expired"}, 0)
