"""`airflow_settings.yaml` is read strictly: what is wrong in it is named, and no secret stands in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.settings import REPOSITORY
from include.stack.airflow_settings import PLACEHOLDER, load_airflow_settings
from include.stack.errors import StackError
from include.tags import Pool

VALUES = {
    "WAREHOUSE_HOST": "db",
    "WAREHOUSE_PORT": "5432",
    "WAREHOUSE_DATABASE": "tidemark",
    "TIDEMARK_TRANSFORMER_PASSWORD": "tpw",
    "TIDEMARK_ANALYST_PASSWORD": "apw",
}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "airflow_settings.yaml"
    path.write_text(text)
    return path


def test_the_file_of_the_house_is_filled() -> None:
    loaded = load_airflow_settings(REPOSITORY / "airflow_settings.yaml", VALUES)
    warehouse = next(entry for entry in loaded.connections if entry.conn_id == "tidemark_warehouse")
    assert (warehouse.conn_host, warehouse.conn_port, warehouse.conn_password) == ("db", 5432, "tpw")


def test_the_house_has_every_pool_that_dags_use() -> None:
    loaded = load_airflow_settings(REPOSITORY / "airflow_settings.yaml", VALUES)
    assert {entry.pool_name for entry in loaded.pools} == {pool.value for pool in Pool}


def test_the_file_of_the_house_holds_no_secret() -> None:
    text = (REPOSITORY / "airflow_settings.yaml").read_text()
    for line in text.splitlines():
        if "password" in line and not line.lstrip().startswith("#"):
            assert PLACEHOLDER.search(line), line


def test_a_missing_value_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "airflow: {connections: [{conn_id: a, conn_type: postgres, conn_password: '${NOT_THERE}'}]}")
    with pytest.raises(StackError, match=r"no value for \$\{NOT_THERE\}"):
        load_airflow_settings(path, {})


def test_a_password_in_clear_text_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "airflow: {connections: [{conn_id: a, conn_type: postgres, conn_password: hunter2}]}")
    with pytest.raises(StackError, match=r"a\.conn_password holds a secret") as raised:
        load_airflow_settings(path, {})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("airflow: {pools: [{pool_name: a, pool_slot: 0}]}", "pools.0.pool_slot"),
        ("airflow: {pools: [{pool_name: a, pool_slots: 1}]}", "pools.0.pool_slots"),
        ("airflow: {pools: [{pool_name: a, pool_slot: 1}, {pool_name: a, pool_slot: 2}]}", "named more than once: a"),
        ("airflow: {variables: [{variable_name: a, variable_value: 5}]}", "variables.0.variable_value"),
        ("airflow: {connections: [{conn_id: 'a b', conn_type: postgres}]}", "connections.0.conn_id"),
        ("airflow: {dags: []}", "dags"),
        ("variables: []", "exactly one top-level key"),
        ("airflow: [", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StackError) as raised:
        load_airflow_settings(write(tmp_path, text), {})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_wrong_value_is_not_repeated(tmp_path: Path) -> None:
    path = write(tmp_path, "airflow: {connections: [{conn_id: a, conn_type: postgres, conn_port: '${SECRET}'}]}")
    with pytest.raises(StackError) as raised:
        load_airflow_settings(path, {"SECRET": "hunter2"})
    assert "hunter2" not in str(raised.value)


def test_a_missing_file_says_how_to_get_it_back(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="is missing") as raised:
        load_airflow_settings(tmp_path / "airflow_settings.yaml", {})
    assert "git checkout" in raised.value.hint
