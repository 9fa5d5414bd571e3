"""One key for everything, from the secrets file. It goes when there are keys in the warehouse."""

from __future__ import annotations

import hmac
from http import HTTPStatus

from starlette.requests import Request

from include.gateway.model import Caller
from include.gateway.problems import Problem
from include.landing.zone import DEFAULT_TENANT
from include.settings import ensure_secrets, secret

SECRET = "GATEWAY_KEY"  # noqa: S105 - the name of a secret


class SingleKey:
    """Whoever shows the secret `GATEWAY_KEY` posts for the default tenant."""

    def __init__(self) -> None:
        ensure_secrets([SECRET])
        self._expected = f"Bearer {secret(SECRET)}".encode()

    def authenticate(self, request: Request) -> Caller:
        """Who sends a request. Raises `Problem` (401) if the key is missing or wrong."""
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), self._expected):
            detail = "send a key of this gateway as `Authorization: Bearer …`"
            raise Problem(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})
        return Caller("single", DEFAULT_TENANT, None, None)

    def admit(self, caller: Caller) -> None:
        """No bound."""
