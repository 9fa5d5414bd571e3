"""Marts about persons forget what the lake has deleted: killed on the way, with a build under way, and for good."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from include.cli import app
from include.lake.errors import LakeBusy
from include.lake.forget import forget
from include.lake.rebuild import rebuild
from include.lake.retention import Item, Place, expire_lake, expire_raw, forget_in_marts, plan
from include.lake.steps import LakeStep
from include.landing import land_everything
from include.transform import check_everything, fix_horizon, request_touch
from include.transform.forgetting import forgetful_models
from include.warehouse import Role, connect
from tests.conftest import Cluster, Warehouse, fresh_copy, make_template
from tests.support.aged import FEBRUARY, JANUARY, LATER, MARCH, states
from tests.support.home_story import HOME_TABLES, HOMES
from tests.support.killed import KILLED, killed_at
from tests.support.marts import build_marts, differences, made_anew, snapshot
from tests.support.payloads import Payload, at, device_event, put, registry

STREAM = "device_events"
A_YEAR_LATER = LATER + timedelta(days=265)
"""More than 365 days after the end of January, fewer after the end of February; March and April have left raw too."""
USE, UNUSUAL, PROFILE = "intermediate.int_maintenance__device_use", "maintenance.fct_unusual_access", "maintenance.rpt_usage_profile"
HOURLY, BY_TYPE = "intermediate.int_maintenance__device_use_hourly", "intermediate.int_maintenance__type_use_hourly"
ODD = ((date(2026, 1, 28), 3), (date(2026, 2, 20), 3), (date(2026, 3, 29), 3), (date(2026, 3, 30), 12))
"""Days and hours (UTC) of unusual accesses. The last is the first day whose 57 days before, in any zone, have none of January."""
ODD_DAYS = [day for day, _ in ODD]
FORGET = "from include.lake.retention import forget_in_marts; forget_in_marts()"
LIVED_TEMPLATE = "tidemark_lived"


def opened(day: float, hour: float) -> Payload:
    """Somebody opens the door of a home in Kathmandu."""
    return device_event("lock1", at(day, hour), "unlock", "key", deviceType="smart_lock", actor="resident_1")


def tell(stream: str, day: float, *payloads: Payload) -> None:
    """Lands a file that arrived on a day."""
    put(stream, payloads, arrived_at=at(day))
    land_everything(stream)


@pytest.fixture(scope="module")
def lived_zone(cluster: Cluster, deployed_template: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose door is opened at a quarter past midnight on every day from 3 January to 11 April, and at four odd hours."""

    def fill() -> None:
        tell("device_registry", 50, registry("lock1", at(-90), facility="home", deviceType="smart_lock", timeZone="Asia/Kathmandu"))
        usual = (opened(day, 18.5) for day in range(-58, 41))
        odd = (opened((day - at(0).date()).days, hour) for day, hour in ODD)
        tell(STREAM, 50, *usual, *odd)
        build_marts()

    zone = tmp_path_factory.mktemp("lived") / "zone"
    make_template(cluster, LIVED_TEMPLATE, zone, fill)
    return zone


@pytest.fixture
def lived(cluster: Cluster, lived_zone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warehouse]:
    """Like `deployed`, with the home's events landed, every mart built, and January gone from raw and lake."""
    for warehouse in fresh_copy(cluster, LIVED_TEMPLATE, lived_zone, tmp_path, monkeypatch):
        assert {item.waits_for for item in expire_raw(A_YEAR_LATER)} == {None}
        assert [item.month for item in expire_lake(A_YEAR_LATER)] == [JANUARY]
        assert states() == {JANUARY: "deleted", FEBRUARY: "expired", MARCH: "expired", date(2026, 4, 1): "expired"}
        yield warehouse


def held(warehouse: Warehouse) -> tuple[object, list[date]]:
    """First day that anybody is known to have used the door, and the days of unusual accesses."""
    return warehouse.value(f"select min(used_date) from {USE}"), [day for (day,) in warehouse.rows(f"select local_date from {UNUSUAL} order by 1")]


KNOWN = (date(2026, 1, 2), ODD_DAYS)
FORGOTTEN = (FEBRUARY, ODD_DAYS[-1:])
LEFT = [Item(STREAM, Place.MARTS, rows=31, table=USE), Item(STREAM, Place.MARTS, rows=3, table=UNUSUAL)]


def due_in_marts(only: list[str]) -> list[Item]:
    """What the plan says of marts."""
    return [item for item in plan(A_YEAR_LATER, only) if item.place is Place.MARTS]


def test_persons_are_forgotten_for_good_and_the_profile_stays(lived: Warehouse) -> None:
    before = snapshot(HOME_TABLES)
    assert held(lived) == KNOWN
    build_marts(HOMES)  # what is deleted is not recomputed by itself, and goes by retention alone
    assert differences(before, snapshot(HOME_TABLES)) == []
    assert due_in_marts([]) == LEFT
    assert due_in_marts(["orders"]) == forget_in_marts(["orders"]) == []
    assert forget_in_marts() == LEFT
    assert held(lived) == FORGOTTEN
    assert forget_in_marts() == due_in_marts([]) == []

    # Models below follow: what they know by the day goes, at the edge by the hour; what they know by type and month stays.
    build_marts(run_tests=True)
    after = snapshot(HOME_TABLES)
    assert lived.rows(f"select min(local_date) from {HOURLY} union all select min(local_date) from {BY_TYPE}") == [(date(2026, 2, 2),)] * 2
    assert after[PROFILE] == before[PROFILE]
    untouched = f"select * from {PROFILE} where month_start_date < '2026-03-01' order by 1, 2, 3, 4, 5"
    stayed = lived.rows(untouched)
    assert len(stayed) == 2 * 168
    months = f"select month_start_date, sum(use_count)::int from {PROFILE} group by 1 order by 1"
    assert lived.rows(months) == [(JANUARY, 30), (FEBRUARY, 29), (MARCH, 33), (date(2026, 4, 1), 11)]
    assert check_everything(fix_horizon()).tests > 0

    # Neither a registry that changes, nor a backfill, nor a rebuild brings anything back.
    moved = registry("lock1", at(-90), facility="another", updated_at=at(60), deviceType="smart_lock", timeZone="Europe/Berlin")
    tell("device_registry", 60, moved)
    request_touch(at(-60), at(10), "test")
    build_marts()
    assert held(lived) == FORGOTTEN
    assert lived.rows(untouched) == stayed
    rebuilt = rebuild("dim_device dim_facility int_maintenance__device_use+", A_YEAR_LATER)
    assert (rebuilt.kept, rebuilt.months) == ((JANUARY,), (FEBRUARY, MARCH, date(2026, 4, 1)))
    assert lived.value(f"select min(used_date) from {USE}") == FEBRUARY
    assert lived.value(f"select min(local_date) - 57 from {UNUSUAL}") >= date(2026, 2, 1)
    assert lived.rows(untouched) == stayed
    # What is left is what is made anew of what is left.
    left = snapshot([UNUSUAL])
    assert differences(left, made_anew([UNUSUAL], "fct_unusual_access")) == []
    check_everything(fix_horizon())


def test_a_run_that_is_killed_forgets_all_of_a_model_or_nothing(lived: Warehouse) -> None:
    log = f"select count(*) from ops.bucket_change where relation = '{USE}' and build_id = 'retention'"
    assert killed_at(LakeStep.FORGET_BEFORE_COMMIT, FORGET) == KILLED
    assert (held(lived), lived.value(log)) == (KNOWN, 0)
    assert killed_at(LakeStep.FORGET_AFTER_COMMIT, FORGET) == KILLED
    assert (held(lived), lived.value(log)) == ((FEBRUARY, KNOWN[1]), 30)
    build_marts()  # a build in between follows the log, and does not judge anew what is to go
    assert held(lived) == (FEBRUARY, KNOWN[1])
    assert forget_in_marts() == LEFT[1:]
    assert held(lived) == FORGOTTEN
    check_everything(fix_horizon())


def test_what_a_build_under_way_still_writes_is_forgotten(lived: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """It began before the month was deleted and holds the lock of the model; forgetting waits for it, and gives up after a while."""
    use = forgetful_models()[0]
    with connect(Role.TRANSFORMER) as build, ThreadPoolExecutor(1) as pool, connect(Role.TRANSFORMER, autocommit=True) as other:
        build.execute("select ops.lock_model(%s)", (USE,))
        build.execute(f"create temporary table again as select * from {USE} where used_date = '2026-01-28'")
        build.execute(f"delete from {USE} where used_date = '2026-01-28'")
        build.execute(f"insert into {USE} select * from again")
        other.execute("set lock_timeout = '1ms'")
        with pytest.raises(LakeBusy, match="int_maintenance__device_use keeps rows of deleted months of device_events"):
            forget(other, use)
        forgetting = pool.submit(forget_in_marts)
        waiting = "select exists (select from pg_locks where locktype = 'advisory' and not granted)"
        while lived.value(waiting) is not True:
            assert not forgetting.done()
        build.commit()
        assert forgetting.result() == LEFT
    assert held(lived) == FORGOTTEN


def test_only_the_transformer_forgets(lived: Warehouse) -> None:
    for role in (Role.LOADER, Role.ML, Role.ANALYST, Role.API):
        with connect(role, autocommit=True) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            forget(connection, forgetful_models()[1])
    assert held(lived) == KNOWN


def test_the_command_forgets_and_says_so(lived: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("include.commands.retention._now", lambda at=None: A_YEAR_LATER)
    for words, state in ((["plan"], "due"), (["run"], "left")):
        done = CliRunner().invoke(app, ["retention", *words, "--stream", STREAM], env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        (line,) = (line for line in done.output.splitlines() if UNUSUAL in line)
        assert (STREAM in line, " 3 " in line, state in line) == (True, True, True)
    assert held(lived) == FORGOTTEN
