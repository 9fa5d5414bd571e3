"""What kinds of files there are, and the states they may be in."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """Where a file came from."""

    ARRIVAL = "arrival"
    LAKE = "lake"


class FileState(StrEnum):
    """Where a file stands. An arrival: pending, landed, quarantined, failed or restored; a lake file: live or replaced; both: expiring or expired."""

    PENDING = "pending"
    LANDED = "landed"
    QUARANTINED = "quarantined"
    FAILED = "failed"
    RESTORED = "restored"
    LIVE = "live"
    REPLACED = "replaced"
    EXPIRING = "expiring"
    EXPIRED = "expired"


ARRIVAL_STATES = frozenset({FileState.PENDING, FileState.LANDED, FileState.QUARANTINED, FileState.FAILED, FileState.RESTORED})
"""States that no lake file is ever in."""
