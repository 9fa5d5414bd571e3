"""Scoring costs what has changed: which rows a version reads, what holds the log back, and that nothing is lost where a run dies."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pandas as pd
import psycopg
import pytest

from include.stack.housekeeping import prune_ops_history
from include.warehouse import Role, connect
from ml.lifecycle import following
from ml.lifecycle import use_case as lifecycle
from ml.lifecycle.following import spans
from ml.lifecycle.schema import FeatureSchema
from ml.lifecycle.steps import LifecycleStep
from ml.lifecycle.use_case import UseCase
from tests.ml.conftest import FIRST_DAY, Pumps
from tests.ml.test_champions import at_once, die, scored_versions, until_waiting

NEWEST = FIRST_DAY + timedelta(days=99)
PUMPS = 24
MONTH = timedelta(days=30)


class Counted:
    """How many feature rows scoring has read and hashed since the last look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count from now on."""
        self._read, self._hashed = 0, 0
        load, snapshots = lifecycle.load_features, FeatureSchema.snapshots

        def counting_load(*arguments: Any, **options: Any) -> pd.DataFrame:
            rows = load(*arguments, **options)
            self._read += len(rows)
            return rows

        def counting_snapshots(schema: FeatureSchema, table: pd.DataFrame) -> list[str]:
            self._hashed += len(table)
            return snapshots(schema, table)

        monkeypatch.setattr(lifecycle, "load_features", counting_load)
        monkeypatch.setattr(FeatureSchema, "snapshots", counting_snapshots)

    def score(self, use_case: UseCase) -> tuple[int, int, int]:
        """Rows read, hashed and written by the champion of a use case."""
        self._read = self._hashed = 0
        written = lifecycle.score_champion(use_case)
        return self._read, self._hashed, written


@pytest.fixture
def followed(pumps: Pumps) -> Pumps:
    """A plant with a champion, whose features are logged."""
    pumps.fill(days=100)
    assert lifecycle.train(pumps.use_case).gate.passed
    pumps.follow()
    return pumps


def bucket(day: date) -> dict[str, object]:
    return {"tenant_id": "default", "feature_date": day}


def wear(pumps: Pumps, value: float, day: date, pump: str = "pump_03") -> None:
    pumps.execute(f"update features.feat_pump_daily set wear = {value} where feature_date = '{day}' and device_id = '{pump}'")


def position(pumps: Pumps) -> int | None:
    row = pumps.connection.execute("select position from ops.scoring_state where use_case = %s and model_version = 1", (pumps.use_case.name,)).fetchone()
    return None if row is None else row[0]


def newest_line(pumps: Pumps) -> int:
    row = pumps.connection.execute("select max(change_id) from ops.bucket_change where relation = 'features.feat_pump_daily'").fetchone()
    assert row is not None
    return int(row[0])


def stored_wear(pumps: Pumps, day: date, pump: str = "pump_03") -> list[float]:
    """What was scored: wear is the feature that moves a prediction most."""
    found = pumps.connection.execute(
        "select (reason ->> 'value')::float8 from predictions.device_failure, jsonb_array_elements(reasons) as reason"
        " where model_name = %s and feature_date = %s and device_id = %s and reason ->> 'feature' = 'wear'",
        (pumps.use_case.name, day, pump),
    )
    return [row[0] for row in found]


def test_a_second_scoring_reads_the_day_that_changed_and_no_other(followed: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    everything = counted.score(followed.use_case)[0]
    assert everything > 5 * PUMPS
    assert position(followed) == newest_line(followed)
    assert counted.score(followed.use_case) == (0, 0, 0), "nothing was logged, so nothing is read"

    wear(followed, 9.5, NEWEST)
    wear(followed, 9.6, NEWEST - timedelta(days=1))  # the log does not say so
    followed.log(bucket(NEWEST), bucket(NEWEST), bucket(FIRST_DAY))  # of the first day the model has learned
    assert counted.score(followed.use_case) == (PUMPS, PUMPS, 1)
    assert stored_wear(followed, NEWEST) == [9.5]
    assert position(followed) == newest_line(followed)
    assert counted.score(followed.use_case) == (0, 0, 0)

    followed.execute(f"delete from features.feat_pump_daily where feature_date = '{NEWEST}' and device_id = 'pump_03'")
    followed.log(bucket(NEWEST))
    assert counted.score(followed.use_case) == (PUMPS - 1, PUMPS - 1, 0)
    assert stored_wear(followed, NEWEST) == [], "a row that is gone has no prediction"

    followed.log(None)
    assert counted.score(followed.use_case) == (everything - 1, everything - 1, 1), "a rebuilt table is read whole, and found is what no line had told"
    assert stored_wear(followed, NEWEST - timedelta(days=1)) == [9.6]


def test_a_bucket_of_a_unit_is_the_whole_unit(followed: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    everything = counted.score(followed.use_case)[0]
    followed.log({"tenant_id": "default", "device_id": "pump_03"})
    assert counted.score(followed.use_case) == (everything // PUMPS, everything // PUMPS, 0)
    followed.log({"shop_id": "s1"})  # says nothing about keys of predictions
    assert counted.score(followed.use_case)[0] == everything


def test_a_table_without_a_log_is_read_whole(pumps: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    pumps.fill(days=100)
    lifecycle.train(pumps.use_case)
    counted = Counted(monkeypatch)
    everything = counted.score(pumps.use_case)[0]
    assert everything > 0
    wear(pumps, 9.5, NEWEST)
    assert counted.score(pumps.use_case) == (everything, everything, 1)
    assert position(pumps) is None


def test_a_position_counts_for_what_was_asked_only(followed: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    everything = counted.score(followed.use_case)[0]
    followed.execute("update features.feat_pump_daily set device_type = 'fan' where device_id = 'pump_05'")
    both = replace(followed.use_case, scores={"device_type": ("fan", "pump")})
    assert counted.score(both) == (everything, everything, 0)
    assert counted.score(both) == (0, 0, 0)
    assert counted.score(followed.use_case)[0] == everything - everything // PUMPS


def test_every_version_has_its_own_position(followed: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    followed.fill(days=110)
    assert lifecycle.train(followed.use_case).model_version == 2
    lifecycle.score(followed.use_case)
    assert scored_versions(followed) == [1, 2]
    found = followed.connection.execute("select model_version, position from ops.scoring_state where use_case = %s order by 1", (followed.use_case.name,))
    assert found.fetchall() == [(1, newest_line(followed)), (2, newest_line(followed))]


def test_a_run_that_is_killed_loses_nothing(followed: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it dies: what it had not written, or not said that it had, is written by the next one."""
    lifecycle.score(followed.use_case)
    in_days = f"from ml.lifecycle import following\nfollowing.CHUNK_ROWS = {PUMPS}\n"  # a transaction a day
    changed = [NEWEST - timedelta(days=days) for days in (2, 1, 0)]
    steps = (LifecycleStep.SCORE_BEFORE_COMMIT, LifecycleStep.SCORE_AFTER_COMMIT, LifecycleStep.SCORE_BEFORE_POSITION)
    for value, step in enumerate(steps, start=5):
        before = position(followed)
        for day in changed:
            wear(followed, value, day)
            followed.log(bucket(day))
        die(followed, step, in_days + "lifecycle.score(case)")
        done = {LifecycleStep.SCORE_BEFORE_COMMIT: 0, LifecycleStep.SCORE_AFTER_COMMIT: 1, LifecycleStep.SCORE_BEFORE_POSITION: 2}[step]
        assert [stored_wear(followed, day) == [value] for day in changed] == [number < done for number in range(3)], step
        assert position(followed) == before, step
        assert lifecycle.score(followed.use_case) == 3 - done, step
        assert [stored_wear(followed, day) for day in changed] == [[value]] * 3
        assert position(followed) == newest_line(followed)


def test_pruning_keeps_what_a_version_has_not_read(followed: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    everything = counted.score(followed.use_case)[0]
    wear(followed, 9.5, NEWEST)
    followed.log(bucket(NEWEST))
    followed.execute("update ops.bucket_change set changed_at = changed_at - interval '2 days'")
    prune_ops_history(keep=MONTH)
    lines = followed.connection.execute("select bucket is null from ops.bucket_change where relation = 'features.feat_pump_daily'").fetchall()
    assert lines == [(False,)], "what the version has read is pruned, what it has not is kept"
    assert counted.score(followed.use_case) == (PUMPS, PUMPS, 1)
    prune_ops_history(keep=MONTH)
    assert counted.score(followed.use_case) == (0, 0, 0), "an empty log is not a log without a position"

    # A version that has not scored for as long as history is kept holds nothing back, and reads everything when it is taken up again.
    wear(followed, 9.6, NEWEST)
    followed.log(bucket(NEWEST))
    followed.execute("update ops.bucket_change set changed_at = changed_at - interval '2 days'")
    followed.execute("update ops.scoring_state set scored_at = scored_at - interval '31 days'")
    prune_ops_history(keep=MONTH)
    assert followed.connection.execute("select count(*) from ops.bucket_change where relation = 'features.feat_pump_daily'").fetchone() == (0,)
    assert position(followed) is None
    assert counted.score(followed.use_case) == (everything, everything, 1)


def test_scoring_looks_again_where_it_had_to_wait(followed: Pumps) -> None:
    """Features that changed while another run was writing: what was read before it is not put over what came after."""
    lifecycle.score(followed.use_case)
    wear(followed, 5, NEWEST)
    followed.log(bucket(NEWEST))
    with connect(Role.ML) as holder:
        lifecycle.lock_predictions(holder, followed.use_case.target)

        def meanwhile() -> None:
            until_waiting(followed.connection, 1)
            wear(followed, 6, NEWEST)
            holder.rollback()

        assert at_once(lambda: lifecycle.score(followed.use_case), meanwhile) == [None, None]
    assert stored_wear(followed, NEWEST) == [6]


def test_spans_of_days_leave_no_day_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CHUNK_ROWS", 10)
    days = [FIRST_DAY + timedelta(days=day) for day in range(12)]
    assert spans([], days[0]) == [(days[0], date.max)]
    counts = [(days[1], 4), (days[2], 6), (days[3], 1), (days[8], 30), (days[9], 10), (days[10], 1)]
    assert spans(counts, days[0]) == [(days[0], days[2]), (days[3], days[7]), (days[8], days[8]), (days[9], days[9]), (days[10], date.max)]


def test_a_whole_reading_in_spans_writes_the_same(followed: Pumps, monkeypatch: pytest.MonkeyPatch) -> None:
    written = lifecycle.score(followed.use_case)
    query = "select tenant_id, device_id, feature_date, feature_snapshot, failure_probability, reasons from predictions.device_failure order by 1, 2, 3"
    at_one_go = followed.connection.execute(query).fetchall()
    followed.execute("truncate predictions.device_failure, ops.scoring_state")
    monkeypatch.setattr(following, "CHUNK_ROWS", 3 * PUMPS)
    assert lifecycle.score(followed.use_case) == written
    assert followed.connection.execute(query).fetchall() == at_one_go


def test_the_role_that_scores_may_not_touch_the_log(followed: Pumps) -> None:
    with connect(Role.ML) as connection:
        for statement in (
            "delete from ops.bucket_change",
            "insert into ops.bucket_change (relation, build_id) values ('x', 'y')",
            "delete from ops.scoring_state",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(statement)  # type: ignore[call-overload]
