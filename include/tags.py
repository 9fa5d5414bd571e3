"""Tags of DAGs: one Enum, so that a filter in the Airflow UI finds everything it promises."""

from __future__ import annotations

from enum import StrEnum


class Tag(StrEnum):
    """What a DAG is about. The `Pool` it needs is not a tag."""

    SIMULATION = "simulation"
    LANDING = "landing"
    DEVICE = "device"
    COMMERCE = "commerce"
    TABLE = "table"
    TRANSFORM = "transform"
    MARTS = "marts"
    ML = "ml"
    PREDICTION = "prediction"
    BACKFILL = "backfill"
    DOCS = "docs"
    OPERATIONS = "operations"


class Pool(StrEnum):
    """Pools of `airflow_settings.yaml`: they bound what may write at the same time."""

    LANDING = "landing"
    DBT = "dbt"
    ML = "ml"
