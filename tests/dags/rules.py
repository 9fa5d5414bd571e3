"""Rules that every DAG follows. Each yields what breaks it, so that a test can show that it finds something."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from include.tags import Pool, Tag

HEADINGS = ("**Purpose.**", "**Reads and writes.**", "**Schedule and lateness.**", "**On failure.**")
HEAVY = {"pandas", "polars", "numpy", "sklearn", "mlflow", "dbt", "ml", "include.landing", "include.lake", "include.simulator", "psycopg", "sqlalchemy"}
# What a task imports says what it writes; what it writes says which pool bounds it.
POOL_OF = {
    re.compile(r"from include\.transform import .*\b(build|fix_horizon|generate_docs)\b"): Pool.DBT,
    re.compile(r"from include\.landing import .*\b(land_pending|land_everything)\b|from include\.landing\.replay import "): Pool.LANDING,
    re.compile(r"from ml\.usecases import "): Pool.ML,
}
ONE_SCREEN = 100

Dags = dict[str, Any]


def explains_itself(dags: Dags) -> Iterator[str]:
    """The page in the UI has the four headings, in order."""
    for dag in dags.values():
        places = [(dag.doc_md or "").find(heading) for heading in HEADINGS]
        if -1 in places or places != sorted(places):
            yield f"{dag.dag_id}: doc_md needs the headings {', '.join(HEADINGS)}, in this order"


def takes_tags_from_the_enum(dags: Dags) -> Iterator[str]:
    for dag in dags.values():
        if not dag.tags or (alien := set(dag.tags) - {tag.value for tag in Tag}):
            yield f"{dag.dag_id}: tags must come from include.tags.Tag, found {sorted(alien) if dag.tags else 'none'}"


def runs_one_at_a_time(dags: Dags) -> Iterator[str]:
    for dag in dags.values():
        if dag.max_active_runs != 1:
            yield f"{dag.dag_id}: max_active_runs is {dag.max_active_runs}"


def does_not_catch_up(dags: Dags) -> Iterator[str]:
    for dag in dags.values():
        if dag.catchup:
            yield f"{dag.dag_id}: catchup is on"


def retries(dags: Dags) -> Iterator[str]:
    """Every task but a check, which tells the state of the world and would tell the same again."""
    for dag in dags.values():
        for operator in dag.tasks:
            if operator.retries < 1 and not operator.task_id.startswith("check_"):
                yield f"{dag.dag_id}.{operator.task_id}: no retries"


def writes_in_a_pool(dags: Dags) -> Iterator[str]:
    """Loaders in pool `landing`, writers of models in pool `dbt`, training and scoring in pool `ml`."""
    for dag in dags.values():
        for operator in dag.tasks:
            for wanted in pools_of(operator):
                if operator.pool != wanted:
                    yield f"{dag.dag_id}.{operator.task_id}: writes without pool {wanted} (has {operator.pool})"


def pools_of(operator: Any) -> set[str]:
    """Pools that a task needs, from what its function imports; a Cosmos operator writes models."""
    if type(operator).__module__.startswith("cosmos."):
        return {Pool.DBT}
    function = getattr(operator, "python_callable", None)
    if function is None:
        return set()
    source = inspect.getsource(function)
    return {pool for pattern, pool in POOL_OF.items() if pattern.search(source)}


def imports_heavy_things_in_tasks(dags: Dags) -> Iterator[str]:
    """A DAG file is parsed again and again; what a task needs is imported by the task."""
    for path in {Path(dag.fileloc) for dag in dags.values()}:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name in HEAVY or name.split(".")[0] in HEAVY:
                    yield f"{path.name}: imports {name} at the top"


def knows_no_present(dags: Dags) -> Iterator[str]:
    """A task is a transaction over a named interval."""
    for path in {Path(dag.fileloc) for dag in dags.values()}:
        for call in re.findall(r"\b(?:datetime|pendulum|date)\.(?:now|today|utcnow)\(", textwrap.dedent(path.read_text(encoding="utf-8"))):
            yield f"{path.name}: {call}…)"


def fits_on_a_screen(dags: Dags) -> Iterator[str]:
    for path in {Path(dag.fileloc) for dag in dags.values()}:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > ONE_SCREEN:
            yield f"{path.name}: {lines} lines"


def says_its_cron_in_english(dags: Dags) -> Iterator[str]:
    for path in {Path(dag.fileloc) for dag in dags.values()}:
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if re.match(r"\s+schedule=", line) and not lines[number - 1].strip().startswith("# "):
                yield f"{path.name}: no plain-English comment above the schedule"


def watched_assets(condition: Any) -> Iterator[Any]:
    """Assets in an asset condition, nested ones included."""
    if condition is None:
        return
    parts = getattr(condition, "objects", None)
    if parts is None:
        yield condition
        return
    for part in parts:
        yield from watched_assets(part)


def asset_cycles(dags: Dags) -> Iterator[str]:
    """Asset → DAG that it starts → assets that the DAG announces: there is no way back."""
    started: dict[str, set[str]] = {}
    announces: dict[str, set[str]] = {}
    for dag in dags.values():
        for asset in watched_assets(getattr(dag.timetable, "asset_condition", None)):
            started.setdefault(asset.name, set()).add(dag.dag_id)
        announces[dag.dag_id] = {outlet.name for operator in dag.tasks for outlet in operator.outlets}

    def walk(dag_id: str, path: tuple[str, ...]) -> Iterator[str]:
        if dag_id in path:
            yield " → ".join((*path[path.index(dag_id) :], dag_id))
            return
        for asset in sorted(announces.get(dag_id, ())):
            for consumer in sorted(started.get(asset, ())):
                yield from walk(consumer, (*path, dag_id))

    for dag_id in sorted(dags):
        yield from walk(dag_id, ())


RULES: tuple[Callable[[Dags], Iterator[str]], ...] = (
    explains_itself,
    takes_tags_from_the_enum,
    runs_one_at_a_time,
    does_not_catch_up,
    retries,
    writes_in_a_pool,
    says_its_cron_in_english,
    imports_heavy_things_in_tasks,
    knows_no_present,
    fits_on_a_screen,
    asset_cycles,
)
