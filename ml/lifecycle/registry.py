"""Model versions in MLflow, without a server: its own database for what is known of them, files under the home for what they are.

Importing MLflow takes seconds, so it is imported inside functions. A version counts only once its card is stored: a training run that
dies before leaves a version that nobody reads.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pandas as pd

from include.settings import get_settings
from include.warehouse import Role, connect, sqlalchemy_url
from ml.lifecycle.schema import FeatureSchema

if TYPE_CHECKING:
    from sklearn.calibration import CalibratedClassifierCV

CHAMPION = "champion"
CARD_TAG = "tidemark.card"
SNAPSHOT_TAG = "tidemark.snapshot"
REPORT_FILE = "report.json"
MODEL_FILE = "model.skops"
# What a stored model may hold besides what skops trusts by itself; anything else in the file is refused, so a file cannot run code.
TRUSTED_TYPES = [
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
]
PACKAGES = ("scikit-learn", "pandas", "numpy", "skops")


class ModelUnusable(RuntimeError):
    """A registered model cannot be loaded: its file is gone, was changed, or holds what is not trusted."""


@dataclass(frozen=True)
class ModelCard:
    """What scoring must know of a version, stored as a tag beside it."""

    snapshot: str  # identity of data, configuration and libraries
    schema: FeatureSchema
    learned_until: date  # last feature day of the train and validation parts
    scores_from: date  # first feature day whose outcome the model has not seen
    model_sha256: str
    dataset_id: int | None = None  # None for versions older than ops.dataset

    def to_json(self) -> str:
        """As stored."""
        return json.dumps(
            {
                "snapshot": self.snapshot,
                "schema": self.schema.to_list(),
                "learned_until": self.learned_until.isoformat(),
                "scores_from": self.scores_from.isoformat(),
                "model_sha256": self.model_sha256,
                "dataset_id": self.dataset_id,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Read what `to_json` stored."""
        stored = json.loads(text)
        return cls(
            snapshot=stored["snapshot"],
            schema=FeatureSchema.from_list(stored["schema"]),
            learned_until=date.fromisoformat(stored["learned_until"]),
            scores_from=date.fromisoformat(stored["scores_from"]),
            model_sha256=stored["model_sha256"],
            dataset_id=stored.get("dataset_id"),
        )


@dataclass(frozen=True)
class LoadedModel:
    """A registered version, ready to score."""

    name: str
    version: int
    card: ModelCard
    estimator: CalibratedClassifierCV


def library_versions() -> dict[str, str]:
    """Installed versions of what a fitted model depends on."""
    from importlib.metadata import version

    return {package: version(package) for package in PACKAGES}


class Registry:
    """The versions of one model. Opening it creates experiment and model where they do not exist."""

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

    def find(self, snapshot: str) -> int | None:
        """The newest complete version trained from exactly this data, configuration and libraries."""
        found = self._client.search_model_versions(f"name = '{self.name}' and tags.`{SNAPSHOT_TAG}` = '{snapshot}'")
        return max((int(version.version) for version in found), default=None)

    def champion_version(self) -> int | None:
        """The version whose predictions are used, if any passed the gate."""
        alias = self._client.get_registered_model(self.name).aliases.get(CHAMPION)
        return None if alias is None else int(alias)

    def champion(self) -> LoadedModel | None:
        """The champion, loaded."""
        version = self.champion_version()
        return None if version is None else self.load(version)

    def load(self, version: int) -> LoadedModel:
        """A version, loaded from its file.

        Raises:
            ModelUnusable: If the file is not the one that was registered.
        """
        from skops.io import loads

        stored = self._client.get_model_version(self.name, str(version))
        if CARD_TAG not in stored.tags:
            raise ModelUnusable(f"version {version} of {self.name} was never completed: train again")
        card = ModelCard.from_json(stored.tags[CARD_TAG])
        path = _local_path(self._client.get_model_version_download_uri(self.name, str(version))) / MODEL_FILE
        if not path.exists():
            raise ModelUnusable(f"the file of {self.name} version {version} is gone ({path}): restore it from a backup or train again")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != card.model_sha256:
            raise ModelUnusable(
                f"the file of {self.name} version {version} is not the one that was registered ({path}): restore it from a backup or train again"
            )
        return LoadedModel(self.name, version, card, loads(data, trusted=TRUSTED_TYPES))

    def report(self, version: int) -> str:
        """The training report of a version, as JSON."""
        run_id = self._client.get_model_version(self.name, str(version)).run_id
        return (_local_path(self._client.get_run(run_id).info.artifact_uri) / REPORT_FILE).read_text(encoding="utf-8")

    def promote(self, version: int) -> None:
        """Make a version the champion. Only the gate's decision calls for this."""
        self._client.set_registered_model_alias(self.name, CHAMPION, str(version))

    def _ensure_experiment(self) -> str:
        if not self._client.search_registered_models(filter_string=f"name = '{self.name}'"):
            self._client.create_registered_model(self.name)
        experiment = self._client.get_experiment_by_name(self.name)
        if experiment is not None:
            return experiment.experiment_id
        folder = (get_settings().home / "mlflow" / self.name).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return self._client.create_experiment(self.name, artifact_location=folder.as_uri())

    def run(self, title: str) -> RegistryRun:
        """A training run to be filled and then closed by using it as a context manager."""
        return RegistryRun(self, title)


class RegistryRun:
    """One MLflow run: model first (it gives the version), report and card last (they make the version count)."""

    def __init__(self, registry: Registry, title: str) -> None:
        self._registry = registry
        self._title = title

    def __enter__(self) -> RegistryRun:
        mlflow = self._registry._mlflow
        self._run = mlflow.start_run(experiment_id=self._registry._experiment_id, run_name=self._title)
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        self._registry._mlflow.end_run("FAILED" if error_type else "FINISHED")

    def log_model(self, estimator: CalibratedClassifierCV, example: pd.DataFrame) -> tuple[int, str]:
        """Store the estimator as skops and register it.

        Args:
            estimator: Fitted; holding only trusted types.
            example: Some rows of the model's input, for its signature.

        Returns:
            Version and SHA-256 of the stored file.
        """
        mlflow = self._registry._mlflow
        from mlflow import sklearn as flavour

        info = flavour.log_model(
            estimator,
            name="model",
            signature=mlflow.models.infer_signature(example, estimator.predict_proba(example)),
            pip_requirements=[f"{package}=={version}" for package, version in library_versions().items()],  # inferring them takes many seconds
            serialization_format="skops",
            skops_trusted_types=TRUSTED_TYPES,
        )
        registered = self._registry._client.create_model_version(self._registry.name, info.model_uri, run_id=info.run_id, model_id=info.model_id)
        version = int(registered.version)
        folder = _local_path(self._registry._client.get_model_version_download_uri(self._registry.name, str(version)))
        return version, hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest()

    def log(self, *, params: Mapping[str, Any], metrics: Mapping[str, float], config: Mapping[str, Any]) -> None:
        """Store parameters, figures and the whole configuration of the run."""
        self._registry._mlflow.log_dict(dict(config), "config.json")
        self._registry._mlflow.log_params(dict(params))
        self._registry._mlflow.log_metrics(dict(metrics))

    def complete(self, version: int, report: str, card: ModelCard) -> None:
        """Store the report and then the card, from which moment the version counts."""
        self._registry._mlflow.log_text(report, REPORT_FILE)
        client = self._registry._client
        client.set_model_version_tag(self._registry.name, str(version), CARD_TAG, card.to_json())
        client.set_model_version_tag(self._registry.name, str(version), SNAPSHOT_TAG, card.snapshot)


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
