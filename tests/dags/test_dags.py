"""The timetable of the house: exactly these DAGs, and each follows the rules."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from include.contracts import commerce_streams, device_streams, streams, table_streams
from include.settings import REPOSITORY
from tests.dags.rules import RULES, asset_cycles, watched_assets

DAG_IDS = {
    "simulate_sources",
    "land_device_streams",
    "land_commerce_streams",
    "land_tables",
    "build_marts",
    "build_hourly",
    "train_device_failure",
    "score_device_failure",
    "train_failure_details",
    "score_failure_details",
    "monitor_models",
    "build_priorities",
    "backfill_history",
    "replay_quarantine",
    "rebuild_warehouse",
    "publish_docs",
    "keep_house",
    "apply_retention",
    "export_lake",
    "keep_lake",
}


def test_exactly_the_expected_dags(house: dict[str, Any]) -> None:
    assert set(house) == DAG_IDS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_dag_follows(rule: Callable[..., Any], house: dict[str, Any]) -> None:
    assert list(rule(house)) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_can_fail(rule: Callable[..., Any], broken: dict[str, Any]) -> None:
    assert list(rule(broken))


def test_a_cycle_is_named(broken: dict[str, Any]) -> None:
    assert list(asset_cycles(broken)) == ["breaks_every_rule → breaks_every_rule"]


def test_each_stream_has_one_loader_and_one_check(house: dict[str, Any]) -> None:
    sources = {"land_device_streams": device_streams(), "land_commerce_streams": commerce_streams(), "land_tables": table_streams()}
    for dag_id, own in sources.items():
        assert {task.task_id for task in house[dag_id].tasks} == {f"{verb}_{stream}" for stream in own for verb in ("land", "check")}
    assert sorted(stream for own in sources.values() for stream in own) == list(streams())


def test_a_loader_announces_its_own_stream_only(house: dict[str, Any]) -> None:
    for dag_id in ("land_device_streams", "land_commerce_streams", "land_tables", "backfill_history"):
        for task in house[dag_id].tasks:
            if task.task_id.startswith("land_"):
                assert [outlet.name for outlet in task.outlets] == [f"raw.{task.task_id.removeprefix('land_')}"]


def test_a_replay_announces_its_own_stream_only_and_every_stream_has_one(house: dict[str, Any]) -> None:
    announced = {task.task_id: [outlet.name for outlet in task.outlets] for task in house["replay_quarantine"].tasks}
    assert announced == {f"replay_{stream}": [f"raw.{stream}"] for stream in streams()}


def test_marts_follow_every_stream_and_every_touch_request(house: dict[str, Any]) -> None:
    watched = {asset.name for asset in watched_assets(house["build_marts"].timetable.asset_condition)}
    assert watched == {f"raw.{stream}" for stream in streams()} | {"ops.touch_request"}


def test_any_one_stream_starts_the_build(house: dict[str, Any]) -> None:
    assert type(house["build_marts"].timetable.asset_condition).__name__ == "AssetAny"


def announcing(house: dict[str, Any], asset: str) -> list[tuple[str, str]]:
    """DAG and task of everything that announces an asset."""
    return [(dag_id, task.task_id) for dag_id, dag in house.items() for task in dag.tasks if asset in {outlet.name for outlet in task.outlets}]


def test_scoring_begins_when_every_table_that_it_reads_is_built(house: dict[str, Any]) -> None:
    """Announced earlier, the rows of this batch would be scored with the next one, and the last before a silence never."""
    from include.transform.invocation import manifest_json
    from ml.lifecycle.reread import use_cases

    order = [task.task_id.removeprefix("build_") for task in house["build_marts"].topological_sort()]
    tables = {node["name"]: node for node in manifest_json()["nodes"].values() if node["resource_type"] == "model"}
    for dag_id in ("score_device_failure", "score_failure_details"):
        (asset,) = watched_assets(house[dag_id].timetable.asset_condition)
        ((builder, task_id),) = announcing(house, asset.name)
        assert builder == "build_marts"
        for use_case in use_cases().values():
            (domain,) = set(tables[use_case.dataset.features.relation.name]["tags"]) & set(order)
            assert order.index(domain) <= order.index(task_id.removeprefix("build_")), f"{use_case.name} reads what is built after {asset.name} is announced"


def test_each_champion_announces_its_own_predictions_and_no_shadow_stands_in_its_way(house: dict[str, Any]) -> None:
    announced = {}
    for dag_id in ("score_device_failure", "score_failure_details"):
        for task in house[dag_id].tasks:
            assert (task.upstream_task_ids, task.downstream_task_ids) == (set(), set())
            if task.task_id == "score_shadows":
                assert task.outlets == []
                assert all(task.priority_weight < other.priority_weight for other in house[dag_id].tasks if other is not task), "champions first"
            else:
                announced[task.task_id] = [outlet.name for outlet in task.outlets]
    assert announced == {
        "score_champion": ["predictions.device_failure"],
        "score_device_failure_24h": ["predictions.device_failure_24h"],
        "score_component_failure": ["predictions.component_failure"],
        "score_remaining_life": ["predictions.remaining_life"],
    }


def test_work_orders_follow_every_prediction_that_they_read(house: dict[str, Any]) -> None:
    from ml.decisions import work_orders

    read = set(re.findall(r"\bpredictions\.\w+", work_orders._MACHINES))
    assert "predictions.remaining_life" in read
    condition = house["build_priorities"].timetable.asset_condition
    assert {asset.name for asset in watched_assets(condition)} == read
    assert type(condition).__name__ == "AssetAny"


def test_work_orders_are_proposed_hourly_too_from_what_was_ranked_before(house: dict[str, Any]) -> None:
    """After a change of champion, or an announcement that a kill swallowed, no asset says that there is something to propose."""
    for dag_id, first in (("build_hourly", "build_refilled_tables"), ("build_priorities", "rank_machines")):
        order = [task.task_id for task in house[dag_id].topological_sort()]
        assert order == [first, "propose_work_orders", "show_schedule"]


def test_priorities_announce_nothing(house: dict[str, Any]) -> None:
    assert [outlet for task in house["build_priorities"].tasks for outlet in task.outlets] == []


def test_a_red_check_blocks_no_later_run(house: dict[str, Any]) -> None:
    for dag_id in ("land_device_streams", "land_commerce_streams", "land_tables"):
        for task in house[dag_id].tasks:
            assert not task.depends_on_past
            assert not task.wait_for_downstream
            if task.task_id.startswith("check_"):
                assert task.downstream_task_ids == set()
                assert task.trigger_rule == "all_done"


def test_a_backfill_day_is_a_logical_date(house: dict[str, Any]) -> None:
    """`--from-date 2026-01-01 --to-date 2026-01-03` must mean three whole days, so the schedule has to tick at midnight UTC."""
    assert house["backfill_history"].timetable.expression == "0 0 * * *"


def test_every_incremental_model_is_built_by_one_domain_call(house: dict[str, Any]) -> None:
    """A model that no call selects would silently never be built."""
    from include.transform.invocation import manifest_json

    domains = {task.task_id.removeprefix("build_") for task in house["build_marts"].tasks} - {"fix_horizon"}
    calls = {"micro_batch", "hourly", "priorities"}
    for node in manifest_json()["nodes"].values():
        if node["resource_type"] == "model" and node["config"]["materialized"] != "view":
            tags = set(node["tags"])
            assert tags & calls, f"{node['name']} needs one of the tags {sorted(calls)}, has {sorted(tags)}"
            if "micro_batch" in tags:
                assert len(tags & domains) == 1, f"{node['name']} needs exactly one of the tags {sorted(domains)}, has {sorted(tags)}"


def test_domain_calls_stand_in_the_order_of_their_dependencies(house: dict[str, Any]) -> None:
    from include.transform.invocation import manifest_json

    order = [task.task_id.removeprefix("build_") for task in house["build_marts"].topological_sort() if task.task_id != "fix_horizon"]
    nodes = {key: node for key, node in manifest_json()["nodes"].items() if node["resource_type"] == "model" and "micro_batch" in node["tags"]}
    place = {key: next(position for position, domain in enumerate(order) if domain in node["tags"]) for key, node in nodes.items()}
    for key, node in nodes.items():
        for parent in node["depends_on"]["nodes"]:
            assert place.get(parent, -1) <= place[key], f"{key} is built before {parent}"


def test_no_dag_file_is_taken_for_a_dbt_plugin() -> None:
    """dbt's plugin discovery imports files named dbt_*.py."""
    assert not list((REPOSITORY / "dags").glob("dbt_*.py"))


def test_parsing_needs_no_heavy_library() -> None:
    """In a process of its own: what the parser pays for at every look."""
    heavy = ("pandas", "mlflow", "sklearn", "dbt.cli")
    code = f"import sys; sys.path.insert(0, sys.argv[2]); exec(open(sys.argv[1]).read()); print([m for m in {heavy} if m in sys.modules])"
    for name in ("land_device_streams", "build_marts", "score_device_failure"):
        path = Path(REPOSITORY) / "dags" / f"{name}.py"
        done = subprocess.run([sys.executable, "-c", code, str(path), str(REPOSITORY)], capture_output=True, text=True, check=True)
        assert done.stdout.strip().splitlines()[-1] == "[]", name
