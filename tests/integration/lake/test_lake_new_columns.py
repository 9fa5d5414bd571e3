"""Rows that left raw before their contract took a field come back as if they had landed under it, and the lake follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.contracts import CONTRACTS_FOLDER, load_contract
from include.lake import LakeError, export, export_stream, rebuild, recall, restore_month
from include.landing import LandingBusy, check_partitions, land_everything
from include.landing.new_columns import apply_contract
from include.transform import TransformFailed
from include.warehouse import Role, connect
from tests.conftest import TEMPLATE, TEST_DATABASE, Warehouse
from tests.integration.landing.test_new_columns import widen
from tests.support.aged import FEBRUARY, JANUARY, LATER, MARCH, STREAM, leave, rows_in_raw, states
from tests.support.databases import clone_database, drop_database
from tests.support.killed import KILLED, killed_at
from tests.support.lake import assert_lake_is_raw, stored_rows
from tests.support.landing import assert_balanced
from tests.support.payloads import Payload, at, order, telemetry
from tests.support.press import contracts_of
from tests.support.scenario import File, land

COLUMNS = (
    "select attrelid::regclass::text, string_agg(attname || ' ' || format_type(atttypid, atttypmod) || ' ' || attnotnull, ',' order by attname) "
    "from pg_attribute where attnum > 0 and not attisdropped and attrelid in (select relid from pg_partition_tree('raw.device_telemetry')) group by 1"
)
FROM_LAKE = (
    "import sys; from pathlib import Path; import include.contracts as c; c.CONTRACTS_FOLDER = Path({folder!r}); "
    "from include.lake.rebuild import rebuild_from_lake; from tests.support.aged import LATER; rebuild_from_lake(LATER)"
)


@pytest.fixture
def folder(warehouse: Warehouse, tmp_path: Path):
    """Contracts of the house in a folder of the test's own."""
    with contracts_of(tmp_path / "contracts", {path.name: path.read_text(encoding="utf-8") for path in CONTRACTS_FOLDER.glob("*.yaml")}) as here:
        yield here


def breathing(first_day: int) -> tuple[Payload, ...]:
    """Eight readings of two days with a field that no contract knows; one says what no number is."""
    return tuple(
        telemetry("m1", at(first_day + day, hour), co2="much" if day == 1 and hour == 18 else 400.0 + hour) for day in (0, 1) for hour in (0, 6, 12, 18)
    )


def co2() -> list[tuple[object, object]]:
    """Column and `_extra` of every reading of February and before, by time."""
    rows = [row for row in stored_rows(STREAM) if row["event_at"] < at(0)]
    return [(row["co2"], row["_extra"]) for row in sorted(rows, key=lambda row: row["event_at"])]


FILLED = [*((400.0 + hour, None) for hour in (0, 6, 12, 18, 0, 6, 12)), (None, '{"co2": "much"}')]


def test_a_month_that_left_before_a_column_came_is_filled_when_it_comes_back(folder, warehouse, monkeypatch):
    land(File(STREAM, at(5), (*breathing(-20), telemetry("m1", at(1)))))
    leave(FEBRUARY)
    widen(folder, STREAM, ("co2", "number"))
    with pytest.raises(LakeError, match=r"lacks columns of its contract .*: co2; `tidemark contracts apply device_telemetry`"):
        export_stream(STREAM)
    with connect(Role.LOADER) as connection, pytest.raises(LakeError, match="lacks columns of its contract"):
        restore_month(connection, STREAM, FEBRUARY)
    assert apply_contract(STREAM).moved == 0
    late = telemetry("m1", at(-20, 1), co2=1.0)
    land(File(STREAM, at(6), (late, breathing(-20)[2])))
    with monkeypatch.context() as patch:  # dies between the rows and their columns
        patch.setattr(recall, "fill_restored", lambda *_: (_ for _ in ()).throw(LandingBusy("somebody loads")))
        with pytest.raises(LandingBusy):
            recall.recall(STREAM, FEBRUARY, keep_until=LATER, by="test")
    assert co2()[0] == (None, '{"co2": 400.0}')
    replayed = recall.recall(STREAM, FEBRUARY, keep_until=LATER, by="test").replayed
    assert (replayed.accepted, replayed.duplicate, replayed.corrected, replayed.quarantined) == (1, 1, 0, 0)
    assert co2() == [FILLED[0], (1.0, None), *FILLED[1:]]
    assert len({columns for _, columns in warehouse.rows(COLUMNS)}) == 1, "partitions have the columns of their table"
    check_partitions(everything=True)
    assert_balanced()
    rows = stored_rows(STREAM)
    # It leaves and comes back once more: the lake has the rows as they are now, and nothing is left to move.
    export_stream(STREAM)
    assert_lake_is_raw(STREAM)
    leave(FEBRUARY)
    assert rows_in_raw(FEBRUARY) == 0
    assert recall.recall(STREAM, FEBRUARY, keep_until=LATER, by="test").rows == 9
    assert stored_rows(STREAM) == rows
    assert warehouse.rows("select moved_rows from ops.added_column where column_name = 'co2'") == [(7,)]
    assert_lake_is_raw(STREAM)


def test_the_lake_is_not_written_by_a_contract_that_has_fewer_columns(folder, warehouse, monkeypatch):
    """As by a scheduler of the version before: values of the column would be in raw alone, and the digest of the month would not tell."""
    old = load_contract(STREAM)
    widen(folder, STREAM, ("co2", "number"))
    apply_contract(STREAM)
    land(File(STREAM, at(5), breathing(-20)[:7]))
    monkeypatch.setattr(export, "load_contract", lambda _: old)
    with pytest.raises(LakeError, match=r"has columns that its contract 1\..* does not have: co2"):
        export_stream(STREAM)


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> list[list[object]]:
    """What each build of a rebuild finds in raw, in the place of builds."""
    found: list[list[object]] = []
    monkeypatch.setattr(rebuild, "build", lambda *_, **__: found.append([value for value, _ in co2()]))
    monkeypatch.setattr(rebuild, "consumers", lambda _: ())
    return found


def test_a_rebuild_reads_columns_of_months_that_left_before_they_came(folder, warehouse, no_models):
    land(File(STREAM, at(5), (*breathing(-40), *breathing(-20))))
    leave(JANUARY, FEBRUARY)
    widen(folder, STREAM, ("co2", "number"))
    apply_contract(STREAM)
    values = [value for value, _ in FILLED]
    assert rebuild.rebuild("some", LATER).months == (JANUARY, FEBRUARY)
    assert no_models == [[], values, values, []]
    recall.recall(STREAM, FEBRUARY, keep_until=LATER, by="test")
    assert co2() == FILLED


def test_a_lost_warehouse_gets_its_columns_and_goes_on_where_it_was_stopped(folder, warehouse, no_models, monkeypatch):
    """Killed between two streams, then by a model that fails: nothing of a stream that is through is restored over."""
    land(File(STREAM, at(5), (*breathing(-20), telemetry("m1", at(1)))))
    land(File("orders", at(5), (order("o1", "c1", at(0), coupon="A"), order("o2", "c1", at(1)))))
    for stream in (STREAM, "orders"):
        export_stream(stream)
    widen(folder, STREAM, ("co2", "number"))
    widen(folder, "orders", ("coupon", "string"))
    drop_database(TEST_DATABASE)
    clone_database(TEMPLATE, TEST_DATABASE)
    warehouse.execute(f"select ops.ensure_partitions('{STREAM}', '2026-02-01', '2026-02-01')", Role.LOADER)  # as keep_house makes ahead
    killed = FROM_LAKE.format(folder=str(folder))
    assert killed_at("rebuild_after_take_over", killed) == KILLED
    assert warehouse.rows("select stream from ops.lake_state") == [(STREAM,)]
    # The month is in the lake only, whatever partition there is.
    with pytest.raises(LakeError, match="cannot be written anew, because raw no longer holds that month"):
        export.export_days(STREAM, [FEBRUARY.replace(day=9)])
    assert killed_at("restore_before_commit", killed) == KILLED
    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "build", lambda *_, **__: (_ for _ in ()).throw(TransformFailed("a model failed")))
        with pytest.raises(TransformFailed):
            rebuild.rebuild_from_lake(LATER)
    assert [(row["order_id"], row["coupon"]) for row in sorted(stored_rows("orders"), key=lambda row: row["order_id"])] == [("o1", "A"), ("o2", None)]
    assert rebuild.rebuild_from_lake(LATER).months == (FEBRUARY, MARCH)
    assert [found for found in no_models if found] == [[value for value, _ in FILLED]]
    assert states()[FEBRUARY] == "expired"
    check_partitions(everything=True)
    assert_balanced()
    export_stream("orders")
    assert_lake_is_raw("orders")
    again = land_everything("orders")
    assert (again.accepted, again.duplicate, again.corrected) == (0, 2, 0)
