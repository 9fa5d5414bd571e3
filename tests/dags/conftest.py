"""Airflow for DAG tests: its own home and environment, no metadata database, set before Airflow is imported for the first time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.settings import REPOSITORY
from include.transform import load_manifest


@pytest.fixture(scope="session")
def airflow_ready(cluster: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Airflow's configuration for parsing DAGs; a metadata database that nobody reads."""
    home = tmp_path_factory.mktemp("airflow")
    patch = pytest.MonkeyPatch()
    patch.setenv("AIRFLOW_HOME", str(home))
    patch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(REPOSITORY / "dags"))
    patch.setenv("AIRFLOW__CORE__PLUGINS_FOLDER", str(REPOSITORY / "plugins"))
    patch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    patch.setenv("AIRFLOW__COSMOS__ENABLE_TELEMETRY", "False")
    patch.setenv("AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT", "120")
    patch.setenv("DO_NOT_TRACK", "1")
    load_manifest()  # what the deploy step does before Airflow starts
    yield
    patch.undo()


def load_dags(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """DAGs of a folder by id, and import errors by file."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(folder, bundle_path=folder, bundle_name="test")
    return dict(bag.dags), dict(bag.import_errors)


@pytest.fixture(scope="session")
def house(airflow_ready: None) -> dict[str, Any]:
    """The DAGs of the house."""
    dags, errors = load_dags(REPOSITORY / "dags")
    assert errors == {}
    return dags


@pytest.fixture(scope="session")
def broken(airflow_ready: None) -> dict[str, Any]:
    """A DAG that breaks every rule once."""
    dags, errors = load_dags(Path(__file__).parent / "broken")
    assert errors == {}
    return dags
