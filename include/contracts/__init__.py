"""Contracts: what each stream promises. One YAML file a stream; everything that depends on it is read or generated from here."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from include.contracts.errors import ContractError, DefinitionError, MappingError
from include.contracts.majors import join_majors
from include.contracts.model import EVENT_AT, PERSONAL, Contract, Field, LogicalType, OnConflict, RowRule, Source, StreamKind
from include.contracts.parse import parse_contract

CONTRACTS_FOLDER = Path(__file__).parent

__all__ = [
    "CONTRACTS_FOLDER",
    "EVENT_AT",
    "PERSONAL",
    "Contract",
    "ContractError",
    "DefinitionError",
    "Field",
    "LogicalType",
    "MappingError",
    "OnConflict",
    "RowRule",
    "Source",
    "StreamKind",
    "commerce_streams",
    "device_streams",
    "load_contract",
    "streams",
    "table_streams",
]


@cache
def streams() -> tuple[str, ...]:
    """Names of all streams, in alphabetical order: one contract file each, beside those of older majors (`<stream>.v<major>.yaml`)."""
    return tuple(sorted(path.stem for path in CONTRACTS_FOLDER.glob("*.yaml") if "." not in path.stem))


@cache
def load_contract(stream: str) -> Contract:
    """Contract of a stream, with its older majors; read once a process.

    Raises:
        ContractError: If there is no such stream, or its file breaks a rule.
    """
    if stream not in streams():
        remedy = f"use one of {', '.join(streams())}, or add a stream (docs/runbooks/add-a-stream.md)"
        raise ContractError(f"{stream}.yaml", "contract", "does not exist", remedy)
    newest = parse_contract(CONTRACTS_FOLDER / f"{stream}.yaml")
    return join_majors(newest, [parse_contract(path) for path in CONTRACTS_FOLDER.glob(f"{stream}.v*.yaml")])


def device_streams() -> tuple[str, ...]:
    """Names of the streams that devices, their registry and their crew send."""
    return _streams_of(Source.DEVICE)


def commerce_streams() -> tuple[str, ...]:
    """Names of the streams that shops send."""
    return _streams_of(Source.COMMERCE)


def table_streams() -> tuple[str, ...]:
    """Names of the streams of tables that people bring."""
    return _streams_of(Source.TABLE)


@cache
def _streams_of(source: Source) -> tuple[str, ...]:
    return tuple(stream for stream in streams() if load_contract(stream).source is source)
