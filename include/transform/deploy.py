"""The deploy step: parse the project, make its views, write its docs. Runs when the project changed, not in every build."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

from include.transform.build import raise_for_failures
from include.transform.expiring import check_expiring
from include.transform.forgetting import check_forgetting
from include.transform.invocation import dbt_home, invoke, load_manifest, manifest_folder, run_dbt
from include.warehouse import Role, connect

HAND_BUILT = {"build_id": "deploy", "horizon": {}}


def deploy(*, force: bool = False) -> bool:
    """Creates or replaces the project's views where its files changed since the last deploy into this database.

    Returns:
        Whether anything was done.

    Raises:
        TransformFailed: If a view cannot be made; PostgreSQL's message names what depends on it.
        DbtError: If a model would lose rows when months leave the raw table, or would keep rows about persons for longer than a contract says.
    """
    marker = manifest_folder() / "deployed"
    if marker.exists() and not force and _views_exist():
        return False
    check_expiring()
    check_forgetting()
    nodes = invoke(["run", "--select", "config.materialized:view", "--vars", json.dumps(HAND_BUILT)], purpose="deploy")
    raise_for_failures(nodes)
    marker.touch()
    _drop_state_of_gone_models()
    return True


def _models() -> dict[str, str]:
    """Materialization of each model by schema.name."""
    return {
        f"{node.schema}.{node.alias}": node.config.materialized
        for node in load_manifest().nodes.values()
        if node.resource_type.value == "model" and node.config.enabled
    }


def _views_exist() -> bool:
    views = {name for name, materialized in _models().items() if materialized == "view"}
    with connect(Role.TRANSFORMER) as connection:
        found = {row[0] for row in connection.execute("select schemaname || '.' || viewname from pg_views where schemaname <> 'pg_catalog'")}
    return views <= found


def _drop_state_of_gone_models() -> None:
    """Forgets the state of models that the project no longer has: they would hold back the pruning of the log."""
    with connect(Role.TRANSFORMER) as connection:
        connection.execute("delete from ops.model_state where model <> all(%s)", (list(_models()),))


def docs_folder() -> Path:
    """Where the docs site lies: static_index.html, one file that needs no server of its own."""
    return dbt_home() / "docs"


def generate_docs() -> Path:
    """Writes the dbt docs site as one static page and puts it in place in one step.

    Returns:
        Path of the page.
    """
    scratch = dbt_home() / "runs" / f"docs-{uuid.uuid4().hex[:8]}"
    scratch.mkdir(parents=True)
    try:
        run_dbt(["docs", "generate", "--static", "--vars", json.dumps(HAND_BUILT)], scratch, load_manifest())
        fresh = docs_folder().with_name(f"docs.{uuid.uuid4().hex[:8]}")
        fresh.mkdir(parents=True)
        for name in ("static_index.html", "manifest.json", "catalog.json"):
            shutil.copy(scratch / "target" / name, fresh / name)
        docs_folder().mkdir(exist_ok=True)
        for path in fresh.iterdir():
            path.replace(docs_folder() / path.name)
        fresh.rmdir()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return docs_folder() / "static_index.html"
