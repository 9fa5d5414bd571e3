"""The one kind of error that a person at the terminal sees."""

from __future__ import annotations


class StackError(RuntimeError):
    """The stack cannot do what was asked.

    Attributes:
        hint: What to do about it; empty where the message says it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
