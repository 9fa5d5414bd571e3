"""Model versions as scoring knows them: a line of `ops.model_version` and a file beside it. Nothing here needs MLflow.

A version counts from the moment its line is there: a training run that dies before leaves a file that nobody reads.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Jsonb

from include.settings import get_settings
from ml.lifecycle.gate import GateDecision
from ml.lifecycle.schema import FeatureSchema

if TYPE_CHECKING:
    from sklearn.calibration import CalibratedClassifierCV

    from ml.lifecycle.explain import QuantileScorer, Scorer
    from ml.lifecycle.quantiles import ConformalQuantiles

MODEL_FILE = "model.skops"
# What a stored model may hold besides what skops trusts by itself; anything else in the file is refused, so a file cannot run code.
TRUSTED_TYPES = [
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",  # of a forest
    "ml.lifecycle.quantiles.ConformalQuantiles",
]


class ModelUnusable(RuntimeError):
    """A version cannot be loaded: there is none of that number, or its file is gone, was changed, holds what is not trusted, or needs other libraries."""


class ModelUnreadable(ModelUnusable):
    """The file of a version cannot be read at the moment: that says nothing about the version."""


@dataclass(frozen=True)
class ModelCard:
    """What scoring must know of a version."""

    snapshot: str  # identity of data, configuration and libraries
    schema: FeatureSchema
    learned_until: date  # last feature day of the train and validation parts
    scores_from: date  # first feature day whose outcome the model has not seen
    model_sha256: str
    dataset_id: int | None = None  # None for versions older than ops.dataset
    learned_entities: frozenset[tuple[str, ...]] | None = None  # of a split by entity: whose outcomes it has seen, on whatever day

    def to_dict(self) -> dict[str, Any]:
        """As stored."""
        return {
            "snapshot": self.snapshot,
            "schema": self.schema.to_list(),
            "learned_until": self.learned_until.isoformat(),
            "scores_from": self.scores_from.isoformat(),
            "model_sha256": self.model_sha256,
            "dataset_id": self.dataset_id,
            "learned_entities": None if self.learned_entities is None else sorted(map(list, self.learned_entities)),
        }

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> ModelCard:
        """Read what `to_dict` stored."""
        return cls(
            snapshot=stored["snapshot"],
            schema=FeatureSchema.from_list(stored["schema"]),
            learned_until=date.fromisoformat(stored["learned_until"]),
            scores_from=date.fromisoformat(stored["scores_from"]),
            model_sha256=stored["model_sha256"],
            dataset_id=stored.get("dataset_id"),
            learned_entities=None if (learned := stored.get("learned_entities")) is None else frozenset(map(tuple, learned)),
        )


@dataclass(frozen=True)
class StoredVersion:
    """A version that counts, without its model.

    Attributes:
        use_case: Whose version it is.
        version: Its number, from 1.
        card: What scoring must know of it.
        file: Where the fitted model lies.
        report: Its training report as JSON; None where it is older than the table and the report is gone.
        gate: What the gate said when it was registered.
        registered_at: When it began to count; None while it is not stored.
        trained_because: Why it was trained; None for versions of an older release.
    """

    use_case: str
    version: int
    card: ModelCard
    file: Path
    report: str | None
    gate: GateDecision
    registered_at: datetime | None = None
    trained_because: str | None = None

    def read(self) -> bytes:
        """The bytes of the registered file.

        Raises:
            ModelUnusable: If it is gone or has other bytes.
            ModelUnreadable: If that cannot be told, because it, or the folder of all models, cannot be read.
        """
        mend = "restore it from a backup, make another version champion (`tidemark model rollback` or `promote`), or train again"
        try:
            data = self.file.read_bytes()
        except OSError as error:
            folder = get_settings().home / "mlflow"
            if not isinstance(error, FileNotFoundError) or (self.file.is_relative_to(folder) and not folder.is_dir()):
                raise ModelUnreadable(f"the file of {self.use_case} version {self.version} cannot be read now ({error}): look at the disk") from error
            raise ModelUnusable(f"the file of {self.use_case} version {self.version} is gone ({self.file}): {mend}") from error
        if hashlib.sha256(data).hexdigest() != self.card.model_sha256:
            raise ModelUnusable(f"the file of {self.use_case} version {self.version} is not the one that was registered ({self.file}): {mend}")
        return data

    def load(self) -> LoadedModel:
        """The version, ready to score.

        Raises:
            ModelUnusable: If its file is not the one that was registered, holds types that are not trusted, or cannot be read by the libraries installed here.
        """
        from skops.io import loads
        from skops.io.exceptions import UntrustedTypesFoundException

        data = self.read()
        try:
            model = LoadedModel(self.use_case, self.version, self.card, loads(data, trusted=TRUSTED_TYPES))
            _ = model.scorer  # what cannot be made ready to score is as useless as what cannot be read
        except UntrustedTypesFoundException as error:
            raise ModelUnusable(f"the file of {self.use_case} version {self.version} holds types that are not trusted ({error}): train again") from error
        except MemoryError:
            raise  # says nothing about the file
        except Exception as error:
            # Another release of scikit-learn has moved or changed what the file names; which error comes of it nobody promises.
            message = f"the file of {self.use_case} version {self.version} cannot be read by the libraries installed here ({error!r}): train again"
            raise ModelUnusable(message) from error
        return model


@dataclass(frozen=True)
class LoadedModel:
    """A registered version, ready to score."""

    name: str
    version: int
    card: ModelCard
    estimator: CalibratedClassifierCV | ConformalQuantiles

    @cached_property
    def scorer(self) -> Scorer | QuantileScorer:
        """Gives probabilities or quantiles and what they are made of; prepared once."""
        from ml.lifecycle.explain import QuantileScorer, Scorer
        from ml.lifecycle.quantiles import ConformalQuantiles

        if isinstance(self.estimator, ConformalQuantiles):
            return QuantileScorer(self.estimator, self.card.schema)
        return Scorer(self.estimator, self.card.schema)


_SELECT = (
    "select use_case, model_version, card, model_file, report::text, has_passed, gate_reason, registered_at, trained_because from ops.model_version "
    "where use_case = %s"
)


def versions(connection: psycopg.Connection[Any], use_case: str) -> list[StoredVersion]:
    """Every version that counts, newest first."""
    return [_version(row) for row in connection.execute(_SELECT + " order by model_version desc", (use_case,))]


def find_version(connection: psycopg.Connection[Any], use_case: str, version: int) -> StoredVersion:
    """A version by its number.

    Raises:
        ModelUnusable: If there is none.
    """
    row = connection.execute(_SELECT + " and model_version = %s", (use_case, version)).fetchone()
    if row is None:
        known = ", ".join(str(known.version) for known in versions(connection, use_case)) or "none yet: train first"
        raise ModelUnusable(f"{use_case} has no version {version}; versions are {known}")
    return _version(row)


def find_snapshot(connection: psycopg.Connection[Any], use_case: str, snapshot: str) -> StoredVersion | None:
    """The newest version trained from exactly this data, configuration and libraries."""
    row = connection.execute(_SELECT + " and snapshot = %s order by model_version desc limit 1", (use_case, snapshot)).fetchone()
    return None if row is None else _version(row)


def enter_version(connection: psycopg.Connection[Any], version: StoredVersion) -> None:
    """Stores a version; it counts when the transaction commits."""
    card = version.card
    connection.execute(
        "insert into ops.model_version (use_case, model_version, snapshot, card, model_file, report, has_passed, gate_reason, dataset_id, "
        "trained_because) values (%s, %s, %s, %s, %s, %s::jsonb, %s, %s, %s, %s)",
        (
            *(version.use_case, version.version, card.snapshot, Jsonb(card.to_dict()), _below_home(version.file)),
            *(version.report, version.gate.passed, version.gate.reason, card.dataset_id, version.trained_because),
        ),
    )


def _version(row: tuple[Any, ...]) -> StoredVersion:
    use_case, version, card, file, report, has_passed, reason, registered_at, because = row
    gate = GateDecision(has_passed, reason)
    return StoredVersion(use_case, version, ModelCard.from_dict(card), get_settings().home / file, report, gate, registered_at, because)


def _below_home(file: Path) -> str:
    """The path within the home, so that a home can be moved; absolute where it lies elsewhere."""
    home = get_settings().home.resolve()
    resolved = file.resolve()
    return str(resolved.relative_to(home) if resolved.is_relative_to(home) else resolved)
