"""Errors of the lake: each says what was wrong, where, and what to do."""

from __future__ import annotations


class LakeError(RuntimeError):
    """Something of the lake cannot be done; nothing was entered."""


class LakeBusy(LakeError):
    """Another export, compaction, sweep or restore of the stream is under way."""


class LakeDamaged(LakeError):
    """Bytes of a live file are gone or are not those that were entered, or they do not hold the rows that were entered."""
