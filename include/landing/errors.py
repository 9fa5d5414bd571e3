"""Errors of landing: each says what was wrong, where, and what to do."""

from __future__ import annotations


class LandingError(RuntimeError):
    """Something stopped a load; nothing of the batch was committed."""


class LandingBusy(LandingError):
    """A lock was not free in time: another load of the stream, or a running build whose rows this load must change."""


class LandingUnbalanced(LandingError):
    """The rows of a batch do not add up. The batch was rolled back."""


class LandingCheckFailed(LandingError):
    """Good rows were committed, but the stream breaks what its contract promises (share of quarantined rows, silence, failed files)."""


class RowsUnaccounted(LandingError):
    """A raw partition does not hold the rows that its movements add up to: rows were lost, doubled or changed behind landing's back."""


class ZoneError(LandingError):
    """An address does not follow the rules of the landing zone, or its store cannot be reached or refuses."""

    @property
    def is_outage(self) -> bool:
        """Whether the store failed, for which no file is to blame. A refusal may be about one file."""
        return self.__cause__ is not None and not isinstance(self.__cause__, PermissionError)


class UnreadableFile(Exception):
    """A file cannot be read at all: truncated, not its stated format, without a usable header.

    Args:
        position: Position of the file in its batch.
        reason: One line for the quarantine.
        columns: Columns that its mapping misses, and those that it does not know; None where that is not why.
    """

    def __init__(self, position: int, reason: str, columns: tuple[list[str], list[str]] | None = None) -> None:
        self.position, self.reason, self.columns = position, reason, columns
        super().__init__(reason)


class RowsRefused(Exception):
    """The server refused rows that the validator had let pass.

    Args:
        reasons: Server message by (position of the file in its batch, row number).
    """

    def __init__(self, reasons: dict[tuple[int, int], str]) -> None:
        self.reasons = reasons
        super().__init__(f"the server refused {len(reasons)} rows")
