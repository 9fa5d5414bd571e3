"""Of several copies of one event, which one counts. A pure function of the copies, so the order of loading does not matter.

A copy with a greater version wins; without a version field the earlier arrival wins (`keep_first`), or the later one (`keep_latest`); then file hash, then row
number decide. Between equal versions the earlier arrival wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from include.contracts.model import Contract, Winner

STORED = -1


class Verdict(StrEnum):
    """What a row that passed validation counts as."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CORRECTED = "corrected"


@dataclass(frozen=True)
class Copy:
    """One copy of an event.

    Attributes:
        row: Position in the frame, or `STORED` for the copy in the raw table.
        content: Content hash.
        version: Value of the contract's version field; None where it has none, or the copy lacks it.
        arrived_us: Arrival, microseconds since 1970 UTC.
        file_hash: SHA-256 of the file.
        row_number: Row in the file.
        known_us: When this content was first known, microseconds since 1970 UTC.
    """

    row: int
    content: bytes
    version: Any
    arrived_us: int
    file_hash: bytes
    row_number: int
    known_us: int


@dataclass(frozen=True)
class Outcome:
    """What becomes of the copies of one event.

    Attributes:
        winner: The copy that counts; the stored one where nothing changes. Its `known_us` is the earliest knowledge of its content.
        verdicts: One by new copy, in their order.
    """

    winner: Copy
    verdicts: tuple[Verdict, ...]


def precedence(copy: Copy, contract: Contract) -> tuple[Any, ...]:
    """A key that is greatest for the copy that wins."""
    version = (copy.version is not None, copy.version) if contract.version_field and copy.version is not None else (False,)
    place = (copy.arrived_us, int.from_bytes(copy.file_hash, "big"), copy.row_number)
    keeps_latest = contract.version_field is None and contract.winner is Winner.KEEP_LATEST
    return (version, place if keeps_latest else tuple(-part for part in place))


def settle(copies: Sequence[Copy], stored: Copy | None, contract: Contract) -> Outcome:
    """Decides between the copies of one event.

    A new copy counts as accepted where it is the first, as duplicate where it says the same as the copy that held until then, and as corrected otherwise,
    whether it wins or not.

    Args:
        copies: New copies in order of arrival; at least one.
        stored: The copy in the raw table.
        contract: The stream's contract.
    """
    holder = stored
    verdicts: list[Verdict] = []
    for copy in copies:
        if holder is None:
            verdicts.append(Verdict.ACCEPTED)
            holder = copy
            continue
        is_equal = copy.content == holder.content
        verdicts.append(Verdict.DUPLICATE if is_equal else Verdict.CORRECTED)
        if precedence(copy, contract) > precedence(holder, contract):
            holder = replace(copy, known_us=min(copy.known_us, holder.known_us)) if is_equal else copy
    if holder is None:
        raise ValueError("an event has at least one copy")
    return Outcome(holder, tuple(verdicts))
