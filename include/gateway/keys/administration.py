"""Making, listing, rotating and revoking API keys. For the command line and `tidemark up`; the gateway itself only reads (`ring.py`).

Connects as `tidemark_keys`, which can do this and nothing else: it reads no hash, changes neither whose a key is nor what it may do, and sees no other table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg.rows import class_row

from include.contracts import streams
from include.gateway.errors import ApiKeyError
from include.gateway.keys.token import digest_of, id_of, new_token
from include.gateway.rates import rate_text
from include.settings import SettingsError, get_settings, read_secrets, store_secret
from include.warehouse import Role, connect

MAX_NOTE = 200
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")  # what a folder `tenant=…` of the zone may say

SELECT = """
select key_id, tenant_id, streams, rate, note, created_at, created_by, expires_at, replaced_by, revoked_at, revoked_by,
    case when revoked_at is not null then 'revoked' when expires_at <= clock_timestamp() then 'expired' when replaced_by is not null then 'rotated'
        else 'active' end as state
from ops.api_key
"""


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret. `streams` and `rate` are None where there is no bound, `expires_at` where it does not end.

    `state` is active, rotated (still good, with a successor), expired or revoked.
    """

    key_id: str
    tenant_id: str
    streams: list[str] | None
    rate: str | None
    note: str | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    replaced_by: str | None
    revoked_at: datetime | None
    revoked_by: str | None
    state: str


def create(
    tenant: str, *, by: str, only: Sequence[str] = (), rate: str | None = None, expires_at: datetime | None = None, note: str | None = None
) -> tuple[ApiKey, str]:
    """Makes a key.

    Args:
        tenant: Whose events it posts.
        by: Who makes it.
        only: Streams that it may use; all if empty.
        rate: How often it may post, e.g. `50/second;1000/minute`; without bound if None.
        expires_at: From when on it is refused; never if None.
        note: What it is for.

    Returns:
        The key, and its token, which nobody can tell again.

    Raises:
        ApiKeyError: If a value is unfit.
        WarehouseUnavailable: If the warehouse does not answer.
    """
    token = new_token()
    with connect(Role.KEYS) as connection:
        key_id = _insert(connection, token, _checked(tenant, only, rate, expires_at, note), by)
        return _read(connection, key_id), token


def list_keys(tenant: str | None = None) -> list[ApiKey]:
    """Every key, the oldest first, also those that are no longer good.

    Args:
        tenant: Only keys of this tenant.
    """
    with connect(Role.KEYS) as connection, connection.cursor(row_factory=class_row(ApiKey)) as cursor:
        wanted = {"tenant": tenant}
        return cursor.execute(f"{SELECT} where %(tenant)s::text is null or tenant_id = %(tenant)s order by created_at, key_id", wanted).fetchall()


def rotate(key_id: str, *, grace: timedelta, by: str) -> tuple[ApiKey, ApiKey, str]:
    """Makes a successor with the same tenant, streams, rate and length of life; the old key stays good for a while.

    Args:
        key_id: The old key.
        grace: How long the old key is good from now on, if it does not expire before.
        by: Who does it.

    Returns:
        The old key, the new one, and the token of the new one, which nobody can tell again.

    Raises:
        ApiKeyError: If there is no such key, or it is not active.
    """
    if grace < timedelta(0):
        raise ApiKeyError("the grace period is negative")
    with connect(Role.KEYS) as connection:
        connection.execute("select from ops.api_key where key_id = %s for update", (key_id,))
        old = _read(connection, key_id)
        if old.state != "active":
            successor = f" to {old.replaced_by}" if old.replaced_by else ""
            raise ApiKeyError(f"key {key_id} cannot be rotated: it is {old.state}{successor}. `tidemark key create` makes a new one.")
        now = datetime.now(UTC)
        life = old.expires_at - old.created_at if old.expires_at else None
        token = new_token()
        made = _insert(connection, token, (old.tenant_id, old.streams, old.rate, now + life if life else None, old.note), by)
        connection.execute(
            "update ops.api_key set replaced_by = %s, expires_at = least(expires_at, clock_timestamp() + %s) where key_id = %s", (made, grace, key_id)
        )
        return _read(connection, key_id), _read(connection, made), token


def revoke(key_id: str, *, by: str) -> ApiKey:
    """Ends a key for good. Revoking it again changes nothing.

    Raises:
        ApiKeyError: If there is no such key.
    """
    with connect(Role.KEYS) as connection:
        connection.execute("update ops.api_key set revoked_at = clock_timestamp(), revoked_by = %s where key_id = %s and revoked_at is null", (by, key_id))
        return _read(connection, key_id)


def ensure_secret_key(name: str, *, tenant: str, note: str, by: str) -> ApiKey:
    """Sees to it that the secrets file holds a token that is good, for a program of the house. Safe to repeat and to break off.

    A key that was revoked or has expired is replaced: that is how to change it.

    Args:
        name: Name of the secret.
        tenant: Whose events the program posts.
        note: What the key is for.
        by: Who makes it.

    Raises:
        SettingsError: If the secret is there and is no key.
    """
    token = read_secrets(get_settings().secrets_path).get(name)
    if token is not None and id_of(token.encode()) is None:
        raise SettingsError(f"{name} in {get_settings().secrets_path} is not an API key; delete its line, and it is made anew")
    with connect(Role.KEYS) as connection:
        known = _find(connection, id_of(token.encode()) or "") if token else None
        if known is not None and known.state == "active":
            return known
        if token is None or known is not None:
            token = new_token()
            store_secret(name, token)  # before the line in the table: what breaks off between is completed by the next call
        return _read(connection, _insert(connection, token, _checked(tenant, (), None, None, note), by))


_Values = tuple[str, list[str] | None, str | None, datetime | None, str | None]


def _checked(tenant: str, only: Sequence[str], rate: str | None, expires_at: datetime | None, note: str | None) -> _Values:
    if not _TENANT.fullmatch(tenant):
        raise ApiKeyError(f"tenant {tenant!r} is unfit: use letters, digits and ._@+- (at most 128, beginning with a letter or digit)")
    if unknown := [name for name in only if name not in streams()]:
        raise ApiKeyError(f"there is no stream {', '.join(map(repr, unknown))}; streams are {', '.join(streams())}")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise ApiKeyError(f"the key would have expired at {expires_at:%Y-%m-%d %H:%M:%S} UTC, which is past")
    if note is not None and (len(note) > MAX_NOTE or not note.isprintable()):
        raise ApiKeyError(f"a note is one line of at most {MAX_NOTE} characters")
    try:
        written = rate_text(rate) if rate is not None else None
    except ValueError as error:
        raise ApiKeyError(str(error)) from None
    return tenant, sorted(set(only)) or None, written, expires_at, note or None


def _insert(connection: psycopg.Connection, token: str, values: _Values, by: str) -> str:
    key_id = id_of(token.encode())
    connection.execute(
        "insert into ops.api_key (key_id, secret_hash, tenant_id, streams, rate, expires_at, note, created_by) values (%s, %s, %s, %s, %s, %s, %s, %s)",
        (key_id, digest_of(token.encode()), *values, by),
    )
    return str(key_id)


def _find(connection: psycopg.Connection, key_id: str) -> ApiKey | None:
    with connection.cursor(row_factory=class_row(ApiKey)) as cursor:
        return cursor.execute(f"{SELECT} where key_id = %s", (key_id,)).fetchone()


def _read(connection: psycopg.Connection, key_id: str) -> ApiKey:
    found = _find(connection, key_id)
    if found is None:
        raise ApiKeyError(f"there is no key {key_id}; `tidemark key list` shows them")
    return found
