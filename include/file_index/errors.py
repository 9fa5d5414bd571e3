"""The error of the file index."""

from __future__ import annotations


class FileIndexError(RuntimeError):
    """What was asked for is not in the index; the message says what would be found."""
