"""Training runs and model versions in MLflow, for people to look at, without a server: its own database, and files under the home.

MLflow numbers the versions and stores the files; which versions count and who is champion says the warehouse (`ml.lifecycle.versions`,
`ml.lifecycle.champions`), and the alias follows. Importing MLflow takes seconds, so it is imported inside functions, and scoring does without it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pandas as pd

from include.landing.crash import crash_point
from include.settings import get_settings
from include.warehouse import Role, connect, sqlalchemy_url
from ml.lifecycle.champions import champion_version
from ml.lifecycle.gate import GateDecision
from ml.lifecycle.steps import LifecycleStep
from ml.lifecycle.versions import MODEL_FILE, TRUSTED_TYPES, ModelCard, ModelUnusable, StoredVersion

if TYPE_CHECKING:
    from sklearn.calibration import CalibratedClassifierCV

    from ml.lifecycle.quantiles import ConformalQuantiles

CHAMPION = "champion"
SNAPSHOT_TAG = "tidemark.snapshot"
OLD_CARD_TAG = "tidemark.card"  # where versions older than ops.model_version keep their card
REPORT_FILE = "report.json"
PACKAGES = ("scikit-learn", "pandas", "numpy", "skops")

logger = logging.getLogger(__name__)


def library_versions() -> dict[str, str]:
    """Installed versions of what a fitted model depends on."""
    from importlib.metadata import version

    return {package: version(package) for package in PACKAGES}


def code_version() -> str:
    """A hash of the code of this package, which a wheel and an image have too; a commit only a checkout knows."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


class Registry:
    """One model in MLflow. Opening it creates experiment and model where they do not exist."""

    def __init__(self, name: str) -> None:
        """Open the registry of model `name`.

        Raises:
            WarehouseUnavailable, SettingsError: If the database or its password is not there.
        """
        self.name = name
        self._mlflow = _mlflow(sqlalchemy_url(Role.MLFLOW, database="mlflow"))
        # One at a time: the first opening makes MLflow's tables, and two processes that both make them both fail.
        with connect(Role.MLFLOW, database="mlflow", autocommit=True) as connection:
            connection.execute("select pg_advisory_lock(hashtextextended('tidemark.mlflow', 0))")
            self._client = self._mlflow.tracking.MlflowClient()
            self._experiment_id = self._ensure_experiment()

    def alias(self) -> int | None:
        """The version that MLflow shows as champion."""
        alias = self._client.get_registered_model(self.name).aliases.get(CHAMPION)
        return None if alias is None else int(alias)

    def follow(self) -> None:
        """Points the alias to the champion of the warehouse. Completes a run that died after it had changed the champion.

        An alias that cannot be set is said in the log and nothing else: nobody decides by it.
        """
        from mlflow.exceptions import MlflowException

        with connect(Role.ML) as connection:
            # Read and set under one lock: of two runs that follow at once, the last one has read the last champion.
            connection.execute("select pg_advisory_xact_lock(hashtextextended('tidemark.model_alias.' || %s, 0))", (self.name,))
            version = champion_version(connection, self.name)
            if version is None or version == self.alias():
                return
            crash_point(LifecycleStep.CHAMPION_BEFORE_ALIAS)
            try:
                self._client.set_registered_model_alias(self.name, CHAMPION, str(version))
            except MlflowException as error:
                logger.warning("MLflow cannot show version %s of %s as champion (%s); scoring does not ask it", version, self.name, error)

    def old_versions(self) -> tuple[list[StoredVersion], int | None]:
        """Versions that an older release completed, when MLflow was the authority, oldest first, and the one it had made champion."""
        found = []
        for version in self._client.search_model_versions(f"name = '{self.name}'"):
            if OLD_CARD_TAG not in version.tags:
                continue
            report = _local_path(self._client.get_run(version.run_id).info.artifact_uri) / REPORT_FILE
            text = report.read_text(encoding="utf-8") if report.exists() else None
            gate = GateDecision(**json.loads(text)["gate"]) if text else GateDecision(False, "its report is gone")
            card = ModelCard.from_dict(json.loads(version.tags[OLD_CARD_TAG]))
            found.append(StoredVersion(self.name, int(version.version), card, self._file(int(version.version)), text, gate))
        return sorted(found, key=lambda version: version.version), self.alias()

    def run(self, title: str) -> RegistryRun:
        """A training run to be filled and then closed by using it as a context manager."""
        return RegistryRun(self, title)

    def _file(self, version: int) -> Path:
        return _local_path(self._client.get_model_version_download_uri(self.name, str(version))) / MODEL_FILE

    def _ensure_experiment(self) -> str:
        if not self._client.search_registered_models(filter_string=f"name = '{self.name}'"):
            self._client.create_registered_model(self.name)
        experiment = self._client.get_experiment_by_name(self.name)
        if experiment is not None:
            return experiment.experiment_id
        folder = (get_settings().home / "mlflow" / self.name).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return self._client.create_experiment(self.name, artifact_location=folder.as_uri())


class RegistryRun:
    """One MLflow run: the model first, because it gives the version its number."""

    def __init__(self, registry: Registry, title: str) -> None:
        self._registry = registry
        self._title = title

    def __enter__(self) -> RegistryRun:
        mlflow = self._registry._mlflow
        self._run = mlflow.start_run(experiment_id=self._registry._experiment_id, run_name=self._title)
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        self._registry._mlflow.end_run("FAILED" if error_type else "FINISHED")

    def log_model(
        self, estimator: CalibratedClassifierCV | ConformalQuantiles, example: pd.DataFrame, snapshot: str, *, taken: int = 0
    ) -> tuple[int, Path, str]:
        """Store the estimator as skops and give it a number. On the disk before anything says that it is there.

        Args:
            estimator: Fitted; holding only trusted types.
            example: Some rows of the model's input, for its signature.
            snapshot: Identity of the training run, to be shown beside the version.
            taken: The greatest number that the warehouse knows. MLflow gives it out again where its own database was lost; then it is numbered on.

        Returns:
            Version, file, and SHA-256 of the file.
        """
        registry, mlflow = self._registry, self._registry._mlflow
        from mlflow import sklearn as flavour

        predict = estimator.predict_proba if hasattr(estimator, "predict_proba") else estimator.predict
        info = flavour.log_model(
            estimator,
            name="model",
            signature=mlflow.models.infer_signature(example, predict(example)),
            pip_requirements=[f"{package}=={version}" for package, version in library_versions().items()],  # inferring them takes many seconds
            serialization_format="skops",
            skops_trusted_types=TRUSTED_TYPES,
        )
        tags = {SNAPSHOT_TAG: snapshot}
        while True:
            registered = registry._client.create_model_version(registry.name, info.model_uri, run_id=info.run_id, model_id=info.model_id, tags=tags)
            version = int(registered.version)
            if version > taken:
                break
            registry._client.delete_model_version(registry.name, str(version))  # MLflow does not give the number of a deleted version out again
        file = registry._file(version)
        sync(file)
        return version, file, hashlib.sha256(file.read_bytes()).hexdigest()

    def log(self, *, params: Mapping[str, Any], metrics: Mapping[str, float], config: Mapping[str, Any]) -> None:
        """Store parameters, figures and the whole configuration of the run."""
        self._registry._mlflow.log_dict(dict(config), "config.json")
        self._registry._mlflow.log_params(dict(params))
        self._registry._mlflow.log_metrics(dict(metrics))

    def log_report(self, report: str) -> None:
        """Store the training report beside the run."""
        self._registry._mlflow.log_text(report, REPORT_FILE)


def sync(file: Path) -> None:
    """Has a file and its name on the disk, with the names of the folders that were made for it."""
    home = get_settings().home.resolve()
    folders = [folder for folder in file.resolve().parents if folder.is_relative_to(home)] or [file.parent]
    for path in (file, *folders):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _mlflow(tracking_url: str) -> ModuleType:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    import mlflow

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(tracking_url)
    mlflow.set_registry_uri(tracking_url)
    # MLflow copies the address, password included, into the environment for its children; ours need none.
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return mlflow


def _local_path(address: str) -> Path:
    parts = urlsplit(address)
    if parts.scheme not in {"", "file"}:
        raise ModelUnusable(f"model files must lie on this machine, got {parts.scheme}://…")
    return Path(unquote(parts.path))
