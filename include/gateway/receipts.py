"""What became of a post: `GET /v1/receipts/{receipt}`.

A receipt leads to a file of the zone. Once its rows are settled the warehouse knows; until then, and while the warehouse cannot be asked, the zone says whether
the post is there. A warehouse that hangs holds up neither the gateway nor other receipts: questions are few at a time, have a time limit, and stop for a while
after one that was not answered.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any, BinaryIO, cast

import psycopg
from fastapi import APIRouter, Path
from psycopg.rows import dict_row
from pydantic import BaseModel, Field
from starlette.requests import Request

from include.gateway.model import Caller
from include.gateway.problems import Problem
from include.landing.errors import ZoneError
from include.landing.posts import BrokenFrames, GroupName, locate, read_frames
from include.landing.zone import Zone
from include.warehouse.connection import Role, connect_async

MAX_ERROR_ROWS = 100
MAX_QUESTIONS = 4
ANSWER_S = 2.0
REST_S = 5.0
ZONE_S = 10.0
_READS = 4  # files of the zone that are looked into at the same time
_EXAMPLE = "device_telemetry.20260301235959000007.abcdef01.17"
_SETTLED = ("landed", "quarantined", "expiring", "expired")

logger = logging.getLogger("tidemark.gateway")


class Status(StrEnum):
    """How far a post has come."""

    RECEIVED = "received"
    LANDED = "landed"
    UNREADABLE = "unreadable"


class RowProblem(BaseModel):
    """One thing that is wrong with a row."""

    code: str = Field(description="Why, as docs/runbooks/quarantine.md lists it; `rule:<name>` for a rule of the contract.", examples=["out_of_range"])
    field: str | None = Field(description="Field of the contract, or path in the payload; null for the row as a whole.", examples=["temperature_c"])
    message: str = Field(description="What was expected.", examples=["must be between -100 and 2000 °C"])


class RefusedRow(BaseModel):
    """A row that went to the quarantine."""

    row: int = Field(ge=1, description="Element of the array, or line of NDJSON, from 1.")
    state: str = Field(description="`open`: waits; `replayed`: landed after all; `discarded`: an operator decided that it will not land.", examples=["open"])
    outcome: str | None = Field(description="Of a replayed row: accepted, duplicate or corrected.")
    errors: list[RowProblem] = Field(description="Everything that is wrong with it, by the newest verdict.")


class RowCounts(BaseModel):
    """What became of the rows when the post landed. `landed` is the sum of the others."""

    landed: int = Field(description="Rows of the post.")
    accepted: int = Field(description="New events.")
    quarantined: int = Field(description="Rows that break the contract.")
    duplicate: int = Field(description="Rows that say the same as an event already there, for example because the same body was sent twice.")
    corrected: int = Field(description="Rows that say something else about an event already there.")


class Receipt(BaseModel):
    """What became of a post."""

    receipt: str
    stream: str
    status: Status = Field(
        description="`received`: safe in the landing zone, not landed yet or not known to be; `landed`; `unreadable`: its file is damaged or gone."
    )
    detail: str = Field(description="The same in words, and what to do.")
    stored_at: datetime = Field(description="When it was stored, UTC.")
    landed_at: datetime | None = Field(default=None, description="When it landed, UTC.")
    rows: RowCounts | None = Field(default=None, description="Only of a post that landed.")
    refused_rows: int = Field(default=0, description="Rows of the post that are, or were, in quarantine.")
    open_rows: int = Field(default=0, description="Those of them that are still waiting there.")
    refused: list[RefusedRow] = Field(default=[], description=f"The first {MAX_ERROR_ROWS} of them.")


class Unanswered(Exception):
    """The warehouse did not answer, or not in time."""


class Ledger:
    """Asks the warehouse about posts, as `tidemark_api`.

    Args:
        answer_s: Seconds to wait for an answer.
        rest_s: Seconds without a question after one that was not answered.
    """

    def __init__(self, *, answer_s: float = ANSWER_S, rest_s: float = REST_S) -> None:
        self._answer_s, self._rest_s = answer_s, rest_s
        self._slots = asyncio.Semaphore(MAX_QUESTIONS)
        self._idle: list[psycopg.AsyncConnection] = []
        self._asking: set[asyncio.Task[dict[str, Any] | None]] = set()
        self._resting_until = 0.0

    async def ask(self, tenant: str, address: str, post: int) -> dict[str, Any] | None:
        """What `ops.post_receipt` says; None where the ledger does not know the file.

        Raises:
            Unanswered: If the warehouse did not answer in time.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._resting_until:
            raise Unanswered
        # A question that is given up is not waited for: psycopg asks a server that hangs to cancel it, which takes its time. It keeps its slot meanwhile.
        task = asyncio.create_task(self._in_slot(tenant, address, post))
        self._asking.add(task)
        task.add_done_callback(self._forget)
        done, _ = await asyncio.wait({task}, timeout=self._answer_s)
        if done and not task.cancelled() and task.exception() is None:
            return task.result()
        reason = f"no answer within {self._answer_s:g} s" if not done else task.exception()
        task.cancel()
        if loop.time() >= self._resting_until:
            logger.warning("the warehouse did not answer for receipts, which say `received` for %g s: %s", self._rest_s, reason)
        self._resting_until = loop.time() + self._rest_s
        raise Unanswered

    async def close(self) -> None:
        """Closes its connections."""
        for task in self._asking:
            task.cancel()
        while self._idle:
            await self._idle.pop().close()

    def _forget(self, task: asyncio.Task[dict[str, Any] | None]) -> None:
        self._asking.discard(task)
        if not task.cancelled():
            task.exception()  # it was logged where somebody waited for it

    async def _in_slot(self, tenant: str, address: str, post: int) -> dict[str, Any] | None:
        async with self._slots:
            while self._idle:
                connection = self._idle.pop()
                try:
                    return await self._asked(connection, tenant, address, post)
                except psycopg.OperationalError:
                    continue  # a connection from before a restart of the server
            connection = await connect_async(Role.API, timeout_s=self._answer_s)
            return await self._asked(connection, tenant, address, post)

    async def _asked(self, connection: psycopg.AsyncConnection, tenant: str, address: str, post: int) -> dict[str, Any] | None:
        is_fit = False
        try:
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute("select * from ops.post_receipt(%s, %s, %s, %s)", (tenant, address, post, MAX_ERROR_ROWS))
            found = await cursor.fetchone()
            is_fit = True
            return found
        finally:
            if is_fit:
                self._idle.append(connection)
            else:
                await connection.close()


class Receipts:
    """Answers for receipts.

    Args:
        zone: The landing zone.
        ledger: Who asks the warehouse.
    """

    def __init__(self, zone: Zone, ledger: Ledger) -> None:
        self._zone, self._ledger = zone, ledger
        self._readers = ThreadPoolExecutor(_READS, "receipts")  # of its own: a store that hangs holds up nobody else's threads

    async def close(self) -> None:
        """Lets go of the warehouse and of threads."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        await self._ledger.close()

    async def of(self, caller: Caller, receipt: str) -> Receipt:
        """What became of a post.

        Raises:
            Problem: 404 where the caller has no such receipt, 503 where neither warehouse nor zone can say.
        """
        place = locate(receipt)
        unknown = Problem(HTTPStatus.NOT_FOUND, "this key has no such receipt; receipts are what a post was answered with, and hold for the key's tenant only")
        if place is None or not caller.may_use(place[0].stream):
            raise unknown
        group, post = place
        address, is_asked = group.address(caller.tenant_id), True
        known = None
        try:
            known = await self._ledger.ask(caller.tenant_id, address, post)
        except Unanswered:
            is_asked = False
        if known is not None and known["posts"] is not None and known["posts"] < post:
            raise unknown
        if known is not None and known["state"] in _SETTLED:
            return _settled(receipt, group, known)
        looked = asyncio.get_running_loop().run_in_executor(self._readers, self._is_in_zone, address, receipt, post)
        try:
            is_there = await asyncio.wait_for(looked, ZONE_S)
        except TimeoutError:
            is_there = None
        if is_there is None or (not is_there and not is_asked):
            detail = "neither the landing zone nor the warehouse can say anything about receipts now; ask again after Retry-After seconds"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "10"})
        if is_there:
            return _received(receipt, group, known, is_asked=is_asked)
        if known is None:
            raise unknown
        return _gone(receipt, group, known)

    def _is_in_zone(self, address: str, receipt: str, post: int) -> bool | None:
        """Whether the zone holds a post; None if it cannot be asked. What is damaged was there."""
        try:
            file = self._zone.find(address)
            if file is None:
                return False
            with self._zone.open(file) as stream:
                # Lines of a stream without a buffer are read byte by byte: two thousand posts take a second instead of milliseconds.
                frames = read_frames(cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream))))
                return any(head.receipt == receipt for head, _ in itertools.islice(frames, post - 1, post))
        except FileNotFoundError:
            return False
        except BrokenFrames:
            return True
        except ZoneError as error:
            logger.warning("a receipt could not be looked for: %s", error)
            return None


def receipts_router(authenticate: Callable[[Request], Caller], receipts: Receipts) -> APIRouter:
    """The route.

    Args:
        authenticate: Who sends a request; raises `Problem` (401).
        receipts: Who answers.
    """
    router = APIRouter(tags=["receipts"])

    @router.get("/v1/receipts/{receipt}", summary="What became of a post", response_model=Receipt)
    async def get_receipt(
        receipt: Annotated[str, Path(description="The receipt that a post was answered with.", examples=[_EXAMPLE])], request: Request
    ) -> Receipt:
        """How far a post has come, what became of its rows, and which of them wait in quarantine and why. Ask again while it says `received`."""
        return await receipts.of(authenticate(request), receipt)

    return router


def _settled(receipt: str, group: GroupName, known: dict[str, Any]) -> Receipt:
    if known["posts"] is None:
        detail = "its file is damaged; the operators see it, and the receipt says `landed` if they can mend it. To be sure send the same body again"
        return Receipt(receipt=receipt, stream=group.stream, status=Status.UNREADABLE, detail=detail, stored_at=group.closed_at)
    counts = {name: known[name] for name in ("accepted", "quarantined", "duplicate", "corrected")}
    shown = known["errors"] or []
    more = f"; the first {len(shown)} are shown" if len(shown) < known["refused_rows"] else ""
    detail = f"{known['open_rows']:,} rows wait in quarantine{more}" if known["open_rows"] else "nothing is left to do"
    return Receipt(
        receipt=receipt,
        stream=group.stream,
        status=Status.LANDED,
        detail=detail,
        stored_at=group.closed_at,
        landed_at=known["landed_at"].astimezone(UTC),
        rows=RowCounts(landed=sum(counts.values()), **counts),
        refused_rows=known["refused_rows"],
        open_rows=known["open_rows"],
        refused=shown,
    )


def _gone(receipt: str, group: GroupName, known: dict[str, Any]) -> Receipt:
    """A file that the ledger knows and has not settled, and whose bytes have left the zone."""
    if known["state"] == "restored":
        status, detail = Status.LANDED, "its rows came back from the lake with those of its stream; what became of each when it landed is not known any more"
    else:
        status, detail = Status.UNREADABLE, "its file left the landing zone before it landed: tell the operators, and send the same body again"
    return Receipt(receipt=receipt, stream=group.stream, status=status, detail=detail, stored_at=group.closed_at)


def _received(receipt: str, group: GroupName, known: dict[str, Any] | None, *, is_asked: bool) -> Receipt:
    if not is_asked:
        detail = "it is safe in the landing zone; whether it has landed cannot be said while the warehouse does not answer"
    elif known is not None and known["state"] == "failed":
        detail = "it is safe in the landing zone; landing failed several times, and the operators were told. It need not be sent again"
    elif known is not None and known["attempts"]:
        detail = "it is safe in the landing zone; landing failed and is tried again"
    else:
        detail = "it is safe in the landing zone, and lands with the next run"
    return Receipt(receipt=receipt, stream=group.stream, status=Status.RECEIVED, detail=detail, stored_at=group.closed_at)
