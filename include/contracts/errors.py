"""Errors of contracts and mappings: each names the file, the place in it and what to do."""

from __future__ import annotations


class DefinitionError(ValueError):
    """A contract or mapping file cannot be used.

    Args:
        file: Name of the file.
        place: Field or section in it, e.g. `measurements.temperature`.
        problem: What is wrong.
        remedy: What to do about it.
    """

    def __init__(self, file: str, place: str, problem: str, remedy: str) -> None:
        self.file, self.place, self.problem, self.remedy = file, place, problem, remedy
        super().__init__(f"{file}: {place}: {problem}; {remedy}")


class ContractError(DefinitionError):
    """A contract file cannot be used."""


class MappingError(DefinitionError):
    """A mapping file cannot be used, or does not fit the data it is applied to."""
