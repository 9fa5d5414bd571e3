"""Who is champion: the line of `ops.model_history` that has no end.

Every change names the champion it takes the place of, so of two that decide at once the second is refused and looks again, instead of undoing what it
never saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from include.landing.crash import crash_point
from ml.lifecycle.steps import LifecycleStep

GATE = "gate"


class ChampionError(RuntimeError):
    """A champion cannot be made as asked; the message says why and what to do."""


@dataclass(frozen=True)
class Reign:
    """A version was champion in [champion_from, champion_until); `champion_until` is None for the champion."""

    use_case: str
    model_version: int
    champion_from: datetime
    champion_until: datetime | None
    decided_by: str
    reason: str
    is_rollback: bool


def history(connection: psycopg.Connection[Any], use_case: str) -> list[Reign]:
    """Every reign, oldest first."""
    rows = connection.execute(
        "select use_case, model_version, champion_from, champion_until, decided_by, reason, is_rollback from ops.model_history where use_case = %s "
        "order by champion_from",
        (use_case,),
    )
    return [Reign(*row) for row in rows]


def champion_version(connection: psycopg.Connection[Any], use_case: str) -> int | None:
    """The version whose predictions are used; None before the first."""
    row = connection.execute("select model_version from ops.model_history where use_case = %s and champion_until is null", (use_case,)).fetchone()
    return None if row is None else int(row[0])


def predecessors(reigns: list[Reign]) -> list[int]:
    """Former champions that a rollback can take back, the last one first: what a rollback has put aside is not among them."""
    stack: list[int] = []
    for reign in reigns:
        if reign.is_rollback and reign.model_version in stack:
            del stack[stack.index(reign.model_version) :]
        elif reign.model_version in stack:  # promoted again by hand: its place is where it is now
            stack.remove(reign.model_version)
        stack.append(reign.model_version)
    return stack[-2::-1]


def lock_champion(connection: psycopg.Connection[Any], use_case: str) -> None:
    """One change of champion at a time, until the transaction ends."""
    connection.execute("select pg_advisory_xact_lock(hashtextextended('tidemark.champion.' || %s, 0))", (use_case,))


def make_champion(
    connection: psycopg.Connection[Any], use_case: str, version: int, *, instead_of: int | None, by: str, reason: str, is_rollback: bool = False
) -> None:
    """Ends the reign of one champion and begins another's, in the transaction of the caller, who commits it.

    Args:
        connection: Of the role that trains.
        use_case: Whose champion.
        version: A stored version.
        instead_of: The champion that the decision was about; None where there was none.
        by: `GATE`, or who asked for it.
        reason: Why, for those who ask later.
        is_rollback: Whether it takes an earlier champion back.

    Raises:
        ChampionError: If the champion is another one by now, or is this version already.
    """
    lock_champion(connection, use_case)
    current = next((reign for reign in reversed(history(connection, use_case)) if reign.champion_until is None), None)
    if current is not None and current.model_version == version:
        raise ChampionError(f"version {version} is the champion of {use_case} already, decided by {current.decided_by}: {current.reason}")
    if (current and current.model_version) != instead_of:
        now = f"version {current.model_version}, decided by {current.decided_by}: {current.reason}" if current else "none"
        before = f"version {instead_of}" if instead_of is not None else "none"
        raise ChampionError(f"the champion of {use_case} has changed meanwhile, from {before} to {now}. Look at it (`tidemark model history`) and decide again")
    closed = connection.execute(
        "update ops.model_history set champion_until = greatest(clock_timestamp(), champion_from + interval '1 microsecond') "
        "where use_case = %s and champion_until is null returning champion_until",
        (use_case,),
    ).fetchone()
    crash_point(LifecycleStep.CHAMPION_AFTER_CLOSING)
    connection.execute(
        "insert into ops.model_history (use_case, model_version, champion_from, decided_by, reason, is_rollback) "
        "values (%s, %s, coalesce(%s, clock_timestamp()), %s, %s, %s)",
        (use_case, version, closed[0] if closed else None, by, reason, is_rollback),
    )
    crash_point(LifecycleStep.CHAMPION_BEFORE_COMMIT)
