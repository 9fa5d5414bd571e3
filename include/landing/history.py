"""What the copies of one event said, one after another: the rows of `ops.correction` as a pure function of the copies, whatever order they are loaded in.

Statements stand in order of precedence; the last one counts. With `keep_latest` a statement is a run of copies that follow each other and say the same, so a
source that returns to what it said before makes a new statement. With a version field, or `keep_first`, a content is one statement wherever its copies stand.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from include.contracts.model import Contract, OnConflict
from include.landing.winner import Copy, precedence

PAST = -2


@dataclass(frozen=True)
class Correction:
    """Two statements of which one had to yield.

    Attributes:
        old: What counted; `known_us` says since when it could have been known.
        new: What another copy said.
        known_to_us: Until when `old` was the best known, microseconds since 1970 UTC; not after its `known_us`: it never was. None: it still counts.
        is_applied: `new` took the place of `old`; else it came too late.
    """

    old: Copy
    new: Copy
    known_to_us: int | None
    is_applied: bool


def is_disputed(copies: Sequence[Copy], stored: Copy | None, contract: Contract) -> bool:
    """Whether new copies of an event may change what is recorded about it: they differ from each other or from the stored one, or were known before it."""
    if contract.on_conflict is OnConflict.QUARANTINE:
        return False
    contents = {copy.content for copy in copies}
    if stored is None:
        return len(contents) > 1
    return contents != {stored.content} or min(copy.known_us for copy in copies) < stored.known_us


def past_statements(recorded: Sequence[Correction], stored: Copy | None, contract: Contract) -> list[Copy]:
    """The statements that recorded corrections were made of, the stored copy included."""
    if contract.on_conflict is OnConflict.KEEP_LATEST:
        past = [correction.old for correction in recorded]
    else:
        past = [statement for correction in recorded for statement in (correction.old, correction.new)]
    return [*past, stored] if stored else past


def merge(past: Sequence[Copy], copies: Sequence[Copy], contract: Contract) -> list[Copy]:
    """The statements of an event after new copies of it, in order of precedence.

    Args:
        past: As `past_statements` gives them.
        copies: New copies in any order.
        contract: The stream's contract.
    """
    if contract.on_conflict is OnConflict.KEEP_LATEST:
        runs = list(past)
        for copy in sorted(copies, key=lambda copy: copy.place):
            _insert(runs, copy)
        return runs
    best: dict[bytes, Copy] = {}
    for copy in (*past, *copies):
        other = best.get(copy.content, copy)
        greater = max(other, copy, key=lambda each: precedence(each, contract))
        best[copy.content] = replace(greater, known_us=min(other.known_us, copy.known_us))
    return sorted(best.values(), key=lambda copy: precedence(copy, contract))


def corrections(statements: Sequence[Copy], contract: Contract) -> list[Correction]:
    """The corrections between statements: one less than there are statements, in an order that depends on nothing else.

    A statement with a greater version, or a later one with `keep_latest`, corrects the one before it. One that came too late (`keep_first`, or an equal
    version) stands beside the one that was first.
    """
    if contract.on_conflict is OnConflict.KEEP_LATEST:
        groups = [[statement] for statement in statements]
    else:
        groups = [list(group) for _, group in groupby(statements, key=lambda statement: precedence(statement, contract)[0])]
    held = [group[-1] for group in groups]
    found: list[Correction] = []
    for number, group in enumerate(groups):
        until = min((later.known_us for later in held[number + 1 :]), default=None)
        found += [Correction(held[number], late, until, is_applied=False) for late in group[:-1]]
        if number + 1 < len(held):
            found.append(Correction(held[number], held[number + 1], until, is_applied=True))
    return found


def _insert(runs: list[Copy], copy: Copy) -> None:
    at = bisect(runs, copy.place, key=lambda run: run.place)
    after = runs[at] if at < len(runs) else None
    if after is not None and after.content == copy.content:
        runs[at] = replace(after, known_us=min(after.known_us, copy.known_us))
        return
    if after is not None and after.known_us < copy.known_us < after.issued_us:
        # The run began before this copy and ends after it, so it was two: which file said the first half was counted and not kept.
        runs[at] = replace(after, known_us=after.issued_us)
        runs.insert(at, replace(after, row=PAST, arrived_us=after.known_us, published_us=None, file_hash=b"", row_number=0, file_id=None))
        at += 1
    elif at and runs[at - 1].content == copy.content:
        runs[at - 1] = replace(copy, known_us=min(runs[at - 1].known_us, copy.known_us))
        return
    runs.insert(at, copy)
