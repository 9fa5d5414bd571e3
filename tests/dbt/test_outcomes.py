"""Predictions joined with what happened: the same whatever came first, repaired by what comes late; and the quality of features."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta

import pytest

from include.landing import land_pending
from include.transform import build, fix_horizon
from include.transform.trace import trace
from include.warehouse import Role, connect
from tests.conftest import Warehouse
from tests.dbt.test_features import start_anew
from tests.support.marts import build_marts, differences, failing_data_tests, snapshot
from tests.support.payloads import at, maintenance, put, registry, telemetry
from tests.support.removal import remove_event

OUTCOMES = ["platform.fct_prediction_outcome", "platform.rpt_feature_quality", "platform.rpt_model_performance_daily"]
SELECTOR = "+rpt_model_performance_daily,config.materialized:incremental +rpt_feature_quality,config.materialized:incremental"
MACHINES = ("m1", "m2", "m3")
DAYS = 22
HORIZON_DAYS = {"device_failure": 7, "device_failure_24h": 1, "component_failure": 7}
Arrival = Callable[[], None]


def land(stream: str, arrived_at: datetime, *payloads: dict) -> Arrival:
    """Lands a file."""

    def arrive() -> None:
        put(stream, list(payloads), arrived_at=arrived_at)
        land_pending(stream, arrived_from=at(-3), arrived_before=at(DAYS + 20))

    return arrive


def score(use_case: str, day: int, version: int, *, shift: float = 0.0) -> Arrival:
    """Writes the predictions of a version for a day, in place of those that stand there, as the write-back does."""

    def arrive() -> None:
        with connect(Role.ML) as connection:
            forget(connection, use_case, day, version)
            rows = [
                (machine, component, (7 * day + 3 * number + 5 * version + len(component or "")) % 20 / 20 * (1 - shift) + shift)
                for number, machine in enumerate(MACHINES)
                for component in (("pump", "motor") if use_case == "component_failure" else (None,))
            ]
            for machine, component, probability in rows:
                columns, values = ("component_code, ", [component]) if component else ("", [])
                connection.execute(
                    f"insert into predictions.{use_case} ({columns}tenant_id, device_id, feature_date, model_name, model_version, feature_snapshot, known_at,"  # type: ignore[arg-type]
                    f" outcome_from, outcome_to, failure_probability) values ({'%s, ' if component else ''}'default', %s, %s, %s, %s, 's', %s, %s, %s, %s)",
                    (*values, machine, at(day).date(), use_case, version, at(day + 1), at(day + 1), at(day + 1 + HORIZON_DAYS[use_case]), probability),
                )
            tell(connection, use_case, day)

    return arrive


def forget(connection, use_case: str, day: int, version: int) -> None:
    connection.execute(f"delete from predictions.{use_case} where feature_date = %s and model_version = %s", (at(day).date(), version))


def tell(connection, use_case: str, day: int) -> None:
    connection.execute("select ops.log_predictions(%s, %s, %s)", (use_case, ["default"], [at(day).date()]))


def readings(day: int) -> Arrival:
    return land("device_telemetry", at(day, 20), *(telemetry(name, at(day, hour), vibration=1 + 0.1 * day) for name in MACHINES for hour in (3, 15)))


def story() -> list[Arrival]:
    """Three machines for three weeks: failures on time and late, one that was another machine's, one that was none; three questions, two versions."""
    arrivals = [land("device_registry", at(-1), *(registry(name, at(-60)) for name in MACHINES))]
    arrivals += [readings(day) for day in range(DAYS)]
    log = [
        ("w1", "m1", at(5, 6), at(5, 20), {"component": "pump"}),
        ("w2", "m2", at(9, 6), at(19, 20), {"component": "motor"}),  # known after it should have been
        ("w3", "m3", at(3), at(3, 20), {"component": "pump"}),  # the last moment of one window, no moment of the next
        ("w4", "m3", at(6, 6), at(6, 20), {"kind": "repair", "component": "pump"}),
        ("w5", "m2", at(12, 6), at(12, 20), {}),
    ]
    arrivals += [land("maintenance_log", arrived, maintenance(name, machine, moment, **more)) for name, machine, moment, arrived, more in log]
    arrivals.append(land("maintenance_log", at(20, 5), maintenance("w1", "m3", at(4, 6), component="pump", updated_at=at(20))))
    arrivals.append(land("maintenance_log", at(20, 6), maintenance("w5", "m2", at(12, 6), kind="repair", updated_at=at(20))))
    arrivals += [score(use_case, day, version) for use_case in HORIZON_DAYS for day in range(0, DAYS, 2) for version in ((1, 2) if day > 5 else (1,))]
    return arrivals


def tell_all(arrivals: Iterable[Arrival]) -> None:
    for arrive in arrivals:
        arrive()
    build_marts(SELECTOR)


def rescore() -> None:
    """A late reading has changed a day, which is scored again; the predictions of another one go."""
    score("device_failure", 2, 1, shift=0.5)()
    with connect(Role.ML) as connection:
        forget(connection, "component_failure", 6, 2)
        tell(connection, "component_failure", 6)
    build_marts(SELECTOR)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.prove)])
def test_outcomes_are_the_same_in_any_order(seed: int, unfilled: Warehouse, unfilled_template: str) -> None:
    tell_all(story())
    rescore()
    on_time = snapshot(OUTCOMES)
    counted = unfilled.rows("select use_case, count(*), count(*) filter (where has_occurred) from platform.fct_prediction_outcome group by 1 order by 1")
    assert [use_case for use_case, *_ in counted] == sorted(HORIZON_DAYS)
    assert all(0 < positives < rows for _, rows, positives in counted), counted
    start_anew(unfilled_template)
    dice = random.Random(seed)
    arrivals = story()
    dice.shuffle(arrivals)
    cuts = sorted(dice.sample(range(5, len(arrivals)), 3))
    for first, last in zip([0, *cuts], [*cuts, len(arrivals)], strict=True):
        tell_all(arrivals[first:last])
    rescore()
    assert differences(snapshot(OUTCOMES), on_time) == []
    build_marts(SELECTOR, rebuild=True)
    assert differences(snapshot(OUTCOMES), on_time) == []


@pytest.fixture
def told(unfilled: Warehouse) -> Warehouse:
    """The story as it happened, and built."""
    tell_all(story())
    return unfilled


def touched(warehouse: Warehouse, build_id: str) -> set[tuple[str, date]]:
    rows = warehouse.rows(
        "select bucket ->> 'use_case', (bucket ->> 'feature_date')::date from ops.bucket_change "
        f"where build_id = '{build_id}' and relation = 'platform.fct_prediction_outcome'"
    )
    return set(rows)  # type: ignore[arg-type]


def build_again() -> str:
    of = fix_horizon()
    build(SELECTOR, of, run_tests=True)
    return of.build_id


def test_a_prediction_stands_with_what_happened(told: Warehouse) -> None:
    """By hand: the failure of m2 on the morning of day 9, known on day 19, is in the windows of days 2 to 8, and of day 8 where the question is about a day."""
    found = told.rows(
        "select use_case, component_code, feature_date - date '2026-03-01', first_known_at > settled_at from platform.fct_prediction_outcome "
        "where device_id = 'm2' and has_occurred and model_version = 1 order by 1, 3"
    )
    assert found == [
        *(("component_failure", "motor", day, True) for day in (2, 4, 6, 8)),
        *(("device_failure", None, day, True) for day in (2, 4, 6, 8)),
        ("device_failure_24h", None, 8, True),
    ]
    # m3 failed at midnight after day 2, which no window of an even day holds but those of before, and on day 4, which the log said of another machine at first.
    found = told.rows(
        "select feature_date - date '2026-03-01' from platform.fct_prediction_outcome where device_id = 'm3' and has_occurred and use_case = 'device_failure' "
        "and model_version = 1 order by 1"
    )
    assert found == [(0,), (2,)]
    assert (
        told.value(
            "select outcome_days from platform.fct_prediction_outcome where device_id = 'm3' and use_case = 'device_failure' and feature_date = '2026-03-03'"
        )
        == 1.25
    )
    newest = told.rows("select use_case, max(feature_date) - date '2026-03-01' from platform.fct_prediction_outcome group by 1 order by 1")
    assert newest == [("component_failure", 10), ("device_failure", 10), ("device_failure_24h", 16)]


def test_new_days_settle_the_days_that_they_are_about(told: Warehouse) -> None:
    """And nothing else is touched: a build costs what has changed."""
    readings(DAYS)()
    readings(DAYS + 1)()
    found = touched(told, build_again())
    newest = DAYS + 1
    assert found == {
        ("component_failure", at(newest - 11).date()),
        ("device_failure", at(newest - 11).date()),
        ("device_failure_24h", at(newest - 5).date()),
    }


def test_a_late_failure_changes_what_was_settled(told: Warehouse) -> None:
    before = told.value("select count(*) from platform.fct_prediction_outcome where has_occurred and device_id = 'm1' and use_case = 'device_failure'")
    land("maintenance_log", at(DAYS + 2), maintenance("w9", "m1", at(9, 6)))()
    found = touched(told, build_again())
    assert {day for use_case, day in found if use_case == "device_failure"} >= {at(day).date() for day in (2, 4, 6, 8)}
    after = told.value("select count(*) from platform.fct_prediction_outcome where has_occurred and device_id = 'm1' and use_case = 'device_failure'")
    assert after > before  # type: ignore[operator]
    incremental = snapshot(OUTCOMES)
    build_marts(SELECTOR, rebuild=True)
    assert differences(incremental, snapshot(OUTCOMES)) == []


def test_days_that_go_take_their_outcomes_with_them(told: Warehouse) -> None:
    """The newest days turn out to be wrong and are removed: what they had settled is open again."""
    before = told.value("select count(*) from platform.fct_prediction_outcome")
    remove_event("device_telemetry", f"event_at >= '{at(DAYS - 4)}'")
    build_again()
    assert told.value("select count(*) from platform.fct_prediction_outcome") < before  # type: ignore[operator]
    incremental = snapshot(OUTCOMES)
    build_marts(SELECTOR, rebuild=True)
    assert differences(incremental, snapshot(OUTCOMES)) == []


def of_machine(warehouse: Warehouse, machine: str) -> list[tuple]:
    return warehouse.rows(
        "select feature_date - date '2026-03-01', has_occurred from platform.fct_prediction_outcome where use_case = 'device_failure' and model_version = 1 "
        f"and device_id = '{machine}' order by 1"
    )


def test_a_machine_that_left_has_outcomes_only_where_it_failed(told: Warehouse) -> None:
    """m3 goes out of use on day 9: nobody knows what would have become of it. Then it turns out that it reported on day 15."""
    assert of_machine(told, "m3") == [(0, True), (2, True), (4, False), (6, False), (8, False), (10, False)]
    remove_event("device_telemetry", f"device_id = 'm3' and event_at >= '{at(9)}'")
    land("device_registry", at(9), registry("m3", at(9), status="retired"))()
    build_again()
    assert of_machine(told, "m3") == [(0, True), (2, True)]
    assert len(of_machine(told, "m1")) == 6
    land("maintenance_log", at(DAYS + 2), maintenance("w9", "m3", at(5, 6)))()
    build_again()
    assert of_machine(told, "m3") == [(0, True), (2, True), (4, True)], "it had failed before, which is known late"
    land("device_telemetry", at(15, 20), telemetry("m3", at(15, 3)))()
    build_again()
    assert of_machine(told, "m3") == [(0, True), (2, True), (4, True), (6, False), (8, False)], "by then it was there, and the day before and after not"
    incremental = snapshot(OUTCOMES)
    build_marts(SELECTOR, rebuild=True)
    assert differences(incremental, snapshot(OUTCOMES)) == []


def test_a_prediction_that_a_dimension_lacks_would_be_seen(told: Warehouse) -> None:
    of = fix_horizon()
    assert failing_data_tests("rpt_model_performance_daily", of) == []
    told.execute("delete from platform.rpt_model_performance_daily where slice_dimension = 'facility_id' and feature_date = '2026-03-05'")
    assert failing_data_tests("rpt_model_performance_daily", of) == ["same_totals_by"]


def test_live_metrics_are_those_of_the_outcomes(told: Warehouse) -> None:
    """Added up over days, in every dimension, they are the same."""
    metrics = "sum(prediction_count), sum(positive_count), round(sum(probability_sum)::numeric, 6), round(sum(squared_error_sum)::numeric, 6)"
    direct = told.rows(
        "select use_case, model_version, count(*), count(*) filter (where has_occurred), round(sum(predicted_probability)::numeric, 6), "
        "round(sum(squared_error)::numeric, 6) from platform.fct_prediction_outcome group by 1, 2 order by 1, 2"
    )
    assert len(direct) == 6
    for dimension in ("all", "facility_id", "machine_model_name", "probability_bin"):
        found = told.rows(
            f"select use_case, model_version, {metrics} from platform.rpt_model_performance_daily "
            f"where slice_dimension = '{dimension}' group by 1, 2 order by 1, 2"
        )
        assert found == direct, dimension


def test_an_outcome_is_traced_to_readings_and_log(told: Warehouse) -> None:
    key = ["use_case=device_failure", f"feature_date={at(4).date()}", "model_version=1"]
    for table, words in (
        ("fct_prediction_outcome", ["device_id=m1"]),
        ("rpt_model_performance_daily", ["slice_dimension=all"]),
    ):
        found = trace(f"platform.{table}", [*key, *words])
        assert {raw.stream for raw in found.raw} >= {"device_telemetry", "maintenance_log"}, table
        assert found.files, table


def test_only_who_scores_may_say_that_predictions_changed(unfilled: Warehouse) -> None:
    may = "select has_function_privilege('{}', 'ops.log_predictions(text, text[], date[])', 'execute')"
    assert unfilled.value(may.format(Role.ML.value)) is True
    for role in (Role.TRANSFORMER, Role.LOADER, Role.ANALYST):
        assert unfilled.value(may.format(role.value)) is False
    assert unfilled.value("select has_table_privilege('tidemark_ml', 'ops.bucket_change', 'insert')") is False


def test_features_are_counted_by_completeness_freshness_and_consistency(told: Warehouse) -> None:
    """Against the feature table itself; then a share is made impossible and a machine stands still."""
    columns = "known_count, compared_count, renewed_count, out_of_range_count, is_constant, lowest_value, highest_value"
    day = at(10).date()

    def quality(feature: str) -> tuple:
        (row,) = told.rows(
            f"select row_count, {columns} from platform.rpt_feature_quality "
            f"where feature_table = 'feat_device_daily' and feature_name = '{feature}' and feature_date = '{day}'"
        )
        return row

    for feature in ("vibration_rms_1d_mm_s", "avg_pressure_1d_hpa", "days_since_maintenance"):
        known = told.rows(f"select count(*), count({feature}), min({feature}), max({feature}) from features.feat_device_daily where feature_date = '{day}'")[0]
        found = quality(feature)
        assert (*found[:2], *found[6:]) == known, feature
    assert quality("vibration_rms_1d_mm_s")[1:6] == (3, 3, 3, 0, True), "all three shake alike, and more than the day before"
    with connect(Role.TRANSFORMER) as connection:
        connection.execute("update features.feat_device_daily set running_share_1d = 1.5 where device_id = 'm1' and feature_date = %s", (day,))
        connection.execute(
            "update features.feat_device_daily set vibration_rms_1d_mm_s = 1 where device_id = 'm2' and feature_date in (%s, %s)",
            (day, day - timedelta(days=1)),
        )
    build_marts("rpt_feature_quality", rebuild=True)
    assert quality("running_share_1d")[4] == 1
    assert quality("vibration_rms_1d_mm_s")[1:6] == (3, 3, 2, 0, False)
