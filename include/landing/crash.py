"""Named steps of a load at which a test can kill the process, to prove that nothing is lost or doubled."""

from __future__ import annotations

import os
import signal
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


def crash_point(step: Step) -> None:
    """Kills this process with SIGKILL if the environment asks for it at this step; otherwise does nothing."""
    if os.environ.get(CRASH_AT) == step.value:
        os.kill(os.getpid(), signal.SIGKILL)
