"""Point-in-time data sets: what a row may know, what its outcome is, and how time is cut."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.lifecycle.dataset import IS_KNOWN, OUTCOME, Measure, NotEnoughData, knowledge_time, load_dataset, load_features
from ml.lifecycle.schema import Feature, FeatureKind, FeatureSchema, FeatureSchemaMismatch
from ml.lifecycle.splitting import split_by_time
from tests.ml.conftest import FIRST_DAY, SCHEMA, SPEC, Pumps

WEEK = timedelta(days=7)


@given(days=st.integers(min_value=17, max_value=900), gap_days=st.integers(min_value=0, max_value=7), hours=st.integers(min_value=0, max_value=23))
def test_no_outcome_window_reaches_into_the_next_part(days: int, gap_days: int, hours: int) -> None:
    horizon = timedelta(days=gap_days, hours=hours if gap_days < 7 else 0)
    dates = [FIRST_DAY + timedelta(days=day) for day in range(days)]
    split = split_by_time(dates, gap=horizon)
    train, validation, test = split.parts
    for earlier, later in ((train, validation), (validation, test)):
        last_outcome = knowledge_time(earlier.last) + horizon
        first_outcome = knowledge_time(later.first)
        assert last_outcome <= first_outcome - timedelta(days=1), "a whole day's features lie after the last outcome of the part before"
        assert (later.first - earlier.last).days - 1 == split.gap.days >= horizon / timedelta(days=1)
    assert train.first == dates[0]
    assert test.last == dates[-1]
    covered = sum(part.rows(dates).astype(int) for part in split.parts)
    assert covered.max() == 1
    assert (covered == 0).sum() == 2 * split.gap.days
    lengths = [part.rows(dates).sum() for part in split.parts]
    usable = days - 2 * split.gap.days
    assert all(abs(length - share * usable) <= 2 for length, share in zip(lengths, (0.70, 0.15, 0.15), strict=True))


def test_too_short_a_history_is_refused() -> None:
    with pytest.raises(NotEnoughData, match="at least 17 days"):
        split_by_time([FIRST_DAY + timedelta(days=day) for day in range(16)], gap=WEEK)
    with pytest.raises(NotEnoughData, match="no row has a complete outcome window"):
        split_by_time([], gap=WEEK)


def test_the_outcome_window_opens_after_the_day_and_closes_seven_days_later(pumps: Pumps, ml: psycopg.Connection) -> None:
    pumps.execute(
        "insert into features.feat_pump_daily select 'default', 'pump_1', date '2026-01-01' + n, 'pump', 0, 0, true, 'a', 1, 's' from generate_series(0, 29) n"
    )
    # Exactly at the end of 10 January (the window of that day is open there, the one of the 3rd still closed-in), and a second later.
    pumps.execute("insert into maintenance.fct_leak values ('default', 'pump_1', 'leak', '2026-01-11 00:00:00+00')")
    assert _positive_days(ml) == [date(2026, 1, day) for day in range(3, 10)]
    pumps.execute("update maintenance.fct_leak set occurred_at = '2026-01-11 00:00:01+00'")
    assert _positive_days(ml) == [date(2026, 1, day) for day in range(4, 11)]


def test_only_the_named_outcome_of_the_same_device_and_tenant_counts(pumps: Pumps, ml: psycopg.Connection) -> None:
    pumps.execute(
        "insert into features.feat_pump_daily select 'default', 'pump_1', date '2026-01-01' + n, 'pump', 0, 0, true, 'a', 1, 's' from generate_series(0, 29) n"
    )
    pumps.execute(
        "insert into maintenance.fct_leak values ('default', 'pump_1', 'service', '2026-01-11 08:00+00'), ('other', 'pump_1', 'leak', '2026-01-11 08:00+00'),"
        " ('default', 'pump_2', 'leak', '2026-01-11 08:00+00')"
    )
    assert _positive_days(ml) == []


def test_rows_without_a_complete_and_settled_outcome_window_are_left_out(pumps: Pumps, ml: psycopg.Connection) -> None:
    pumps.fill(days=40, pumps=3)
    pumps.execute("insert into features.feat_pump_daily values ('default', 'valve_1', '2027-01-01', 'valve', 0, 0, true, 'a', 1, 's')")
    pumps.execute("delete from features.feat_pump_daily where device_type = 'valve'")
    dataset = load_dataset(ml, SPEC)
    newest = FIRST_DAY + timedelta(days=39)
    assert dataset.known_until == datetime(newest.year, newest.month, newest.day, tzinfo=UTC), "the newest day may still be filling"
    last = dataset.dates.max()
    assert knowledge_time(last) + WEEK + SPEC.outcome.settling == dataset.known_until
    assert len(dataset.frame) == 3 * ((last - FIRST_DAY).days + 1)
    assert dataset.incomplete_rows == 3 * 40 - len(dataset.frame)


def put(pumps: Pumps, tenant: str, pump: str, days: int) -> None:
    """Rows of a pump for its first days."""
    pumps.execute(
        f"insert into features.feat_pump_daily select '{tenant}', '{pump}', date '{FIRST_DAY}' + n, 'pump', 0, 0, true, 'a', 1, 's'"
        f" from generate_series(0, {days - 1}) n"
    )


@pytest.mark.parametrize("measure", list(Measure))
def test_of_a_tenant_that_fell_silent_nobody_knows_that_nothing_failed(pumps: Pumps, ml: psycopg.Connection, measure: Measure) -> None:
    put(pumps, "current", "pump_1", 40)
    put(pumps, "silent", "pump_1", 29)
    dataset = load_dataset(ml, replace(SPEC, outcome=replace(SPEC.outcome, measure=measure)))
    last = dataset.frame.groupby("tenant_id")["feature_date"].max()
    days_not_known = 1 + SPEC.outcome.settling.days + 7  # the newest may still be filling
    assert last["current"] == FIRST_DAY + timedelta(days=39 - days_not_known)
    assert last["silent"] == FIRST_DAY + timedelta(days=28 - days_not_known), "by its own newest day, not by that of others"
    assert dataset.known_until == datetime(2026, 2, 9, tzinfo=UTC), "the greatest"
    assert (len(dataset.frame), dataset.incomplete_rows, dataset.departed_rows) == (69 - 20, 20, 0)
    if measure is Measure.DAYS_UNTIL:
        assert dataset.frame[IS_KNOWN].all(), "a silent tenant is no machine that left"


def test_what_left_before_its_window_was_over_did_not_stay_whole(pumps: Pumps, ml: psycopg.Connection) -> None:
    for pump, days in {"stays": 40, "leaves": 20, "fails": 20, "is_seen_later": 20}.items():
        put(pumps, "default", pump, days)
    leak = "insert into maintenance.fct_leak values ('default', '{}', 'leak', timestamptz '2026-01-01 00:00+00' + interval '{} days')"
    pumps.execute(leak.format("fails", 20.5))
    pumps.execute(leak.format("is_seen_later", 29.0))
    dataset = load_dataset(ml, SPEC)
    found = {pump: {(row.feature_date - FIRST_DAY).days: row.outcome for row in rows.itertuples()} for pump, rows in dataset.frame.groupby("device_id")}
    assert sorted(found["stays"]) == list(range(30))
    assert found["leaves"] == dict.fromkeys(range(13), 0), "of the last week nobody knows"
    # It leaked in the windows of its last seven days; that of the day before was over when it leaked.
    assert found["fails"] == {day: int(day >= 13) for day in range(20)}
    assert found["is_seen_later"] == dict.fromkeys(range(20), 0), "it was there to leak on the 29th day, so it had not leaked before"
    assert dataset.departed_rows == 7
    assert dataset.incomplete_rows == 10


def test_a_label_speaks_of_its_own_row(pumps: Pumps, ml: psycopg.Connection) -> None:
    """A finished table: with one row a unit and its label, all rows count; asked further ahead, only those that were seen so far."""
    for number in range(4):
        put(pumps, "default", f"unit_{number}", 1)
    put(pumps, "default", "breaks_off", 9)
    pumps.execute("insert into maintenance.fct_leak values ('default', 'unit_3', 'leak', '2026-01-02 12:00+00')")
    labelled = replace(SPEC, outcome=replace(SPEC.outcome, horizon=timedelta(days=1), settling=timedelta(0), is_closed=True))
    dataset = load_dataset(ml, labelled)
    assert (len(dataset.frame), dataset.frame[OUTCOME].sum(), dataset.departed_rows, dataset.incomplete_rows) == (13, 1, 0, 0)
    ahead = load_dataset(ml, replace(labelled, outcome=replace(labelled.outcome, horizon=timedelta(days=4))))
    assert ahead.frame.groupby("device_id").size().to_dict() == {"breaks_off": 6, "unit_3": 1}
    assert (ahead.departed_rows, ahead.incomplete_rows) == (6, 0)


def test_a_block_is_made_of_whole_entities() -> None:
    with pytest.raises(ValueError, match="must be some of"):
        replace(SPEC.features, block=("site",))


def test_no_feature_and_no_earlier_outcome_knows_the_future(pumps: Pumps, ml: psycopg.Connection) -> None:
    """Whatever happens after a knowledge time changes no feature up to it and no outcome whose window was over."""
    pumps.fill(days=60, pumps=4, leak_every_days=10)
    before = load_dataset(ml, SPEC)
    ml.commit()
    moment = FIRST_DAY + timedelta(days=30)
    pumps.execute(
        f"update features.feat_pump_daily set wear = wear + 100, grease = -grease, is_outdoors = not is_outdoors, maker = 'x' where feature_date > '{moment}'"
    )
    pumps.execute(f"delete from maintenance.fct_leak where occurred_at > '{knowledge_time(moment)}'")
    pumps.execute(
        "insert into maintenance.fct_leak select distinct 'default', device_id, 'leak',"
        f" '{knowledge_time(moment)}'::timestamptz + interval '1 s' from features.feat_pump_daily"
    )
    after = load_dataset(ml, SPEC)
    known, still_known = (data.frame[[day <= moment for day in data.dates]].reset_index(drop=True) for data in (before, after))
    features = ["tenant_id", "device_id", "feature_date", *SCHEMA.names]
    assert known[features].equals(still_known[features])
    over = np.array([knowledge_time(day) + WEEK <= knowledge_time(moment) for day in known["feature_date"]])
    assert list(known[OUTCOME][over]) == list(still_known[OUTCOME][over])
    assert over.any()
    assert set(still_known[OUTCOME][~over]) == {1}, "the change did reach the outcomes that were open"


def test_the_content_hash_sees_every_value_and_no_order(pumps: Pumps, ml: psycopg.Connection) -> None:
    pumps.fill(days=30, pumps=2)
    first = load_dataset(ml, SPEC).content_hash
    ml.commit()
    pumps.execute("create table moved as select * from features.feat_pump_daily order by wear")
    pumps.execute("truncate features.feat_pump_daily")
    pumps.execute("insert into features.feat_pump_daily select * from moved")
    assert load_dataset(ml, SPEC).content_hash == first
    ml.commit()
    pumps.execute("update features.feat_pump_daily set grease = grease + 1e-12 where device_id = 'pump_01' and feature_date = '2026-01-05'")
    assert load_dataset(ml, SPEC).content_hash != first


def test_rows_come_in_parts_and_real_numbers_as_such(pumps: Pumps, ml: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A float object a value would take four times the memory of a year's features."""
    pumps.fill(days=20, pumps=3)
    pumps.execute("update features.feat_pump_daily set wear = null, maker = null, is_outdoors = null where device_id = 'pump_01'")
    whole = load_features(ml, SPEC.features)
    assert [str(whole[name].dtype) for name in ("wear", "age_days", "is_outdoors", "maker", "feature_date")] == ["float64", "float64", *["object"] * 3]
    stored = pumps.connection.execute(
        "select device_id, feature_date, wear, is_outdoors, maker from features.feat_pump_daily order by feature_date, tenant_id, device_id"
    ).fetchall()
    names = ["device_id", "feature_date", "wear", "is_outdoors", "maker"]
    assert whole[names].astype(object).where(whole[names].notna(), None).to_numpy().tolist() == [list(row) for row in stored]
    monkeypatch.setattr("ml.lifecycle.dataset.FETCHED_ROWS", 7)
    pd.testing.assert_frame_equal(load_features(ml, SPEC.features), whole)
    assert load_features(ml, replace(SPEC.features, population={"device_type": ("fan",)})).shape == (0, whole.shape[1])


def test_a_table_that_does_not_fit_is_refused_with_every_reason(pumps: Pumps, ml: psycopg.Connection) -> None:
    pumps.execute("alter table features.feat_pump_daily drop column grease, alter column maker type bigint using 1, alter column wear type text")
    with pytest.raises(FeatureSchemaMismatch) as caught:
        load_features(ml, SPEC.features)
    message = str(caught.value)
    for part in ("features.feat_pump_daily", "missing: grease", "maker is int8 but must be a category", "wear is text but must be a number"):
        assert part in message
    ml.rollback()
    with pytest.raises(FeatureSchemaMismatch, match=r"features\.nowhere does not exist yet: build the marts"):
        load_features(ml, replace(SPEC.features, relation=replace(SPEC.features.relation, name="nowhere")))
    ml.rollback()
    pumps.execute("alter table maintenance.fct_leak rename column occurred_at to at")
    schema = FeatureSchema((Feature("age_days"),))
    with pytest.raises(FeatureSchemaMismatch, match=r"maintenance\.fct_leak lacks the columns occurred_at"):
        load_dataset(ml, replace(SPEC, features=replace(SPEC.features, schema=schema)))


def test_an_empty_feature_table_says_what_to_do(ml: psycopg.Connection) -> None:
    with pytest.raises(NotEnoughData, match="is empty: land data and build the marts first"):
        load_dataset(ml, SPEC)


def test_integers_numerics_and_floats_are_the_same_feature() -> None:
    from decimal import Decimal

    import pandas as pd

    schema = FeatureSchema((Feature("x"), Feature("f", FeatureKind.FLAG), Feature("c", FeatureKind.CATEGORY)))
    tables = [pd.DataFrame({"x": pd.Series([value], dtype=object), "f": [True], "c": ["a"]}) for value in (2, 2.0, Decimal("2.0"))]
    assert len({schema.snapshots(table)[0] for table in tables}) == 1
    unknown = pd.DataFrame({"x": [None, float("nan"), float("inf")], "f": [None, None, None], "c": [None, None, float("nan")]}, dtype=object)
    assert len(set(schema.snapshots(unknown))) == 1
    with pytest.raises(FeatureSchemaMismatch, match="feature x must be a number"):
        schema.frame(pd.DataFrame({"x": ["many"], "f": [True], "c": ["a"]}))
    with pytest.raises(FeatureSchemaMismatch, match="feature c must be text, got 3"):
        schema.frame(pd.DataFrame({"x": [1], "f": [True], "c": [3]}))
    with pytest.raises(FeatureSchemaMismatch, match="lack the features c"):
        schema.frame(pd.DataFrame({"x": [1], "f": [True]}))
    with pytest.raises(ValueError, match="no name twice"):
        FeatureSchema((Feature("x"), Feature("x")))


def test_the_hash_of_a_feature_row_stays_what_it_is() -> None:
    """Frozen: it decides what is scored anew, and data sets are known by hashes of these hashes."""
    import pandas as pd

    schema = FeatureSchema((Feature("wear"), Feature("on", FeatureKind.FLAG), Feature("maker", FeatureKind.CATEGORY)))
    rows = pd.DataFrame({"wear": [1, 0.1, None, 1e300], "on": [True, None, False, True], "maker": ["ä", None, "b", '"x']}, dtype=object)
    frozen = ["47c4e734d9b7f832f8893e0995d51c3a", "e4e4aaf365d4d5e7ab92b6434206a49e", "98ca2a6ba359f5f72d6c3cef70afa60a", "3e0b99471beaf0323f83ef8bfadf217d"]
    assert schema.snapshots(rows) == frozen
    assert schema.snapshots(rows.replace({None: pd.NA})) == frozen
    assert schema.snapshots(rows[:0]) == []


def _positive_days(connection: psycopg.Connection) -> list[date]:
    frame = load_dataset(connection, SPEC).frame
    connection.commit()
    return list(frame[frame[OUTCOME] == 1]["feature_date"])
