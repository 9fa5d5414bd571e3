"""Errors of the gateway's commands: each says what was wrong and what to do. What a sender is told is in `include.gateway.problems`."""

from __future__ import annotations


class ApiKeyError(RuntimeError):
    """A key cannot be made or changed as asked."""
