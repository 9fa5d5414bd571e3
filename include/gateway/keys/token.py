"""The form of an API key: `tmk_<key id>_<secret>`, 16 and 64 hexadecimal digits, both drawn by chance.

The secret has 256 random bits, so its SHA-256 tells nothing of it, and no slow hash is needed.
"""

from __future__ import annotations

import hashlib
import re
import secrets

_FORM = re.compile(rb"tmk_([0-9a-f]{16})_[0-9a-f]{64}")
_NAMED = re.compile(r"(?:tmk_)?([0-9a-f]{16})(?:_[0-9a-f]{64})?")


def new_token() -> str:
    """A key that nobody else has."""
    return f"tmk_{secrets.token_hex(8)}_{secrets.token_hex(32)}"


def id_of(token: bytes) -> str | None:
    """The id of a key; None where these bytes have not the form of one."""
    match = _FORM.fullmatch(token)
    return match[1].decode("ascii") if match else None


def named_id(text: str) -> str | None:
    """The id that somebody means who writes an id, or pastes a whole key; None where it is neither."""
    match = _NAMED.fullmatch(text.strip())
    return match[1] if match else None


def digest_of(token: bytes) -> bytes:
    """What is kept of a key: the SHA-256 of all of it, 32 bytes."""
    return hashlib.sha256(token).digest()
