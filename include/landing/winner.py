"""Of several copies of one event, which one counts. A pure function of the copies, so the order of loading does not matter.

A copy with a greater version wins; without a version field the earlier place wins (`keep_first`, `quarantine`), or the later one (`keep_latest`). A copy's
place is when its file was published, where the file says so, else when it arrived; then the arrival, file hash and row number decide. Between equal versions
the earlier place wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from include.contracts.model import Contract, OnConflict

STORED = -1


class Verdict(StrEnum):
    """What a row that passed validation counts as."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CORRECTED = "corrected"
    QUARANTINED = "quarantined"


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
        published_us: When the file was published, microseconds since 1970 UTC; None where it does not say.
        file_id: Ledger line of the file; None where it is not known any more.
    """

    row: int
    content: bytes
    version: Any
    arrived_us: int
    file_hash: bytes
    row_number: int
    known_us: int
    published_us: int | None = None
    file_id: int | None = None

    @property
    def issued_us(self) -> int:
        """Publication, else arrival, microseconds since 1970 UTC."""
        return self.arrived_us if self.published_us is None else self.published_us

    @property
    def place(self) -> tuple[int, int, int, int]:
        """Where the copy stands in time among those of its event. Only rows of equal bytes under two addresses can stand at one place."""
        return (self.issued_us, self.arrived_us, int.from_bytes(self.file_hash, "big"), self.row_number)


@dataclass(frozen=True)
class Refused:
    """A copy in quarantine, because it says something else than the first one; what people have dealt with (not `is_untouched`) stays as it is."""

    quarantine_id: int
    copy: Copy
    is_untouched: bool


@dataclass(frozen=True)
class Outcome:
    """What becomes of the copies of one event.

    Attributes:
        winner: The copy that counts; the stored one where nothing changes. Its `known_us` is the earliest knowledge of its content.
        verdicts: One by new copy, in their order.
        displaced: What the stored copy counts as from now on, where the contract quarantines conflicts and it is not the first any more.
        released: Copies in quarantine that are duplicates from now on, because an earlier one says the same.
    """

    winner: Copy
    verdicts: tuple[Verdict, ...]
    displaced: Verdict | None = None
    released: tuple[Refused, ...] = ()


def precedence(copy: Copy, contract: Contract) -> tuple[Any, ...]:
    """A key that is greatest for the copy that wins."""
    version = (copy.version is not None, copy.version) if contract.version_field and copy.version is not None else (False,)
    return (version, copy.place if contract.on_conflict is OnConflict.KEEP_LATEST else tuple(-part for part in copy.place))


def settle(copies: Sequence[Copy], stored: Copy | None, contract: Contract, quarantined: Sequence[Refused] = ()) -> Outcome:
    """Decides between the copies of one event.

    A new copy counts as accepted where it is the first, as duplicate where it says the same as the copy that held until then, and as corrected otherwise,
    whether it wins or not. Where the contract quarantines conflicts, the first of all copies is the accepted one, the first of every other content is
    quarantined, and the rest are duplicates: stored and quarantined copies may lose their place to an earlier one.

    Args:
        copies: New copies in order of arrival; at least one.
        stored: The copy in the raw table.
        contract: The stream's contract.
        quarantined: Copies of the event in the quarantine, where the contract quarantines conflicts.
    """
    if not copies:
        raise ValueError("an event has at least one copy")
    if contract.on_conflict is OnConflict.QUARANTINE:
        return _settle_strictly(copies, stored, contract, quarantined)
    holder = stored
    verdicts: list[Verdict] = []
    for copy in copies:
        if holder is None:
            verdicts.append(Verdict.ACCEPTED)
            holder = copy
            continue
        is_equal, wins = copy.content == holder.content, precedence(copy, contract) > precedence(holder, contract)
        verdicts.append(Verdict.DUPLICATE if is_equal else Verdict.CORRECTED)
        if is_equal:
            holder = replace(copy if wins else holder, known_us=min(copy.known_us, holder.known_us))
        elif wins:
            holder = copy
    assert holder is not None  # there was a copy
    return Outcome(holder, tuple(verdicts))


def _settle_strictly(copies: Sequence[Copy], stored: Copy | None, contract: Contract, quarantined: Sequence[Refused]) -> Outcome:
    """The earliest copy of all counts. Of every other content the earliest copy is in quarantine, and copies that say the same are duplicates."""
    candidates = [stored, *copies] if stored else [*copies]
    winner = max(candidates, key=lambda copy: precedence(copy, contract))
    first: dict[bytes, Copy] = {winner.content: winner} | {refused.copy.content: refused.copy for refused in quarantined if not refused.is_untouched}
    for copy in sorted([*(refused.copy for refused in quarantined), *candidates], key=lambda copy: copy.place):
        first.setdefault(copy.content, copy)

    def verdict(copy: Copy) -> Verdict:
        if copy is winner:
            return Verdict.ACCEPTED
        # Not by its place: the same bytes under another address, with the same stamp, stand at the same place.
        return Verdict.QUARANTINED if first[copy.content] is copy else Verdict.DUPLICATE

    return Outcome(
        replace(winner, known_us=min(copy.known_us for copy in candidates if copy.content == winner.content)),
        tuple(verdict(copy) for copy in copies),
        verdict(stored) if stored is not None and stored is not winner else None,
        tuple(refused for refused in quarantined if stored and refused.is_untouched and first[refused.copy.content] is not refused.copy),
    )
