"""Contracts of yesterday: stricter than those of the house, so that rows come to the quarantine which today's contract takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from include.contracts import load_contract
from include.contracts.model import Contract, RowRule


def with_field(contract: Contract, name: str, **changes: Any) -> Contract:
    """The contract with one field changed."""
    contract.field(name)  # a name it does not have would change nothing
    return replace(contract, fields=tuple(replace(field, **changes) if field.name == name else field for field in contract.fields))


def with_rule(contract: Contract, name: str, expression: str) -> Contract:
    """The contract with one more rule."""
    return replace(contract, rules=(*contract.rules, RowRule(name, expression, f"{name}, once")))


def land_under(monkeypatch: pytest.MonkeyPatch, contract: Contract, version: str = "0.9.0") -> None:
    """Lets loads judge rows of the contract's stream by it; replays go on with the contract of the house."""
    strict = replace(contract, version=version)
    monkeypatch.setattr("include.landing.load.load_contract", lambda stream: strict if stream == contract.stream else load_contract(stream))


def replay_under(monkeypatch: pytest.MonkeyPatch, contract: Contract, version: str) -> None:
    """Lets replays judge rows of the contract's stream by it."""
    changed = replace(contract, version=version)
    monkeypatch.setattr("include.landing.replay.load_contract", lambda stream: changed if stream == contract.stream else load_contract(stream))
