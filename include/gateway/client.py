"""Client of the gateway: posts bodies until they are acknowledged, by the rule that every sender follows.

202 means that the post is safe. After 429 and 503 the same body goes again when the gateway says so; after a lost connection, a time limit or another 5xx
after a random share of a growing pause. That may store a post twice, which is harmless: its events count once. Anything else is the sender's to mend.
"""

from __future__ import annotations

import gzip
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay, wait_random_exponential

Outcome = TypeVar("Outcome")

NDJSON = "application/x-ndjson"
PATIENCE_S = 120.0
LONGEST_PAUSE_S = 30.0
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}  # and every 5xx but that of a gateway which cannot do what is asked
_FOR_ALL = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.UNSUPPORTED_MEDIA_TYPE}
_pause = wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE_S)  # full jitter: between nothing and 0.5 s, 1 s, 2 s …


class ClientError(Exception):
    """The gateway did not take a post, or cannot be asked; the message says why.

    Attributes:
        hint: What to do about it; empty where the message says it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class GatewayUnavailable(ClientError):
    """No answer that settles the post came in time. Whether it was stored is not known; the same body may be posted again."""


class PostRefused(ClientError):
    """The gateway refused; the same body will be refused again.

    Attributes:
        status: HTTP status; 0 where no connection may be made, for example to a gateway whose certificate is not trusted.
        rows: With strict validation the first rows of the body that are wrong: `{"row": number, "errors": [{"code", "field", "message"}]}`.
    """

    def __init__(self, status: int, message: str, rows: tuple[dict[str, Any], ...] = (), hint: str = "") -> None:
        super().__init__(message, hint)
        self.status, self.rows = status, rows

    @property
    def is_for_all(self) -> bool:
        """Whether every other post of this stream with this key would be refused likewise."""
        return self.status == 0 or self.status in _FOR_ALL


@dataclass(frozen=True)
class Accepted:
    """A post that is safe.

    Attributes:
        receipt: Its receipt.
        may_be_twice: Whether it was sent before and that may have been stored too, without a receipt.
    """

    receipt: str
    may_be_twice: bool


class _AgainError(Exception):
    """The same body is to be sent again; it may have been stored unless the gateway said that it came too early."""

    def __init__(self, reason: str, wait_s: float | None = None, *, may_be_stored: bool = True) -> None:
        super().__init__(reason)
        self.wait_s, self.may_be_stored = wait_s, may_be_stored


class GatewayClient:
    """A session with a gateway. Use it as a context manager.

    Args:
        url: Address of the gateway, e.g. `https://gateway.example:8090`.
        key: API key.
        ca: PEM file of the authority that signed the gateway's certificate; None for those that the machine trusts.
        certificate: PEM files of a certificate and its private key, for a gateway that asks devices for one.
        patience_s: How long one post is tried, seconds.
        on_retry: Called with what went wrong and the pause in seconds before a post goes again.
        transport, sleep: Of tests.

    Raises:
        ClientError: If a certificate file cannot be used, or the key is none.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        ca: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
        patience_s: float = PATIENCE_S,
        on_retry: Callable[[str, float], None] | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        key = key.strip()  # of a file with the line ends of Windows
        if not key.isascii() or not key.isprintable():
            # Said here: further down the header would be refused with its value in the message.
            raise ClientError("the API key holds characters that no key has", "give it as `tidemark key create` printed it: one line that begins with tmk_")
        self._on_retry = on_retry
        self._retrying = Retrying(
            retry=retry_if_exception_type(_AgainError),
            wait=_wait,
            stop=stop_before_delay(patience_s),
            before_sleep=self._tell,
            sleep=sleep,
            reraise=True,
        )
        self._http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=_TIMEOUT, verify=_tls_context(ca, certificate), transport=transport
        )

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def post(self, stream: str, body: bytes, *, content_type: str = NDJSON, compress: bool = False, is_strict: bool = False) -> Accepted:
        """Posts events and returns when they are safe.

        Args:
            stream: Their stream.
            body: NDJSON, or with `content_type="application/json"` one object or an array of them.
            content_type: What it is.
            compress: Send it as gzip.
            is_strict: Take all rows or none: rows that would be quarantined are answered with their errors.

        Raises:
            PostRefused: If the gateway does not take it.
            GatewayUnavailable: If no answer came in time.
        """
        headers = {"Content-Type": content_type}
        if compress:
            body = gzip.compress(body, compresslevel=6, mtime=0)
            headers["Content-Encoding"] = "gzip"
        may_be_twice = False

        def send() -> Accepted:
            nonlocal may_be_twice
            try:
                answer = self._send("POST", f"/v1/streams/{quote(stream, safe='')}/events", content=body, headers=headers, params=query)
            except _AgainError as error:
                may_be_twice = may_be_twice or error.may_be_stored
                raise
            receipt = _json(answer).get("receipt") if answer.status_code == HTTPStatus.ACCEPTED else None
            if not isinstance(receipt, str):
                raise PostRefused(answer.status_code, f"{self.url} answers {answer.status_code} without a receipt", hint="is this the address of a gateway?")
            return Accepted(receipt, may_be_twice)

        query = {"validate": "strict"} if is_strict else None
        return self._until_settled(send)

    def receipt(self, receipt: str) -> dict[str, Any]:
        """What became of a post, as the gateway says it.

        Raises:
            PostRefused: If there is no such receipt for this key.
            GatewayUnavailable: If no answer came in time.
        """
        return self._until_settled(lambda: _json(self._send("GET", f"/v1/receipts/{quote(receipt, safe='')}")))

    def _until_settled(self, attempt: Callable[[], Outcome]) -> Outcome:
        try:
            return self._retrying(attempt)
        except _AgainError as error:
            hint = "the same post may be sent again: events that are there already count once"
            if self.url.startswith("https:") and isinstance(error.__cause__, httpx.RemoteProtocolError | httpx.ReadError):
                hint += "; a gateway that wants certificates of devices breaks off without one that it trusts: --cert and --cert-key"
            raise GatewayUnavailable(f"{self.url}: {error}", hint) from None

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:  # noqa: ANN401 - what httpx takes
        """One request; answers that settle nothing are `_AgainError`, refusals `PostRefused`."""
        try:
            answer = self._http.request(method, path, **arguments)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError) as error:
            raise PostRefused(0, f"{self.url}: {error}", hint="the address must look like https://host:port") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            distrust = _certificate_error(error)
            if distrust:
                raise PostRefused(0, f"{self.url}: {distrust}", hint="name the authority that signed the gateway's certificate: --ca FILE") from None
            raise _AgainError(f"no answer ({type(error).__name__}: {error})") from error
        if answer.is_success:
            return answer
        detail = _json(answer).get("detail") or answer.reason_phrase
        said = f"{answer.status_code} {detail}"
        if answer.status_code in _AGAIN or (answer.is_server_error and answer.status_code != HTTPStatus.NOT_IMPLEMENTED):
            raise _AgainError(said, _retry_after(answer), may_be_stored=answer.status_code != HTTPStatus.TOO_MANY_REQUESTS)
        rows = _json(answer).get("refused")
        raise PostRefused(answer.status_code, said, tuple(rows) if isinstance(rows, list) else ())

    def _tell(self, state: RetryCallState) -> None:
        if self._on_retry and state.outcome and state.next_action:
            self._on_retry(str(state.outcome.exception()), state.next_action.sleep)


def _wait(state: RetryCallState) -> float:
    """As long as the gateway asks for, and up to a second more so that senders who were told the same do not come at once; else full jitter."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _AgainError) and error.wait_s is not None:
        return error.wait_s + random.uniform(0, 1)  # noqa: S311 - no secret
    return _pause(state)


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds to wait, from the header in either of its forms; None where it says nothing that can be understood."""
    value = answer.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _json(answer: httpx.Response) -> dict[str, Any]:
    """The answer as a JSON object; empty where it is none."""
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _certificate_error(error: BaseException | None) -> str | None:
    """Why the gateway's certificate was not trusted; None where an error is about something else."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {error.verify_message}"
        error = error.__cause__ or error.__context__
    return None


def _tls_context(ca: Path | None, certificate: tuple[Path, Path] | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        if ca is not None:
            context = ssl.create_default_context(cafile=str(ca))
        if certificate is not None:
            context.load_cert_chain(*map(str, certificate))
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(path) for path in (ca, *(certificate or ())) if path)
        raise ClientError(f"cannot use {files}: {error.strerror or error}", "they must be PEM files that you may read") from None
    return context
