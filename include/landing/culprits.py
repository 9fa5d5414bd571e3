"""What an attempt at a batch found out about files and rows that would stop the others."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Culprits:
    """What earlier attempts at a batch found out: the next attempt quarantines it from the start.

    Attributes:
        unreadable: Reason by position of the file.
        refused: Server message by (position of the file, row number).
        columns: Missing and unknown columns of unreadable files whose mapping does not fit, by position.
    """

    unreadable: dict[int, str] = field(default_factory=dict)
    columns: dict[int, tuple[list[str], list[str]]] = field(default_factory=dict)
    refused: dict[tuple[int, int], str] = field(default_factory=dict)
