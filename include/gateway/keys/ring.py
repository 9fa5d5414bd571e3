"""The keys as the gateway knows them: in memory, read again from the warehouse every few seconds, with a copy on disk for a start without the warehouse.

The copy holds hashes and no key. It is the list as the warehouse gave it, so an unchanged list is recognised by its bytes and costs nothing but the query.
"""

from __future__ import annotations

import hmac
import logging
import math
import os
import secrets
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import psycopg

from include.gateway.background import Repeated
from include.gateway.keys.token import digest_of, id_of
from include.gateway.model import Caller
from include.gateway.rates import parse_rate
from include.settings import SettingsError, write_private
from include.warehouse import Role, WarehouseUnavailable, connect

logger = logging.getLogger("tidemark.gateway")
REFRESH_S = 5.0

QUERY = """
select coalesce(json_agg(json_build_object('key_id', key_id, 'digest', encode(secret_hash, 'hex'), 'tenant_id', tenant_id, 'streams', streams, 'rate', rate,
    'expires_at', expires_at) order by key_id), '[]')::text
from ops.api_key
where revoked_at is null and (expires_at is null or expires_at > clock_timestamp())
"""


class StoredKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key as the warehouse lists it and the copy keeps it; `digest` is hexadecimal."""

    key_id: str
    digest: str
    tenant_id: str
    streams: frozenset[str] | None
    rate: str | None
    expires_at: datetime | None


@dataclass(frozen=True)
class _Entry:
    digest: bytes
    expires_s: float
    caller: Caller


class KeyRing:
    """The keys that are good now. Asked by the event loop, refreshed by a thread; the list is exchanged whole.

    Args:
        copy: File of the copy.
        clock: Seconds since 1970, for expiry.
    """

    def __init__(self, copy: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._copy, self._clock = copy, clock
        self._entries: dict[str, _Entry] | None = None
        self._listed = self._copied = b""
        self._connection: psycopg.Connection | None = None
        self._confirmed_at: float | None = None
        self._trouble: type = type(None)
        # What an unknown id is compared with. No key has it.
        self._nobody = _Entry(secrets.token_bytes(32), -math.inf, Caller("", "", frozenset(), None))
        self._refreshing = Repeated("keys", REFRESH_S, self._refresh_or_say)

    @property
    def is_loaded(self) -> bool:
        """Whether there is a list at all. Before that nobody can be told that his key is wrong."""
        return self._entries is not None

    @property
    def key_count(self) -> int:
        """Keys in the list."""
        return len(self._entries or ())

    @property
    def age_s(self) -> float | None:
        """Seconds since the warehouse last gave the list; None where it has not since this process began, so that the list is the copy's."""
        return None if self._confirmed_at is None else time.monotonic() - self._confirmed_at

    def start(self) -> None:
        """Takes the copy, and begins to ask the warehouse, at once and every 5 s."""
        self.load_copy()
        self._refreshing.start()

    def stop(self) -> None:
        """Ends asking."""
        self._refreshing.stop()
        if self._connection is not None:
            self._connection.close()

    def find(self, token: bytes) -> Caller | None:
        """Whose key this is; None where it is unknown, revoked or expired. Takes the same time whether its id is known or not.

        Args:
            token: The key as it was sent.
        """
        entry = (self._entries or {}).get(id_of(token) or "", self._nobody)
        is_same = hmac.compare_digest(entry.digest, digest_of(token))
        return entry.caller if is_same and self._clock() < entry.expires_s else None

    def load_copy(self) -> None:
        """Takes the list from the copy. Without one, or with one that cannot be trusted, there is no list until the warehouse answers."""
        try:
            status = self._copy.stat()
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
                raise ValueError("others may write to it")
            listed = self._copy.read_bytes()
            self._take(listed)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
            logger.error("%s, the copy of the API keys, is not used: %s. It is written anew as soon as the warehouse answers.", self._copy, error)
            return
        self._copied = listed

    def refresh(self) -> None:
        """Asks the warehouse for the list, and keeps a copy of one that has changed.

        Raises:
            WarehouseUnavailable: If it does not answer. The list stays as it is.
            OSError: If the copy cannot be written. The list is the new one.
        """
        listed = self._ask()
        if listed != self._listed or self._entries is None:
            self._take(listed)
        self._confirmed_at = time.monotonic()
        if listed != self._copied:
            write_private(self._copy, listed)
            self._copied = listed

    def _refresh_or_say(self) -> None:
        """Refreshes; says once what is wrong, and once that it is well again."""
        trouble: Exception | None = None
        try:
            self.refresh()
        except (WarehouseUnavailable, SettingsError) as error:
            trouble, said = error, f"the API keys stay as they were last read ({self.key_count} of them): {error}"
        except OSError as error:
            trouble, said = error, f"the copy of the API keys cannot be written to {self._copy}: {error.strerror}. A start without the warehouse needs it."
        else:
            said = f"the API keys are read again ({self.key_count} of them)"
        if type(trouble) is not self._trouble:
            logger.warning("%s", said)
            self._trouble = type(trouble)

    def _ask(self) -> bytes:
        try:
            if self._connection is None:
                self._connection = connect(Role.API, autocommit=True)
                self._connection.execute("set statement_timeout = '10s'")
            row = self._connection.execute(QUERY).fetchone()
        except psycopg.Error as error:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            raise WarehouseUnavailable(f"the warehouse does not list them: {str(error).strip().splitlines()[0]}") from error
        return str(row[0]).encode() if row else b"[]"

    def _take(self, listed: bytes) -> None:
        entries = {}
        for key in msgspec.json.decode(listed, type=list[StoredKey]):
            try:
                if key.rate is not None:
                    parse_rate(key.rate)
                digest = bytes.fromhex(key.digest)
            except ValueError as error:
                logger.error("API key %s is not used: %s. Rotate it with another rate, or revoke it.", key.key_id, error)
                continue
            expires_s = key.expires_at.timestamp() if key.expires_at is not None else math.inf
            entries[key.key_id] = _Entry(digest, expires_s, Caller(key.key_id, key.tenant_id, key.streams, key.rate))
        self._entries, self._listed = entries, listed
