"""The call of dbt: in this process, with a manifest parsed once a project version, and target and log paths of its own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.settings import get_settings, secret
from include.warehouse.connection import Role, password_name

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest

PROJECT_SUFFIXES = {".sql", ".yml", ".yaml", ".md", ".csv"}


class DbtError(RuntimeError):
    """dbt could not run at all: the project does not parse, or the warehouse cannot be reached."""


@dataclass(frozen=True)
class NodeResult:
    """Outcome of one dbt node.

    Attributes:
        table: Relation that a model makes or a test looks at; None for other nodes.
        streams: Streams that it is made of, directly or not.
    """

    unique_id: str
    resource_type: str
    status: str
    execution_s: float
    rows_affected: int | None
    failures: int | None
    message: str | None
    table: str | None = None
    streams: tuple[str, ...] = ()


def dbt_environment() -> dict[str, str]:
    """Environment of a dbt call: where the warehouse is, and no telemetry. Holds the transformer's password: never print it."""
    host, port, database = get_settings().warehouse_address
    return {
        "TIDEMARK_DBT_HOST": host,
        "TIDEMARK_DBT_PORT": str(port),
        "TIDEMARK_DBT_DATABASE": database,
        "DBT_ENV_SECRET_TRANSFORMER_PASSWORD": secret(password_name(Role.TRANSFORMER)),
        "DO_NOT_TRACK": "1",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "False",
        "PGOPTIONS": "-c timezone=UTC -c lock_timeout=60s -c client_connection_check_interval=2s",
    }


@contextmanager
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(dbt_environment())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def dbt_home() -> Path:
    """Where dbt writes: manifests, docs, and one folder a running invocation."""
    return get_settings().home / "dbt"


def project_fingerprint() -> str:
    """Hash over the project's files: a changed project is parsed anew."""
    root = get_settings().dbt_project_dir
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in PROJECT_SUFFIXES and not {"target", "logs", "dbt_packages"} & set(path.relative_to(root).parts):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _paths(folder: Path) -> list[str]:
    root = str(get_settings().dbt_project_dir)
    return ["--project-dir", root, "--profiles-dir", root, "--target-path", str(folder / "target"), "--log-path", str(folder / "logs")]


def run_dbt(arguments: list[str], folder: Path, manifest: Manifest | None) -> Any:  # noqa: ANN401  dbt's result type depends on the command
    """Runs dbt in this process and returns its result object.

    Raises:
        DbtError: If dbt could not run at all.
    """
    from dbt.cli.main import dbtRunner

    quiet = ["--log-level", "none", "--no-use-colors", "--log-level-file", "info"]
    with _environment():
        outcome = dbtRunner(manifest=manifest).invoke([*quiet, *arguments, *_paths(folder)])
    if outcome.exception is not None:
        raise DbtError(f"dbt {arguments[0]} could not run: {outcome.exception}") from outcome.exception
    if outcome.result is None:
        raise DbtError(f"dbt {arguments[0]} gave no result; its log is in {folder / 'logs'}")
    return outcome.result


def manifest_folder() -> Path:
    """Where the manifest of the project as it is now lies (manifest.json for Cosmos and the DAGs), parsed or not."""
    host, port, database = get_settings().warehouse_address
    place = hashlib.sha256(f"{host}:{port}/{database}".encode()).hexdigest()[:8]
    return dbt_home() / "manifest" / f"{project_fingerprint()}-{place}"


def load_manifest() -> Manifest:
    """The parsed project. Parses it when its files changed since; another process may do the same, the result is equal."""
    from dbt.contracts.graph.manifest import Manifest

    folder = manifest_folder()
    stored = folder / "manifest.msgpack"
    if stored.exists():
        with _environment():
            return Manifest.from_msgpack(stored.read_bytes())
    scratch = dbt_home() / "runs" / f"parse-{uuid.uuid4().hex[:12]}"
    scratch.mkdir(parents=True)
    try:
        manifest: Manifest = run_dbt(["parse", "--no-partial-parse"], scratch, None)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(scratch / "target" / "manifest.json", folder / f".manifest.{os.getpid()}.json")
        (folder / f".manifest.{os.getpid()}.json").replace(folder / "manifest.json")
        packed = folder / f".manifest.{os.getpid()}.msgpack"
        packed.write_bytes(manifest.to_msgpack())
        packed.replace(stored)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    with _environment():
        return Manifest.from_msgpack(stored.read_bytes())


def invoke(arguments: list[str], *, purpose: str) -> tuple[NodeResult, ...]:
    """Runs one dbt command in this process.

    Its target and log paths are its own, so that invocations never share state; they are removed when all nodes succeeded.

    Raises:
        DbtError: If dbt could not run. Nodes that failed are in the result instead.
    """
    folder = dbt_home() / "runs" / f"{purpose}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    manifest = load_manifest()
    # Its artifacts would be the manifest again and what `nodes` holds: a second or two of every call.
    result = run_dbt([*arguments, "--no-write-json"], folder, manifest)
    nodes = tuple(_node_result(item, manifest) for item in result.results)
    if all(node.status in {"success", "pass", "warn", "no-op"} for node in nodes):
        shutil.rmtree(folder, ignore_errors=True)
    return nodes


def _node_result(item: Any, manifest: Manifest) -> NodeResult:  # noqa: ANN401  dbt has one result class a command
    model = manifest.nodes.get(getattr(item.node, "attached_node", None) or item.node.unique_id)
    is_model = model is not None and model.resource_type.value == "model"
    affected = (item.adapter_response or {}).get("rows_affected")
    return NodeResult(
        unique_id=item.node.unique_id,
        resource_type=str(item.node.resource_type.value),
        status=str(item.status.value if hasattr(item.status, "value") else item.status),
        execution_s=float(item.execution_time),
        rows_affected=int(affected) if affected is not None else None,
        failures=int(item.failures) if item.failures is not None else None,
        message=item.message,
        table=f"{model.schema}.{model.alias}" if model is not None and is_model else None,
        streams=_streams_above(model.unique_id, manifest) if model is not None and is_model else (),
    )


def _streams_above(unique_id: str, manifest: Manifest) -> tuple[str, ...]:
    found, streams = [unique_id], set()
    for node_id in found:
        node = manifest.nodes.get(node_id)
        for parent in node.depends_on_nodes if node else ():
            source = manifest.sources.get(parent)
            if source and source.source_name == "raw":
                streams.add(source.name)
            elif parent not in found:
                found.append(parent)
    return tuple(sorted(streams))


def manifest_json() -> dict[str, Any]:
    """The parsed project as plain data, for lineage and tests."""
    load_manifest()
    return dict(json.loads((manifest_folder() / "manifest.json").read_text(encoding="utf-8")))
