"""Receipts: what a sender learns of his posts, and what he cannot learn of others'."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from starlette.requests import Request

from include.contracts import load_contract
from include.gateway.model import Caller
from include.gateway.problems import Problem, answer_problem
from include.gateway.receipts import Ledger, Receipts, receipts_router
from include.landing import land_pending, retry_failed
from include.landing.posts import BrokenFrames
from include.landing.quarantine import Filter, discard
from include.landing.replay import replay
from include.settings import get_settings
from include.warehouse import Role, connect
from include.warehouse.bootstrap import connect_as_superuser
from tests.conftest import set_environment
from tests.support.landing import assert_balanced
from tests.support.payloads import at, telemetry, zone
from tests.support.posts import array, ndjson, put_posts
from tests.support.stricter import land_under, replay_under, with_field

STREAM = "device_telemetry"
TELEMETRY = load_contract(STREAM)
ACME = Caller("k1", "acme", None, None)


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict
    headers: httpx.Headers


def ask(*receipts, caller=ACME, ledger=None, before_each=lambda: None, **ledger_options):
    """What the route answers for receipts, one after another through one application."""

    def authenticate(request: Request) -> Caller:
        if caller is None:
            raise Problem(HTTPStatus.UNAUTHORIZED, "no key")
        return caller

    async def talk():
        answers = Receipts(zone(), Ledger(**ledger_options))
        app = FastAPI()
        app.include_router(receipts_router(authenticate, answers))
        app.add_exception_handler(Problem, answer_problem)
        found = []
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            for receipt in receipts:
                before_each()
                answer = await client.get(f"/v1/receipts/{receipt}")
                found.append(Answer(answer.status_code, answer.json(), answer.headers))
        await answers.close()
        return found

    found = asyncio.run(talk())
    return found[0] if len(found) == 1 else found


def land(stream=STREAM):
    result = land_pending(stream, arrived_from=at(-1), arrived_before=at(30))
    assert_balanced()
    return result


def test_a_post_is_received_and_then_landed_with_its_counts(warehouse):
    hot = telemetry("m2", at(0, 1), temperature=5000.0)
    posts = [ndjson(telemetry("m1", at(0, 1)), "", hot, "{"), array(telemetry("m1", at(0, 1)))]
    first, second = put_posts(STREAM, posts, arrived_at=at(0, 2))
    waiting = ask(first)
    assert (waiting.status, waiting.body["status"], waiting.body["rows"]) == (200, "received", None)
    assert waiting.body["stored_at"] == "2026-03-01T02:00:00Z"
    land()
    landed, copy = ask(first, second)
    assert (landed.body["status"], landed.body["stream"], landed.body["receipt"]) == ("landed", STREAM, first)
    assert landed.body["rows"] == {"landed": 3, "accepted": 1, "quarantined": 2, "duplicate": 0, "corrected": 0}
    assert (landed.body["refused_rows"], landed.body["open_rows"]) == (2, 2)
    bad, broken = landed.body["refused"]
    assert bad == {
        "row": 3,
        "state": "open",
        "outcome": None,
        "errors": [{"code": "out_of_range", "field": "temperature_c", "message": bad["errors"][0]["message"]}],
    }
    assert "5000" not in json.dumps(landed.body)
    assert (broken["row"], broken["errors"][0]["code"]) == (4, "malformed_json")
    assert landed.body["landed_at"] > "2026-"
    assert (copy.body["rows"]["duplicate"], copy.body["refused"], copy.body["detail"]) == (1, [], "nothing is left to do")


def test_rows_have_their_present_state_and_newest_errors(warehouse, monkeypatch):
    land_under(monkeypatch, with_field(TELEMETRY, "temperature_c", maximum=50.0))
    posts = [ndjson(telemetry("m0", at(0, 1), temperature=20.0)), ndjson(telemetry("m1", at(0, 1)), telemetry("m2", at(0, 1)), "{")]
    receipt = put_posts(STREAM, posts, arrived_at=at(0, 2))[1]
    land()
    replay(STREAM, Filter(code="out_of_range"), by="tester")
    discard(Filter(code="malformed_json"), by="tester", reason="test")
    answer = ask(receipt).body
    assert [(row["row"], row["state"], row["outcome"]) for row in answer["refused"]] == [
        (1, "replayed", "accepted"),
        (2, "replayed", "accepted"),
        (3, "discarded", None),
    ]
    assert (answer["rows"]["quarantined"], answer["refused_rows"], answer["open_rows"]) == (3, 3, 0)


def test_the_newest_verdict_counts(warehouse, monkeypatch):
    land_under(monkeypatch, with_field(TELEMETRY, "temperature_c", maximum=50.0))
    (receipt,) = put_posts(STREAM, [ndjson(telemetry("m1", at(0, 1)))], arrived_at=at(0, 2))
    land()
    replay_under(monkeypatch, with_field(TELEMETRY, "device_type", enum=("toaster",)), "0.9.1")
    replay(STREAM, Filter(), by="tester")
    (row,) = ask(receipt).body["refused"]
    assert (row["state"], [error["code"] for error in row["errors"]]) == ("open", ["not_in_enum"])


def test_many_errors_are_told_in_part(warehouse):
    (receipt,) = put_posts(STREAM, [ndjson(*["{"] * 150)], arrived_at=at(0, 2))
    land()
    answer = ask(receipt).body
    assert (answer["refused_rows"], answer["open_rows"], [row["row"] for row in answer["refused"]]) == (150, 150, list(range(1, 101)))
    assert "first 100" in answer["detail"]


def test_nobody_learns_anything_of_another_tenant_or_stream(warehouse):
    (receipt,) = put_posts(STREAM, [ndjson(telemetry("m1", at(0, 1)))], arrived_at=at(0, 2))
    stream, stamp, mark, frame = receipt.split(".")
    others = [
        f"{stream}.{stamp}.{mark}.2",
        f"{stream}.{stamp}.00000000.{frame}",
        f"orders.{stamp}.{mark}.{frame}",
        f"{stream}.20269999235959000007.{mark}.{frame}",
        "..%2F..%2Fsecrets",
        "x" * 5000,
    ]
    limited = Caller("k2", "acme", frozenset({"orders"}), None)
    for _ in range(2):
        missing = ask(*others)
        assert {answer.status for answer in missing} == {404}
        for caller in (Caller("k3", "beta", None, None), limited):
            answer = ask(receipt, caller=caller)
            assert (answer.status, answer.body["detail"]) == (404, missing[0].body["detail"])
            assert answer.headers["content-type"] == "application/problem+json"
        assert ask(receipt).status == 200
        assert ask(receipt, caller=None).status == 401
        land()


def test_a_file_that_is_damaged_then_mended(warehouse):
    receipts = put_posts(STREAM, [ndjson(telemetry("m1", at(0, 1))), ndjson("{")], arrived_at=at(0, 2))

    def damaged(_):
        raise BrokenFrames("frame 1: misread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("include.landing.post_rows.read_frames", damaged)
        land()
    answer = ask(receipts[0])
    assert (answer.status, answer.body["status"], answer.body["rows"]) == (200, "unreadable", None)
    replay(STREAM, Filter(), by="tester")
    first, second = ask(*receipts)
    assert (first.body["status"], first.body["rows"]["accepted"]) == ("landed", 1)
    assert (second.body["rows"]["quarantined"], second.body["refused"][0]["row"], second.body["open_rows"]) == (1, 1, 1)
    assert first.body["landed_at"] == second.body["landed_at"]


def test_a_file_that_fails_and_lands_later(warehouse, monkeypatch):
    (receipt,) = put_posts(STREAM, [ndjson(telemetry("m1", at(0, 1)))], arrived_at=at(0, 2))
    with monkeypatch.context() as patch:
        patch.setattr("include.landing.batch.judge", lambda *_: 1 / 0)
        said = []
        for _ in range(3):
            land()
            said.append(ask(receipt).body)
    assert [answer["status"] for answer in said] == ["received"] * 3
    assert ["tried again" in answer["detail"] for answer in said] == [True, True, False]
    assert "operators were told" in said[2]["detail"]
    retry_failed(STREAM)
    land()
    assert ask(receipt).body["status"] == "landed"


def test_without_a_warehouse_receipts_say_received(warehouse, monkeypatch):
    (receipt,) = put_posts(STREAM, [ndjson(telemetry("m1", at(0, 1)))], arrived_at=at(0, 2))
    land()
    stream, stamp, _, frame = receipt.split(".")
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        set_environment(monkeypatch, TIDEMARK_WAREHOUSE_URL=f"postgresql://127.0.0.1:{taken.getsockname()[1]}/nowhere")
        there, gone = ask(receipt, f"{stream}.{stamp}.00000000.{frame}")
    assert (there.status, there.body["status"]) == (200, "received")
    assert "cannot be said while the warehouse does not answer" in there.body["detail"]
    assert (gone.status, gone.headers["retry-after"]) == (503, "10")  # its bytes may have left the zone long ago


def test_a_warehouse_that_hangs_is_given_up_and_left_alone_for_a_while(warehouse, caplog):
    """A server that takes connections and never says a word, as a stopped process does."""
    (receipt,) = put_posts(STREAM, [ndjson(telemetry("m1", at(0, 1)))], arrived_at=at(0, 2))
    with closing(socket.create_server(("127.0.0.1", 0), backlog=50)) as mute, pytest.MonkeyPatch.context() as patch:
        set_environment(patch, TIDEMARK_WAREHOUSE_URL=f"postgresql://127.0.0.1:{mute.getsockname()[1]}/nowhere")

        async def flood():
            answers = Receipts(zone(), Ledger(answer_s=0.3, rest_s=3600))
            loop = asyncio.get_running_loop()
            started = loop.time()
            found = await asyncio.gather(*(answers.of(ACME, receipt) for _ in range(40)))
            at_once = loop.time()
            found += [await answers.of(ACME, receipt)]
            assert loop.time() - at_once < 0.3  # it is not asked again
            await answers.close()
            return {answer.status.value for answer in found}, at_once - started

        statuses, took = asyncio.run(flood())
    get_settings.cache_clear()
    assert statuses == {"received"}
    assert took < 3  # and not forty times the limit, four at a time
    assert sum("did not answer for receipts" in record.message for record in caplog.records) == 1


def test_a_question_that_waits_for_a_lock_is_given_up(warehouse):
    (receipt,) = put_posts(STREAM, [ndjson(telemetry("m1", at(0, 1)))], arrived_at=at(0, 2))
    land()
    with connect(Role.OWNER) as migration:

        def lock_second():
            asked.append(len(asked))
            if asked[-1] == 1:
                migration.execute("lock table ops.post_result in access exclusive mode")
            elif asked[-1] == 2:
                migration.rollback()

        asked = []
        said = [answer.body["status"] for answer in ask(receipt, receipt, receipt, before_each=lock_second, answer_s=0.5, rest_s=0)]
    assert said == ["landed", "received", "landed"]


def test_a_file_that_left_the_zone_before_its_rows_were_settled_is_told(warehouse):
    (receipt,) = put_posts(STREAM, [ndjson(telemetry("m1", at(0, 1)))], arrived_at=at(0, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("include.landing.batch.judge", lambda *_: 1 / 0)
        land()
    (path,) = warehouse.zone_dir.rglob("*.posts")
    path.unlink()
    answer = ask(receipt).body
    assert (answer["status"], "tell the operators" in answer["detail"]) == ("unreadable", True)
    warehouse.execute("update ops.file set state = 'restored'")
    assert [ask(receipt).body[name] for name in ("status", "rows")] == ["landed", None]


def test_connections_survive_a_restart_of_the_server(warehouse):
    (receipt,) = put_posts(STREAM, [ndjson(telemetry("m1", at(0, 1)))], arrived_at=at(0, 2))
    land()
    ended = []

    def cut():
        with connect_as_superuser() as connection:
            ended.extend(connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tidemark_api'").fetchall())

    assert [answer.body["status"] for answer in ask(receipt, receipt, receipt, before_each=cut)] == ["landed"] * 3
    assert ended == [(True,)] * 2


def test_the_role_of_the_gateway_reads_receipts_and_nothing_of_the_quarantine(warehouse):
    put_posts(STREAM, [ndjson("{")], arrived_at=at(0, 2))
    land()
    address = warehouse.value("select address from ops.file")
    assert warehouse.rows(f"select state, quarantined from ops.post_receipt('acme', '{address}', 1, 5)", Role.API) == [("landed", 1)]
    assert warehouse.rows(f"select state from ops.post_receipt('beta', '{address}', 1, 5)", Role.API) == []
    for query in ("select * from ops.quarantine", "select * from ops.quarantine_event", "select * from ops.post_result", "select * from raw.orders"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            warehouse.rows(query, Role.API)
    with connect(Role.ANALYST) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("select ops.post_receipt('acme', 'x', 1, 1)")
