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


class ColumnsMissing(MappingError):
    """A file lacks columns that its mapping reads: it is another file than the mapping was written for, or its source changed.

    Args:
        mapping: Name of the mapping.
        missing: Columns that the mapping reads and the file lacks.
        unknown: Columns of the file that the mapping neither reads nor ignores.
        found: What the file has instead.
    """

    def __init__(self, mapping: str, missing: list[str], unknown: list[str], found: str) -> None:
        self.missing, self.unknown = missing, unknown
        super().__init__(f"{mapping}.yaml", "file", f"has no column {', '.join(missing)}", f"it has {found}; correct the mapping or choose another")
