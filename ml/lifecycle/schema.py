"""The typed list of features a model is fitted on, and the refusal of anything else."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray


class FeatureKind(StrEnum):
    """How a feature enters the model."""

    NUMBER = "number"  # any SQL number; NULL is "not known"
    FLAG = "flag"  # SQL boolean; 1.0, 0.0 or not known
    CATEGORY = "category"  # SQL text; an unseen value is treated as no value


# Names of Postgres types, as psycopg gives them, that may stand behind a feature of each kind.
SQL_TYPES: Mapping[FeatureKind, frozenset[str]] = {
    FeatureKind.NUMBER: frozenset({"int2", "int4", "int8", "float4", "float8", "numeric"}),
    FeatureKind.FLAG: frozenset({"bool"}),
    FeatureKind.CATEGORY: frozenset({"text", "varchar", "bpchar"}),
}
# What a category that is not known is called inside the model: encoders need a value, and NULL must not depend on how pandas spells it.
UNKNOWN_CATEGORY = "(unknown)"


class FeatureSchemaMismatch(ValueError):
    """The table does not offer the features that the model needs, or offers them with another type."""


class FeaturesNotBuilt(FeatureSchemaMismatch):
    """The table is not there: nothing was built yet."""


@dataclass(frozen=True)
class Feature:
    """One input of a model: the column of the feature table and the kind of its values."""

    name: str
    kind: FeatureKind = FeatureKind.NUMBER


@dataclass(frozen=True)
class FeatureSchema:
    """The features of a model, in the order in which the model was fitted."""

    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        repeated = sorted({feature.name for feature in self.features if self.names.count(feature.name) > 1})
        if repeated or not self.features:
            raise ValueError(f"a feature schema needs at least one feature and no name twice; repeated: {repeated}")

    @property
    def names(self) -> list[str]:
        """Feature names in model order."""
        return [feature.name for feature in self.features]

    def names_of(self, *kinds: FeatureKind) -> list[str]:
        """Names of the features of some kinds, in model order."""
        return [feature.name for feature in self.features if feature.kind in kinds]

    def check(self, relation: str, offered: Mapping[str, str]) -> None:
        """Refuse a table that does not offer every feature with a fitting type; other columns are ignored.

        Args:
            relation: Name of the table, for the message.
            offered: Postgres type name by column name.

        Raises:
            FeatureSchemaMismatch: Naming every missing feature and every feature of a wrong type.
        """
        missing = [name for name in self.names if name not in offered]
        wrong = [
            f"{feature.name} is {offered[feature.name]} but must be a {feature.kind} ({', '.join(sorted(SQL_TYPES[feature.kind]))})"
            for feature in self.features
            if feature.name in offered and offered[feature.name] not in SQL_TYPES[feature.kind]
        ]
        if missing or wrong:
            problems = ([f"missing: {', '.join(missing)}"] if missing else []) + wrong
            raise FeatureSchemaMismatch(
                f"{relation} does not fit the model's features: {'; '.join(problems)}. "
                f"Build the feature model again (tag features), or change the use case's feature list and train a new version."
            )

    def frame(self, table: pd.DataFrame) -> pd.DataFrame:
        """The model's input: exactly these features, in order, each with one dtype whatever the number of rows.

        Args:
            table: One row a prediction, at least the features as columns.

        Returns:
            Same index; numbers and flags as float64 (NaN: not known; infinities count as not known), categories as objects.

        Raises:
            FeatureSchemaMismatch: If a column is missing or holds something that is not of its kind.
        """
        missing = [name for name in self.names if name not in table.columns]
        if missing:
            raise FeatureSchemaMismatch(f"rows to score lack the features {', '.join(missing)}")
        numbers = self.names_of(FeatureKind.NUMBER, FeatureKind.FLAG)
        try:
            known = table[numbers].to_numpy(dtype=np.float64)  # takes None for not known, as we do
        except (TypeError, ValueError):  # a value that needs a closer look, or a word
            known = np.column_stack([_numbers(table, name) for name in numbers])
        # One block, not a copy a column: that is what most of the time of a single row went into.
        frame = pd.DataFrame(np.where(np.isfinite(known), known, np.nan), index=table.index, columns=numbers, copy=False)
        for position, feature in enumerate(self.features):
            if feature.kind is FeatureKind.CATEGORY:
                frame.insert(position, feature.name, pd.Series(_words(table, feature.name), index=table.index, dtype=object))
        return frame

    def snapshots(self, table: pd.DataFrame) -> list[str]:
        """A hash of each row's feature names and values: equal exactly where the model would be given the same row."""
        encode = json.JSONEncoder(separators=(",", ":")).encode
        begun = hashlib.sha256(encode(self.to_list()).encode())
        columns = [[None if value != value else value for value in column.tolist()] for _, column in self.frame(table).items()]  # NaN alone is not itself
        hashes = []
        for row in zip(*columns, strict=True):
            digest = begun.copy()
            digest.update(encode(row).encode())
            hashes.append(digest.hexdigest()[:32])
        return hashes

    def to_list(self) -> list[list[str]]:
        """The schema as plain data, for storage beside a model."""
        return [[feature.name, str(feature.kind)] for feature in self.features]

    @classmethod
    def from_list(cls, stored: Iterable[Iterable[str]]) -> FeatureSchema:
        """The schema that `to_list` stored."""
        return cls(tuple(Feature(name, FeatureKind(kind)) for name, kind in stored))


def _numbers(table: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """A column of numbers, value by value."""
    try:
        return np.array([math.nan if _is_missing(value) else float(value) for value in table[name].astype(object)], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FeatureSchemaMismatch(f"feature {name} must be a number or flag: {error}") from error


def _words(table: pd.DataFrame, name: str) -> NDArray[np.object_]:
    """A column of words."""
    codes, found = pd.factorize(table[name].astype(object))  # what is missing has the code -1: the last of the words below
    alien = [value for value in found if not isinstance(value, str)]
    if alien:
        raise FeatureSchemaMismatch(f"feature {name} must be text, got {alien[0]!r}")
    return np.array([*found, UNKNOWN_CATEGORY], dtype=object)[codes]


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
