"""Decision 6: any order of arrival, any number of builds → the same tables as one full refresh."""

from __future__ import annotations

import random
import shutil

import pytest

from include.settings import get_settings
from tests.conftest import TEST_DATABASE, Cluster, Warehouse, clone_database, drop_database
from tests.support.marts import Snapshot, build_marts, differences, snapshot
from tests.support.scenario import files, land


@pytest.fixture
def on_time(built: Warehouse) -> Snapshot:
    """The tables when every file landed in order of arrival before the only build."""
    return snapshot()


def test_the_reference_holds_something(on_time: Snapshot) -> None:
    counted = {name: len(rows) for name, (_, rows) in on_time.items()}
    assert counted["maintenance.fct_device_reading_hourly"] > 100
    # Nobody has scored or proposed work: these show predictions and decisions, which no file brings (tests/dbt/test_outcomes.py, tests/ml/test_work_orders.py).
    unfilled = {"maintenance.rpt_maintenance_schedule", "platform.fct_prediction_outcome", "platform.rpt_model_performance_daily"}
    assert {name for name, count in counted.items() if not count} == unfilled, counted


# Two orders in every test run, more than a hundred others in `make prove`.
@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.prove) for seed in range(2, 120))])
def test_twenty_files_in_any_order_give_the_same_marts(seed: int, on_time: Snapshot, cluster: Cluster, deployed_template: str) -> None:
    drop_database(TEST_DATABASE)
    clone_database(deployed_template, TEST_DATABASE)
    shutil.rmtree(get_settings().zone_url.removeprefix("file://"))
    dice = random.Random(seed)
    arrivals = files()
    dice.shuffle(arrivals)
    build_after = set(dice.sample(range(1, len(arrivals) - 1), 2))
    for position, file in enumerate(arrivals):
        land(file)
        if position in build_after:
            build_marts()
    build_marts()
    assert differences(snapshot(), on_time) == []
