"""Major versions of one contract that live side by side: one stream, one raw table with the columns of all of them, one identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from include.contracts.errors import ContractError
from include.contracts.model import Contract, Field

# What the one table, the one lock and the one identity hang on: it cannot differ between rows of the same stream.
SHARED = {
    "kind": "streamKind",
    "source": "source",
    "key": "primaryKey",
    "version_field": "versionField",
    "on_conflict": "onConflict",
    "partition": "partitioning",
    "bucket_columns": "bucketColumns",
    "csv": "csv",
    "schema_version_field": "schemaVersionField",
}


def older_file(stream: str, major: int) -> str:
    """Name of the file that holds an older major of a stream."""
    return f"{stream}.v{major}.yaml"


def join_majors(newest: Contract, older: Sequence[Contract]) -> Contract:
    """The newest contract with its older majors.

    Args:
        newest: Of file `<stream>.yaml`.
        older: Of files `<stream>.v<major>.yaml`, in any order.

    Raises:
        ContractError: If they cannot stand in one table: another identity, or one column with two types. The message names the file, the place and a remedy.
    """
    for contract in older:
        file = older_file(contract.stream, contract.major)
        if contract.major >= newest.major:
            raise ContractError(file, "version", f"{contract.version} is no older major than {newest.version}", "raise the major version of the newer file")
        for attribute, place in SHARED.items():
            if getattr(contract, attribute) != getattr(newest, attribute):
                raise ContractError(file, place, f"differs from {newest.stream}.yaml", "keep it: rows of all majors share one table. Else make a new stream")
    ordered = tuple(sorted(older, key=lambda contract: contract.major, reverse=True))
    columns = dict(newest.by_name)
    for contract in ordered:
        for field in contract.fields:
            _check_column(contract, field, columns.setdefault(field.name, field), is_version=field.name == newest.schema_version_field)
    return replace(newest, older=ordered) if ordered else newest


def _check_column(contract: Contract, old: Field, new: Field, *, is_version: bool) -> None:
    file, place = older_file(contract.stream, contract.major), ".".join(old.path)
    for what in ("logical_type", "is_personal", "unit"):
        if getattr(old, what) != getattr(new, what):
            said = "classification" if what == "is_personal" else what
            problem = f"column {old.name} has {said.replace('_', ' ')} {getattr(old, said)} here and {getattr(new, said)} in a newer major"
            raise ContractError(file, place, problem, "give the field of the newer major a physicalName of its own")
    if is_version and old.path != new.path:
        raise ContractError(file, place, "the field that names the version stands elsewhere than in the newest major", "keep its place in the payload")
