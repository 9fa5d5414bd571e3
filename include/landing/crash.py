"""Named steps of a load at which a test can kill the process, to prove that nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from enum import StrEnum

CRASH_AT = "TIDEMARK_CRASH_AT"


class Step(StrEnum):
    """Steps of a load, in their order."""

    AFTER_LISTING = "after_listing"
    AFTER_READ = "after_read"
    AFTER_STREAM_LOCK = "after_stream_lock"
    AFTER_VALIDATION = "after_validation"
    AFTER_LOOKUP = "after_lookup"
    MID_COPY = "mid_copy"
    AFTER_COPY = "after_copy"
    BEFORE_LEDGER = "before_ledger"
    BEFORE_COMMIT = "before_commit"
    AFTER_COMMIT = "after_commit"


class ReplayStep(StrEnum):
    """Steps that only a replay of quarantined rows has; it also passes those of a load from `AFTER_STREAM_LOCK` on."""

    AFTER_SELECTION = "replay_after_selection"
    AFTER_MARKING = "replay_after_marking"


class BackfillStep(StrEnum):
    """Steps of moving values out of `_extra` into new columns, in their order."""

    AFTER_SELECTION = "backfill_after_selection"
    AFTER_REWRITE = "backfill_after_rewrite"
    BEFORE_COMMIT = "backfill_before_commit"
    AFTER_COMMIT = "backfill_after_commit"


listener: Callable[[StrEnum], None] | None = None
"""What a proof sets to be told of each step that this process reaches; None otherwise."""


def crash_point(step: StrEnum) -> None:
    """Kills this process with SIGKILL if the environment asks for it at this step; otherwise does nothing."""
    if listener is not None:
        listener(step)
    if os.environ.get(CRASH_AT) == step.value:
        os.kill(os.getpid(), signal.SIGKILL)
