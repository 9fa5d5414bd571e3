"""What every answer has in common, whatever fails inside."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest
from fastapi import APIRouter
from starlette.requests import Request

from include.gateway.app import Outcome, Parts, make_app
from include.gateway.intake import Budget, Intake
from include.gateway.model import Body, Caller
from include.gateway.problems import Problem

ROW = b'{"a": 1}'
HEADERS = {"Content-Type": "application/json"}


class Everybody:
    """Lets everybody in, or fails as it is told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure

    def authenticate(self, request: Request) -> Caller:
        if self.failure is not None:
            raise self.failure
        return Caller("key", "acme", None, None)

    def check_stream(self, caller: Caller, stream: str) -> None:
        pass

    def admit(self, caller: Caller) -> None:
        pass


class Calm:
    trouble: str | None = None


class Memory:
    """A zone in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.failure: Exception | None = None

    def write(self, address: str, data: bytes, *, is_new: bool) -> None:
        assert is_new
        if self.failure is not None:
            raise self.failure
        self.files[address] = data


async def judged_elsewhere(caller: Caller, stream: str, body: Body) -> None:
    raise AssertionError("nobody asked for it")


def parts_of(access: Everybody, store: Memory, budget: int = 1 << 20, **others: object) -> Parts:
    given = {"body_bytes": 1 << 16, "plain_bytes": 1 << 16, "streams": ("orders",), "strict": judged_elsewhere, **others}
    return Parts(access=access, intake=Intake(store, group_ms=1, group_bytes=1 << 16), budget=Budget(budget), watch=Calm(), **given)


def post(parts: Parts, path: str = "/v1/streams/orders/events", content: bytes = ROW) -> httpx.Response:
    async def talk() -> httpx.Response:
        transport = httpx.ASGITransport(make_app(parts), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.post(path, content=content, headers=HEADERS)

    return asyncio.run(talk())


def test_an_unexpected_failure_tells_senders_nothing_and_the_log_everything(caplog: pytest.LogCaptureFixture) -> None:
    outcomes: list[Outcome] = []
    with caplog.at_level(logging.ERROR):
        answer = post(parts_of(Everybody(RuntimeError("/srv/secret/file and a password")), Memory(), observe=outcomes.append))
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json()) == {"type", "title", "status", "detail", "incident"}
    assert "secret" not in answer.text
    assert "RuntimeError" not in answer.text
    assert answer.json()["incident"] in caplog.text
    assert "/srv/secret/file" in caplog.text
    assert [outcome.status for outcome in outcomes] == [500]


def test_a_store_that_fails_in_any_way_is_a_503_for_every_post_of_the_file() -> None:
    store = Memory()
    store.failure = ValueError("nobody thought of this")
    answer = post(parts_of(Everybody(), store))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert "nobody" not in answer.text


def test_parameters_that_a_route_cannot_use_are_a_problem_too() -> None:
    router = APIRouter()

    @router.post("/numbers/{number}")
    async def numbers(number: int) -> int:
        return number

    answer = post(parts_of(Everybody(), Memory(), routers=(router,)), "/numbers/one")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "number" in answer.json()["detail"]


def test_bytes_of_a_post_are_free_again_however_it_ends() -> None:
    store, outcomes = Memory(), []
    parts = parts_of(Everybody(), store, observe=outcomes.append)
    assert post(parts).status_code == 202
    assert post(parts, content=b"{").status_code == 400
    store.failure = OSError("no space")
    assert post(parts_of(Everybody(), store, observe=outcomes.append)).status_code == 503
    assert parts.budget.used == 0
    assert [(outcome.status, outcome.rows, outcome.size) for outcome in outcomes] == [(202, 1, len(ROW)), (400, 0, 0), (503, 0, 0)]


def test_one_key_leaves_room_for_others() -> None:
    budget = Budget(100)
    with budget.share("greedy") as reserve, budget.share("modest") as other:
        reserve(50)
        with pytest.raises(Problem) as refused:
            reserve(1)
        assert refused.value.status == 503
        assert refused.value.headers["Retry-After"] == "1"
        other(50)
        with pytest.raises(Problem):
            other(1)
        assert budget.used == 100
    assert budget.used == 0
    with budget.share("greedy") as reserve:
        reserve(50)
