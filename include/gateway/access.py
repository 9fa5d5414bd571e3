"""Who may do what: the key of a request, the streams it covers, and how often it posts. Who has no good key is told nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from starlette.requests import Request

from include.gateway.keys.ring import REFRESH_S, KeyRing
from include.gateway.model import Caller
from include.gateway.problems import Problem
from include.gateway.rates import Rates

CHALLENGE = 'Bearer realm="tidemark"'
MAX_SHOWN = 63  # of a name that a sender made up; a stream has at most so many characters


class Access:
    """What the routes ask.

    Args:
        keys: The keys.
        rates: Their posts so far.
        streams: Every stream of the house.
    """

    def __init__(self, keys: KeyRing, rates: Rates, streams: Iterable[str]) -> None:
        self._keys, self._rates, self._streams = keys, rates, frozenset(streams)

    def authenticate(self, request: Request) -> Caller:
        """Whose key a request shows.

        Raises:
            Problem: 401 without a good key; 503 where the gateway has no list of keys yet.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "This needs an API key, as the header `Authorization: Bearer tmk_…`. `tidemark key create` makes one.",
                headers={"WWW-Authenticate": CHALLENGE},
            )
        if not self._keys.is_loaded:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "The gateway has started without its list of keys and waits for the warehouse. Send the same again later.",
                headers={"Retry-After": str(round(REFRESH_S))},
            )
        caller = self._keys.find(token.strip().encode("latin-1"))
        if caller is None:
            raise Problem(
                HTTPStatus.UNAUTHORIZED,
                "The API key is not good: it is unknown, was revoked or has expired. `tidemark key list` says which, `tidemark key create` makes another.",
                headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'},
            )
        return caller

    def streams_of(self, caller: Caller) -> list[str]:
        """The streams that a key may use, in order of their names."""
        return sorted(name for name in self._streams if caller.may_use(name))

    def check_stream(self, caller: Caller, stream: str) -> None:
        """Whether a key may use a stream.

        Raises:
            Problem: 404 if there is no such stream, 403 if the key does not cover it.
        """
        if stream in self._streams and caller.may_use(stream):
            return
        may = ", ".join(self.streams_of(caller)) or "none that exists"
        if stream in self._streams:
            raise Problem(HTTPStatus.FORBIDDEN, f"This key is not for stream {stream}. It may use: {may}.")
        shown = stream if len(stream) <= MAX_SHOWN else f"{stream[:MAX_SHOWN]}…"
        raise Problem(HTTPStatus.NOT_FOUND, f"There is no stream {shown!r}. This key may use: {may}.", streams=self.streams_of(caller))

    def admit(self, caller: Caller) -> None:
        """Counts a post.

        Raises:
            Problem: 429 with `Retry-After` where the key's rate allows no more now.
        """
        self._rates.count(caller)
