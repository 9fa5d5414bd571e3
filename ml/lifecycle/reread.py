"""Reading a data set again: the rows it was made of come back from the lake, the marts are built up to its horizon, and the same question is asked."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from include.lake import restore_stream
from include.transform import build, deploy, fix_horizon
from include.warehouse import Role, connect
from ml import usecases
from ml.lifecycle.dataset import load_dataset
from ml.lifecycle.use_case import UseCase


class UseCaseUnknown(LookupError):
    """No use case has that name; the message lists those there are."""


@dataclass(frozen=True)
class Reread:
    """A data set that was read again.

    Attributes:
        restored: Rows that came back from the lake.
        models: Models that were built.
        rows: Rows of the data set.
        content_hash: Hash of every key, feature and outcome; the same as that of the first reading if it is the same data set.
    """

    restored: int
    models: int
    rows: int
    content_hash: str


def use_cases() -> dict[str, UseCase]:
    """Every use case of `ml/usecases` by its name.

    A module declares the use case of its own name; one it imports, to build on it, is its author's.

    Raises:
        UseCaseUnknown: If a module holds use cases, but none of its own name.
    """
    found: dict[str, UseCase] = {}
    for module in pkgutil.iter_modules(usecases.__path__):
        values = vars(importlib.import_module(f"{usecases.__name__}.{module.name}")).values()
        held = {value.name: value for value in values if isinstance(value, UseCase)}
        if held and module.name not in held:
            raise UseCaseUnknown(f"ml/usecases/{module.name}.py holds the use cases {', '.join(sorted(held))}: name one {module.name!r}, or rename the file")
        found |= {name: value for name, value in held.items() if name == module.name}
    return found


def find_use_case(name: str) -> UseCase:
    """The use case of that name.

    Raises:
        UseCaseUnknown: If there is none.
    """
    found = use_cases()
    if name not in found:
        raise UseCaseUnknown(f"there is no use case {name!r}; use cases are {', '.join(sorted(found))}")
    return found[name]


def read_again(name: str, horizon: Mapping[str, int], step: Callable[[str], None]) -> Reread:
    """Fills an empty warehouse with the streams of a data set from the lake, builds what it was read from up to its horizon, and reads it.

    Args:
        name: Use case of the data set.
        horizon: Its horizon, batch by stream.
        step: Called with the title of each step before it begins.

    Raises:
        UseCaseUnknown: If there is no such use case.
        LakeError: If the warehouse is not empty, or the lake does not hold a stream.
        TransformFailed: If a model cannot be built.
    """
    spec = find_use_case(name).dataset
    restored = 0
    for stream in (stream for stream, batch_id in horizon.items() if batch_id):  # of the others nothing had landed
        step(f"rows of {stream} from the lake")
        restored += sum(part.rows for part in restore_stream(stream))
    step("marts up to the horizon")
    deploy()
    selector = " ".join(f"+{relation.name},tag:micro_batch" for relation in (spec.features.relation, spec.outcome.relation))
    built = build(selector, fix_horizon(horizon), run_tests=False)
    step("the data set")
    with connect(Role.ML) as connection:
        dataset = load_dataset(connection, spec)
    return Reread(restored, built.models, len(dataset.frame), dataset.content_hash)
