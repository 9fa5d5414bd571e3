"""The application: routes, and what every answer has in common."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Protocol

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from include.gateway import bodies
from include.gateway.intake import RETRY_ZONE_S, Budget, Intake
from include.gateway.model import Body, Caller
from include.gateway.problems import Problem, answer_problem

UNPACKING = 2  # bodies that are large or packed and are judged, or wait as plain bytes, at the same time: each takes up to 64 MiB

logger = logging.getLogger("tidemark.gateway")


class Access(Protocol):
    """Who may do what: the keys."""

    def authenticate(self, request: Request) -> Caller:
        """Who sends a request. Raises `Problem` (401) where that cannot be told."""

    def check_stream(self, caller: Caller, stream: str) -> None:
        """Raises `Problem` (404, 403) where there is no such stream or the key does not cover it."""

    def admit(self, caller: Caller) -> None:
        """Counts a post. Raises `Problem` (429) where the key's rate allows no more now."""


class Watch(Protocol):
    """Whether the zone takes posts: `include.gateway.disk.ZoneWatch`."""

    trouble: str | None


@dataclass(frozen=True)
class Outcome:
    """How a post ended, for whoever counts.

    Attributes:
        stream: Stream that it was for; None where there is no such stream.
        status: What was answered; 499 where the sender had left.
        rows: Rows stored.
        size: Bytes stored.
        plain_size: The same without their encoding.
        seconds: From the end of its headers to the answer.
    """

    stream: str | None
    status: int
    rows: int
    size: int
    plain_size: int
    seconds: float


@dataclass(frozen=True)
class Parts:
    """What the application is put together from.

    Attributes:
        access: The keys.
        intake: Stores posts.
        budget: Memory for bodies.
        watch: State of the zone.
        streams: Streams that can be posted to, in alphabetical order.
        body_bytes: Largest body as sent.
        plain_bytes: Largest body unpacked.
        strict: Judges the rows of a body and raises `Problem` (422) where one fails; for `?validate=strict`.
        routers: Further routes.
        lifespan: What runs along with the application.
        observe: Called with the outcome of each post.
    """

    access: Access
    intake: Intake
    budget: Budget
    watch: Watch
    streams: tuple[str, ...]
    body_bytes: int
    plain_bytes: int
    strict: Callable[[Caller, str, Body], Awaitable[None]]
    routers: Sequence[APIRouter] = ()
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None
    observe: Callable[[Outcome], None] = lambda outcome: None  # noqa: ARG005 - the name says what is given


def make_app(parts: Parts) -> FastAPI:
    """The gateway's application."""
    app = FastAPI(title="Tidemark gateway", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, lifespan=parts.lifespan)
    app.state.parts = parts
    # A plain route: everything that FastAPI would do before the handler is done in it, in the order that costs hostile senders most and us least.
    app.router.routes.append(Route("/v1/streams/{stream}/events", PostEvents(parts).answer, methods=["POST"]))
    for router in parts.routers:
        app.include_router(router)
    app.add_exception_handler(Problem, answer_problem)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(Exception, _answer_unexpected)
    return app


class PostEvents:
    """`POST /v1/streams/{stream}/events`: 202 with a receipt once the bytes are on disk under their final name."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._unpacking = asyncio.Semaphore(UNPACKING)

    async def answer(self, request: Request) -> Response:
        """Answers a post."""
        parts, loop = self._parts, asyncio.get_running_loop()
        started, stored, stream = loop.time(), (0, 0, 0), str(request.path_params["stream"])
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)
        try:
            caller = parts.access.authenticate(request)
            parts.access.check_stream(caller, stream)
            is_strict = self._is_strict(request)
            kind = bodies.kind_of(request.headers)
            bodies.check_length(request.headers, parts.body_bytes)
            self._check_zone()
            parts.access.admit(caller)
            with parts.budget.share(caller.key_id) as reserve:
                sent = await bodies.receive(request.receive, parts.body_bytes, reserve)
                body = await self._judged(sent, kind, caller, stream, is_strict)
                receipt = await parts.intake.take(caller, stream, body)
            stored, status = (body.rows, len(sent), body.plain_size), int(HTTPStatus.ACCEPTED)
            place = f"/v1/receipts/{receipt}"
            return JSONResponse({"receipt": receipt, "rows": body.rows, "status": place}, status_code=status, headers={"Location": place})
        except Problem as problem:
            status = int(problem.status)
            if "expect" in request.headers:
                problem.headers.setdefault("Connection", "close")  # the sender waits for leave to send the body and does not get it (RFC 9110, 10.1.1)
            return problem.response()
        except ClientDisconnect:
            status = 499
            return Response(status_code=400)  # nobody reads it
        finally:
            parts.observe(Outcome(stream if stream in parts.streams else None, status, *stored, loop.time() - started))

    def _is_strict(self, request: Request) -> bool:
        asked = dict(request.query_params)
        if asked == {}:
            return False
        if asked != {"validate": "strict"}:
            raise Problem(HTTPStatus.BAD_REQUEST, "the only parameter of a post is validate=strict; leave out what else stands after the question mark")
        return True

    def _check_zone(self) -> None:
        if self._parts.watch.trouble is not None:
            detail = f"{self._parts.watch.trouble}; send the same body again after Retry-After seconds"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(RETRY_ZONE_S)})

    async def _judged(self, sent: bytes, kind: bodies.Kind, caller: Caller, stream: str, is_strict: bool) -> Body:
        """A body that can be stored, without its plain bytes where these are others than those that were sent."""
        parts, received_at = self._parts, datetime.now(UTC)
        if kind.is_quick(len(sent)) and not is_strict:
            return bodies.read_body(sent, kind, parts.plain_bytes, received_at)
        async with self._unpacking:
            body = await asyncio.to_thread(bodies.read_body, sent, kind, parts.plain_bytes, received_at)
            if is_strict:
                await parts.strict(caller, stream, body)
            return replace(body, plain=b"") if kind.encoding != "identity" else body


async def _answer_http(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001 - Starlette gives both to a handler
    """No such path, or a method that it does not know."""
    if not isinstance(error, HTTPException):
        raise error
    status = HTTPStatus(error.status_code)
    details = {
        HTTPStatus.NOT_FOUND: "there is nothing here; post to /v1/streams/{stream}/events and ask at /v1/receipts/{receipt}",
        HTTPStatus.METHOD_NOT_ALLOWED: "this path does not know the method; the header Allow names those that it knows",
    }
    return Problem(status, details.get(status, str(error.detail)), headers=dict(error.headers or {})).response()


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:  # noqa: ARG001
    """Parameters that a route cannot use."""
    if not isinstance(error, RequestValidationError):
        raise error
    places = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "; ".join(places)).response()


async def _answer_unexpected(request: Request, error: Exception) -> JSONResponse:
    """Anything else is our mistake: it goes to the log whole, and the sender gets a number to ask about it with."""
    number = secrets.token_hex(4)
    logger.error("incident %s: %s %r", number, request.method, request.url.path[:200], exc_info=error)
    detail = "the gateway failed; send the same body again after some seconds, and if that does not help tell the operator the incident"
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail, incident=number).response()
