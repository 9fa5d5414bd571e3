"""What a test compares: every table that dbt makes, without the columns that say how it came about."""

from __future__ import annotations

import json

from include.transform import Build, build, fix_horizon
from include.transform.invocation import invoke, load_manifest
from include.warehouse import Role, connect

Snapshot = dict[str, tuple[tuple[str, ...], list[tuple]]]
MICRO_BATCH = "tag:micro_batch"
EVERYTHING = "tag:micro_batch tag:hourly tag:priorities"


def tables(materialized: tuple[str, ...] = ("incremental", "refilled_table")) -> list[str]:
    """schema.name of every table of the project that is made in one of these ways."""
    return sorted(
        f"{node.schema}.{node.alias}"
        for node in load_manifest().nodes.values()
        if node.resource_type.value == "model" and node.config.materialized in materialized
    )


def snapshot(names: list[str] | None = None) -> Snapshot:
    """Columns and ordered rows of each table; columns starting with _ are left out (decision 6)."""
    found: Snapshot = {}
    with connect(Role.OWNER) as connection:
        for name in names or tables():
            columns = tuple(
                row[0]
                for row in connection.execute(
                    "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped "
                    "and left(attname, 1) <> '_' order by attname",
                    (name,),
                )
            )
            listed = ", ".join(f'"{column}"' for column in columns)
            found[name] = columns, connection.execute(f"select {listed} from {name} order by {listed}").fetchall()
    return found


def differences(left: Snapshot, right: Snapshot) -> list[str]:
    """One line a table that differs, with an example row of each side."""
    lines = []
    for name in sorted(left.keys() | right.keys()):
        (left_columns, left_rows), (right_columns, right_rows) = left.get(name, ((), [])), right.get(name, ((), []))
        if left_columns != right_columns or left_rows != right_rows:
            only_left, only_right = sorted(set(left_rows) - set(right_rows), key=str)[:1], sorted(set(right_rows) - set(left_rows), key=str)[:1]
            lines.append(f"{name}: {len(left_rows)} rows against {len(right_rows)}; only left {only_left}; only right {only_right}; columns {left_columns}")
    return lines


def build_marts(selector: str = EVERYTHING, *, run_tests: bool = False, rebuild: bool = False) -> None:
    """One build up to what has landed."""
    build(selector, fix_horizon(), run_tests=run_tests, rebuild=rebuild)


def failing_data_tests(model: str, of: Build) -> list[str]:
    """Kinds of data tests of a model that fail as its table stands, the nightly ones too."""
    variables = {**of.as_vars(), "full_tests": True}
    nodes = invoke(["test", "--select", model, "--exclude-resource-type", "unit_test", "--vars", json.dumps(variables)], purpose="planted")
    return sorted(node.unique_id.split(".")[2].partition(f"_{model}")[0] for node in nodes if node.status == "fail")


def made_anew(names: list[str], selector: str) -> Snapshot:
    """Tables when they are made anew, from nothing, of what raw and the tables below them hold.

    Args:
        names: schema.name of each.
        selector: Builds all of them.
    """
    with connect(Role.OWNER) as connection:
        for name in names:
            connection.execute(f"drop table {name}")  # type: ignore[arg-type]
        connection.execute("delete from ops.model_state where model = any(%s)", (names,))
    build_marts(selector)
    return snapshot(names)
